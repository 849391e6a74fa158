"""One operation's class, with the evidence: its method, its names, what goes in and comes out.

Writes are never low unless both the name and the answer say that they only search; reads are low
unless they give out secrets or many people's data. Where evidence is thin or contradicts itself,
the stricter class stands, and a person is asked to look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rules.openapi.document import Operation
from rules.openapi.lexicon import (
    BARE,
    BULK,
    CARRIERS,
    CONTACT,
    FINAL,
    IDENTIFYING,
    KINDS,
    MILD,
    ORDER,
    PEOPLE,
    READABLE,
    SECRET_VALUES,
    VERBS,
    Kind,
    Risk,
    nouns_in,
    spoken,
    word_set,
    words_of,
)

READS = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
"""Methods that change nothing (RFC 9110 9.2.1), if the service keeps to it."""

DOUBTS = {
    "read-by-post": "Allowed although it is no GET: the name says that it only searches or reads, "
    "and it answers with data. Make sure that it changes nothing.",
    "search-unproven": "The name says that it only searches, but the answer does not show it; so "
    "it is held.",
    "acts-by-get": "A GET whose name says that it does something.",
    "secret-in-answer": "A read whose answer has a field named like a secret.",
    "contacts": "A read that lists e-mail addresses; allowed, since nothing says that the list is "
    "one of people.",
    "mild-delete": "A DELETE that is medium: by its name it takes away a mark or an entry only.",
    "method-only": "Nothing but the method tells what it does.",
    "visibility": "Its body can change who sees something.",
}
"""Code: what a person should look at, and why."""

_VISIBILITY = frozenset({"visibility", "private", "public", "is_public", "is_private", "published"})
_PARAMETER = re.compile(r"\{[^{}]*\}")
_ACTS_BY_GET = word_set(
    "delete destroy remove purge cancel send exec execute trigger logout attach portforward proxy "
    "restart reboot stop deploy merge refund charge"
)
"""Last words of a path that make a GET suspicious; others are as often nouns (`/releases`)."""
_AS_OFTEN_NOUNS = word_set("filter format view index head status info has is exist")
"""Of the verbs that search or read, those that say little where they stand alone."""
_PREFERENCE = [
    "carrier", "money", "secret", "access", "guard", "channel", "send", "publish", "code",
    "delete", "admin", "run", "close", "remove", "create", "change",
]  # fmt: skip
"""Of kinds with the same risk, whose words stand on the card."""


@dataclass(slots=True)
class Verdict:
    """What an operation is taken for, and why."""

    kind: Kind
    risk: Risk
    reasons: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    final: bool = False
    """The description says that it cannot be undone."""


def classify(operation: Operation) -> Verdict:
    """Exactly one class. Never raises."""
    names = _Names.of(operation)
    if operation.method in READS:
        return _read(operation, names)
    searched = _search(operation, names)
    if searched is not None:
        return searched
    return _write(operation, names)


@dataclass(frozen=True, slots=True)
class _Names:
    """The words that an operation goes by."""

    id: tuple[str, ...]
    """Of its id, without a method's name at its head."""
    resource: tuple[str, ...]
    """Of what the path leads to: its last literal segments."""
    action: tuple[str, ...]
    """Of the last segment, if it is a literal: `merge`, `cancel`."""
    summary: tuple[str, ...]
    path: tuple[str, ...]
    """Of all literal segments."""
    tags: tuple[str, ...]
    asking: str
    """The verb by which it only searches or reads, where it surely is one; else empty."""

    @classmethod
    def of(cls, operation: Operation) -> _Names:
        path = re.split(r"[?#]", operation.path, maxsplit=1)[0]
        path = path.replace("}:", "}/")  # an action after a colon is a segment of its own
        segments = [part for part in path.split("/") if part]
        runs: list[list[str]] = [[]]
        for segment in segments:
            if _PARAMETER.search(segment):
                runs.append([])
            else:
                runs[-1].append(segment)
        literal = bool(segments) and not _PARAMETER.search(segments[-1])
        action = words_of(segments[-1]) if literal else ()
        filled = [run for run in runs if run]
        chosen = filled[-1:]
        if literal and all(w in VERBS for s in filled[-1] for w in words_of(s)[:1]):
            chosen = filled[-2:]
        last = re.split(r"[/.]", operation.id)[-1]
        named = words_of(last)
        if not any(word in VERBS for word in named):
            named = words_of(operation.id)
        method = operation.method
        if method not in READS and named[:1] == (method.lower(),) and method.lower() in BARE:
            named = named[1:]
        return cls(
            id=named,
            resource=tuple(w for run in chosen for s in run for w in words_of(s)),
            action=action,
            summary=words_of(operation.summary[:200]),
            path=tuple(w for run in filled for s in run for w in words_of(s)),
            tags=tuple(w for t in operation.tags if len(words_of(t)) <= 3 for w in words_of(t)),
            asking=_asking(operation, segments[-1] if literal else ""),
        )

    @property
    def leading(self) -> str:
        """The first verb of the id; else the summary's first word, else the last of the path."""
        for word in self.id:
            if word in VERBS:
                return word
        for word in (*self.summary[:1], *self.action[:1]):
            if word in VERBS:
                return word
        return ""


def _asking(operation: Operation, last: str) -> str:
    """The verb that begins the id, or is the end of id or path, as it is written there: `lists`
    and `postLists` are about lists, and list nothing."""
    part = re.split(r"[/.]", operation.id)[-1]
    first = re.match(r"[A-Z]?[a-z]+", part)
    for word in (first[0] if first else "", re.split(r"[_-]", part)[-1]):
        verb = word.lower()
        if VERBS.get(verb) in ("search", "read") and verb not in _AS_OFTEN_NOUNS:
            return verb
    verb = last.lower()
    return verb if VERBS.get(verb) == "search" and verb not in _AS_OFTEN_NOUNS else ""


def _verbs(words: tuple[str, ...]) -> Iterator[tuple[str, Kind]]:
    """The verbs among the words, harmless phrases aside."""
    for word in spoken(words).split():
        if word in VERBS:
            yield word, KINDS[VERBS[word]]


def _read(operation: Operation, names: _Names) -> Verdict:
    verdict = Verdict(KINDS["read"], "low", [operation.method])
    if operation.method in ("HEAD", "OPTIONS"):
        return verdict
    reading = any(VERBS.get(word) in ("read", "search") for word in names.id)
    acts: list[tuple[str, Kind]] = []
    if not reading or VERBS.get(names.leading) == "channel":
        acts += [(w, k) for w, k in _verbs(names.action[-1:]) if w in _ACTS_BY_GET]
        acts += [(w, k) for w, k in _verbs(names.id) if w == names.leading]
    acts = [(w, k) for w, k in acts if k.name not in ("read", "search", "create", "change")]
    if acts:
        word, kind = max(acts, key=lambda act: ORDER[act[1].risk])
        risk: Risk = "high" if kind.name == "channel" else "medium"
        verdict.doubts.append("acts-by-get")
        return _raise(verdict, kind, risk, f'the name says "{word}": {kind.why}')
    _look_at_answer(operation, names, verdict)
    return verdict


def _look_at_answer(operation: Operation, names: _Names, verdict: Verdict) -> None:
    """Raises a read that gives out secrets or personal data, by its names and its answer."""
    words = (*names.id, *names.resource)
    nouns = nouns_in(words)
    hidden = [noun for noun, kind in nouns.items() if kind == "secret" and noun not in READABLE]
    if names.resource[-2:] == ("public", "key"):
        hidden = []
    values = sorted(SECRET_VALUES & (operation.gives | operation.within))
    if hidden and values:
        why = f'it is about "{hidden[0]}", and its answer has the field {values[0]}'
        _raise(verdict, KINDS["secret"], "high", why)
    elif hidden:
        _raise(verdict, KINDS["confidential"], "medium", f'it is about "{hidden[0]}"')
    elif values:
        why = f"its answer has the field {values[0]}"
        _raise(verdict, KINDS["confidential"], "medium", why)
        verdict.doubts.append("secret-in-answer")
    bulk = [word for word in words if word in BULK]
    if bulk:
        kind = KINDS["export"]
        _raise(verdict, kind, "medium", f'the name says "{bulk[0]}": {kind.why}')
    if "admin" in nouns_in(names.path).values():
        _raise(verdict, KINDS["records"], "medium", "its path is one of administration")
    telling = sorted(IDENTIFYING & operation.items)
    contact = sorted(CONTACT & operation.items)
    people = [word for word in (*names.resource, *names.id) if word in PEOPLE]
    if telling or (contact and people):
        why = f"it lists the field {(telling or contact)[0]} of many"
        _raise(verdict, KINDS["personal"], "medium", why)
    elif contact and verdict.risk == "low":
        verdict.doubts.append("contacts")


def _search(operation: Operation, names: _Names) -> Verdict | None:
    """The verdict on a POST that only searches, reads or renders; None if it does not say so."""
    if operation.method != "POST" or _carries(names):
        return None
    asking = names.asking
    if not asking:
        return None
    others = [w for part in (names.id, names.action) for w, k in _verbs(part) if k.risk != "low"]
    if others or nouns_in((*names.id, *names.resource)):
        return None
    verdict = Verdict(KINDS["search"], "low", [f'POST, but the name says "{asking}"'])
    if operation.answers and not operation.statuses & {"201", "202", "204"}:
        verdict.reasons.append("it answers 200 with data")
        verdict.doubts.append("read-by-post")
        _look_at_answer(operation, names, verdict)
        return verdict
    verdict.doubts.append("search-unproven")
    why = "the answer does not show that it only reads"
    return _raise(verdict, KINDS["change"], "medium", why)


def _write(operation: Operation, names: _Names) -> Verdict:
    method = operation.method
    base = {"DELETE": "delete", "POST": "create"}.get(method, "change")
    verdict = Verdict(KINDS[base], KINDS[base].risk, [method])
    found = _evidence(operation, names)
    if method == "DELETE" and (mild := _mild(operation, names, found)):
        verdict.kind, verdict.risk = KINDS["detach"], "medium"
        verdict.reasons.append(mild)
        verdict.doubts.append("mild-delete")
        return _finish(operation, verdict)
    told = False
    for why, kind in sorted(found, key=_rank):
        told = True
        if ORDER[kind.risk] > ORDER[verdict.risk]:
            _raise(verdict, kind, kind.risk, why)
        elif kind.risk == verdict.risk:
            verdict.reasons.append(why)
            first = verdict.risk == "medium" and len(verdict.reasons) == 2
            first = first and (method, kind.name) != ("PATCH", "create")
            if first or (method == "DELETE" and kind.name == "access"):
                verdict.kind = kind
    known = any(word in VERBS for word in (*names.id, *names.summary[:1], *names.action))
    if not told and not known and method != "DELETE":
        verdict.doubts.append("method-only")
    return _finish(operation, verdict)


def _carries(names: _Names) -> bool:
    """Whether other calls are posted to it, as a list or a document."""
    return len(names.action) == 1 and names.action[0] in CARRIERS


def _evidence(operation: Operation, names: _Names) -> list[tuple[str, Kind]]:
    """What speaks for a class, as sentences."""
    found: dict[str, Kind] = {}
    for words in (names.id, names.action, names.summary[:1]):
        for word, kind in _verbs(words):
            if kind.risk != "low":
                found.setdefault(f'the name says "{word}": {kind.why}', kind)
    nouns = nouns_in(names.id) | nouns_in(names.resource)
    for noun, name in nouns.items():
        found.setdefault(f'it is about "{noun}": {KINDS[name].why}', KINDS[name])
    if "admin" in nouns_in(names.path).values():
        found.setdefault("its path is one of administration", KINDS["admin"])
    if operation.method == "POST" and _carries(names):
        found.setdefault(f'its path ends in "{names.action[0]}"', KINDS["carrier"])
    for noun, name in nouns_in(names.tags).items():
        if name in ("secret", "access", "money", "admin") and noun not in nouns:
            found.setdefault(f'its tag says "{noun}": {KINDS[name].why}', KINDS[name])
    fields = {f.name.lower() for f in operation.fields}
    if "currency" in fields and fields & {"amount", "total", "price", "value", "unit_amount"}:
        found.setdefault("its body names an amount and a currency", KINDS["money"])
    secrets = sorted(fields & SECRET_VALUES - {"token", "credentials"})
    if secrets:
        found.setdefault(f"its body has the field {secrets[0]}", KINDS["secret"])
    given = sorted(operation.gives & SECRET_VALUES)
    if given:
        found.setdefault(f"its answer has the field {given[0]}", KINDS["secret"])
    return list(found.items())


def _rank(entry: tuple[str, Kind]) -> tuple[int, int]:
    kind = entry[1]
    place = _PREFERENCE.index(kind.name) if kind.name in _PREFERENCE else len(_PREFERENCE)
    return -ORDER[kind.risk], place


def _mild(operation: Operation, names: _Names, found: list[tuple[str, Kind]]) -> str:
    """Why a DELETE takes away a mark or an entry only; empty if it may be more."""
    if any(kind.risk == "high" and kind.name != "delete" for _, kind in found):
        return ""
    for word in (*names.id, *names.summary[:1]):
        if VERBS.get(word) == "detach":
            return f'the name says "{word}": {KINDS["detach"].why}'
    if names.resource and names.resource[-1] in MILD:
        return f'it is about "{names.resource[-1]}", of which little is lost'
    if names.leading == "remove" and " from " in operation.summary.lower():
        return 'the summary says "remove ... from": an entry is taken out of a list'
    return ""


def _finish(operation: Operation, verdict: Verdict) -> Verdict:
    said = FINAL.search(f"{operation.summary}. {operation.text}")
    if said:
        verdict.final = True
        _raise(verdict, verdict.kind, "high", f'the description says "{said[0].lower()}"')
    fields = {f.name.lower() for f in operation.fields}
    if verdict.risk != "high" and operation.method != "POST" and fields & _VISIBILITY:
        verdict.doubts.append("visibility")
    return verdict


def _raise(verdict: Verdict, kind: Kind, risk: Risk, why: str) -> Verdict:
    verdict.reasons.append(why)
    if ORDER[risk] > ORDER[verdict.risk]:
        verdict.risk, verdict.kind = risk, kind
    return verdict
