"""The part of the policy language that says which calls a rule is about: `match:` and `except:`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from rules.conditions import DAYS
from rules.hosts import parse_pattern
from rules.model import (
    BodyTest,
    Check,
    GraphQLTest,
    GrpcTest,
    Match,
    McpTest,
    RpcTest,
    SourceTest,
    TimeTest,
)
from rules.operators import parse_glob, read_headers, read_json, read_size, read_texts
from rules.paths import parse_template
from rules.source import Section
from rules.spellings import parse_method, parse_name, parse_run
from rules.yamlfile import did_you_mean

MATCH = (
    "method",
    "host",
    "path",
    "scheme",
    "query",
    "headers",
    "json",
    "form",
    "body",
    "graphql",
    "jsonrpc",
    "mcp",
    "grpc",
    "upgrade",
    "time",
    "source",
    "when",
)
OF_RULES = dict.fromkeys(
    ("agents", "effect", "except", "limit", "mode", "risk", "summary", "tests", "use"),
    'in the rule, beside "match"',
)
"""Fields that a line too far to the right puts into a match."""
BODY = ("type", "size")
GRAPHQL = ("kind", "fields")
JSONRPC = ("method", "params")
MCP = ("method", "tool", "arguments")
GRPC = ("service", "method")
TIME = ("days", "from", "to", "zone")
SOURCE = ("via", "run", "tags")
KINDS = ("query", "mutation", "subscription")
SCHEMES = ("https", "http")
UPGRADES = ("websocket", "none")
VIAS = ("proxy", "gateway")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:\*|[a-z0-9!#$&^_.+-]+)")


def read_matches(
    at: Section, value: object, schemes: Sequence[str] = (SCHEMES[0],)
) -> tuple[Match, ...]:
    """One match, or a list of them, any of which counts. Those that name no scheme are about each
    of `schemes`."""
    items = [(at, value)]
    if isinstance(value, list):
        if not value:
            at.error("an empty list matches nothing; leave it out or fill it in")
        items = [(at.at(i), item) for i, item in enumerate(value)]
    found: list[Match] = []
    for here, item in items:
        match = _read_match(here, item)
        if isinstance(item, dict) and "scheme" in item:
            found.append(match)
        else:
            found += [replace(match, scheme=_scheme(scheme)) for scheme in schemes]
    return tuple(found)


def _scheme(word: str | None) -> Literal["http", "https"]:
    return "http" if word == "http" else "https"


def _read_match(at: Section, value: object) -> Match:
    if value is None:
        at.error("a match is empty; write {} for every call")
    fields = at.mapping(value, MATCH, OF_RULES) or {}

    def part[T](name: str, read: Callable[[Section, object], T | None]) -> T | None:
        return read(at.at(name), fields[name]) if name in fields else None

    methods = _several(at, fields, "method", parse_method)
    hosts = _several(at, fields, "host", parse_pattern)
    paths = _several(at, fields, "path", lambda text: parse_template(text).text)
    scheme = at.at("scheme").choice(fields.get("scheme", SCHEMES[0]), SCHEMES)
    return Match(
        methods=frozenset(methods),
        hosts=hosts,
        paths=paths,
        scheme=_scheme(scheme),
        query=part("query", read_texts) or (),
        headers=part("headers", read_headers) or (),
        json=part("json", read_json) or (),
        form=part("form", read_texts) or (),
        body=part("body", _read_body),
        graphql=part("graphql", _read_graphql),
        jsonrpc=part("jsonrpc", _read_jsonrpc),
        mcp=part("mcp", _read_mcp),
        grpc=part("grpc", _read_grpc),
        upgrade=part("upgrade", _read_upgrade),
        time=part("time", _read_time),
        source=part("source", _read_source),
        when=part("when", _read_when),
    )


def _read_body(at: Section, value: object) -> BodyTest | None:
    fields = at.mapping(value, BODY) or {}
    if not fields:
        at.error("body is empty; give it a type or a size")
    types = _several(at, fields, "type", _parse_media_type)
    size: tuple[Check, ...] = ()
    if "size" in fields:
        size = read_size(at.at("size"), fields["size"], bytes_=True)
    return BodyTest(types, size)


def _parse_media_type(text: str) -> str:
    if not _MEDIA_TYPE.fullmatch(text.lower()):
        raise ValueError(f'"{text}" is not a media type, such as application/json or text/*')
    return text.lower()


def _read_graphql(at: Section, value: object) -> GraphQLTest | None:
    fields = _some(at, value, GRAPHQL)
    kinds = _several(at, fields, "kind", lambda text: _one_of(text, KINDS))
    return GraphQLTest(frozenset(kinds), _several(at, fields, "fields", parse_glob))


def _read_jsonrpc(at: Section, value: object) -> RpcTest | None:
    fields = _some(at, value, JSONRPC)
    methods = _several(at, fields, "method", parse_glob)
    params = read_json(at.at("params"), fields["params"]) if "params" in fields else ()
    return RpcTest(methods, params)


def _read_mcp(at: Section, value: object) -> McpTest | None:
    fields = _some(at, value, MCP)
    methods = _several(at, fields, "method", parse_glob)
    tools = _several(at, fields, "tool", parse_glob)
    arguments = read_json(at.at("arguments"), fields["arguments"]) if "arguments" in fields else ()
    if (tools or arguments) and methods not in ((), ("tools/call",)):
        at.at("method").error("tool and arguments are of the method tools/call only")
    return McpTest(methods, tools, arguments)


def _read_grpc(at: Section, value: object) -> GrpcTest | None:
    fields = _some(at, value, GRPC)
    services = _several(at, fields, "service", _parse_grpc("[A-Za-z0-9_.*]+", "shop.v1.Orders"))
    return GrpcTest(
        services, _several(at, fields, "method", _parse_grpc("[A-Za-z0-9_*]+", "Cancel"))
    )


def _parse_grpc(spelling: str, example: str) -> Callable[[str], str]:
    """What is in no gRPC name would match no call: a deny of it would deny nothing."""

    def parse(text: str) -> str:
        if not re.fullmatch(spelling, text, re.ASCII):
            raise ValueError(f'"{text[:80]}" is in no gRPC call; write it like {example}')
        return parse_glob(text)

    return parse


def _read_upgrade(at: Section, value: object) -> bool | None:
    """`websocket`, or `none`."""
    word = at.choice(value, UPGRADES)
    return None if word is None else word == "websocket"


def _read_time(at: Section, value: object) -> TimeTest | None:
    fields = _some(at, value, TIME)
    days = frozenset(range(7))
    if "days" in fields:
        days = frozenset(_several(at, fields, "days", _parse_day))
    begin = _read_clock(at.at("from"), fields["from"]) if "from" in fields else 0
    end = _read_clock(at.at("to"), fields["to"]) if "to" in fields else 24 * 60
    if begin == end and begin is not None:
        at.error("from and to are the same time")
    zone = None
    if at.has(fields, "zone", ": the times are by the clocks of which place?"):
        zone = at.at("zone").parsed(fields["zone"], _parse_zone)
    if zone is None or begin is None or end is None:
        return None
    return TimeTest(zone, days, begin, end)


def _parse_day(text: str) -> int:
    return DAYS.index(_one_of(text.lower()[:3] if text.lower() in _LONG_DAYS else text, DAYS))


_LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _read_clock(at: Section, value: object) -> int | None:
    """Minutes of the day."""
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        shown = f'"{value[:80]}"' if isinstance(value, str) else value
        at.error(f'{at.path[-1]}: {shown} is no time, such as "09:00" or "17:30", in quotes')
        return None
    hours, minutes = value.split(":")
    return int(hours) * 60 + int(minutes)


_NO_ZONES = ("localtime", "posixrules", "posix/", "right/")
"""Lie beside the zones on some machines, and are others on each, or count leap seconds."""


def _parse_zone(text: str) -> str:
    try:
        if text.startswith(_NO_ZONES):
            raise ZoneInfoNotFoundError
        ZoneInfo(text)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        hint = did_you_mean(text, available_timezones() - {"localtime"})
        raise ValueError(
            f'"{text[:80]}" is no time zone, such as Europe/Berlin or UTC{hint}'
        ) from None
    return text


def _read_source(at: Section, value: object) -> SourceTest | None:
    fields = _some(at, value, SOURCE)
    via = None
    if "via" in fields:
        via = at.at("via").choice(fields["via"], VIAS)
    said = fields.get("run")
    run = said if isinstance(said, bool) else None
    runs = () if run is not None else _several(at, fields, "run", parse_run)
    tags = _several(at, fields, "tags", parse_name)
    return SourceTest(cast(Literal["proxy", "gateway"] | None, via), run, runs, tags)


def _read_when(at: Section, value: object) -> str | None:
    """An expression in CEL, checked whole."""
    from rules.cel import compile_when  # as in rules.matching

    if not isinstance(value, str):
        at.error("when must be an expression, as text")
        return None
    try:
        return compile_when(value.strip()).text
    except ValueError as error:
        at.error(f"when: {error}")
        return None


def _some(at: Section, value: object, known: tuple[str, ...]) -> dict[str, object]:
    """A mapping with at least one of the `known` fields."""
    fields = at.mapping(value, known)
    if fields == {}:
        at.error(f"{at.path[-1]} is empty; give it {' or '.join(known)}")
    return fields or {}


def _several[T](
    at: Section, fields: dict[str, object], name: str, parse: Callable[[str], T]
) -> tuple[T, ...]:
    """One word or a list of them; none if the field is not given."""
    return at.at(name).several(fields[name], parse) if name in fields else ()


def _one_of(text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        hint = did_you_mean(text, known)
        raise ValueError(f'"{text[:80]}" is none of {", ".join(known)}{hint}')
    return text
