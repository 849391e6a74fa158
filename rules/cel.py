"""`when:` in CEL, the escape hatch of the policy language (Common Expression Language).

Checked whole at load: unknown names, types and a result that is not a truth value are refused. At
a call it says true, false, or that it cannot tell; it never raises, and its cost is bounded by what
the agent may send. This is the one place that knows the library, whose errors come back as values
that are true in Python.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from itertools import product
from typing import Any

from cel_expr_python import cel

from rules.members import asked
from rules.variables import MAX_NODES, MAX_READINGS, Value, Variables

MAX_LENGTH = 2_000
"""Characters of one expression."""
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
        hold for a reader who takes the text "5" for the number 5, or the other way round, or
        decodes a slash in the path.
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
        if wide and answer is False:
            loose = {name: value.lenient_readings() for name, value in found.items()}
            loose = {name: readings for name, readings in loose.items() if len(readings) > 1}
            if loose and True in self._answers(choices | loose):
                return None
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

    def _steps(self, values: Collection[Value]) -> int:
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
