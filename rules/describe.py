"""What a match asks for, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rules.conditions import DAYS
from rules.model import Check, HostPattern, Match, Scalar, TimeTest, ValueTest
from rules.visible import visible


def describe_match(match: Match) -> str:
    """A match in words: `GET or HEAD https://api.example.com/v1/**`."""
    methods = any_of(sorted(match.methods)) if match.methods else "any method"
    hosts = [f"{match.scheme}://{describe_host(host)}" for host in match.hosts]
    if hosts and len(match.paths) < 2:
        path = match.paths[0] if match.paths else "/**"
        where = any_of([host + path for host in hosts])
    else:
        where = any_of(hosts or [f"any {match.scheme} host"])
        where += f" with the path {any_of(match.paths)}" if match.paths else ""
    joint = " " if match.methods and match.hosts else " to "
    tests = list(describe_tests(match))
    if match.scheme == "https" and not (match.methods or match.hosts):
        paths = [f"the path {any_of(match.paths)}"] if match.paths else []
        if paths or tests:
            return f"any call with {all_of(paths + tests)}"
    return methods + joint + where + (f" with {all_of(tests)}" if tests else "")


def describe_host(pattern: HostPattern) -> str:
    """A host pattern as the policy writes it."""
    host = f"[{pattern.host}]" if ":" in pattern.host else pattern.host
    port = "" if pattern.port is None else f":{pattern.port}"
    return f"{'*.' if pattern.wildcard else ''}{host}{port}"


def describe_tests(match: Match) -> Iterator[str]:
    """What is asked for besides method and place."""
    for kind, tests in (
        ("query", match.query),
        ("header", match.headers),
        ("form", match.form),
        ("JSON", match.json),
    ):
        yield from (f"{kind} {describe_test(test)}" for test in tests)
    if match.body is not None:
        if match.body.types:
            yield f"a body of type {any_of(match.body.types)}"
        if match.body.size:
            yield f"a body of {describe_checks(match.body.size)} bytes"
    if match.graphql is not None:
        kind = any_of(sorted(match.graphql.kinds)) or "operation"
        fields = f" of {any_of(match.graphql.fields)}" if match.graphql.fields else ""
        yield f"a GraphQL {kind}{fields}"
    if match.jsonrpc is not None:
        yield f"a JSON-RPC call{_named(match.jsonrpc.methods)}{_having(match.jsonrpc.params)}"
    if match.mcp is not None:
        if match.mcp.tools or match.mcp.arguments:
            yield f"a call of the tool{_named(match.mcp.tools)}{_having(match.mcp.arguments)}"
        else:
            yield f"an MCP message{_named(match.mcp.methods)}"
    if match.grpc is not None:
        method = f"/{any_of(match.grpc.methods)}" if match.grpc.methods else ""
        yield f"the gRPC method {any_of(match.grpc.services) or '*'}{method}"
    if match.upgrade is not None:
        yield "an upgrade to WebSocket" if match.upgrade else "no upgrade"
    if match.time is not None:
        yield f"a time {_describe_time(match.time)}"
    if match.source is not None:
        source = match.source
        if source.via is not None:
            yield f"arrival by the {source.via}"
        if source.run is not None:
            yield f"{'a' if source.run else 'no'} run of `keybroker run`"
        if source.runs:
            yield f"the run {any_of(source.runs)}"
        if source.tags:
            yield f"an agent tagged {any_of(source.tags)}"
    if match.when is not None:
        yield f"`{visible(match.when, 200)}`"


def describe_test(test: ValueTest) -> str:
    """One test: `limit <= 100`."""
    name = visible(test.name)
    if test.equals is not None:
        return f"{name} = {visible(test.equals)}"
    if test.checks:
        return f"{name} {describe_checks(test.checks)}"
    return f"{name} present" if test.exists else f"{name} absent"


def describe_clause(test: ValueTest) -> str:
    """The same as a clause: `limit <= 100`, `env is one of a, b`."""
    name = visible(test.name)
    if test.equals is not None:
        return f"{name} = {visible(test.equals)}"
    if test.checks:
        clauses = [_check(check) for check in test.checks]
        return f"{name} {all_of([c if c[0] in '<=>' else f'is {c}' for c in clauses])}"
    return f"{name} is there" if test.exists else f"{name} is not there"


_SIGNS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_VERBS = {"prefix": "beginning with", "suffix": "ending with", "glob": "like"}


def describe_checks(checks: Sequence[Check]) -> str:
    """What a value must be: `> 5 and < 10`."""
    return all_of([_check(check) for check in checks])


def _check(check: Check) -> str:
    value = check.value
    match check.op:
        case "in" | "not_in":
            assert isinstance(value, tuple)
            word = "one of" if check.op == "in" else "none of"
            return f"{word} {', '.join(_scalar(item) for item in value)}"
        case "length":
            assert isinstance(value, tuple)
            return f"of length {describe_checks([c for c in value if isinstance(c, Check)])}"
        case _ if check.op in _SIGNS:
            return f"{_SIGNS[check.op]} {_scalar(value)}"
        case _:
            return f"{_VERBS[check.op]} {_scalar(value)}"


def _scalar(value: Scalar | tuple[Scalar, ...] | tuple[Check, ...] | Check) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return visible(str(value))


def _named(globs: Sequence[str]) -> str:
    return f" {any_of([visible(glob) for glob in globs])}" if globs else ""


def _having(tests: Sequence[ValueTest]) -> str:
    return f" with {all_of([describe_test(test) for test in tests])}" if tests else ""


def _describe_time(test: TimeTest) -> str:
    days = "" if len(test.days) == 7 else f"on {any_of([DAYS[day] for day in sorted(test.days)])} "
    return f"{days}from {_clock(test.begin)} to {_clock(test.end)} ({test.zone})"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def any_of(parts: Sequence[str]) -> str:
    """`a, b or c`."""
    return _list(parts, "or")


def all_of(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return _list(parts, "and")


def _list(parts: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""
