"""Why a call does not fall under a rule: the conditions that fail, and what the call has there.

Never more of a call than the condition looks at. Openly, for whoever has the call before him, that
is shown, made visible and cut; else, for sentences that are kept, only as far as it gives nothing
away (see `_guarded`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from rules.bodies import Body, Field, Member, Operations, RpcCalls, ToolCalls, values_at
from rules.conditions import (
    DAYS,
    Condition,
    GrpcMethod,
    Header,
    Methods,
    Parameter,
    Paths,
    Scheme,
    Source,
    Upgrade,
    Window,
)
from rules.describe import all_of, any_of, describe_clause, describe_host, describe_tests
from rules.errors import Unreadable
from rules.expressions import Expression
from rules.matching import Matcher, is_wide
from rules.model import Match, Rule, ValueTest
from rules.paths import ENCODED_SLASH
from rules.reading.call import Reading
from rules.reading.forms import may_be
from rules.reading.grpc import read_grpc
from rules.reading.json import Json, Number, json_text
from rules.reading.jsonrpc import Rpc
from rules.visible import visible

MAX_SHOWN = 60
"""Characters of a value."""
_MOST = 3
"""How many of several values are shown."""
_SHORT_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Why:
    """One condition that fails."""

    wanted: str
    """What the rule asks for: `if JSON /amount <= 1000`, `with GET or HEAD`."""
    found: str
    """What the call has, as a clause: `it is 4950`."""

    def to_json(self) -> dict[str, str]:
        return {"condition": self.wanted, "found": self.found}


@dataclass(frozen=True, slots=True)
class Miss:
    """A match of a rule that a call does not fall under."""

    rule: Rule
    match: Match
    at_host: bool
    failed: tuple[Condition, ...]
    hole: Match | None = None
    """It falls under this exception; then nothing else fails."""

    @property
    def distance(self) -> tuple[bool, bool, int, bool]:
        """How far the call is off: by place, by what is asked for besides, by method."""
        place = not self.at_host or any(isinstance(c, Paths | Scheme) for c in self.failed)
        method = any(isinstance(c, Methods) for c in self.failed)
        return place, method and len(self.failed) > 1, len(self.failed), method

    @property
    def is_near(self) -> bool:
        """Whether it is about the same place."""
        return not self.distance[0]

    def reasons(self, call: Reading, *, openly: bool) -> list[Why]:
        """Why the call does not fall under it, one condition at a time."""
        reasons = []
        if not self.at_host:
            hosts = any_of([describe_host(host) for host in self.match.hosts])
            reasons.append(Why(f"to {hosts}", f"it goes to {call.request.authority}"))
        reasons += [Why(wanted(c), found(c, call, openly=openly)) for c in self.failed]
        if self.hole is not None:
            reasons.append(Why(f"if it is no {_hole(self.hole)}", "it is one"))
        return reasons

    def sentence(self, call: Reading) -> str:
        """One sentence for whoever made the call: what it lacks. It may be kept."""
        said = {"allow": "allows", "hold": "holds", "deny": "denies", "tunnel": "passes"}
        who = f'Rule "{self.rule.id}" {said[self.rule.effect]}'
        if self.hole is not None:
            return f"{who} such calls, but no {_hole(self.hole)}."
        start = f"{who} it only"
        reasons = self.reasons(call, openly=False)
        if len(reasons) == 1:
            return f"{start} {reasons[0].wanted}; {reasons[0].found}."
        several = [f"{why.wanted} ({why.found})" for why in reasons[:_MOST]]
        if len(reasons) > _MOST:
            several.append("more")
        return f"{start} {all_of(several)}."


def miss(rule: Rule, matcher: Matcher, holes: Iterable[Matcher], call: Reading) -> Miss | None:
    """How the call misses this match of the rule; None if it falls under it."""
    wide = is_wide(rule)
    at_host = matcher.is_at_host(call)
    failed = tuple([c for c in matcher.conditions if not _holds(c, call, wide=wide)])
    if failed or not at_host:
        return Miss(rule, matcher.match, at_host, failed)
    for hole in holes:
        if hole.holds_at_host(call, wide=not wide):
            return Miss(rule, matcher.match, at_host, (), hole.match)
    return None


def _holds(condition: Condition, call: Reading, *, wide: bool) -> bool:
    try:
        return condition.holds(call, wide=wide)
    except Unreadable:
        return wide


def _hole(match: Match) -> str:
    """An exception, as short as it can be said: `POST call at /refunds with JSON /dry = true`."""
    tests = list(describe_tests(match))
    parts = [
        any_of(sorted(match.methods)),
        "call",
        f"to {any_of([describe_host(host) for host in match.hosts])}" if match.hosts else "",
        f"at {_several([visible(path) for path in match.paths], 'or')}" if match.paths else "",
        f"with {all_of(tests)}" if tests else "",
    ]
    return " ".join(part for part in parts if part)


# -- what is asked for


def wanted(condition: Condition) -> str:
    """A condition in words: `with GET or HEAD`, `if JSON /amount <= 1000`."""
    match condition:
        case Scheme(scheme):
            return f"over {scheme}"
        case Methods(methods):
            return f"with {any_of(sorted(methods))}"
        case Paths(templates):
            return f"at {_several([template.text for template in templates], 'or')}"
        case Header(test):
            return f"if header {describe_clause(test)}"
        case Parameter(test):
            return f"if query {describe_clause(test)}"
        case Field(test):
            return f"if form {describe_clause(test)}"
        case Member(test):
            return f"if JSON {describe_clause(test)}"
        case Expression(when):
            return f"if `{visible(when.text, 200)}`"
        case _:
            part = _as_match(condition)
            return f"with {all_of(list(describe_tests(part))) if part else 'what else it asks for'}"


def _as_match(condition: Condition) -> Match | None:
    match condition:
        case Upgrade(upgrade):
            return Match(upgrade=upgrade)
        case Source(source):
            return Match(source=source)
        case Window():
            return Match(time=condition.test)
        case GrpcMethod(grpc):
            return Match(grpc=grpc)
        case Body(body):
            return Match(body=body)
        case Operations(graphql):
            return Match(graphql=graphql)
        case RpcCalls(rpc):
            return Match(jsonrpc=rpc)
        case ToolCalls(mcp):
            return Match(mcp=mcp)
        case _:
            return None


# -- what the call has


def found(condition: Condition, call: Reading, *, openly: bool) -> str:
    """What the call has where the condition looks, as a clause. Never raises on a request."""
    show = _shown if openly else _guarded
    try:
        return _found(condition, call, show)
    except Unreadable as error:
        return f"there is no telling: {error}"


type _Show = Callable[[Json], str]


def _found(condition: Condition, call: Reading, show: _Show) -> str:
    request = call.request
    match condition:
        case Scheme():
            return f"it is {request.scheme}"
        case Methods():
            return f"it is {visible(request.method)}"
        case Paths():
            slash = ", with an encoded slash" if ENCODED_SLASH in request.path else ""
            return f"it is {visible(request.path, MAX_SHOWN)}{slash}"
        case Upgrade():
            return "it asks for a WebSocket" if request.upgrade else "it asks for no upgrade"
        case Source():
            return _source(call)
        case Window(_, zone):
            moment = request.moment
            return _clock(moment.astimezone(zone)) if moment else "its time is not known"
        case GrpcMethod():
            grpc = read_grpc(request)
            return f"it is {grpc.service}/{grpc.method}" if grpc else "it is no gRPC"
        case Header(test):
            return _values(list(request.values(test.name)), test, show)
        case Parameter(test):
            return _values(_alike(call.query[0], test.name), test, show)
        case Body(test):
            size = f"its body has {call.body_size} bytes"
            return f"{size} of type {visible(call.media_type) or 'unknown'}" if test.types else size
        case Field(test):
            return _field(condition, call, test, show)
        case Member(test):
            return _member(call, test, show)
        case Operations():
            operations = call.graphql(wide=True)
            return f"it is {_several([_operation(op.kind, op.fields) for op in operations])}"
        case RpcCalls() | ToolCalls():
            return _rpc(condition, call, show)
        case Expression():
            condition.holds(call, wide=False)
            return "it is false"
        case _:
            return "it is not so"


def _source(call: Reading) -> str:
    tags = sorted(call.subject.tags)
    run = "from no run" if call.request.run is None else f"from the run {call.request.run}"
    tagged = f"of an agent tagged {all_of([visible(tag) for tag in tags])}" if tags else "untagged"
    return f"it comes by the {call.request.via}, {run}, {tagged}"


def _clock(moment: datetime) -> str:
    return f"it comes on {DAYS[moment.weekday()]} at {moment:%H:%M}"


def _operation(kind: str, fields: Sequence[str]) -> str:
    return f"a {kind} of {_several([visible(name) for name in fields])}"


def _field(condition: Field, call: Reading, test: ValueTest, show: _Show) -> str:
    files = [part for part in call.form_files if may_be(part.name, test.name)]
    if not files:
        return _values(_alike(call.form_pairs(wide=True), test.name), test, show)
    condition.holds(call, wide=False)  # which raises if there is no telling
    return f"it is a file of {len(files[0].value)} bytes"


def _member(call: Reading, test: ValueTest, show: _Show) -> str:
    document = call.document(wide=True)
    if document is None:
        return "its body is no JSON" if not call.has_no_body else "it has no body"
    if call.document(wide=False) is None:
        return "its Content-Type is not that of JSON"
    return _values(values_at(document, test.name, wide=True), test, show)


def _rpc(condition: RpcCalls | ToolCalls, call: Reading, show: _Show) -> str:
    if call.has_no_body:
        return "it has no body"
    if call.document(wide=True) is None:
        return "its body is no JSON"
    rpcs: tuple[Rpc, ...]
    if isinstance(condition, RpcCalls):
        rpcs, inside = call.jsonrpc(wide=True), condition.test.params
    else:
        rpcs, inside = call.mcp(wide=True), condition.test.arguments
    names = [visible(rpc.tool or rpc.method) for rpc in rpcs]
    said = f"it is {_several(names)}"
    if inside and len(rpcs) == 1:
        rpc = rpcs[0]
        base = rpc.params if isinstance(condition, RpcCalls) else rpc.arguments
        for test in inside:
            values = _values(values_at(base, test.name, wide=True), test, show)
            said += f", and of {visible(test.name)} {values}"
    return said


def _alike(pairs: Iterable[tuple[str, str]], name: str) -> list[str]:
    return [value for given, value in pairs if may_be(given, name)]


def _values(values: Sequence[Json], test: ValueTest, show: _Show) -> str:
    if not values:
        return "it is not there"
    if test.exists is False:
        return "it is there"
    if len(values) == 1:
        return f"it is {show(values[0])}"
    return f"it is there {len(values)} times: {_several([show(v) for v in values], 'and')}"


def _shown(value: Json) -> str:
    match value:
        case str():
            return f'"{visible(value, MAX_SHOWN)}"'
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object of {len(value)}"
        case _:
            return visible(json_text(value), MAX_SHOWN)


def _guarded(value: Json) -> str:
    """A value without what it may give away: numbers of few digits, and what everybody may know."""
    match value:
        case Number():
            return value.text if _SHORT_NUMBER.fullmatch(value.text) else "another number"
        case str():
            return value if _SHORT_NUMBER.fullmatch(value) else "another text"
        case list() | dict():
            return _shown(value)
        case _:
            return json_text(value)


def _several(parts: Sequence[str], word: str = "and") -> str:
    shown = list(parts[:_MOST])
    if len(parts) > _MOST:
        shown.append(f"{len(parts) - _MOST} more")
    return all_of(shown) if word == "and" else any_of(shown)
