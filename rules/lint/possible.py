"""Whether any call falls under a match. Sound: a match that is said to be impossible is.

For a match that is read widely that leaves out calls with a part that has no one reading, since
these match whatever is asked of that part.
"""

from __future__ import annotations

from collections.abc import Iterator

from rules.lint.contradictions import contradiction, sizes_exclude
from rules.model import Match, ValueTest
from rules.reading.forms import FORM, MULTIPART
from rules.values import glob_holds

_BODILESS = frozenset({"GET", "HEAD"})
_JSON_ENDS = ("json", "*")


def impossible(match: Match, *, wide: bool, guard: bool = False) -> str | None:
    """Why no call falls under the match, in words; None if one may. `guard`: why no plain one does,
    though values are read widely."""
    return next(_reasons(match, wide, guard), None)


def _reasons(match: Match, wide: bool, guard: bool) -> Iterator[str]:
    for kind, tests, typed in _tests(match):
        for test in tests:
            why = contradiction(test, typed=typed, wide=wide, guard=guard)
            if why is not None:
                yield f"{kind} {test.name}: {why}"
    if match.body is not None and sizes_exclude(match.body.size):
        yield "no body has that size"
    if match.upgrade and match.methods and "GET" not in match.methods:
        yield "a WebSocket is opened with GET"
    if wide:
        return
    yield from _kinds_of_body(match)


def _tests(match: Match) -> Iterator[tuple[str, tuple[ValueTest, ...], bool]]:
    yield "query", match.query, False
    yield "the header", match.headers, False
    yield "the form field", match.form, False
    yield "JSON", match.json, True
    if match.jsonrpc is not None:
        yield "the parameter", match.jsonrpc.params, True
    if match.mcp is not None:
        yield "the argument", match.mcp.arguments, True


def asks_json(match: Match) -> bool:
    """Whether only a JSON body is as the match wants it, read narrowly."""
    return (
        any(test.exists is not False for test in match.json)
        or match.jsonrpc is not None
        or match.mcp is not None
    )


def asks_form(match: Match) -> bool:
    """Whether only a form is as the match wants it, read narrowly."""
    return any(test.exists is not False for test in match.form)


def _kinds_of_body(match: Match) -> Iterator[str]:
    """What a body cannot be at once; narrowly it is what its Content-Type says."""
    asked = [
        name
        for name, wanted in (
            ("JSON", asks_json(match)),
            ("a form", asks_form(match)),
            ("gRPC", match.grpc is not None),
        )
        if wanted
    ]
    if len(asked) > 1:
        yield f"no body is {asked[0]} and {asked[1]}"
    if match.upgrade and asked:
        yield "a WebSocket is opened without a body"
    if match.grpc is not None and match.methods and "POST" not in match.methods:
        yield "gRPC is always a POST"
    if match.grpc is not None and any(test.exists is not False for test in match.query):
        yield "gRPC has no query"
    types = match.body.types if match.body is not None else ()
    if types and asks_json(match) and not any(map(_may_be_json, types)):
        yield "that media type is not JSON"
    if types and asks_form(match) and not any(map(_may_be_form, types)):
        yield "that media type is not a form's"
    if types and match.grpc is not None and not any(map(_may_be_grpc, types)):
        yield "that media type is not gRPC's"


def _may_be_json(glob: str) -> bool:
    return glob.endswith(_JSON_ENDS)


def _may_be_form(glob: str) -> bool:
    return glob_holds(glob, FORM) or glob_holds(glob, MULTIPART)


def _may_be_grpc(glob: str) -> bool:
    return glob == "application/*" or glob.startswith(("application/grpc", "application/connect"))


def looks_at_body(match: Match) -> bool:
    """Whether something in the body is asked for."""
    return (
        asks_json(match)
        or asks_form(match)
        or match.graphql is not None
        or (match.body is not None and bool(match.body.types or match.body.size))
    )


def never_with_body(match: Match) -> bool:
    """Whether a body is asked for beside methods that hardly any client sends one with."""
    if not match.methods or not match.methods <= _BODILESS:
        return False
    return asks_json(match) or asks_form(match)
