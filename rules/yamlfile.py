"""YAML as configuration needs it: plain JSON values, the line of every one, and no surprises.

Strict on purpose: one document; no duplicate keys, anchors, aliases, tags, merge keys or
directives; YAML 1.2's core types (`yes` and `on` are text, `012` is refused). Whatever is wrong is
reported at once, with lines. Used for the policy and for the settings, and knows neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from math import isinf
from typing import TYPE_CHECKING, get_args

import yaml
from pydantic import BaseModel
from yaml.reader import Reader

from rules.errors import InvalidFile, Problem

if TYPE_CHECKING:
    from pydantic import ValidationError

MAX_CHARACTERS = 16 * 1024 * 1024
MAX_DEPTH = 32

Path = tuple[str | int, ...]
type _Node = yaml.ScalarEvent | yaml.CollectionStartEvent
type _Tree = int | tuple[int, dict[str | int, _Tree]]

# libyaml's parser is about ten times as fast; both produce the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_HIDDEN = re.compile(r"\r(?!\n)|[\x85\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Line breaks that YAML 1.1 knows and hardly any reader, and marks of direction."""
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Lines:
    """Where the values of a file stand. Lines count from 1."""

    __slots__ = ("_tree",)

    def __init__(self, tree: _Tree = 1) -> None:
        self._tree = tree

    def at(self, path: Path) -> int:
        """The line of the value at `path`, or of its nearest parent that is there."""
        tree = self._tree
        for step in path:
            if isinstance(tree, int) or step not in tree[1]:
                break
            tree = tree[1][step]
        return tree if isinstance(tree, int) else tree[0]


def parse_yaml(text: str, file: str) -> tuple[object, Lines]:
    """The one document in `text`, and the lines of its values; None for an empty file.

    Raises InvalidFile with every problem found; `file` is the name they are reported under.
    """
    if len(text) > MAX_CHARACTERS:
        limit = MAX_CHARACTERS // 1024 // 1024
        because = f"the file is larger than {limit} MiB"
        raise InvalidFile([Problem(file, 0, because, code="invalid-yaml")])
    builder = _Builder(file)
    for hidden in _HIDDEN.finditer(text):
        # Some editors and reviews show one line where the parser sees two, or turn it around.
        line = text.count("\n", 0, hidden.start()) + 1
        message = f"the character {hidden.group()!a} hides what stands behind it; take it out"
        builder.problem(line, message, "invisible-character")
    if builder.problems:
        raise InvalidFile(sorted(builder.problems))
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.feed(event)
    except _TooDeep:
        pass  # reported by the builder
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        because = error.problem or "it cannot be read"
        where = f" ({error.context}" if error.context else ""
        if where and error.context_mark:
            where += f" that begins in line {error.context_mark.line + 1}"
        where += ")" if where else ""
        because += where + _mend(error, text)
        builder.problem(mark.line + 1 if mark else 0, f"not valid YAML: {because}")
    except (yaml.YAMLError, UnicodeError) as error:
        because = getattr(error, "reason", "it cannot be read")
        odd = Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, odd.start()) + 1 if odd else 0
        builder.problem(line, f"not valid YAML: {because}")
    if builder.problems:
        raise InvalidFile(sorted(builder.problems))
    return builder.value, Lines(builder.tree)


def _mend(error: yaml.MarkedYAMLError, text: str) -> str:
    """What is meant most often, where the parser's words do not say it."""
    problem, context, mark = error.problem or "", error.context or "", error.problem_mark
    if "alias" in context:
        return "; put text that begins with * in quotes"
    if "mapping values are not allowed" in problem:
        return "; put text with a colon and a blank in it in quotes"
    if "cannot start any token" in problem and mark is not None:
        line = "".join(text.split("\n")[mark.line : mark.line + 1])
        tab = line.startswith("\t", mark.column)
        return "; indent with blanks, not tabs" if tab else "; put it in quotes"
    return ""


class _TooDeep(Exception):
    """Nested beyond MAX_DEPTH; reading stops."""


class _Frame:
    """A mapping or sequence being read. `key` is the mapping's key that waits for its value."""

    __slots__ = ("key", "key_line", "line", "lines", "value")

    def __init__(self, value: dict[str, object] | list[object], line: int) -> None:
        self.value = value
        self.line = line
        self.lines: dict[str | int, _Tree] = {}
        self.key: str | None = None
        self.key_line = 0


class _Builder:
    """Turns parser events into plain values. Iterative, so nesting costs no stack."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.value: object = None
        self.tree: _Tree = 1
        self._frames: list[_Frame] = []
        self._documents = 0
        self._nameless = 0

    def problem(self, line: int, message: str, code: str = "invalid-yaml") -> None:
        self.problems.append(Problem(self.file, line, message, code=code))

    def feed(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.ScalarEvent():
                self._check_node(event, line)
                plain = event.style in (None, "")
                self._add(self._scalar(event.value, line) if plain else event.value, line, plain)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._check_node(event, line)
                if len(self._frames) >= MAX_DEPTH:
                    self.problem(line, f"nested deeper than {MAX_DEPTH} levels")
                    raise _TooDeep
                is_mapping = isinstance(event, yaml.MappingStartEvent)
                self._frames.append(_Frame({} if is_mapping else [], line))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._frames.pop()
                self._add(frame.value, frame.line, False, frame.lines)
            case yaml.AliasEvent():
                self.problem(line, f"alias *{event.anchor}: write the value out instead")
                self._add(None, line, False)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents == 2:
                    self.problem(line, "a second document starts here; a file holds one")
                if event.version or event.tags:
                    self.problem(line, "YAML directives (%) are not used here")
            case _:
                pass

    def _check_node(self, event: _Node, line: int) -> None:
        if event.anchor is not None:
            self.problem(line, f"anchor &{event.anchor}: anchors are not used here")
        if event.tag is not None:
            self.problem(line, f"tag {event.tag}: tags are not used here")

    def _scalar(self, text: str, line: int) -> object:
        """A plain scalar by YAML 1.2's core schema (yaml.org/spec/1.2.2, 10.3.2)."""
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _INTEGER.fullmatch(text):
            digits = text.lstrip("+-")
            if len(digits) > 18 or (len(digits) > 1 and digits[0] == "0"):
                self.problem(line, f"{text[:40]} can be read in several ways; put it in quotes")
                return 0
            return int(text)
        if _OTHER_BASE.fullmatch(text) or _NOT_JSON.fullmatch(text):
            self.problem(line, f"{text[:40]} is not a plain number; put it in quotes")
            return 0
        if not _FLOAT.fullmatch(text):
            return text
        if isinf(number := float(text)):
            self.problem(line, f"{text[:40]} is too large a number")
        elif not _is_kept(text, number):
            self.problem(line, f"{text[:40]} has more digits than are kept; write fewer")
        return number

    def _add(
        self, value: object, line: int, plain: bool, lines: dict[str | int, _Tree] | None = None
    ) -> None:
        """Put a finished value where it belongs: a key, an entry, an item or the document."""
        if not self._frames:
            self.value, self.tree = value, line if lines is None else (line, lines)
            return
        frame = self._frames[-1]
        if isinstance(frame.value, list):
            frame.lines[len(frame.value)] = line if lines is None else (line, lines)
            frame.value.append(value)
        elif frame.key is None:
            frame.key, frame.key_line = self._key(frame, value, line, plain), line
        else:
            frame.value[frame.key] = value
            frame.lines[frame.key] = frame.key_line if lines is None else (frame.key_line, lines)
            frame.key = None

    def _key(self, frame: _Frame, key: object, line: int, plain: bool) -> str:
        if key == "<<" and plain:
            self.problem(line, "merge key <<: write the entries out instead")
        elif not isinstance(key, str):
            shown = str(key).lower() if isinstance(key, bool | None) else str(key)
            shown = "null" if key is None else shown
            sentence = "a key must be one word of text"
            if not isinstance(key, dict | list):
                sentence = f"the key {shown} is not text; put it in quotes"
            self.problem(line, sentence)
        elif isinstance(frame.value, dict) and key in frame.value:
            first = frame.lines[key]
            at = first if isinstance(first, int) else first[0]
            self.problem(line, f'duplicate key "{key}", first given in line {at}', "duplicate-key")
        else:
            return key
        # A stand-in that cannot collide, so that reading goes on and finds what else is wrong.
        self._nameless += 1
        return f"\0{self._nameless}"


def _is_kept(text: str, number: float) -> bool:
    """Whether the number is what the text says."""
    try:
        return Decimal(text) == Decimal(repr(number))
    except InvalidOperation:
        return False


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` if something known is close to `word`, else nothing."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower, n=1)
    return f' (did you mean "{by_lower[close[0]]}"?)' if close else ""


_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: object) -> int:
    """Whole seconds of `25s`, `15m`, `1h` or `2d`. Raises ValueError."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as 25s, 15m")
    return int(found[1]) * _SECONDS[found[2]]


_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size(text: object) -> int:
    """Bytes of `512B`, `64KiB`, `10MiB` or `1GiB`. Raises ValueError."""
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is not a size; write a number and a unit, such as 64KiB, 10MiB")
    return int(found[1]) * _BYTES[found[2]]


def problems_of(
    error: ValidationError, lines: Lines, file: str, model: type[BaseModel] | None = None
) -> list[Problem]:
    """A pydantic error as problems with lines, in file order.

    With the `model` that was validated, unknown fields come with a "did you mean".
    """
    problems = []
    for fault in error.errors(include_url=False, include_context=False):
        path = fault["loc"]
        name = ".".join(str(step) for step in path)
        if fault["type"] == "extra_forbidden":
            hint = did_you_mean(str(path[-1]), _fields_at(model, path[:-1]))
            message = f'unknown field "{name}"{hint}'
        elif fault["type"] == "missing":
            message = f'"{name}" is missing'
        else:
            sentence = fault["msg"].removeprefix("Value error, ")
            sentence = sentence[:1].lower() + sentence[1:]
            message = f"{name}: {sentence}" if name else sentence
        problems.append(Problem(file, lines.at(path), message))
    return sorted(problems)


def _fields_at(model: type[BaseModel] | None, path: Sequence[str | int]) -> list[str]:
    """The field names of the model that stands at `path` below `model`; empty if not known."""
    for step in path:
        if model is None:
            break
        fields = {f.alias or name: f for name, f in model.model_fields.items()}
        if step in fields:
            model = _model_in(fields[str(step)].annotation)
        # any other step is an index or a key of a container, or the branch of a union
    return [f.alias or name for name, f in model.model_fields.items()] if model else []


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The first model named in a type: itself, or inside a list, mapping, union or Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model), None)
