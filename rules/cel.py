"""`when:` in CEL, the escape hatch of the policy language (Common Expression Language).

Checked whole at load: unknown names, types and a result that is not a truth value are refused. At
a call it says true, false, or that it cannot tell; it never raises, and its cost is bounded by what
the agent may send. This is the one place that knows the library, whose errors come back as values
that are true in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from itertools import product
from typing import Any

from cel_expr_python import cel

from rules.errors import Unreadable
from rules.members import asked, in_doubt
from rules.reading.json import Json, Number
from rules.request import Request

MAX_LENGTH = 2_000
"""Characters of one expression."""
MAX_NODES = 10_000
"""Values in one variable; the library stops after as many rounds of `all` and the like."""
MAX_READINGS = 16
"""Readings of one call that are tried."""
_MAX_STEPS = 3_500_000
"""About 40 ms; see `_steps`."""
_PATTERN_STEPS = 20_000
"""The library compiles a regular expression anew each time."""

_TEXTS = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
_TYPES: dict[str, Any] = {
    "method": cel.Type.STRING,
    "scheme": cel.Type.STRING,
    "host": cel.Type.STRING,
    "port": cel.Type.INT,
    "path": cel.Type.STRING,
    "query": _TEXTS,
    "headers": _TEXTS,
    "json": cel.Type.DYN,
    "form": _TEXTS,
    "agent": cel.Type.STRING,
    "tags": cel.Type.List(cel.Type.STRING),
    "time": cel.Type.TIMESTAMP,
}
NAMES = frozenset(_TYPES)
"""What `call` has: `call.method` and so on."""
_OF_BODY = frozenset({"json", "form"})
_FIELDS = frozenset({"query", "form"})

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRING = re.compile(r"""\"([^"\\\n]*)\"|'([^'\\\n]*)'""")
_MACRO = re.compile(r"\b(?:all|exists|exists_one|map|filter)\s*\(")
_HEAVY = re.compile(
    r"==|!=|\+|\bin\b|\b(?!(?:all|exists|exists_one|map|filter|has)\b)[A-Za-z]+\s*\("
)
_MATCHES = re.compile(r"\bmatches\b")
_PATTERN = re.compile(r"\bmatches\s*\(\s*[rR]?(\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')\s*\)")
_HAS_ALL = re.compile(r"\bhas\s*\(\s*\.?\s*call\s*\.\s*(\w+)\s*\)")
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*?)(?: \(in container ''\))?(?:\n|$)")
_UNDECLARED = re.compile(r"undeclared reference to '(?:call\.)?([^']*)'")

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
        self._sources: dict[str, Callable[[], _Value]] = {
            "method": lambda: _Value(request.method),
            "scheme": lambda: _Value(request.scheme),
            "host": lambda: _Value(request.host),
            "port": lambda: _Value(request.port),
            "path": lambda: _Value(request.path),
            "agent": lambda: _Value(agent),
            "tags": lambda: _Value(sorted(tags)),
            "time": lambda: _Value(at),
            "query": lambda: _pairs(self._clear_query(), beside=beside_query()),
            "headers": lambda: _pairs(_headers(request)),
            "form": lambda: _pairs(form(), beside=_names(self._clear_query()), hidden=files()),
            "json": lambda: _document(json()),
        }
        self._values: dict[str, _Value | None] = {}
        self._doubts: dict[str, str] = {}

    def value(self, name: str) -> _Value | None:
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


@dataclass(frozen=True, slots=True)
class When:
    """A checked expression."""

    text: str
    names: frozenset[str]
    """What it reads of `call`."""
    _expression: Any = field(repr=False, compare=False)
    _words: frozenset[str] = field(repr=False, compare=False)
    """Names of members that it may ask for."""
    _asked: Mapping[str, frozenset[str] | None] = field(repr=False, compare=False)
    """Of query and form, by name; None: it may ask for any."""

    @property
    def reads_body(self) -> bool:
        return not self.names.isdisjoint(_OF_BODY)

    def holds(self, variables: Variables, *, wide: bool) -> bool | None:
        """Whether it holds for the call; None if that is in doubt.

        In doubt is what fails (a member that is not there, an order between different types) and
        what could not be read; what has several readings, such as a name given twice, if it holds
        for some of them only; and what would cost too much. Widely, it is also in doubt if it would
        hold for a reader who takes the text "5" for the number 5, or the other way round.
        """
        values = {name: variables.value(name) for name in self.names}
        found = {
            name: value
            for name, value in values.items()
            if value is not None and not value.in_doubt(self._asked.get(name))
        }
        choices = {name: value.readings(self._words) for name, value in found.items()}
        count = 1
        for readings in choices.values():
            count *= len(readings)
        if count > MAX_READINGS or self._steps(found.values()) * count > _MAX_STEPS:
            return None
        answers = self._answers(choices)
        if len(answers) != 1:
            return None
        answer = answers.pop()
        document = found.get("json")
        if wide and answer is False and document is not None:
            choices["json"] = document.lenient_readings()
            return None if True in self._answers(choices) else False
        return answer

    def _answers(self, choices: Mapping[str, list[object]]) -> set[bool | None]:
        return {
            self._answer(dict(zip(choices, reading, strict=True)))
            for reading in product(*choices.values())
        }

    def _answer(self, values: Mapping[str, object]) -> bool | None:
        data = {f"call.{name}": value for name, value in values.items()}
        try:
            result = self._expression.eval(data=data)
            if result.type() != cel.Type.BOOL:
                return None
            answer = result.value()
        except Exception:  # noqa: BLE001 - whatever the library stumbles over, nobody can tell
            return None
        return answer if isinstance(answer, bool) else None

    def _steps(self, values: Collection[_Value]) -> int:
        """About how much work an evaluation is at most: all values and the longest text, looked at
        by every operation in every round of every macro."""
        nodes = sum(value.nodes for value in values)
        longest = max([value.longest for value in values], default=0)
        widest = max([len(self.text), *[value.widest for value in values]])
        patterns = "matches" in self._words
        weight = 2 * longest + _PATTERN_STEPS if patterns else longest // 8
        rounds: int = min(MAX_NODES, widest ** min(len(_MACRO.findall(self.text)), 4))
        return (weight + nodes) * rounds * (1 + len(_HEAVY.findall(self.text)))


def compile_when(text: str) -> When:
    """The expression, checked. Raises ValueError with a sentence that says what to mend."""
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f"the expression is longer than {MAX_LENGTH} characters; write a shorter one"
        )
    if not text.replace("\n", " ").replace("\t", " ").isprintable():
        raise ValueError(
            "the expression holds a character that cannot be seen; write it as \\u...."
        )
    whole = _HAS_ALL.search(text)
    if whole is not None:
        raise ValueError(
            f"has(call.{whole[1]}) asks for no member; write has(call.{whole[1]}.NAME)"
        )
    _check_patterns(text)
    try:
        expression = _environment(NAMES).compile(text)
    except Exception as error:  # noqa: BLE001 - the library has no class of its own for it
        raise ValueError(_sentence(str(error))) from None
    kind = expression.return_type()
    if kind != cel.Type.BOOL:
        raise ValueError(
            f"the expression gives {kind.name().lower()}, which is neither true nor false; compare "
            "it with something, as in `... == true`"
        )
    words = frozenset(_WORD.findall(text)) | {a or b for a, b in _STRING.findall(text)}
    names = frozenset(name for name in NAMES & words if not _compiles_without(name, text))
    members = {name: asked(text, name) for name in names & _FIELDS}
    return When(text, names, expression, words, members)


@cache
def _environment(names: frozenset[str]) -> Any:
    # Each member of `call` is a variable of its own, so that a misspelt one is no variable at all.
    return cel.NewEnv(variables={f"call.{name}": _TYPES[name] for name in names})


def _check_patterns(text: str) -> None:
    """An agent must not choose a regular expression, and a slow one must not run for each item."""
    patterns = _PATTERN.findall(text)
    if len(patterns) < len(_MATCHES.findall(text)):
        raise ValueError(
            'the expression must write its patterns out, as in call.path.matches("^/a")'
        )
    if _MACRO.search(text) and any("{" in pattern for pattern in patterns):
        raise ValueError(
            "the expression counts repetitions in a pattern (`{`) beside all() or the like, which "
            "may be slow; write the pattern without them"
        )


def _compiles_without(name: str, text: str) -> bool:
    try:
        _environment(NAMES - {name}).compile(text)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _sentence(message: str) -> str:
    found = _ERROR.search(message)
    if found is None:
        return "the expression is not CEL, or is nested too deeply"
    line, column, what = found.groups()
    where = f"column {column}" if line == "1" else f"line {line}, column {column}"
    unknown = _UNDECLARED.match(what)
    if unknown is None:
        return f"the expression is wrong at {where}: {what}"
    name = unknown[1].partition(".")[0]
    near = get_close_matches(name, sorted(NAMES), n=1)
    hint = f"did you mean call.{near[0]}?" if near else f"there are call.{', '.join(sorted(NAMES))}"
    return f'the expression names "{unknown[0][25:-1]}" at {where}, which is not there; {hint}'


# -- Values


class _Value:
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
        """What readers take it for who do not heed types."""
        return [self.plain]

    def in_doubt(self, wanted: frozenset[str] | None) -> bool:
        """Whether there is something else that may be one of the members."""
        return False


class _Fields(_Value):
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


class _Document(_Value):
    """A JSON value. An integer that a double does not keep may be the double next to it, and a
    member in another letter case the one that is asked for."""

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
                        self._names.setdefault(_fold(name), set()).add(name)
        super().__init__(_plain(document), longest=longest, widest=widest, nodes=nodes)

    def readings(self, words: frozenset[str]) -> list[object]:
        renamed: dict[str, str] = {}
        for word in words:
            for name in self._names.get(_fold(word), ()):
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
        return [_retyped(self.plain, _typed), _retyped(self.plain, _untyped)]


def _retyped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        return [_retyped(each, change) for each in value]
    if isinstance(value, dict):
        return {name: _retyped(each, change) for name, each in value.items()}
    return change(value)


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


def _pairs(pairs: Pairs, *, beside: Sequence[str] = (), hidden: Sequence[str] = ()) -> _Value:
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


def _document(document: Json | None) -> _Value:
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
