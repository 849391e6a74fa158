"""Turns a card of the desk into what the template lays out: which value decides, how a body reads.

Pure. Nothing is made safe here: escaping is the template's work, through `inert`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from broker.admin.inert import MOST_TEXT, hexdump
from broker.admin.ports import Json
from rules.request import authority

HEX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Line:
    """A name and a value of the request; `deciding` marks the one to look at."""

    name: str
    value: str
    deciding: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """A body three ways. `text` is None for a binary one; `cut` says that a view is not whole."""

    size: int
    fields: tuple[Line, ...]
    files: tuple[Json, ...]
    """Of a multipart form: `name`, `filename`, `type`, `size`, `sha256`."""
    pretty: str | None
    """Indented JSON, where the body is JSON and there are no fields."""
    text: str | None
    hexdump: str
    text_cut: bool
    hex_cut: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """The request as the reviewer sees it."""

    method: str
    scheme: str
    host: str
    port: int
    path: str
    query: str | None
    query_fields: tuple[Line, ...]
    headers: tuple[Line, ...]
    body: Body
    deciding: tuple[Line, ...]
    """The values that the rule names as decisive, repeated at the top of the card."""


def parse_time(text: str) -> datetime:
    """An RFC 3339 time; UTC where it names no zone."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def seconds_left(card: Json) -> int:
    """Whole seconds until the card's present clock runs out, by the server's time; never < 0."""
    until = card.get("execute_by") if card["state"] == "approved" else card.get("decide_by")
    if not until:
        return 0
    return max(0, int((parse_time(until) - parse_time(card["now"])).total_seconds()))


def headline(card: Json) -> str:
    """What leaves, in one line: the rule's summary, else method and place."""
    summaries = [text for text in card.get("summaries") or () if text]
    if summaries:
        return str(summaries[0])
    what = card.get("what") or card.get("request") or {}
    return f"{what.get('method', '')} {address(what)}{what.get('path', '')}".strip()


def address(what: Json) -> str:
    """Host of a call, and port where it is not the usual one."""
    return authority(what.get("scheme", "https"), what.get("host", ""), what.get("port"))


def shown_request(card: Json) -> Shown | None:
    """The request for the template; None once the approval has ended and it is deleted."""
    request = card.get("request")
    if not request:
        return None
    place = str((card.get("confirm") or {}).get("place") or card.get("deciding") or "")
    kind, _, key = place.partition(":")
    query = request.get("query")
    pairs = parse_qsl(query or "", keep_blank_values=True, errors="backslashreplace")
    query_fields = tuple(Line(n, v, kind == "query" and n == key) for n, v in pairs)
    headers = tuple(
        Line(n, v, kind == "header" and n.lower() == key.lower()) for n, v in request["headers"]
    )
    body = _body(request, place, kind, key)
    path = (Line("path", request["path"], deciding=True),) if place == "path" else ()
    deciding = tuple(
        line for line in (*path, *query_fields, *headers, *body.fields) if line.deciding
    )
    return Shown(
        method=request["method"],
        scheme=str(request["url"]).partition(":")[0],
        host=request["host"],
        port=request["port"],
        path=request["path"],
        query=query,
        query_fields=query_fields,
        headers=headers,
        body=body,
        deciding=deciding,
    )


def _body(request: Json, place: str, kind: str, key: str) -> Body:
    data = base64.b64decode(request.get("body_base64") or "")
    names = {place, key, key.lstrip("/")} if kind in ("form", "json") and key else set()
    fields = tuple(Line(n, v, n in names) for n, v in request.get("fields") or ())
    files = tuple(request.get("files") or ())
    text = request.get("body_text")
    return Body(
        size=request.get("body_size", len(data)),
        fields=fields,
        files=files,
        pretty=None if fields or files or text is None else _pretty(text),
        text=None if text is None else text[:MOST_TEXT],
        hexdump=hexdump(data, HEX_BYTES),
        text_cut=text is not None and len(text) > MOST_TEXT,
        hex_cut=len(data) > HEX_BYTES,
    )


def _pretty(text: str) -> str | None:
    """Indented JSON, or None. Escapes stay escapes: what is not ASCII shows its code."""
    if len(text) > MOST_TEXT:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return json.dumps(value, indent=2) if isinstance(value, dict | list) else None


def requirement_sentences(requirement: Json | None) -> list[str]:
    """What each tier asks, in words."""
    sentences = []
    for need in (requirement or {}).get("tiers", ()):
        parts = [_quorum(q) for q in need["quorum"]]
        sentences.append(f"{need['tier'].capitalize()} tier: {_and(parts)}.")
    excluded = list((requirement or {}).get("excluded", ()))
    if excluded:
        sentences.append(f"May not vote: {_and(excluded)}.")
    denials = (requirement or {}).get("denials", 1)
    sentences.append("One denial ends it." if denials == 1 else f"{denials} denials end it.")
    return sentences


def _quorum(quorum: Json) -> str:
    count, group = quorum["count"], quorum["group"]
    people = "one person" if count == 1 else f"{count} different people"
    if quorum.get("members") is None:
        return f"{people} with the role approver or admin"
    return f"{people} of {group} ({', '.join(quorum['members'])})"


def _and(parts: Sequence[str]) -> str:
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)


def progress(card: Json) -> tuple[int, int]:
    """(distinct people who approved, the least number of people needed).

    The number needed is a floor: with overlapping groups it can take more people than this.
    """
    tiers = (card.get("requirement") or {}).get("tiers", ())
    needed = max((sum(q["count"] for q in need["quorum"]) for need in tiers), default=1)
    approved = {vote["user"] for vote in card.get("votes") or () if vote["decision"] == "approve"}
    return len(approved), needed
