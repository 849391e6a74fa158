"""Packs held against themselves: requests written as tests write them, and requests made from the
templates of rules, asked of the real rulebook."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlencode

from rules import packs
from rules.canonical import canonicalise
from rules.checks import paths_overlap
from rules.decide import Rulebook
from rules.load import load_policy
from rules.matching import Matcher
from rules.model import Match, Rule, Subject
from rules.pack import Pack, read_pack
from rules.paths import Template, parse_template
from rules.reading.call import Reading
from rules.request import Request
from rules.trial.requests import raw_request

BOT = Subject("bot")
EVERY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def pack_of(name: str) -> Pack:
    text = packs.text_of(name)
    assert text is not None
    return read_pack(text, packs.file_of(name))


@cache
def rulebook(name: str, **values: str) -> Rulebook:
    """The pack alone, included for `bot`; parameters that must be given have a value."""
    needed = {
        p.name: f"{p.name}.example" for p in pack_of(name).parameters.values() if not p.default
    }
    given = json.dumps(needed | values)
    policy, warnings = load_policy(
        f"version: 1\ninclude:\n  - {{pack: {name}, agents: bot, with: {given}}}\n"
    )
    assert warnings == ()
    return Rulebook(policy)


@cache
def bare(method: str, url: str) -> Request:
    """A request without a body or headers of its own."""
    return request_of({"method": method, "url": url}, "")


def request_of(spec: Mapping[str, Any], host: str) -> Request:
    """A request as a test in a pack has it."""
    url = spec.get("url") or f"https://{host}{spec['path']}"
    given = spec.get("headers", {})
    headers = list(given.items()) if isinstance(given, dict) else [(n, v) for n, v in given]
    body, kind = b"", None
    if "json" in spec:
        body, kind = json.dumps(spec["json"]).encode(), "application/json"
    elif "form" in spec:
        body, kind = urlencode(spec["form"]).encode(), "application/x-www-form-urlencoded"
    elif "body_base64" in spec:
        body = base64.b64decode(spec["body_base64"])
    elif "body" in spec:
        body = spec["body"].encode()
    if kind and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", kind))
    return canonicalise(raw_request(spec["method"], url, headers, body), slashes=True)


def matched(book: Rulebook, request: Request) -> list[Rule]:
    """All rules that the request falls under."""
    decision = book.decide(BOT, request)
    ids = {*decision.rules, *decision.allowed_by}
    return [rule for rule in book.policy.rules if rule.id in ids]


def class_of(rule: Rule) -> str:
    return "low" if rule.effect == "allow" else str(rule.risk)


def host_of(match: Match) -> str:
    pattern = match.hosts[0]
    port = f":{pattern.port}" if pattern.port else ""
    return ("some." if pattern.wildcard else "") + pattern.host + port


def reaches(match: Match, request: Request) -> bool:
    """Whether the request falls under the match, to the letter."""
    return Matcher.of(match).holds_at_host(Reading(request), wide=False)


def reaches_path(match: Match, url: str) -> bool:
    """Whether the URL's path falls under the match."""
    path = "/" + url.split("/", 3)[3]
    return not match.paths or any(template(text).matches(path) for text in match.paths)


template = cache(parse_template)


def samples(rules: tuple[Rule, ...]) -> Iterator[tuple[Rule, str, str]]:
    """Of every rule, (rule, method, URL): paths under each of its templates, also under that and
    each other template that meets it."""
    every = [
        (rule, match, parse_template(path))
        for rule in rules
        for match in rule.matches
        for path in match.paths or ("/**",)
    ]
    for rule, match, template in every:
        paths = {
            _path(template, other): None for _, _, other in every if paths_overlap(template, other)
        }
        for path in paths:
            for method in sorted(match.methods) or EVERY_METHOD:
                yield rule, method, f"https://{host_of(match)}{path}"


def _path(one: Template, other: Template) -> str:
    """A path under both."""
    shorter, longer = sorted((one, other), key=lambda t: len(t.segments))
    segments = []
    for index, segment in enumerate(longer.segments):
        literal = segment
        if literal is None and index < len(shorter.segments):
            literal = shorter.segments[index]
        segments.append("x7q" if literal is None else literal)
    if one.rest and other.rest:
        segments.append("x7q")
    return "/" + "/".join(segments)
