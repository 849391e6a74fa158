"""Calls that fall under a match: tried ones, to be confirmed by the rulebook before they are shown.

Deterministic: the same match always gives the same calls, so that findings can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import islice, product
from typing import Any, cast
from urllib.parse import quote_plus
from zoneinfo import ZoneInfo

from rules.conditions import Window, checks_of
from rules.limits import Limit
from rules.lint.contradictions import passes
from rules.lint.possible import asks_form, asks_json
from rules.model import Check, HostPattern, Match, Scalar, SourceTest, TimeTest, ValueTest
from rules.paths import parse_template
from rules.places import parse_place
from rules.reading.call import Reading
from rules.reading.forms import FORM
from rules.reading.json import pointer_steps
from rules.request import DEFAULT_PORTS, Headers, Request
from rules.values import NUMERIC

MOST = 120
"""Calls of one match that are tried."""
MAX_SIZE = 4_096
"""Bytes or characters: what is longer makes no example."""
FILLERS = ("x", "1", "example")
_MONDAY = datetime(2026, 6, 1)
_VALUES = 3
_ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SOCKET = (
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
)


@dataclass(frozen=True, slots=True)
class Body:
    """A body with what it says it is."""

    kind: str
    content: bytes


def calls(match: Match, body: Body | None = None) -> Iterator[Request]:
    """Calls that should fall under the match, the plainest first; `body` instead of its own."""
    if _pairs(match.query, 0) is None or _pairs(match.headers, 0) is None:
        return
    choices = product(
        range(_VALUES), _paths(match), _hosts(match.hosts), FILLERS, _methods(match, body)
    )
    kept: dict[tuple[int, str], _Rest | None] = {}
    known: dict[_Rest, int] = {}
    seen: set[tuple[int, str, HostPattern, str]] = set()
    for index, path, host, filler, method in islice(choices, MOST):
        if (index, method) not in kept:
            made = _rest(match, method, index, body)
            kept[index, method] = made
            if made is not None:
                known.setdefault(made, len(known))
        rest = kept[index, method]
        if rest is None:
            continue
        key = known[rest], method, host, _target(path, filler)
        if key not in seen:
            seen.add(key)
            yield _call(match, method, host, key[3], rest)


def counted(match: Match, limits: Iterable[Limit]) -> Match:
    """The same, with the numbers there that the limits sum up: without them no allow takes a
    call."""
    fields = {"json": "json", "form": "form", "query": "query", "header": "headers"}
    for limit in limits:
        if limit.place is not None:
            place = parse_place(limit.place)
            tests: tuple[ValueTest, ...] = getattr(match, fields[place.kind])
            if all(test.name != place.name for test in tests):
                one = ValueTest(place.name, checks=(Check("gte", Decimal(1)),))
                changes: dict[str, Any] = {fields[place.kind]: (*tests, one)}
                match = replace(match, **changes)
    return match


def _methods(match: Match, body: Body | None) -> list[str]:
    if match.upgrade:
        return ["GET"]
    has_body = body is not None or asks_json(match) or asks_form(match)
    has_body = has_body or match.graphql is not None or match.grpc is not None
    methods = sorted(match.methods, key=_rank) or list(_ORDER)
    if has_body:
        methods.sort(key=lambda method: method != "POST" and _rank(method) < 1)
    return methods


def _rank(method: str) -> int:
    return _ORDER.index(method) if method in _ORDER else len(_ORDER)


def _hosts(hosts: Sequence[HostPattern]) -> list[HostPattern]:
    return [
        HostPattern(f"www.{host.host}", False, host.port) if host.wildcard else host
        for host in hosts
    ] or [HostPattern("www.example.com", False, None)]


def _paths(match: Match) -> list[str]:
    if match.grpc is not None and not match.paths:
        service = _like(match.grpc.services[0]) if match.grpc.services else "acme.Service"
        method = _like(match.grpc.methods[0]) if match.grpc.methods else "Call"
        return [f"/{service}/{method}"]
    return list(match.paths) or ["/**"]


def _like(glob: str) -> str:
    return glob.replace("*", "x")


def _target(path: str, filler: str) -> str:
    template = parse_template(path)
    parts = template.filled(filler)
    if template.rest and filler != FILLERS[0]:
        parts.append(filler)
    return "/" + "/".join(parts)


@dataclass(frozen=True, slots=True)
class _Rest:
    """What a call has besides method, host and path."""

    query: str | None
    headers: Headers
    content: bytes


def _rest(match: Match, method: str, index: int, body: Body | None) -> _Rest | None:
    query = _pairs(match.query, index)
    headers = _pairs(match.headers, index)
    body = body or _body(match, method, index)
    if query is None or headers is None or body is None:
        return None
    if match.upgrade and body.content:
        return None  # which no WebSocket is opened with
    if match.graphql is not None and method == "GET":
        query, body = [*query, ("query", _graphql(match))], Body("", b"")
    if body.kind and not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", body.kind))
    return _Rest(
        _encoded(query) if query else None,
        (*_distinct(headers), *(_SOCKET if match.upgrade else ())),
        body.content,
    )


def _call(match: Match, method: str, host: HostPattern, path: str, rest: _Rest) -> Request:
    source = match.source
    return Request(
        method=method,
        scheme=match.scheme,
        host=host.host,
        port=host.port or DEFAULT_PORTS[match.scheme],
        path=path,
        query=rest.query,
        headers=rest.headers,
        body=rest.content,
        upgrade="websocket" if match.upgrade else None,
        via="gateway" if source is not None and source.via == "gateway" else "proxy",
        run=_run(source),
        moment=None if match.time is None else moment_in(match.time),
    )


def _run(source: SourceTest | None) -> str | None:
    if source is None:
        return None
    return source.runs[0] if source.runs else "some" if source.run else None


def _distinct(pairs: Sequence[tuple[str, str]]) -> Headers:
    return tuple({name: (name, value) for name, value in pairs}.values())


def _encoded(pairs: Sequence[tuple[str, str]]) -> str:
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)


def _pairs(tests: Sequence[ValueTest], index: int) -> list[tuple[str, str]] | None:
    """A field for each test; None if one cannot be filled in."""
    found: dict[str, str] = {}
    for name, checks in _by_name(tests):
        if checks is None:
            continue
        values = values_for(checks, typed=False)
        if not values:
            return None
        found[name] = cast(str, values[min(index, len(values) - 1)])
    return list(found.items())


def _by_name(tests: Sequence[ValueTest]) -> list[tuple[str, list[Check] | None]]:
    """All that is asked of each name together; None for what must be absent."""
    found: dict[str, list[Check] | None] = {}
    for test in tests:
        known = found.get(test.name, [])
        absent = test.exists is False or known is None
        found[test.name] = None if absent else [*(known or ()), *checks_of(test)]
    return list(found.items())


def _body(match: Match, method: str, index: int) -> Body | None:
    types = match.body.types if match.body is not None else ()
    if match.grpc is not None:
        return Body("application/grpc", b"\0\0\0\0\0")
    if asks_form(match):
        pairs = _pairs(match.form, index)
        return None if pairs is None else _sized(match, Body(FORM, _encoded(pairs).encode()))
    if asks_json(match) or (match.graphql is not None and method != "GET"):
        document = _document(match, index)
        if document is None:
            return None
        kind = next((t for t in types if t.endswith("+json")), "application/json")
        return _sized(match, Body(kind, dump(document).encode()))
    if types:
        return _sized(match, Body(types[0].replace("*", "plain"), b""))
    return _sized(match, Body("", b""))


def _sized(match: Match, body: Body) -> Body | None:
    """The same body with as many bytes as the match wants."""
    checks = match.body.size if match.body is not None else ()
    sizes = [len(body.content), *(int(n) for n in _near(checks) if 0 <= n <= MAX_SIZE)]
    for size in sizes:
        if size >= len(body.content) and passes(checks, Decimal(size), typed=True):
            filler = b" " if body.kind.endswith("json") else b"x"
            kind = body.kind or ("text/plain" if size else "")
            return Body(kind, body.content + filler * (size - len(body.content)))
    return None


def _document(match: Match, index: int) -> Any | None:
    document: Any = {}
    if match.graphql is not None:
        document = {"query": _graphql(match)}
    rpc, mcp = match.jsonrpc, match.mcp
    if rpc is not None or mcp is not None:
        document = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
    if rpc is not None:
        document["method"] = _like(rpc.methods[0]) if rpc.methods else "ping"
        params = filled({}, rpc.params, index)
        if params is None:
            return None
        document["params"] = params
    if mcp is not None and (mcp.tools or mcp.arguments):
        arguments = filled({}, mcp.arguments, index)
        if arguments is None:
            return None
        tool = _like(mcp.tools[0]) if mcp.tools else "tool"
        document["method"] = "tools/call"
        document["params"] = {"name": tool, "arguments": arguments}
    elif mcp is not None and mcp.methods:
        document["method"] = _like(mcp.methods[0])
        if document["method"] == "tools/call":
            document["params"] = {"name": "tool", "arguments": {}}
    return filled(document, match.json, index)


def _graphql(match: Match) -> str:
    test = match.graphql
    kind = min(test.kinds) if test is not None and test.kinds else "query"
    field = _like(test.fields[0]) if test is not None and test.fields else "x"
    return f"{kind} {{ {field} }}"


def filled(document: Any, tests: Sequence[ValueTest], index: int) -> Any | None:
    """The document with a value at each test's pointer; None if that cannot be."""
    for name, checks in _by_name(tests):
        if checks is None:
            continue
        values = values_for(checks, typed=True)
        if not values:
            return None
        document = _put(document, pointer_steps(name), values[min(index, len(values) - 1)])
    return document


def _put(place: Any, steps: Sequence[str], value: Scalar) -> Any:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if step == "*" or (step.isdigit() and not (isinstance(place, dict) and place)):
        items = place if isinstance(place, list) else []
        at = 0 if step == "*" else min(int(step), 50)
        items += [{} for _ in range(at + 1 - len(items))]
        items[at] = _put(items[at], rest, value)
        return items
    members = place if isinstance(place, dict) else {}
    members[step] = _put(members.get(step, {}), rest, value)
    return members


def dump(document: Any) -> str:
    """JSON text; decimals are numbers."""
    return json.dumps(document, default=_number)


def _number(value: object) -> object:
    assert isinstance(value, Decimal)
    return int(value) if value == int(value) else float(value)


def values_for(checks: Sequence[Check], *, typed: bool) -> list[Scalar]:
    """A few values that pass all checks, read narrowly."""
    found: list[Scalar] = []
    for candidate in _candidates(checks, typed=typed):
        if candidate not in found and passes(checks, candidate, typed=typed):
            found.append(candidate)
            if len(found) == _VALUES:
                break
    return found


def _candidates(checks: Sequence[Check], *, typed: bool) -> Iterator[Scalar]:
    numbers = list(_near([c for c in checks if c.op in NUMERIC]))
    for check in checks:
        if check.op == "eq":
            yield cast(Scalar, check.value)
        elif check.op == "in":
            yield from cast(tuple[Scalar, ...], check.value)
    yield from (number if typed else format(number, "f") for number in numbers)
    before = next((str(c.value) for c in checks if c.op == "prefix"), "")
    after = next((str(c.value) for c in checks if c.op == "suffix"), "")
    globs = [str(c.value) for c in checks if c.op == "glob"]
    texts = [_like(glob) for glob in globs] + [glob.replace("*", "") for glob in globs]
    texts += [before + middle + after for middle in ("", *FILLERS)]
    for check in checks:
        if check.op == "length":
            for size in _near(cast(tuple[Check, ...], check.value)):
                if 0 <= size <= MAX_SIZE and size == int(size):
                    texts.append(before + "x" * (int(size) - len(before + after)) + after)
    yield from (text for text in texts if text)
    if typed:
        yield from (Decimal(1), Decimal(0), True, False, None)
    yield from ("0", "other", "")


def _near(checks: Sequence[Check]) -> Iterator[Decimal]:
    """Numbers at, beside and between the bounds."""
    bounds = [check.value for check in checks if isinstance(check.value, Decimal)]
    for bound in bounds:
        yield from (bound, bound + 1, bound - 1)
    if len(bounds) > 1:
        yield (min(bounds) + max(bounds)) / 2
    for bound in bounds:
        yield from (bound + Decimal("0.5"), bound - Decimal("0.5"), bound * 2)


@lru_cache(1024)
def moment_in(test: TimeTest) -> datetime | None:
    """The first minute of a week in June that lies in the window."""
    window = Window.of(test)
    start = _MONDAY.replace(tzinfo=ZoneInfo(test.zone))
    for day in range(7):
        for minute in (test.begin, 0, max(test.end - 1, 0)):
            moment = start + timedelta(days=day, minutes=minute)
            request = Request("GET", "https", "x", 443, "/", None, (), b"", moment=moment)
            if window.holds(Reading(request), wide=False):
                return moment
    return None
