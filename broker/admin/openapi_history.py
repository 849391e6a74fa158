"""What the OpenAPI document says of the history of calls."""

from __future__ import annotations

from collections.abc import Mapping

from broker.admin.openapi import Word, limit, query
from broker.admin.openapi_schemas import (
    MAYBE_COUNT,
    MAYBE_TEXT,
    TEXT,
    TIME,
    closed,
    listed,
    ref,
)

CALL = closed(
    call=TEXT,
    agent=MAYBE_TEXT,
    started=TIME,
    method=MAYBE_TEXT,
    host=MAYBE_TEXT,
    path=MAYBE_TEXT,
    outcome=TEXT,
    code=MAYBE_TEXT,
    status=MAYBE_COUNT,
    rules=listed(TEXT),
    approval=MAYBE_TEXT,
    risk=MAYBE_TEXT,
    duration_ms=MAYBE_COUNT,
    seq={"type": "integer", "description": "Give it as `before` for the next page."},
)
HISTORY: Mapping[tuple[str, str], Word] = {
    ("GET", "/api/v1/calls"): Word(
        "The history of calls, newest first",
        closed(calls=listed(CALL)),
        query=(
            query("agent", "Only this agent's.", TEXT),
            query("outcome", "Only those that ended so.", TEXT),
            query("host", "Only those to this host.", TEXT),
            limit(200, 50),
            query("before", "Only those before this seq.", {"type": "integer", "minimum": 0}),
        ),
        tag="history",
    ),
    ("GET", "/api/v1/calls/{id}"): Word(
        "All records of one call, oldest first",
        closed(records=listed(ref("Record"))),
        tag="history",
    ),
}
