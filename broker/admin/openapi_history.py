"""What the OpenAPI document says of the history of calls."""

from __future__ import annotations

from collections.abc import Mapping

from audit.filters import FIELDS, HOST_PATTERN, LONGEST, OUTCOMES, Field
from broker.admin.openapi import Word, limit, query
from broker.admin.openapi_schemas import (
    COUNT,
    MAYBE_COUNT,
    MAYBE_TEXT,
    TEXT,
    TIME,
    Schema,
    closed,
    listed,
    ref,
)

CALL = closed(
    call=TEXT,
    started=TIME,
    agent=MAYBE_TEXT,
    method=MAYBE_TEXT,
    scheme=MAYBE_TEXT,
    host=MAYBE_TEXT,
    port=MAYBE_COUNT,
    path=MAYBE_TEXT,
    outcome={"enum": list(OUTCOMES)},
    status={**MAYBE_COUNT, "description": "The upstream's."},
    code={**MAYBE_TEXT, "description": "Of a call that was refused or failed."},
    risk=MAYBE_TEXT,
    rules=listed(TEXT),
    approval=MAYBE_TEXT,
    duration_ms=MAYBE_COUNT,
    seq={"type": "integer", "minimum": 1},
)


def _parameter(field: Field) -> Schema:
    kinds: Mapping[str, Schema] = {
        "text": {"type": "string", "minLength": 1, "maxLength": LONGEST},
        "outcome": {"enum": list(OUTCOMES)},
        "time": {"type": "string", "format": "date-time"},
    }
    schema = {**kinds[field.kind], **PATTERNS.get(field.name, {})}
    return query(field.name, field.help, schema)


PATTERNS: Mapping[str, Schema] = {
    "method": {"pattern": "^[A-Za-z]{1,40}$", "maxLength": 40},
    "host": {"pattern": HOST_PATTERN},
}
SEARCH = tuple(map(_parameter, FIELDS))
BEFORE = query(
    "before",
    "The `next` of the page before. Calls that come meanwhile shift nothing.",
    {"type": "integer", "minimum": 1, "maximum": 2**53},
)
HISTORY: Mapping[tuple[str, str], Word] = {
    ("GET", "/api/v1/calls"): Word(
        "The history of calls, newest first",
        closed(
            calls=listed(CALL),
            next={
                "type": ["integer", "null"],
                "description": "Give it as `before`; null at the end. One search looks a bounded"
                " way back, so a page may be short, even empty, and have a next one.",
            },
            behind={
                **COUNT,
                "description": "Records of the ledger that the history has not taken in yet.",
            },
        ),
        query=(*SEARCH, limit(200, 50), BEFORE),
        tag="history",
    ),
    ("GET", "/api/v1/calls.csv"): Word(
        "The same as a table; cells that a spreadsheet would compute begin with an apostrophe",
        TEXT,
        query=(*SEARCH, limit(100_000, 10_000)),
        media="text/csv",
        tag="history",
    ),
    ("GET", "/api/v1/calls.jsonl"): Word(
        "The same, one JSON object a line",
        TEXT,
        query=(*SEARCH, limit(100_000, 10_000)),
        media="application/jsonl",
        tag="history",
    ),
    ("GET", "/api/v1/calls/{id}"): Word(
        "All records of one call or approval, oldest first",
        closed(records=listed(ref("Record"))),
        tag="history",
    ),
}
