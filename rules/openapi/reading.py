"""A description's bytes as plain values: strict JSON, or YAML without its surprises.

Whoever wrote the file may be hostile: bytes, values and depth are bounded, aliases are counted at
full size, duplicate names are refused, and nothing is built but mappings, lists and scalars. Keys
and numbers stay the text they are (`200:` is "200").
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import yaml

from rules.errors import InvalidFile, Problem
from rules.hosts import shown

MAX_BYTES = 64 * 1024 * 1024
MAX_VALUES = 4_000_000
"""Values of a file, aliases counted as often as they are used."""
MAX_DEPTH = 200
_EVERY = 20_000
"""Values between two reports of progress."""

type Plain = bool | str | list[Plain] | dict[str, Plain] | None
type Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_CORE_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
}


def read_description(data: bytes, file: str, progress: Progress = lambda _: None) -> Plain:
    """The values in `data`, JSON or YAML. Raises InvalidFile with one problem and its line."""
    if len(data) > MAX_BYTES:
        raise _invalid(
            file,
            0,
            f"the file is larger than {MAX_BYTES >> 20} MiB; if it was written with every $ref "
            "filled in, take the one that still has them",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _invalid(file, line, "the file is not UTF-8 text; save it as UTF-8") from None
    if text.lstrip().startswith(("{", "[")):
        return _read_json(text, file)
    return _Builder(text, file, progress).read()


def _invalid(file: str, line: int, message: str) -> InvalidFile:
    return InvalidFile([Problem(file, line, message)])


_TOO_MANY = f"the file holds more than {MAX_VALUES:,} values"
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _read_json(text: str, file: str) -> Plain:
    if text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        raise _invalid(file, 0, _TOO_MANY)
    values = 0

    def mapping(pairs: list[tuple[str, Plain]]) -> dict[str, Plain]:
        nonlocal values
        values += len(pairs)
        if values > MAX_VALUES:
            raise _Refused(_TOO_MANY)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _Refused(_twice(pairs))
        return found

    try:
        value: Plain = json.loads(
            text, object_pairs_hook=mapping, parse_int=str, parse_float=str, parse_constant=str
        )
    except json.JSONDecodeError as error:
        raise _invalid(
            file, error.lineno, f"not valid JSON: {error.msg} (column {error.colno})"
        ) from None
    except _Refused as error:
        raise _invalid(file, 0, str(error)) from None
    except RecursionError:
        raise _invalid(file, 0, _TOO_DEEP) from None
    return value


class _Refused(Exception):
    """The sentence says why."""


def _twice(pairs: list[tuple[str, Plain]]) -> str:
    names = Counter(name for name, _ in pairs)
    name = names.most_common(1)[0][0]
    beside = ", ".join(shown(other) for other in list(names)[:4])
    return (
        f"the name {shown(name)} occurs twice in one object (that of {beside}); which of them "
        "counts differs from reader to reader, so remove one"
    )


class _Frame:
    """A mapping or list being read. `key` is the mapping's key that waits for its value."""

    __slots__ = ("anchor", "before", "key", "line", "value")

    def __init__(
        self, value: dict[str, Plain] | list[Plain], anchor: str | None, line: int, before: int
    ) -> None:
        self.value = value
        self.anchor = anchor
        self.line = line
        self.before = before
        """How many values were counted before it."""
        self.key: str | None = None


class _Builder:
    """Turns a YAML parser's events into plain values. Iterative, so that depth costs no stack."""

    def __init__(self, text: str, file: str, progress: Progress) -> None:
        self._text = text
        self._file = file
        self._progress = progress
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Plain, int]] = {}
        """The value, and how many values it is made of."""
        self._values = 0
        self._documents = 0
        self._root: Plain = None
        self._line = 0

    def read(self) -> Plain:
        try:
            for count, event in enumerate(yaml.parse(self._text, Loader=_LOADER)):
                if event.start_mark:
                    self._line = event.start_mark.line + 1
                    if count % _EVERY == 0:
                        self._progress(event.start_mark.index / max(1, len(self._text)))
                self._feed(event)
        except _Refused as error:
            raise _invalid(self._file, self._line, str(error)) from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            because = error.problem or "it cannot be read"
            raise _invalid(
                self._file, mark.line + 1 if mark else 0, f"not valid YAML: {because}"
            ) from None
        except (yaml.YAMLError, UnicodeError) as error:
            because = getattr(error, "reason", "it cannot be read")
            raise _invalid(self._file, 0, f"not valid YAML: {because}") from None
        return self._root

    def _feed(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._check_tag(event.tag)
                is_key = self._awaits_key()
                plain = event.style in (None, "") and event.tag is None
                if is_key and plain and event.value == "<<":
                    raise _Refused("merge key <<: write the entries out instead")
                value = _CONSTANTS.get(event.value, event.value) if plain else event.value
                self._add(event.value if is_key else value, event.anchor, 1)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._check_tag(event.tag)
                if self._awaits_key():
                    raise _Refused("a key must be one word of text")
                if len(self._frames) >= MAX_DEPTH:
                    raise _Refused(_TOO_DEEP)
                empty: dict[str, Plain] | list[Plain]
                empty = {} if isinstance(event, yaml.MappingStartEvent) else []
                self._frames.append(_Frame(empty, event.anchor, self._line, self._values))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._frames.pop()
                self._add(frame.value, frame.anchor, 1 + self._values - frame.before, counted=True)
            case yaml.AliasEvent():
                if self._awaits_key():
                    raise _Refused("a key must be one word of text")
                name = event.anchor or ""
                known = self._anchors.get(name)
                if known is None:
                    raise _Refused(f"alias *{name[:40]} stands for nothing that ends before it")
                self._add(known[0], None, known[1])
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _Refused("a second document starts here; a description is one")
            case _:
                pass

    def _check_tag(self, tag: str | None) -> None:
        if tag is not None and tag not in _CORE_TAGS:
            raise _Refused(f"tag {shown(tag)}: tags are not used in descriptions")

    def _awaits_key(self) -> bool:
        frame = self._frames[-1] if self._frames else None
        return frame is not None and isinstance(frame.value, dict) and frame.key is None

    def _add(self, value: Plain, anchor: str | None, size: int, *, counted: bool = False) -> None:
        """Put a finished value where it belongs; `size` is what it counts for."""
        self._values += 1 if counted else size
        if self._values > MAX_VALUES:
            raise _Refused(f"{_TOO_MANY}, aliases counted as what they stand for")
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._frames:
            self._root = value
            return
        frame = self._frames[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is not None:
            frame.value[frame.key] = value
            frame.key = None
        else:
            key = str(value)
            if key in frame.value:
                raise _Refused(
                    f"the key {shown(key)} occurs twice in the mapping of line {frame.line}; "
                    "which of them counts differs from reader to reader, so remove one"
                )
            frame.key = key
