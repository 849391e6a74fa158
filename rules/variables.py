"""What a call offers to expressions: its variables, and all that each may be taken for.

Servers differ about a name given twice or in another letter case, and about a large integer; such a
value has several readings, and an expression is asked about each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Any

from rules.errors import Unreadable
from rules.members import in_doubt
from rules.paths import ENCODED_SLASH
from rules.reading.json import Json, Number
from rules.request import Request
from rules.values import fold_name

MAX_NODES = 10_000
"""Values in one variable; CEL's library stops after as many rounds of `all` and the like."""
MAX_READINGS = 16
"""Readings of one call that are tried."""

_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]{1,3})?")
_WORDS = {"true": True, "false": False, "null": None}
_MAX_DIGITS = 40

type Pairs = Iterable[tuple[str, str]]


class Variables:
    """What one call offers to expressions, each made when an expression first asks for it.

    `query` gives the pairs and whether they have one reading; `form` and `json` give what the body
    is as such, nothing (None, no pairs) if it is something else or there is none. `files` gives the
    names of what a form has besides, `beside_query` those that servers merge with the query's. They
    may raise Unreadable. `at` has a time zone.
    """

    def __init__(
        self,
        request: Request,
        *,
        query: Callable[[], tuple[Pairs, bool]],
        form: Callable[[], Pairs],
        json: Callable[[], Json | None],
        files: Callable[[], Sequence[str]] = tuple,
        beside_query: Callable[[], Sequence[str]] = tuple,
        agent: str,
        tags: Collection[str],
        at: datetime,
    ) -> None:
        self._request = request
        self._query = query
        self._sources: dict[str, Callable[[], Value]] = {
            "method": lambda: Value(request.method),
            "scheme": lambda: Value(request.scheme),
            "host": lambda: Value(request.host),
            "port": lambda: Value(request.port),
            "path": lambda: _Path(request.path),
            "agent": lambda: Value(agent),
            "tags": lambda: Value(sorted(tags)),
            "time": lambda: Value(at),
            "query": lambda: _pairs(self._clear_query(), beside=beside_query()),
            "headers": lambda: _pairs(_headers(request)),
            "form": lambda: _pairs(form(), beside=_names(self._clear_query()), hidden=files()),
            "json": lambda: _document(json()),
        }
        self._values: dict[str, Value | None] = {}
        self._doubts: dict[str, str] = {}

    def value(self, name: str) -> Value | None:
        """The variable `call.NAME`; None if it is in doubt."""
        if name not in self._values:
            try:
                self._values[name] = self._sources[name]()
            except Unreadable as error:
                self._values[name] = None
                self._doubts[name] = str(error)
        return self._values[name]

    def doubt(self, names: Collection[str]) -> str | None:
        """Why one of these variables is in doubt; None if none of them is known to be."""
        return next((self._doubts[name] for name in sorted(names) if name in self._doubts), None)

    def _clear_query(self) -> Pairs:
        pairs, clear = self._query()
        if not clear:
            raise Unreadable("its query is read in two ways")
        return pairs


class Value:
    """What a variable holds, with its size; the one reading that most values have."""

    def __init__(self, plain: object, *, longest: int = 0, widest: int = 0, nodes: int = 1) -> None:
        self.plain = plain
        self.longest = max(longest, len(plain) if isinstance(plain, str) else 0)
        """Characters of the longest text."""
        self.widest = max(widest, len(plain) if isinstance(plain, list) else 0)
        """Members of the largest list or object."""
        self.nodes = max(nodes, self.widest)

    def readings(self, words: frozenset[str]) -> list[object]:
        """All that it may be taken for, as far as an expression with these words can see."""
        return [self.plain]

    def lenient_readings(self) -> list[object]:
        """What readers take it for who are less strict."""
        return [self.plain]

    def in_doubt(self, wanted: frozenset[str] | None) -> bool:
        """Whether there is something else that may be one of the members."""
        return False


class _Path(Value):
    """Whoever decodes an encoded slash reads another path."""

    def lenient_readings(self) -> list[object]:
        path = str(self.plain)
        return list(dict.fromkeys((path, path.replace(ENCODED_SLASH, "/"))))


class _Fields(Value):
    """Names with text. A name given several times may be any of its values, and one in another
    letter case may be the one that is asked for."""

    def __init__(
        self, pairs: list[tuple[str, str]], beside: Sequence[str], hidden: Sequence[str]
    ) -> None:
        longest = max([len(text) for pair in pairs for text in pair], default=0)
        super().__init__({}, longest=longest, widest=len(pairs), nodes=2 * len(pairs))
        self._pairs = pairs
        self._beside, self._hidden = beside, hidden

    def in_doubt(self, wanted: frozenset[str] | None) -> bool:
        return in_doubt(_names(self._pairs), wanted, self._beside, self._hidden)

    def readings(self, words: frozenset[str]) -> list[object]:
        alike = {_fold(word): word for word in words}
        values: dict[str, dict[str | None, None]] = {}
        for name, value in self._pairs:
            values.setdefault(name, {})[value] = None
        for name, value in self._pairs:
            word = alike.get(_fold(name), name)
            if word != name and name not in words:
                # As it stands it is another name: then the one asked for is not there.
                values.setdefault(word, {None: None})[value] = None
        count = 1
        for each in values.values():
            count *= len(each)
            if count > MAX_READINGS:
                return [{}] * (MAX_READINGS + 1)
        return [
            {name: value for name, value in zip(values, chosen, strict=True) if value is not None}
            for chosen in product(*values.values())
        ]


class _Document(Value):
    """A JSON value. An integer that a double does not keep may be the double next to it, and a
    member in another spelling the one that is asked for."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._names: dict[str, set[str]] = {}
        self._rounds = False
        longest = widest = nodes = 0
        for value in _walk(document):
            nodes += 1
            if nodes > MAX_NODES:
                raise Unreadable("its JSON has too many values")
            if isinstance(value, str):
                longest = max(longest, len(value))
            elif isinstance(value, Number):
                self._rounds = self._rounds or _reads_two_ways(value)
            elif isinstance(value, list | dict):
                widest = max(widest, len(value))
                if isinstance(value, dict):
                    for name in value:
                        longest = max(longest, len(name))
                        self._names.setdefault(fold_name(name), set()).add(name)
        super().__init__(_plain(document), longest=longest, widest=widest, nodes=nodes)

    def readings(self, words: frozenset[str]) -> list[object]:
        renamed: dict[str, str] = {}
        for word in words:
            for name in self._names.get(fold_name(word), ()):
                if name not in words:
                    renamed[name] = word
        found = [self.plain]
        if self._rounds:
            found.append(_plain(self._document, rounds=True))
        if renamed:
            found.append(_plain(self._document, renamed=renamed))
        if renamed and self._rounds:
            found.append(_plain(self._document, rounds=True, renamed=renamed))
        return found

    def lenient_readings(self) -> list[object]:
        found = [_retyped(self.plain, _typed), _retyped(self.plain, _untyped)]
        alone = _alone(self.plain)
        return found if alone == self.plain else [*found, alone, _retyped(alone, _typed)]


def _retyped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        return [_retyped(each, change) for each in value]
    if isinstance(value, dict):
        return {name: _retyped(each, change) for name, each in value.items()}
    return change(value)


def _alone(value: Any) -> Any:
    """Lists of one as what stands in them."""
    if isinstance(value, list):
        inner = [_alone(each) for each in value]
        return inner[0] if len(inner) == 1 else inner
    if isinstance(value, dict):
        return {name: _alone(each) for name, each in value.items()}
    return value


def _typed(value: Any) -> Any:
    """Text that looks like something else, as that."""
    if not isinstance(value, str) or len(value) > _MAX_DIGITS:
        return value
    word = value.strip().casefold()
    if word in _WORDS:
        return _WORDS[word]
    if not _DECIMAL.fullmatch(word):
        return value
    number = _integer(Number(word.removeprefix("+")))
    return float(word) if number is None else number


def _untyped(value: Any) -> Any:
    """What is no text, as it would be written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _pairs(pairs: Pairs, *, beside: Sequence[str] = (), hidden: Sequence[str] = ()) -> Value:
    found = list(pairs)
    if len(found) > MAX_NODES:
        raise Unreadable("it has too many fields")
    return _Fields(found, beside, hidden)


def _names(pairs: Pairs) -> list[str]:
    return list(dict.fromkeys(name for name, _ in pairs))


def _headers(request: Request) -> Pairs:
    """The header lines; several of one name are also the list that they stand for."""
    names = [name for name, _ in request.headers]
    lists = {name for name in names if names.count(name) > 1}
    return [*request.headers, *((name, ", ".join(request.values(name))) for name in lists)]


def _document(document: Json | None) -> Value:
    return _Document({} if document is None else document)


def _walk(document: Json) -> Iterator[Json]:
    ahead: list[Json] = [document]
    while ahead:
        value = ahead.pop()
        yield value
        if isinstance(value, list):
            ahead += value
        elif isinstance(value, dict):
            ahead += value.values()


_NOTHING: Mapping[str, str] = {}


def _plain(value: Json, *, rounds: bool = False, renamed: Mapping[str, str] = _NOTHING) -> Any:
    """The value for the library. Raises Unreadable for a number that readers differ about."""
    match value:
        case Number():
            return _number(value, rounds)
        case list():
            return [_plain(each, rounds=rounds, renamed=renamed) for each in value]
        case dict():
            # Of two names that are one to the reader, the later one counts.
            return {
                renamed.get(name, name): _plain(each, rounds=rounds, renamed=renamed)
                for name, each in value.items()
            }
        case _:
            return value


def _number(number: Number, rounds: bool) -> int | float:
    integer = _integer(number)
    if integer is not None:
        return int(float(integer)) if rounds else integer
    # Raises unless a double keeps it.
    return float(number.value)


def _integer(number: Number) -> int | None:
    """The integer that the library holds exactly; None if it is none such."""
    if len(number.text) > 20 or not number.text.lstrip("-").isdigit():
        return None
    integer = int(number.text)
    return integer if -(2**63) <= integer < 2**63 else None


def _reads_two_ways(number: Number) -> bool:
    integer = _integer(number)
    return integer is not None and int(float(integer)) != integer


def _fold(name: str) -> str:
    return name.strip().casefold()
