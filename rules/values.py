"""Operators on values: whether one is as a policy wants it.

Read narrowly, a value is what it is: text is text, a number a number, and a comparison with another
type does not hold. Read widely, it is all that a lenient server may take it for: letter case and
blanks around it do not count, what looks like a number or begins with one is one, a path is the one
it leads to, and what stands in a list may stand for it. What holds narrowly holds widely. Linear in
the length of the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from posixpath import normpath
from typing import cast
from unicodedata import normalize
from urllib.parse import unquote

from rules.errors import Unreadable
from rules.model import Check, Scalar
from rules.reading.json import Json, Number

_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?")
NUMERIC = ("gt", "gte", "lt", "lte")
"""Operators that compare numbers."""
_MOST_DIGITS = 400
"""Longer text is no number to anybody."""
_BEGINS = re.compile(
    r"([+-]?)(?:0[xX]([0-9a-fA-F]{1,100})|([0-9]{1,100})?(\.[0-9]{1,100})?([eE][+-]?[0-9]{1,3})?)",
    re.ASCII,
)
"""A number with something behind it."""
_STEP = r"(?:[/\\]|%2f|%5c)"
_DOTS = re.compile(rf"(?:\A|{_STEP})(?:\.|%2e){{1,2}}(?:\Z|[?#]|{_STEP})", re.IGNORECASE)
"""A step of a path that leads elsewhere than it says, as URLs and file systems have it."""
_UP = re.compile(r"\A(?:\.\.(?:/|\Z))+")
_FIRST = "+-.0123456789iInN"
"""How numbers begin in ASCII, infinity included: a quick look that settles most text."""

type Value = str | Decimal | bool | list[Json] | dict[str, Json] | None
"""Text, a number, or what else JSON has."""


def plain_decimal(text: str) -> Decimal | None:
    """The number that `text` is, written as everybody writes it: `-12.50`; None for all else."""
    return Decimal(text) if _PLAIN.fullmatch(text) else None


def lenient_decimal(text: str) -> Decimal | None:
    """The number that some reader may take `text` for; None if nobody does."""
    text = text.strip().replace(",", "").replace("_", "")
    if not text or len(text) > _MOST_DIGITS or (text[0].isascii() and text[0] not in _FIRST):
        return None
    try:
        if text.lower().startswith(("0x", "0o", "0b", "-0x", "-0o", "-0b")):
            return Decimal(int(text, 0))
        number = Decimal(text)
    except (InvalidOperation, ValueError):
        return None
    return None if number.is_nan() else number


def lenient_decimals(text: str) -> Iterator[Decimal]:
    """All numbers that some reader may take `text` for: to many, `parseInt` and PHP too, what
    it begins with is enough."""
    first = text.strip()[:1]
    if first.isalpha() and first.isascii() and first not in _FIRST:
        return  # a quick look that settles most text
    whole = lenient_decimal(text)
    if whole is not None:
        yield whole
        if text.isascii() and text.isdecimal():
            return
    sign, hexadecimal, integer, fraction, exponent = cast(
        re.Match[str], _BEGINS.match(text.strip())
    ).groups("")
    if hexadecimal:
        yield Decimal(int(sign + hexadecimal, 16))
    elif integer or fraction:
        for more in dict.fromkeys(("", fraction, fraction + exponent)):
            if integer or more.startswith("."):
                yield Decimal(f"{sign}{integer}{more}")


def value_of(value: Json) -> Value:
    """A JSON value for comparing. Raises Unreadable for a number that readers differ about."""
    return value.value if isinstance(value, Number) else value


def text_holds(check: Check, text: str, *, wide: bool) -> bool:
    """Whether a value that has no type is as the check wants it: comparisons read a plain
    decimal."""
    if wide or check.op not in NUMERIC:
        return holds(check, text, wide=wide)
    number = plain_decimal(text)
    return number is not None and holds(check, number, wide=False)


def holds(check: Check, value: Value, *, wide: bool) -> bool:
    """Whether one value is as the check wants it. Raises Unreadable if that cannot be told."""
    wanted = check.value
    match check.op:
        case "eq":
            return _equal(value, cast(Scalar, wanted), wide)
        case "in":
            return any(_equal(value, one, wide) for one in cast(tuple[Scalar, ...], wanted))
        case "not_in":
            others = cast(tuple[Scalar, ...], wanted)
            if not wide and not any(type(value) is type(other) for other in others):
                return False  # a list may hold one of them, and a number be written like one
            # Wide is what may be another: only what is certainly one of them is none.
            return not any(_equal(value, other, not wide) for other in others)
        case "gt" | "gte" | "lt" | "lte":
            return _compares(check.op, value, cast(Decimal, wanted), wide)
        case "prefix" | "suffix" | "glob":
            return _looks(check.op, value, cast(str, wanted), wide)
        case "length":
            if not isinstance(value, str | list | dict):
                return False
            return size_holds(check, Decimal(len(value)))


def size_holds(check: Check, size: Decimal) -> bool:
    """Whether a `length` wants this one."""
    return all(holds(one, size, wide=False) for one in cast(tuple[Check, ...], check.value))


def _equal(value: Value, wanted: Scalar, wide: bool) -> bool:
    if not wide:
        return type(value) is type(wanted) and value == wanted
    if _equal(value, wanted, wide=False):
        return True
    if isinstance(value, list):
        return any(_equal(each, wanted, wide) for each in _items(value))
    if isinstance(wanted, Decimal):
        return any(number == wanted for number in _numbers(value))
    if isinstance(wanted, str):
        if isinstance(value, str):
            return fold(wanted) in (fold(value), *_led_to(wanted, fold(value)))
        number = lenient_decimal(wanted)
        if isinstance(value, Decimal):
            return number is not None and value == number
    return _word(value) is not None and _word(value) == _word(wanted)


def _word(value: object) -> str | None:
    """How a lenient reader spells it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return fold(value)
        case _:
            return None


def _compares(op: str, value: Value, wanted: Decimal, wide: bool) -> bool:
    return any(_compare(op, number, wanted) for number in _numbers(value, wide=wide))


def _compare(op: str, number: Decimal, wanted: Decimal) -> bool:
    match op:
        case "gt":
            return number > wanted
        case "gte":
            return number >= wanted
        case "lt":
            return number < wanted
        case _:
            return number <= wanted


def _numbers(value: Value, *, wide: bool = True) -> Iterator[Decimal]:
    if isinstance(value, Decimal):
        yield value
    elif wide and isinstance(value, str):
        yield from lenient_decimals(value)
    elif wide and isinstance(value, list):
        for each in _items(value):
            yield from _numbers(each)


def _items(values: list[Json]) -> Iterator[Value]:
    """All that stands in a list, however deep, lists aside: where one value is wanted, servers take
    several, or JavaScript `[5]` for 5."""
    ahead: list[Json] = [*values]
    while ahead:
        value = ahead.pop()
        if isinstance(value, list):
            ahead += value
        else:
            yield value_of(value)


def _looks(op: str, value: Value, wanted: str, wide: bool) -> bool:
    if wide and isinstance(value, list):
        return any(_looks(op, each, wanted, wide) for each in _items(value))
    if not isinstance(value, str):
        if not wide or not isinstance(value, Decimal):
            return False
        value = str(value)
    if wide:
        value, wanted = fold(value), fold(wanted)
        return any(_is_like(op, each, wanted) for each in (value, *_led_to(wanted, value)))
    if not _is_like(op, value, wanted):
        return False
    if _is_path(wanted) and _DOTS.search(value):
        raise Unreadable("a path in it goes on by `.` or `..`, and leads elsewhere than it says")
    return True


def _is_like(op: str, value: str, wanted: str) -> bool:
    match op:
        case "prefix":
            return value.startswith(wanted)
        case "suffix":
            return value.endswith(wanted)
        case _:
            return glob_holds(wanted, value)


def _is_path(wanted: str) -> bool:
    """Whether text that is compared with this is a path, or a URL."""
    return "/" in wanted or "\\" in wanted


def leads_elsewhere(text: str) -> bool:
    """Whether it may be a path, or hold one, that is another one in the end."""
    return "//" in text or "\\" in text or _DOTS.search(text) is not None


def _led_to(wanted: str, value: str) -> Iterator[str]:
    """Where a path, or the one in a URL, leads in the end, in the ways that it is read; from
    wherever its reader is it leads to the root if it goes up far enough."""
    if not _is_path(wanted) or not ("/" in value or "\\" in value):
        return
    slash = "/" if "/" in wanted else "\\"
    for text in dict.fromkeys((value, unquote(value))):
        before, colon, rest = text.replace("\\", "/").rpartition("://")
        start = "" if before == "file" else before + colon
        path = _UP.sub("/", normpath(rest)).replace("//", "/")
        for each in (path, path + "/"):
            yield (start + each).replace("/", slash)


def glob_holds(pattern: str, text: str) -> bool:
    """Whether `text` is as the pattern says, in which `*` is any run of characters."""
    head, star, rest = pattern.partition("*")
    if not star:
        return text == pattern
    *middle, tail = rest.split("*")
    if len(text) < len(head) + len(tail) or not text.startswith(head) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def fold(text: str) -> str:
    """Letter case, compatibility forms of letters and blanks around it away."""
    if text.isascii():
        return text.strip().lower()
    return normalize("NFKC", text.casefold()).casefold().strip()


def fold_name(name: str) -> str:
    """A member's name likewise, and `dryRun` is `dry_run`: readers of protobuf's JSON and of
    pydantic's aliases take both, and some take `dry-run`."""
    folded = fold(name)
    return folded.replace("_", "").replace("-", "") or folded
