"""Words: what a match wants to stand in a call, so that few matches are compared with a call, or
with each other.

A word is a kind of place (`json`, `field`, `header`), a name there, and a value, None for any; or
`json begins` and so on, a name, and how the value begins, as it does for root fields, tools and
methods (`root begins`, `tool begins`, `rpc begins`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import cast

from rules.bodies import PROTOTYPE, Field, Member, Operations, RpcCalls, ToolCalls
from rules.conditions import Header, Parameter, checks_of, elements_of
from rules.errors import Unreadable
from rules.matching import Matcher
from rules.model import Check, Match, Scalar, ValueTest
from rules.reading.call import Reading
from rules.reading.forms import plain_name
from rules.reading.json import Json, Number, pointer_steps
from rules.values import fold, fold_name, leads_elsewhere, lenient_decimal, lenient_decimals

type Word = tuple[str, str, str | Decimal | None]

_LONGEST = 40
"""Characters of a beginning; what begins alike for longer is looked at together."""


# -- of a match


def words_of(matcher: Matcher) -> list[list[Word]]:
    """Words of which, list by list, one stands in every call under the match that can be read."""
    found: list[list[Word]] = []
    for condition in matcher.conditions:
        match condition:
            case Member(test) if _must_be_there(test):
                steps = pointer_steps(test.name)
                if steps and steps[0] != "*" and not steps[0].isdigit():
                    name = fold_name(steps[0])
                    found.append(_of_test("json", name, test if len(steps) == 1 else None))
            case Field(test) | Parameter(test) if _must_be_there(test) and "." not in test.name:
                found.append(_of_test("field", plain_name(test.name), test))
            case Header(test) if _must_be_there(test):
                found.append(_of_test("header", test.name, test))
            case Operations(operations) if operations.fields:
                found.append(_heads("root", operations.fields))
            case ToolCalls(tools) if tools.tools:
                found.append(_heads("tool", tools.tools))
            case RpcCalls(calls) if calls.methods:
                found.append(_heads("rpc", calls.methods))
    return found


def listed(match: Match) -> list[Word]:
    """The words of the first list (of values, beginnings, root fields or tools) to which the match
    keeps, so that a narrower one keeps to some of them; none if there is no list."""
    for kind, test in tests_of(match):
        for check in checks_of(test):
            words = _of_check(kind, test.name, check)
            if words:
                return words
    if match.graphql is not None and match.graphql.fields:
        return _heads("root", match.graphql.fields)
    if match.mcp is not None and match.mcp.tools:
        return _heads("tool", match.mcp.tools)
    return []


def under(match: Match) -> list[Word]:
    """Of each list to which the match keeps the words for one of its items: what is listed in a
    wider match, if anything, is among them."""
    found: list[Word] = []
    for kind, test in tests_of(match):
        for check in checks_of(test):
            if check.op in ("eq", "in"):
                value = _values(check)[0]
                found.append((kind, test.name, _alike(value)))
                if not isinstance(value, bool | None):
                    found += _beginnings(kind, test.name, str(value))
            elif check.op in ("prefix", "glob"):
                found += _beginnings(kind, test.name, str(check.value))
    if match.graphql is not None and match.graphql.fields:
        found += _beginnings("root", "", match.graphql.fields[0])
    if match.mcp is not None and match.mcp.tools:
        found += _beginnings("tool", "", match.mcp.tools[0])
    return list(dict.fromkeys(found))


def tests_of(match: Match) -> Iterator[tuple[str, ValueTest]]:
    """The tests of values, each with its kind of place."""
    for kind, tests in (
        ("query", match.query),
        ("headers", match.headers),
        ("json", match.json),
        ("form", match.form),
    ):
        for test in tests:
            yield kind, test


def _of_test(kind: str, name: str, test: ValueTest | None) -> list[Word]:
    """The name with each value, or beginning, that it may have if these are listed; else alone."""
    for check in checks_of(test) if test is not None else ():
        words = _of_check(kind, name, check)
        if words:
            return words
    return [(kind, name, None)]


def _of_check(kind: str, name: str, check: Check) -> list[Word]:
    """None if it lists nothing."""
    if check.op in ("eq", "in"):
        return list(dict.fromkeys((kind, name, _alike(value)) for value in _values(check)))
    if check.op in ("prefix", "glob"):
        text = str(check.value)
        return [(f"{kind} begins", name, _head(text) if check.op == "glob" else _start(text))]
    return []


def _heads(kind: str, globs: Sequence[str]) -> list[Word]:
    return list(dict.fromkeys((f"{kind} begins", "", _head(glob)) for glob in globs))


def _head(glob: str) -> str:
    """How what is like the glob begins."""
    return _start(fold(glob).partition("*")[0])


def _start(text: str) -> str:
    return fold(text)[:_LONGEST]


def _beginnings(kind: str, name: str, text: str) -> list[Word]:
    """All words for how the text begins."""
    whole = fold(text)
    ends = range(min(len(whole), _LONGEST) + 1)
    return [(f"{kind} begins", name, whole[:end]) for end in ends]


def _values(check: Check) -> tuple[Scalar, ...]:
    return cast(tuple[Scalar, ...], check.value if check.op == "in" else (check.value,))


def _alike(value: Scalar) -> str | Decimal:
    """The same for any two values of which a lenient reader takes one for the other."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            number = lenient_decimal(value)
            return fold(value) if number is None else number
        case _:
            return value


def _must_be_there(test: ValueTest) -> bool:
    """In either reading: widely what is absent is none of those that `not_in` lists."""
    if test.exists is None:
        return any(check.op != "not_in" for check in checks_of(test))
    return test.exists


# -- of a call


def words_in(call: Reading, kinds: Collection[str]) -> tuple[list[Word | None], bool]:
    """The words of these kinds in a call, with None for rules that want none, and whether it has
    parts that cannot be read: then it may fall under rules with other words too."""
    if call.request.upgrade is not None:
        return [None], True  # a socket may carry anything
    try:
        document = call.document(wide=True)
        query, clear = call.query
        fields = [*query, *call.form_pairs(wide=True), *call.members(wide=True)]
        doubtful = not clear or bool(call.form_files) or _has_more(document, fields)
        doubtful = doubtful or (call.has_no_body and bool(query) and "rpc begins" in kinds)
        named = list(_named(call, kinds))
    except Unreadable:
        return [None], True
    found: dict[Word | None, None] = {None: None}
    for kind, name, value in (
        *_members(document),
        *(("field", plain_name(name), text) for name, text in fields),
        *(("json", fold_name(plain_name(name)), text) for name, text in query),
        *_headers(call),
        *((kind, "", text) for kind, text in named),
    ):
        found[kind, name, None] = None
        if isinstance(value, list | dict):
            continue
        found[kind, name, _alike(value)] = None
        if f"{kind} begins" in kinds and not isinstance(value, bool | None):
            found.update(dict.fromkeys(_beginnings(kind, name, str(value))))
    return list(found), doubtful


type _Item = tuple[str, str, Scalar | list[Json] | dict[str, Json]]


def _members(document: Json | None) -> Iterator[_Item]:
    if isinstance(document, dict):
        for name, value in document.items():
            yield "json", fold_name(name), value.value if isinstance(value, Number) else value


def _has_more(document: Json | None, fields: Iterable[tuple[str, str]]) -> bool:
    """Whether rules that restrict find more there than its members: lists where one is wanted,
    numbers with something behind them, paths that lead elsewhere, what JavaScript inherits, and
    names with dots."""
    if isinstance(document, list) or (isinstance(document, dict) and PROTOTYPE in document):
        return True
    fields = list(fields)
    if any("." in name for name, _ in fields):
        return True
    values = document.values() if isinstance(document, dict) else ()
    return any(isinstance(value, list) for value in values) or any(
        leads_elsewhere(text)
        or len(set(lenient_decimals(text))) > (lenient_decimal(text) is not None)
        for text in (*values, *(text for _, text in fields))
        if isinstance(text, str)
    )


def _headers(call: Reading) -> Iterator[_Item]:
    for name in dict(call.request.headers):
        for value in elements_of(call.request.values(name)):
            yield "header", name, value


def _named(call: Reading, kinds: Collection[str]) -> Iterator[tuple[str, str]]:
    """The root fields, tools and methods that it runs, by either reading. Raises Unreadable."""
    for wide in (False, True):
        if "root begins" in kinds and not (call.has_no_body and not call.request.query):
            yield from (("root", name) for op in call.graphql(wide=wide) for name in op.fields)
        if call.has_no_body:
            continue
        if "tool begins" in kinds:
            yield from (("tool", rpc.tool) for rpc in call.mcp(wide=wide) if rpc.tool is not None)
        if "rpc begins" in kinds:
            yield from (("rpc", rpc.method) for rpc in call.jsonrpc(wide=wide))
