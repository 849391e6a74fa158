"""One operation's class, with the evidence: its method, its names, what goes in and comes out.

Only what a call really has, its method and its path, makes a class milder; ids, summaries, texts,
tags and schemas are but words of whoever wrote the description, and only make it stricter. Where
evidence is thin or contradicts itself, the stricter class stands, and a person is asked to look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
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
    written,
)

READS = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
"""Methods that change nothing (RFC 9110 9.2.1), if the service keeps to it."""
_SUMS = frozenset({"amount", "total", "price", "value", "unit_amount"})

DOUBTS = {
    "read-by-post": "Allowed although it is no GET: its path says that it only searches or reads, "
    "and it answers with data. Make sure that it changes nothing.",
    "search-unproven": "The name says that it only searches or reads, but its path or its answer "
    "does not show it; so it is held.",
    "acts-by-get": "A GET whose name says that it does something.",
    "secret-in-answer": "A read whose answer has a field named like a secret.",
    "contacts": "A read that lists e-mail addresses; allowed, since nothing says that the list is "
    "one of people.",
    "mild-delete": "A DELETE that is medium: by its path it takes away a mark or an entry only.",
    "mild-unproven": "A DELETE that is high, although its name says that it takes away a mark or "
    "an entry only: its path does not show it.",
    "method-only": "Nothing but the method tells what it does.",
    "visibility": "Its body can change who sees something.",
}
"""Code: what a person should look at, and why."""

_VISIBILITY = frozenset({"visibility", "private", "public", "is_public", "is_private", "published"})
_PARAMETER = re.compile(r"\{[^{}]*\}")
_ACTS_BY_GET = word_set(
    "delete destroy remove purge cancel send exec execute logout attach portforward proxy restart "
    "reboot stop"
)
"""Last words of a path that make a GET suspicious; others are as often nouns (`/refund`)."""
_AS_OFTEN_NOUNS = word_set("filter format view index head status info has is exist")
"""Of the verbs that search or read, those that say little where they stand alone."""
_FETCHING = word_set("get list find retrieve describe")
"""Of the verbs that read, those that a path is named by; `check`, `scan` or `watch` may start it,
and `read` may mark as read."""
_OF_A_THING = word_set("query list")
"""What says nothing unless a path says before it what is listed: `/query` runs any statement, and a
POST to `/list` may make one."""
_AT_THE_END = word_set("search preview count")
"""What says so at the end of other words too: `groups-search`; `answerQuery` answers one."""
_ON_A_THING = word_set("validate convert classify rank translate summarize detect compute simulate")
"""What acts, as often as not, where it follows an id: `/invoices/{id}/validate`."""
_JOINING = word_set("and or then with")
_OPENING = word_set("key url connection login rdp value")
"""What is seldom fetched by POST but to get in somewhere with it."""
_LITERAL = re.compile(r"[^{}*]+")
_PREFERENCE = [
    "carrier", "money", "secret", "access", "guard", "channel", "send", "publish", "code",
    "delete", "admin", "run", "close", "remove", "create", "change",
]  # fmt: skip
"""Of kinds with the same risk, whose words stand on the card."""


_CHANGES = frozenset({"POST", "PUT", "PATCH"})
"""The methods that may be medium; DELETE destroys, and what others do is the server's own."""


@dataclass(slots=True)
class Verdict:
    """What an operation is taken for, and why."""

    kind: Kind
    risk: Risk
    reasons: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    final: bool = False
    """The description says that it cannot be undone."""


def plain_risk(method: str) -> Risk:
    """The class of a method of which nothing else is known."""
    if method in READS:
        return "low"
    return "medium" if method in _CHANGES else "high"


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
    last: tuple[str, ...]
    """Of the last literal segment, wherever it stands."""
    summary: tuple[str, ...]
    path: tuple[str, ...]
    """Of all literal segments."""
    tags: tuple[str, ...]
    asking: str
    """The verb by which its path says that it only searches or reads; else empty."""
    claimed: str
    """The verb by which its id says so; else empty."""

    @classmethod
    def of(cls, operation: Operation) -> _Names:
        path = re.split(r"[?#]", operation.path, maxsplit=1)[0]
        path = path.replace("}:", "}/")  # an action after a colon is a segment of its own
        segments = [part for part in path.split("/") if part]
        runs: list[list[str]] = [[]]
        for segment in segments:
            if _LITERAL.fullmatch(segment):
                runs[-1].append(segment)
            else:
                runs.append([])
        literal = bool(segments) and bool(_LITERAL.fullmatch(segments[-1]))
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
            last=words_of(filled[-1][-1]) if filled else (),
            summary=words_of(operation.summary[:200]),
            path=tuple(w for run in filled for s in run for w in words_of(s)),
            tags=tuple(w for t in operation.tags if len(words_of(t)) <= 3 for w in words_of(t)),
            asking=_asking(segments) if literal else "",
            claimed=_claimed(operation.id),
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


def _asking(segments: list[str]) -> str:
    """The verb by which the last segment says that it only searches or reads, as it is written
    there: `/lists` is about lists, and lists nothing."""
    if segments[-1] == "raw" and len(segments) > 1 and _LITERAL.fullmatch(segments[-2]):
        segments = segments[:-1]  # the same, in another format
    last = re.split(r"[.:]", segments[-1])[-1]
    words = written(last)
    if not words or _JOINING & set(words):
        return ""
    before = segments[-2] if len(segments) > 1 else ""
    of_something = last != segments[-1] or any(
        _LITERAL.fullmatch(s) and not re.fullmatch(r"api|rest|v[0-9.]+|[0-9.]+", s.lower())
        for s in segments[:-1]
    )
    for place, verb in enumerate((words[0], words[-1])):
        searches = VERBS.get(verb) == "search" and verb not in _AS_OFTEN_NOUNS
        searches = searches and (place == 0 or verb in _AT_THE_END)
        fetches = verb in _FETCHING and place == 0 and not _OPENING & set(words_of(last))
        if not searches and not fetches:
            continue
        if verb in _OF_A_THING and len(words) == 1 and not of_something:
            continue
        if verb in _ON_A_THING and before and not _LITERAL.fullmatch(before):
            continue
        return verb
    return ""


def _claimed(id: str) -> str:
    """The verb that begins an id, or ends it after a stroke, as it is written there."""
    part = re.split(r"[/.]", id)[-1]
    for verb in (*written(part)[:1], re.split(r"[_-]", part)[-1].lower()):
        if VERBS.get(verb) in ("search", "read") and verb not in _AS_OFTEN_NOUNS:
            return verb
    return ""


def _verbs(words: tuple[str, ...]) -> Iterator[tuple[str, Kind]]:
    """The verbs among the words, harmless phrases aside."""
    for word in spoken(words).split():
        if word in VERBS:
            yield word, KINDS[VERBS[word]]


def _read(operation: Operation, names: _Names) -> Verdict:
    verdict = Verdict(KINDS["read"], "low", [operation.method])
    if operation.method in ("HEAD", "OPTIONS"):
        return verdict
    acts = [(w, k) for w, k in _verbs(names.action[-1:]) if w in _ACTS_BY_GET]
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
    nouns = nouns_in(names.id) | nouns_in(names.resource)
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
    """The verdict on a POST that surely only searches, reads or renders; else None."""
    if not _asks(operation, names) or not names.asking or not _answers(operation):
        return None
    verdict = Verdict(KINDS["search"], "low", [f'POST, but its path says "{names.asking}"'])
    verdict.reasons.append("it answers 200 with data")
    verdict.doubts.append("read-by-post")
    _look_at_answer(operation, names, verdict)
    return verdict


def _asks(operation: Operation, names: _Names) -> bool:
    """Whether it is a POST that says somewhere, and nowhere otherwise, that it only searches."""
    said = names.asking or names.claimed
    return (
        operation.method == "POST" and bool(said) and not (_carries(names) or _contradicts(names))
    )


def _answers(operation: Operation) -> bool:
    """Whether its answer is data, and nothing that was made, taken on or done."""
    return operation.answers and not operation.statuses & {"201", "202", "204"}


def _contradicts(names: _Names) -> bool:
    """Whether something in the names speaks against a mere search. `/refunds/search` searches what
    the words before it name; but no secret is searched for, and nothing that only an id names."""
    about = set(names.path[: -len(names.action)]) if names.asking else set()
    verbs = [w for part in (names.id, names.action) for w, k in _verbs(part) if k.risk != "low"]
    nouns = nouns_in(names.id) | nouns_in(names.resource)
    return any(verb not in about for verb in verbs) or any(
        kind == "secret" or not set(noun.split()) <= about for noun, kind in nouns.items()
    )


def _write(operation: Operation, names: _Names) -> Verdict:
    method = operation.method
    base = {"DELETE": "delete", "POST": "create"}.get(method, "change")
    verdict = Verdict(KINDS[base], plain_risk(method), [method])
    found = _evidence(operation, names)
    asks = _asks(operation, names)
    if asks:
        verdict.kind = KINDS["change"]
        which = "the answer" if names.asking else "its path"
        verdict.reasons.append(f"{which} does not show that it only reads")
    if method == "DELETE" and not any(k.risk == "high" and k.name != "delete" for _, k in found):
        if mild := _mild(names):
            verdict.kind, verdict.risk = KINDS["detach"], "medium"
            verdict.reasons.append(mild)
            verdict.doubts.append("mild-delete")
            return _finish(operation, verdict)
        if _said_mild(operation, names):
            verdict.doubts.append("mild-unproven")
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
    if asks and verdict.risk == "medium":
        verdict.doubts.append("search-unproven")
    elif not told and not known and method != "DELETE":
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
    fetched = names.action[:1] and names.action[0] in _FETCHING and names.action[-1] == "key"
    if operation.method == "POST" and fetched:
        found.setdefault("its path asks for keys", KINDS["secret"])
    if operation.method == "POST" and _carries(names):
        found.setdefault(f'its path ends in "{names.action[0]}"', KINDS["carrier"])
    for noun, name in nouns_in(names.tags).items():
        if name in ("secret", "access", "money", "admin") and noun not in nouns:
            found.setdefault(f'its tag says "{noun}": {KINDS[name].why}', KINDS[name])
    fields = {f.name.lower() for f in operation.fields if not f.place.startswith("query:")}
    if any(map(_is_sum, (fields, *(f.within for f in operation.fields)))):
        found.setdefault("its body names an amount and a currency", KINDS["money"])
    secrets = sorted(fields & SECRET_VALUES - {"token", "credentials"})
    if secrets:
        found.setdefault(f"its body has the field {secrets[0]}", KINDS["secret"])
    given = sorted(operation.gives & SECRET_VALUES)
    if given:
        found.setdefault(f"its answer has the field {given[0]}", KINDS["secret"])
    return list(found.items())


def _is_sum(fields: AbstractSet[str]) -> bool:
    return "currency" in fields and not fields.isdisjoint(_SUMS)


def _rank(entry: tuple[str, Kind]) -> tuple[int, int]:
    kind = entry[1]
    place = _PREFERENCE.index(kind.name) if kind.name in _PREFERENCE else len(_PREFERENCE)
    return -ORDER[kind.risk], place


def _mild(names: _Names) -> str:
    """Why, by its path, a DELETE takes away a mark or an entry only; empty if it may be more."""
    for word in names.action:
        if VERBS.get(word) == "detach":
            return f'its path says "{word}": {KINDS["detach"].why}'
    if len(names.last) == 1 and names.last[0] in MILD:
        return f'it is about "{names.last[0]}", of which little is lost'
    return ""


def _said_mild(operation: Operation, names: _Names) -> bool:
    """Whether it says so in words."""
    said = any(VERBS.get(word) == "detach" for word in (*names.id, *names.summary[:1]))
    return said or (names.leading == "remove" and " from " in operation.summary.lower())


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
