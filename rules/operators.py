"""What the policy language asks of single values: `query:`, `headers:`, `json:` and `form:`, with
their operators, and sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import cast

from rules.model import Check, Op, Scalar, ValueTest
from rules.places import parse_place
from rules.source import Section
from rules.spellings import parse_header
from rules.values import NUMERIC
from rules.yamlfile import parse_size

TEXTS = ("prefix", "suffix", "glob")
OPERATORS = ("in", "not_in", *NUMERIC, *TEXTS, "exists", "length")
_MEANT = {
    **dict.fromkeys(("eq", "==", "=", "is", "equals"), "a bare value is equality"),
    **dict.fromkeys(("ne", "neq", "!=", "<>", "not"), "write not_in: [..]"),
    **{">": "write gt", ">=": "write gte", "<": "write lt", "<=": "write lte"},
    **dict.fromkeys(("contains", "includes"), 'write glob: "*..*"'),
    **dict.fromkeys(
        ("regex", "regexp", "matches", "match", "~", "=~"),
        'write a glob, in which `*` is any run of characters, or matches("..") in `when:`',
    ),
}
"""Operators of other languages, and what stands for them here."""
_REGEX = re.compile(r"^\^|\$$|\\[dwsbDWSB.]|\[[^]]+\][*+?]|\(\?|\.\*\$")


def read_texts(at: Section, value: object) -> tuple[ValueTest, ...]:
    """Tests on values that are text: of a query, of a form."""
    return _read_tests(at, value, lambda here, name: here.text(name), typed=False)


def read_headers(at: Section, value: object) -> tuple[ValueTest, ...]:
    """Tests on headers."""
    return _read_tests(at, value, lambda here, name: here.parsed(name, parse_header), typed=False)


def read_json(at: Section, value: object) -> tuple[ValueTest, ...]:
    """Tests on JSON values, by pointer."""

    def pointer(here: Section, name: str) -> str | None:
        return here.parsed(name, lambda text: parse_place(f"json:{text}").name)

    return _read_tests(at, value, pointer, typed=True)


def _read_tests(
    at: Section,
    value: object,
    read_name: Callable[[Section, str], str | None],
    *,
    typed: bool,
) -> tuple[ValueTest, ...]:
    """`name: value`, or `name: {OPERATOR: value, ...}`. Untyped values are text, whatever they look
    like."""
    tests = at.mapping(value)
    if tests is None:
        return ()
    if not tests:
        at.error(f"{at.path[-1]} is empty; leave the field out or fill it in")
    found = []
    for name, wanted in tests.items():
        here = at.at(name)
        known = read_name(here, name)
        before = here.source.faults
        test = _read_test(here, known or name, wanted, typed=typed)
        if known is not None and here.source.faults == before:
            found.append(test)
    return tuple(found)


def _read_test(at: Section, name: str, wanted: object, *, typed: bool) -> ValueTest:
    if isinstance(wanted, dict):
        exists, checks = _read_operators(at, name, wanted, typed=typed)
        return ValueTest(name, exists=exists, checks=checks)
    if isinstance(wanted, list):
        at.error(f"{name} must be one value, not a list; write {{in: [..]}}", "wrong-type")
        return ValueTest(name)
    scalar = _read_scalar(at, wanted, typed=typed)
    if typed:
        return ValueTest(name, checks=(Check("eq", scalar),))
    return ValueTest(name, equals=cast(str, scalar))


def _read_operators(
    at: Section, name: str, wanted: dict[str, object], *, typed: bool
) -> tuple[bool | None, tuple[Check, ...]]:
    fields = wanted
    for op in fields:
        if op in _MEANT:
            at.at(op).error(f'unknown operator "{op}"; {_MEANT[op]}', "unknown-field")
        elif op not in OPERATORS:
            known = f"; known: {', '.join(OPERATORS)}"
            hint = at.source.hint(op, OPERATORS) or known
            at.at(op).error(f'unknown operator "{op[:80]}"{hint}', "unknown-field")
    if not fields:
        at.error(f"{name}: write a value, or an operator such as {{exists: true}}, {{gt: 100}}")
    exists = fields.get("exists")
    if "exists" in fields and not isinstance(exists, bool):
        at.at("exists").error("exists must be true or false")
    if exists is False and len(fields) > 1:
        at.error(f"{name}: what must not exist cannot be compared with anything")
    checks = []
    for op in fields:
        here = at.at(op)
        if op in ("in", "not_in"):
            values = fields[op]
            if not isinstance(values, list) or not values:
                here.error(f"{op} must be a list of values, and not empty")
                continue
            scalars = tuple(
                _read_scalar(here.at(i), item, typed=typed) for i, item in enumerate(values)
            )
            checks.append(Check(cast(Op, op), scalars))
        elif op in NUMERIC:
            checks.append(Check(cast(Op, op), _read_number(here, fields[op])))
        elif op in TEXTS:
            text = _read_text(here, fields[op])
            if op == "glob" and "**" in text:
                here.error("`*` is any run of characters already; write one")
            elif op == "glob" and _REGEX.search(text):
                here.warn(
                    f"the glob {text[:80]!a} looks like a regular expression, and is read to the "
                    'letter but for its `*`; in `when:` there is matches("..")',
                    "glob-like-regex",
                )
            checks.append(Check(cast(Op, op), text))
        elif op == "length":
            checks.append(Check("length", read_size(here, fields[op], bytes_=False)))
    return (exists if isinstance(exists, bool) else None), tuple(checks)


def _read_scalar(at: Section, value: object, *, typed: bool) -> Scalar:
    match value:
        case bool() | None if typed:
            return value
        case int() | float() if not isinstance(value, bool):
            return Decimal(str(value)) if typed else _number_text(at, value)
        case "":
            return ""
        case _:
            return _read_text(at, value)


def _read_text(at: Section, value: object) -> str:
    """Text to the letter: a blank at its end is a part of what is asked for."""
    text = at.text(value, 1000)
    if text is None or not isinstance(value, str):
        return ""
    if value.strip(" ") != text:
        at.error("it begins or ends with a blank that cannot be seen; take it out")
    return value


def _number_text(at: Section, value: float) -> str:
    if isinstance(value, float):
        at.error(f"the number {value} can be written in several ways; put it in quotes")
    return str(value)


def _read_number(at: Section, value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        quotes = ", without quotes" if isinstance(value, str) else ""
        at.error(f"{at.path[-1]} compares with a number; write one{quotes}")
        return Decimal(0)
    return Decimal(str(value))


def read_size(at: Section, value: object, *, bytes_: bool) -> tuple[Check, ...]:
    """A number, or `{lte: 100}`; of bytes also with a unit."""
    if not isinstance(value, dict):
        return (Check("eq", _read_count(at, value, bytes_)),)
    fields = at.mapping(value, NUMERIC) or {}
    if not fields:
        at.error("write a number, or a comparison such as {lte: 100}")
    return tuple(
        Check(cast(Op, op), _read_count(at.at(op), wanted, bytes_)) for op, wanted in fields.items()
    )


def _read_count(at: Section, value: object, bytes_: bool) -> Decimal:
    if bytes_ and isinstance(value, str):
        return Decimal(at.parsed(value, parse_size) or 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        unit = ", or a size such as 64KiB" if bytes_ else ""
        at.error(f"write a whole number{unit}")
        return Decimal(0)
    return Decimal(value)


def parse_glob(text: str) -> str:
    """A pattern in which `*` is any run of characters. Raises ValueError with a sentence."""
    if "**" in text:
        raise ValueError("`*` is any run of characters already; write one")
    return text
