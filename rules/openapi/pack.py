"""The rules of a pack, from arranged routes: ids, summaries, what goes wrong, what to look at."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rules.openapi.classify import DOUBTS, Verdict
from rules.openapi.document import Field, Operation
from rules.openapi.lexicon import ORDER, SECRET_VALUES, Risk, word_set, words_of
from rules.openapi.routes import Route
from rules.visible import is_invisible

MAX_ID = 60
"""Characters of a rule's id in a pack (rules.pack)."""
_MAX_SAID = 140
_MAX_SUMMARY = 300
"""Characters of a whole summary (rules.schema)."""
_MAX_PLACE = 60
_SHOWN_FIELDS = 3
_WORDS_OF_ID = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")
_TAG = re.compile(
    r"</?(?:a|b|br|code|div|em|h[1-6]|i|li|ol|p|pre|span|strong|sub|sup|tt|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
"""HTML that descriptions hold in fact; other things in angle brackets are words, as in `<id>`."""
_LINK = re.compile(r"\[([^\[\]]+)\]\([^()\s]*\)")
_TELLING = {
    name: rank
    for rank, names in enumerate(
        (
            "amount currency total price quantity",
            "to recipient recipients email user username member account destination",
            "role permission permissions visibility access",
            "url name title subject key",
            "branch base head ref environment version status state type id channel",
        )
    )
    for name in names.split()
}
"""Names of fields that say most on a card, and their rank."""
_LONG = word_set(
    "body content text description message html data file files image attachment attachments "
    "metadata options settings config payload"
)
"""Names of fields whose values are too long for a line."""

REMARKS = {
    **DOUBTS,
    "merged": "One rule for several operations: paths of the policy cannot tell them apart, so "
    "the strictest class counts for all of them.",
    "wider": "The rule covers more than the operation: in a path of the policy a parameter is a "
    "whole segment, and what follows `?` or `#` is left out.",
    "overlap": "Servers may take some of its calls for the other operation that is named; those "
    "have the stricter class of that one.",
    "raised": "Its calls cannot be told from those of the operation that is named, so it is as "
    "strict.",
    "other-host": "Served at a host of its own; the credential must be for that host too.",
    "slashes": "A parameter that may hold slashes, by its name, is one segment here; calls with "
    "more are denied. Write `**` where they are meant.",
    "unreachable": "No call can have such a path, or Keybroker would refuse it, no rule can hold "
    "it, or it is served where no https call gets to; so there is no rule, and it is denied.",
}
"""Code: the sentence over a list of operations."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One rule of the pack, as it is written."""

    id: str
    risk: Risk
    method: str
    paths: tuple[str, ...]
    host: str
    excepts: tuple[str, ...]
    """Paths."""
    summary: str
    impact: str
    undo: str
    reasons: tuple[str, ...]
    sample: str
    """The path of a call that falls under it."""
    others: tuple[str, ...]
    """Paths of calls that fall under what it excepts."""
    operations: tuple[tuple[str, str], ...]
    """Method and path of each operation that it is for, as the description has them, below the
    base path of its server."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a person should look at."""

    code: str
    sentence: str
    about: tuple[str, ...] = ()
    """Ids of rules, or what else it is about."""


@dataclass(slots=True)
class Remarks:
    """What is gathered on the way, by code, in the order of REMARKS."""

    about: dict[str, list[str]] = field(default_factory=dict)

    def note(self, code: str, about: str) -> None:
        self.about.setdefault(code, []).append(about)

    def listed(self) -> list[Remark]:
        return [
            Remark(code, sentence, tuple(dict.fromkeys(self.about[code])))
            for code, sentence in REMARKS.items()
            if code in self.about
        ]


def make_rules(
    routes: Sequence[Route],
    verdicts: dict[int, Verdict],
    deletes: frozenset[tuple[str, ...]],
    remarks: Remarks,
) -> tuple[Draft, ...]:
    """One rule for each route, in order. `verdicts` are by the id() of the operation; `deletes`
    holds the segments of every path that can be deleted."""
    taken: set[str] = set()
    rules = []
    for route in routes:
        first = max(route.operations, key=lambda o: ORDER[verdicts[id(o)].risk])
        verdict = verdicts[id(first)]
        name = _unique(_id_of(first), taken)
        _note(route, name, verdicts, remarks)
        reasons = list(verdict.reasons)
        reasons += [f"as strict as {visible(o.paths[0])}" for o in route.raised[:1]]
        impact, undo = _consequence(route, first, verdict, deletes)
        rules.append(
            Draft(
                id=name,
                risk=route.risk,
                method=route.method,
                paths=tuple(t.text for t in route.templates),
                host=route.host,
                excepts=tuple(t.text for other in route.excepts for t in other.templates),
                summary=_summary(first),
                impact=impact,
                undo=undo,
                reasons=tuple(reasons),
                sample=_sample(route),
                others=tuple(_sample(other) for other in route.excepts[:3]),
                operations=tuple((route.method, path) for path in route.paths),
            )
        )
    return tuple(rules)


def _note(route: Route, name: str, verdicts: dict[int, Verdict], remarks: Remarks) -> None:
    for operation in route.operations:
        for doubt in verdicts[id(operation)].doubts:
            if doubt != "read-by-post" or route.risk == "low":
                remarks.note(doubt, name)
    if len(route.operations) > 1:
        paths = dict.fromkeys(visible(o.path) for o in route.operations)
        more = f" and {len(paths) - 4} more" if len(paths) > 4 else ""
        remarks.note("merged", f"{name} ({', '.join(list(paths)[:4])}{more})")
    elif route.wider:
        remarks.note("wider", f"{name} ({visible(route.wider[0])})")
    for code, others in (("overlap", route.torn), ("raised", route.raised)):
        if others:
            few = ", ".join(visible(o.paths[0]) for o in others[:3])
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            remarks.note(code, f"{name} ({few}{more})")
    if route.host:
        remarks.note("other-host", f"{name} ({route.host})")
    for operation in route.operations:
        last = re.search(r"\{([^{}]*(?:path|file)[^{}]*)\}$", operation.path, re.IGNORECASE)
        if last and not route.templates[0].rest:
            remarks.note("slashes", f"{name} ({visible(last[1])})")


def kebab(text: str) -> str:
    """`listPets` as list-pets: small letters, digits and hyphens, a letter first; may be empty."""
    return "-".join(_WORDS_OF_ID.findall(text)).lower().lstrip("0123456789-")


def _id_of(operation: Operation) -> str:
    named = kebab(operation.id)
    return named or kebab(f"{operation.method.lower()} {operation.path}")


def _unique(name: str, taken: set[str]) -> str:
    """The name, cut and numbered where need be; what is cut keeps a mark of the whole."""
    if len(name) > MAX_ID - 5:
        mark = hashlib.sha256(name.encode()).hexdigest()[:6]
        name = f"{name[: MAX_ID - 12].rstrip('-')}-{mark}"
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found)
    return found


def visible(text: str, limit: int = 120) -> str:
    """The description's words as one line that hides nothing and holds no braces but in paths."""
    words = " ".join(text[: 4 * limit].split())
    line = " ".join("".join(c for c in words if not is_invisible(c)).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "\u2026"


def _summary(operation: Operation) -> str:
    """What the operation does, where, and the two or three fields that say most."""
    said = unmarked(operation.summary or _first_sentence(operation.text))
    if not said:
        said = f"{operation.method} {operation.path}" if not operation.id else operation.id
    said = visible(said.replace("{", "(").replace("}", ")"), _MAX_SAID).rstrip(".:, ")
    parts = ["{path}"] if "{" in operation.path else []
    parts += [f"{visible(f.name, 30)} {{{f.place}}}" for f in telling(operation.fields)]
    summary = said or operation.method
    for index, part in enumerate(parts):
        longer = f"{summary}{', ' if index else ': '}{part}"
        if len(longer) <= _MAX_SUMMARY:
            summary = longer
    return summary


def _first_sentence(text: str) -> str:
    return unmarked(text).partition("\n")[0].partition(". ")[0]


def unmarked(text: str) -> str:
    """The words without the HTML and the links of Markdown in which descriptions are written."""
    return html.unescape(_LINK.sub(r"\1", _TAG.sub("", text[:2000]))).strip()


def telling(fields: Iterable[Field]) -> list[Field]:
    """The two or three fields that say most: required ones first, never a secret."""
    fit = []
    for index, one in enumerate(fields):
        name = one.name.lower()
        last = words_of(one.name)[-1:]
        secret = name in SECRET_VALUES or set(last) & {"password", "secret", "token"}
        odd = any(is_invisible(c) or c in "{|} \"'" for c in one.place)
        if not one.place or secret or odd or len(one.place) > _MAX_PLACE or not one.name:
            continue
        rank = _TELLING.get(name, len(_TELLING))
        told = one.required or (rank < len(_TELLING) and not one.place.startswith("query:"))
        if told and name not in _LONG:
            fit.append(((not one.required, rank, index), one))
    chosen = [one for _, one in sorted(fit, key=lambda entry: entry[0])][:_SHOWN_FIELDS]
    return chosen[:2] if not any(one.required for one in chosen) else chosen


def _consequence(
    route: Route, operation: Operation, verdict: Verdict, deletes: frozenset[tuple[str, ...]]
) -> tuple[str, str]:
    """What goes wrong, and whether it can be undone; empty where nobody is asked."""
    if route.risk == "low":
        return "", ""
    impact, undo = verdict.kind.impact, verdict.kind.undo
    if not impact:  # a read that has another's class
        return "Data leaves the service.", "no"
    if verdict.final:
        return impact, "no"
    if verdict.kind.name == "create" and _begins(operation.path) in deletes:
        undo = "delete what was made"
    return impact, undo


def _begins(path: str) -> tuple[str, ...]:
    return tuple(
        "*" if "{" in part else part for part in re.split(r"[?#]", path)[0].rstrip("/").split("/")
    )


def deletable(operations: Iterable[Operation]) -> frozenset[tuple[str, ...]]:
    """The paths below which something can be deleted by its name."""
    return frozenset(
        _begins(o.path)[:-1] for o in operations if o.method == "DELETE" and o.path.endswith("}")
    )


def _sample(route: Route) -> str:
    """A path that falls under the route, and under none that it leaves calls to; empty if there is
    none at hand."""
    template = route.templates[0]
    for word in ("x1", "x2", "x3"):
        parts = template.filled(word)
        path = "/" + "/".join([*parts, "x1"] if template.rest else parts)
        if not any(t.matches(path, ignore_case=True) for o in route.excepts for t in o.templates):
            return path
    return ""
