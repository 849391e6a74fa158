"""What the history can be searched by: one definition for the page, the API and the command line.

Pure. What is odd is refused with a sentence, never repaired; an empty filter finds everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

OUTCOMES = (
    "completed",
    "denied",
    "expired",
    "superseded",
    "pending",
    "approved",
    "sent",
    "failed",
    "unknown",
    "tunnel",
)
LONGEST = 400
"""Characters of one value."""

type Kind = Literal["text", "outcome", "time"]


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to search by."""

    name: str
    label: str
    help: str
    """A sentence for the API and the command line."""
    kind: Kind = "text"
    example: str = ""


FIELDS = (
    Field("agent", "Agent", "Calls of this agent.", example="billing-bot"),
    Field("outcome", "Outcome", "What became of the call.", "outcome"),
    Field(
        "host",
        "Host",
        "Calls to this host; with `:PORT`, to this port only.",
        example="api.example.com:8443",
    ),
    Field("method", "Method", "Calls with this method.", example="POST"),
    Field("path", "Path", "Calls whose path begins so.", example="/v1/refunds"),
    Field("rule", "Rule", "Calls that this rule matched.", example="stripe-refund"),
    Field(
        "shadow",
        "Shadow",
        "Calls that this rule in shadow is about, or that would have had this effect (`deny`).",
        example="no-refunds",
    ),
    Field("code", "Code", "Calls answered with this code.", example="policy_denied"),
    Field("approval", "Approval", "Calls under this approval.", example="a-01k..."),
    Field("reviewer", "Reviewer", "Calls that this person voted on.", example="alice"),
    Field(
        "secret",
        "Secret",
        "Calls that this secret reference was read for.",
        example="kv/stripe#api_key",
    ),
    Field("since", "From", "From this time on (RFC 3339; UTC without a zone).", "time"),
    Field("until", "Before", "Before this time.", "time"),
    Field(
        "text",
        "Text",
        "Calls whose path, summary or refusal holds this text, in any letter case.",
        example="refund",
    ),
)
HOST_PATTERN = (
    r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(:([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$"
)
_HOST = re.compile(HOST_PATTERN)
_METHOD = re.compile(r"[A-Za-z]{1,40}")


class BadFilter(ValueError):
    """A value that cannot be searched for; str() is a sentence that names the field."""


@dataclass(frozen=True, slots=True)
class Filter:
    """All that is given must hold. Times as records write them; `until` is not included."""

    agent: str | None = None
    outcome: str | None = None
    host: str | None = None
    port: int | None = None
    method: str | None = None
    path: str | None = None
    rule: str | None = None
    shadow: str | None = None
    code: str | None = None
    approval: str | None = None
    reviewer: str | None = None
    secret: str | None = None
    since: str | None = None
    until: str | None = None
    text: str | None = None


def read_filter(given: Mapping[str, str]) -> Filter:
    """The filter of these values by field name, each of them non-empty. Raises BadFilter."""
    values: dict[str, str | int] = {}
    for field in FIELDS:
        if (value := given.get(field.name)) is None:
            continue
        if not value or len(value) > LONGEST:
            raise BadFilter(f"{field.name} must have 1 to {LONGEST} characters.")
        if field.kind == "outcome" and value not in OUTCOMES:
            raise BadFilter(f"outcome must be one of {', '.join(OUTCOMES)}.")
        values[field.name] = read_time(value, field.name) if field.kind == "time" else value
    if (host := given.get("host")) is not None:
        name, port = _place(host)
        values["host"] = name
        if port is not None:
            values["port"] = port
    if (method := given.get("method")) is not None:
        if not _METHOD.fullmatch(method):
            raise BadFilter("method must be letters, such as POST.")
        values["method"] = method.upper()
    return Filter(**values)  # type: ignore[arg-type]


def _place(text: str) -> tuple[str, int | None]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise BadFilter("host must be HOST or HOST:PORT, an IPv6 address in brackets.")
    name = found[1].removeprefix("[").removesuffix("]").lower()
    return name, None if found[3] is None else int(found[3])


def read_time(text: str, name: str) -> str:
    """A time as records write it, from RFC 3339 or a date. Raises BadFilter."""
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise BadFilter(
            f"{name} must be a time such as 2026-01-31T09:00:00Z or 2026-01-31."
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:  # in the first or last hours that there are; nothing is recorded there
        moment = moment.replace(tzinfo=UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
