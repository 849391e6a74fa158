"""Packs made from OpenAPI descriptions, tried on the real rulebook.

`broken` asks for every operation what the policy says of calls of it, and returns what is wrong: no
class, or two, or another class than the operation's. Which operations a path belongs to it finds
out for itself. A call that resembles another one (`/users/ME`) may be held for both.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable

from rules.canonical import canonicalise
from rules.decide import Rulebook
from rules.errors import Ambiguous
from rules.include import Sources
from rules.load import load_policy
from rules.model import Policy, Subject
from rules.openapi.importing import Imported
from rules.trial.requests import raw_request

BOT = Subject("bot")
_PARAMETER = re.compile(r"\{[^{}]*\}")
_BEGUN = re.compile(r"\{[^{}]*\}([:.][\w.:~-]*[\w~-])", re.ASCII)
_GREEDY = re.compile(r"/\{[^{}]*\+\}$")


POLICY = """
version: 1
include:
  - {file: ./pack.yaml, agents: [bot]}
"""


def expand(text: str) -> Policy:
    """The policy that includes the pack, and nothing else."""
    policy, warnings = load_policy(POLICY, "policy.yaml", Sources({"./pack.yaml": text}))
    assert warnings == ()
    return policy


def paths_of(path: str, others: Iterable[str], chance: random.Random) -> set[str]:
    """Paths of calls of a described one: some plain, some that are as near to others as can be."""
    plain = _PARAMETER.sub(lambda _: f"v{chance.randrange(10**6)}", path)
    found = {plain, _PARAMETER.sub("7", path)}
    segments = path.split("/")
    for other in others:
        theirs = other.split("/")
        if len(theirs) == len(segments):
            near = [
                t if m.startswith("{") and m.endswith("}") and t and not set("{?#") & set(t) else m
                for m, t in zip(segments, theirs, strict=True)
            ]
            found.add(_PARAMETER.sub("v1", "/".join(near)))
    return found


def broken(imported: Imported, *, host: str, most: int = 6, seed: int = 1) -> list[str]:
    """What is wrong with the pack, in sentences; empty if each call has its one class."""
    chance = random.Random(seed)
    policy = expand(imported.text)
    rulebook = Rulebook(policy)
    risk_of = {f"{imported.name}.{rule.id}": rule.risk for rule in imported.rules}
    described: defaultdict[str, dict[str, str]] = defaultdict(dict)
    hosts = {}
    for rule in imported.rules:
        for method, path in rule.operations:
            described[method][path] = rule.risk
            hosts[method, path] = rule.host or host
    wrong = []
    for method, paths in described.items():
        alike: defaultdict[int, list[str]] = defaultdict(list)
        for path in paths:
            alike[_depth(path)].append(path)
        deep = [path for path in paths if _GREEDY.search(path)]
        letters = {path: re.compile(_shape(path)) for path in paths}
        shapes = {path: re.compile(_shape(path, "/?"), re.IGNORECASE) for path in paths}
        for path, risk in paths.items():
            near = alike[_depth(path)]
            tried = sorted(paths_of(path, chance.sample(near, min(len(near), 40)), chance))
            for concrete in chance.sample(tried, min(len(tried), most)):
                target = re.split(r"[?#]", concrete)[0]
                url = f"https://{hosts[method, path]}{target}"
                try:
                    request = canonicalise(raw_request(method, url, [], b""))
                except Ambiguous:
                    continue  # Keybroker refuses the call itself
                decision = rulebook.decide(BOT, request)
                risks = {risk_of[name] for name in (*decision.rules, *decision.allowed_by)}
                texts = (target, _FORMAT.sub("", target))
                fitting = {p for p in (*near, *deep) if any(map(shapes[p].fullmatch, texts))}
                exact = {p for p in fitting if letters[p].fullmatch(target)}
                told = f"{method} {url}: {decision.effect} by {sorted(risks)}"
                if decision.effect == "deny" or (decision.effect == "hold") == ("low" in risks):
                    wrong.append(told)
                elif fitting == {path} and risks != {risk}:
                    wrong.append(f"{told}, not {risk}")
                elif fitting == exact and len(risks) != 1:
                    wrong.append(f"{told}, not one of them")
                elif decision.risk not in {paths[p] for p in fitting}:
                    wrong.append(f"{told}, and it is none of {sorted(fitting)}")
    return wrong


_FORMAT = re.compile(r"(?<=[^/])\.[^./]+(?=/?\Z)")
"""Servers may take `/pets.json` for `/pets`."""


def _depth(path: str) -> int:
    return re.split(r"[?#]", path)[0].rstrip("/").count("/")


def _shape(path: str, end: str = "") -> str:
    """A regular expression for what a rule of this path covers: each parameter is a segment, or
    the beginning of one."""
    whole = re.split(r"[?#]", path)[0]
    segments = _GREEDY.sub("", whole if not end else whole.rstrip("/")).split("/")
    shape = "/".join(map(_segment, segments))
    if end and "{" not in segments[-1]:
        shape = re.sub(r"([^/])\\\.([a-z]+)$", r"\1(?:\\.\2)?", shape)
    return shape + ("(?:/.*)?" if _GREEDY.search(whole) else end)


def _segment(part: str) -> str:
    if begun := _BEGUN.fullmatch(part):
        return "[^/]+" + re.escape(begun[1])
    return "[^/]+" if "{" in part else re.escape(part)
