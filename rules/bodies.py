"""What a match asks of a request's body, one condition at a time, each with its two readings.

Narrowly a body is what its Content-Type says, read whole and in one way. Widely it is also what it
looks like, since there are servers that look at nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rules.conditions import (
    all_hold,
    any_glob,
    any_holds,
    checks_of,
    pairs_hold,
)
from rules.errors import Unreadable
from rules.model import BodyTest, GraphQLTest, McpTest, RpcTest, ValueTest
from rules.reading.call import Reading
from rules.reading.forms import Pairs, may_be
from rules.reading.graphql import GraphQL
from rules.reading.json import Json, pointer_steps, step_into
from rules.reading.jsonrpc import Rpc
from rules.reading.multipart import Part
from rules.values import fold, fold_name, holds, size_holds, value_of


class OfBody:
    """The head alone cannot tell."""

    needs_body: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Body(OfBody):
    """Its type and size."""

    test: BodyTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        size = Decimal(call.body_size)
        if not all(holds(check, size, wide=wide) for check in self.test.size):
            return False
        return not self.test.types or any_glob(self.test.types, call.media_type, wide)


@dataclass(frozen=True, slots=True)
class Field(OfBody):
    """A field of a form, or a file in it."""

    test: ValueTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        pairs = call.form_pairs(wide=wide is not (self.test.exists is False))
        query, clear = call.query
        if not clear:
            raise Unreadable("its query is read in two ways")
        files = [part for part in call.form_files if may_be(part.name, self.test.name)]
        if files:
            return _file_holds(self.test, files, (*pairs, *query))
        if self.test.exists is False and not wide:
            query = (*query, *call.members(wide=True))
        return pairs_hold(self.test, pairs, query, wide=wide)


def _file_holds(test: ValueTest, files: Sequence[Part], others: Pairs) -> bool:
    """Whether the one file among `files` is as the test wants it: there, and of that many bytes.

    Raises Unreadable if what is asked is something else (some servers have files and fields apart,
    some together), or if it is not the only thing that some server takes for it.
    """
    file, *more = files
    beside = any(may_be(name, test.name) for name, _ in others)
    if more or beside or file.kind is None or file.name != test.name or test.exists is False:
        raise Unreadable(f"{test.name} is sent as a file, or may be")
    checks = checks_of(test)
    size = Decimal(len(file.value))
    for check in checks:
        if check.op == "length" and not size_holds(check, size):
            return False
    if any(check.op != "length" for check in checks):
        raise Unreadable(f"{test.name} is sent as a file")
    return True


@dataclass(frozen=True, slots=True)
class Member(OfBody):
    """A value in a JSON body, by its pointer; a `*` in it is every item of a list."""

    test: ValueTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        # That a value is absent is certain only if it is absent from whatever looks like JSON.
        looks = wide is not (self.test.exists is False)
        held = member_holds(self.test, call.document(wide=looks), wide=wide)
        if held is wide:
            return held
        beside = _beside(self.test, call, wide=wide)
        if not wide and beside:
            raise Unreadable(f"{self.test.name} stands in the query or in a form as well")
        if not wide or self.test.exists is False:
            return held
        return bool(beside) and (
            self.test.exists is True or any_holds(checks_of(self.test), beside)
        )


def _beside(test: ValueTest, call: Reading, *, wide: bool) -> list[str]:
    """What servers that merge the query with a JSON body take for the member. Where it must be
    absent, what they take for it of a form, too."""
    first, *inner = pointer_steps(test.name)
    if first in ("", "*"):
        return []
    name = first + "".join(f"[{'' if step == '*' else step}]" for step in inner)
    fields = [*call.query[0]]
    if test.exists is False and not wide:
        fields += call.form_pairs(wide=True)
        fields += [(part.name, "") for part in call.form_files]
    return [value for given, value in fields if may_be(given, name)]


def member_holds(test: ValueTest, document: Json, *, wide: bool) -> bool:
    """Whether the values at the test's pointer are as it wants them."""
    checks = checks_of(test)
    steps = pointer_steps(test.name)
    found = list(_walk(document, steps, wide=wide))
    if test.exists is False:
        # Widely, what is there in another spelling may be another member.
        return not list(_walk(document, steps, wide=not wide))
    if test.exists is True and not found:
        return False
    if not checks:
        return True
    values = [value_of(value) for value in found]
    if wide:
        return any_holds(checks, values)
    every = all_hold(checks, values, holds)
    return every and _is_whole(document, steps)


def values_at(document: Json, pointer: str, *, wide: bool) -> list[Json]:
    """The values at a pointer, in which a `*` is every item of a list."""
    return list(_walk(document, pointer_steps(pointer), wide=wide))


def _walk(value: Json, steps: Sequence[str], *, wide: bool) -> Iterator[Json]:
    """The values at the end of the steps. Widely names may differ in letter case and `_`, and it
    does not matter whether there is one or a list: many servers take both. To PHP and Rails an
    object is a list too."""
    places = [value]
    for step in steps:
        places = [inner for place in places for inner in _inside(place, step, wide)]
    yield from places


PROTOTYPE = "__proto__"
"""What is in it is in the object around it once JavaScript has copied that."""


def _inside(value: Json, step: str, wide: bool) -> Iterator[Json]:
    if isinstance(value, list) and step == "*":
        yield from value
    elif not wide:
        yield from step_into(value, step)
    elif step == "*":
        yield value
        if isinstance(value, dict):
            yield from value.values()
    elif isinstance(value, dict):
        key = fold_name(step)
        yield from (inner for name, inner in value.items() if fold_name(name) == key)
        if PROTOTYPE in value:
            yield from _inside(value[PROTOTYPE], step, wide)
    elif isinstance(value, list) and not step.isdecimal():
        for each in value:
            if isinstance(each, dict):
                yield from _inside(each, step, wide)
    else:
        yield from step_into(value, step)


def _is_whole(document: Json, steps: Sequence[str]) -> bool:
    """Whether the pointer leads on from every item of the lists that a `*` goes through, and each
    name on the way has one spelling only: else something was not looked at."""
    places = [document]
    for step in steps:
        following = []
        for place in places:
            inner = list(_inside(place, step, wide=True))
            if not inner or len(inner) != len(list(_inside(place, step, wide=False))):
                return False
            following += inner
        places = following
    return True


@dataclass(frozen=True, slots=True)
class Operations(OfBody):
    """The operations of a GraphQL request."""

    test: GraphQLTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        _refuse_socket(call)
        if call.has_no_body and not call.request.query:
            return False
        return _any_or_all(call.graphql(wide=wide), self._fits, wide=wide)

    def _fits(self, operation: GraphQL, wide: bool) -> bool:
        test = self.test
        if test.kinds and operation.kind not in test.kinds:
            return False
        fields = [any_glob(test.fields, name, wide) for name in operation.fields]
        return any(fields) if wide else bool(fields) and all(fields)


@dataclass(frozen=True, slots=True)
class RpcCalls(OfBody):
    """The calls of a JSON-RPC message."""

    test: RpcTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        _refuse_socket(call)
        if call.has_no_body:
            names = {fold(name) for name, _ in call.query[0]}
            if not names.isdisjoint(_RPC_IN_QUERY):
                raise Unreadable("a call of JSON-RPC may stand in the query")
            return False
        return _any_or_all(call.jsonrpc(wide=wide), self._fits, wide=wide)

    def _fits(self, rpc: Rpc, wide: bool) -> bool:
        test = self.test
        return any_glob(test.methods, rpc.method, wide) and all(
            member_holds(param, rpc.params, wide=wide) for param in test.params
        )


@dataclass(frozen=True, slots=True)
class ToolCalls(OfBody):
    """The calls of an MCP message."""

    test: McpTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        _refuse_socket(call)
        if call.has_no_body:
            return False
        return _any_or_all(call.mcp(wide=wide), self._fits, wide=wide)

    def _fits(self, rpc: Rpc, wide: bool) -> bool:
        test, tool = self.test, rpc.tool
        if not any_glob(test.methods, rpc.method, wide):
            return False
        if not test.tools and not test.arguments:
            return True
        if tool is None:
            return False
        return any_glob(test.tools, tool, wide) and all(
            member_holds(argument, rpc.arguments, wide=wide) for argument in test.arguments
        )


_RPC_IN_QUERY = frozenset({"method", "jsonrpc", "request"})
"""Parameters in which servers take a call by GET: aria2 the first, Kodi the last."""


def _refuse_socket(call: Reading) -> None:
    """Raises Unreadable for the opening of a WebSocket: servers of GraphQL and JSON-RPC take the
    same over it, and frames are not read."""
    if call.request.upgrade is not None:
        raise Unreadable("what is said over a WebSocket is not read")


def _any_or_all[T](parts: Sequence[T], fits: Callable[[T, bool], bool], *, wide: bool) -> bool:
    """Whether every part fits; widely, whether any does."""
    found = [fits(part, wide) for part in parts]
    return any(found) if wide else bool(found) and all(found)
