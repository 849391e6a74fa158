"""JSON with exactly one reading (I-JSON, RFC 7493), or `Unreadable`.

Two parsers that both take a text from here build the same value. The time is bounded: the agent
chooses the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from rules.errors import Unreadable

MAX_PIECES = 100_000
"""Values and brackets of a text that is taken apart: megabytes of tiny ones would keep everybody
waiting for seconds."""
MAX_DEPTH = 64
"""Lists and objects within each other; parsers give up at 32 (PHP's older ones) to thousands."""
MAX_NUMBER = 400
"""Characters of a number: any double fits, written out in digits."""

_ALWAYS_EXACT = 16
"""Characters without an exponent: at most 15 digits and a sign or point, which every double keeps
(DBL_DIG), or 16 digits, which are looked at when they are compared."""


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number, in the range of a double."""

    text: str
    """As it was written, so that 10.10 is shown as 10.10."""

    @property
    def value(self) -> Decimal:
        """The exact value. Raises Unreadable where a parser that reads doubles gets another one.

        A value is kept by a double if it is the shortest decimal that stands for it, as ECMAScript
        and RFC 8785 write it: 0.1, 1e300 and all integers up to 2**53 are, 9007199254740993 and
        1.0000000000000000001 are not. So two values that are read here are equal, or in order,
        exactly if the two doubles are.
        """
        double = float(self.text)
        if double == 0:
            return Decimal(0)
        exact = Decimal(self.text)
        if Decimal(repr(double)) != exact:
            raise Unreadable("a number has more digits than a double keeps")
        return exact


_NAMES = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\r\n]*+:', re.DOTALL).findall
_NAME_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|.)", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_BLANKS = b"\xef\xbb\xbf\xfe\xff\0 \t\r\n"

type Json = bool | str | Number | list[Json] | dict[str, Json] | None


def read_json(body: bytes) -> Json:
    """The value of a JSON text that has exactly one reading.

    Raises Unreadable for what is not JSON (NaN and Infinity among it), is not UTF-8, begins with a
    byte order mark, has a name twice in an object or a NUL in a name, half a surrogate pair, or a
    number outside the range of a double; and for one that is too deep or of too many pieces.
    """
    brackets = body.count(b"[") + body.count(b"{")
    if brackets + body.count(b",") > MAX_PIECES:
        raise Unreadable("it has too many pieces")
    try:
        value: Json = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_constant,
        )
    except RecursionError as error:
        raise Unreadable(_TOO_DEEP) from error
    except ValueError as error:
        raise Unreadable(str(error)) from error
    if brackets > MAX_DEPTH or b"\\u" in body:
        _check(value)
    return value


def names_in(body: bytes) -> set[str]:
    """The names of all members, at any depth, of what may be no JSON to us but is to others."""
    return {_NAME_ESCAPE.sub(_unescaped, name.decode("utf-8", "replace")) for name in _NAMES(body)}


def looks_like_json(body: bytes) -> bool:
    """Whether a server that does not look at the Content-Type may take the body for JSON, in UTF-8,
    UTF-16 or UTF-32."""
    return body.lstrip(_BLANKS)[:1] in (b"{", b"[")


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else found[0][1:]


def pointer_steps(pointer: str) -> list[str]:
    """The names and indexes that a JSON pointer (RFC 6901) goes through."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]


def step_into(value: Json, step: str) -> Iterator[Json]:
    """What one step of a JSON pointer (RFC 6901) leads to; nothing if it leads nowhere."""
    if isinstance(value, dict):
        if step in value:
            yield value[step]
    elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
        yield value[int(step)]


def json_text(value: Json) -> str:
    """A value of `read_json` as a person reads it: text bare, numbers as written, compact JSON."""
    return value if isinstance(value, str) else _compact(value)


def _compact(value: Json) -> str:
    match value:
        case Number():
            return value.text
        case list():
            return "[" + ",".join(_compact(item) for item in value) + "]"
        case dict():
            items = (json.dumps(name) + ":" + _compact(item) for name, item in value.items())
            return "{" + ",".join(items) + "}"
        case _:
            return json.dumps(value, ensure_ascii=False)


_TOO_DEEP = f"it is more than {MAX_DEPTH} levels deep"


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found


def _number(text: str) -> Number:
    if len(text) > _ALWAYS_EXACT or "e" in text or "E" in text:
        if len(text) > MAX_NUMBER:
            raise ValueError("a number is too long")
        double = float(text)
        digits = text.lower().partition("e")[0].strip("-0.")
        if math.isinf(double) or (double == 0 and digits):
            raise ValueError("a number is outside the range of a double")
    return Number(text)


def _constant(word: str) -> Json:
    raise ValueError(f"{word} is not JSON")


def _check(document: Json) -> None:
    """What the parser lets pass, level by level."""
    level: list[Json] = [document]
    depth = 0
    while level:
        below: list[Json] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, list | dict):
                if depth == MAX_DEPTH:
                    raise Unreadable(_TOO_DEEP)
                if isinstance(value, dict):
                    _check_names(value)
                below.extend(value.values() if isinstance(value, dict) else value)
        level = below
        depth += 1


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        _check_text(name)
        if "\0" in name:
            raise Unreadable("a name holds a NUL, at which some readers end it")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unreadable("a text holds half a surrogate pair") from None
