"""The schemas of the OpenAPI document: what goes in and out of the API, every member of it."""

from __future__ import annotations

from typing import Any, get_args

from broker.model import ApprovalState
from broker.people import ROLES

type Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
MAYBE_COUNT: Schema = {"type": ["integer", "null"], "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time"}
MAYBE_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
STATE: Schema = {"enum": list(get_args(ApprovalState))}
ROLE: Schema = {"enum": list(ROLES)}
LONGEST = 2000
"""Characters of a reason or of a retyped value."""


def closed(**members: Schema) -> Schema:
    """An object with exactly these members."""
    return {
        "type": "object",
        "properties": members,
        "required": list(members),
        "additionalProperties": False,
    }


def _with(object_: Schema, **members: Schema) -> Schema:
    """The same with members that may be left out."""
    return {**object_, "properties": {**object_["properties"], **members}}


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _maybe(schema: Schema, description: str) -> Schema:
    return {"oneOf": [schema, {"type": "null"}], "description": description}


PAIR: Schema = {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2}
PLACE = {"method": TEXT, "scheme": {"enum": ["http", "https"]}, "host": TEXT, "port": COUNT}
REQUEST: Schema = closed(
    method=TEXT,
    url=TEXT,
    scheme={"enum": ["http", "https"]},
    host=TEXT,
    port=COUNT,
    path=TEXT,
    query=MAYBE_TEXT,
    headers=listed(PAIR),
    body_base64={"type": "string", "contentEncoding": "base64"},
    body_size=COUNT,
    body_text={**MAYBE_TEXT, "description": "null if the body is not UTF-8."},
    fields={**listed(PAIR), "description": "Of a form or JSON body, decoded."},
    files={
        **listed(closed(name=TEXT, filename=TEXT, type=TEXT, size=COUNT, sha256=TEXT)),
        "description": "Of a multipart form; size in bytes.",
    },
)
REQUIREMENT: Schema = closed(
    tiers=listed(
        closed(
            tier=TEXT,
            quorum=listed(
                closed(
                    group=TEXT,
                    count=COUNT,
                    members={
                        "type": ["array", "null"],
                        "items": TEXT,
                        "description": "null: everybody with the role approver or admin.",
                    },
                )
            ),
        )
    ),
    excluded=listed(TEXT),
    denials=COUNT,
    reason={"enum": ["required", "optional"]},
    confirm={"enum": ["retype", "none"]},
    decide_within={**COUNT, "description": "Seconds."},
    execute_within={**COUNT, "description": "Seconds."},
)

SCHEMAS: Schema = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457",
        "properties": {"status": {"type": "integer"}, "title": TEXT, "detail": TEXT},
        "required": ["status", "title", "detail"],
    },
    "Vote": {
        "type": "object",
        "properties": {
            "decision": {"enum": ["approve", "deny"]},
            "reason": {"type": "string", "maxLength": LONGEST},
            "confirm": {
                "type": "string",
                "maxLength": LONGEST,
                "description": "The retyped value, where the tier asks for it.",
            },
        },
        "required": ["decision"],
        "additionalProperties": False,
    },
    "Approval": {
        "description": "A held call and its decision. What the agent wrote is not to be trusted.",
        **closed(
            id=TEXT,
            state=STATE,
            call={**TEXT, "description": "The call that opened it."},
            agent=TEXT,
            owner=MAYBE_TEXT,
            tags=listed(TEXT),
            risk=TEXT,
            tiers=listed(TEXT),
            sentence={**TEXT, "description": "Why it is held."},
            summaries=listed(TEXT),
            impacts=listed(TEXT),
            undos={**listed(TEXT), "description": "Whether, or how, it can be taken back."},
            rules=listed(closed(id=TEXT, sentence=TEXT)),
            what=_with(
                closed(**PLACE, path=TEXT),
                via={"const": "gateway", "description": "If it came to a base URL."},
                run={**TEXT, "description": "If it came from `keybroker run`: the id of the run."},
            ),
            credentials={
                **listed(
                    closed(name=TEXT, secret=TEXT, header=TEXT, preview=TEXT, hosts=listed(TEXT))
                ),
                "description": "Names and slots, never values.",
            },
            claim={**MAYBE_TEXT, "description": "The agent's own reason, unverified."},
            operator_note=MAYBE_TEXT,
            request_commitment=TEXT,
            policy_version=COUNT,
            opened_at=TIME,
            decide_by=TIME,
            execute_by=MAYBE_TIME,
            now={**TIME, "description": "The server's clock."},
            request=_maybe(
                REQUEST,
                "Exactly what will go out; null in a list, and once the approval has ended.",
            ),
            requirement=REQUIREMENT,
            deciding={**TEXT, "description": "The place in the request to look at."},
            confirm=_maybe(closed(place=TEXT, hint=TEXT), "What to retype; null: nothing."),
            votes=listed(
                closed(
                    user=TEXT, decision={"enum": ["approve", "deny"]}, reason=MAYBE_TEXT, at=TIME
                )
            ),
            needs={**TEXT, "description": "What is still missing, in words."},
            notes=listed(TEXT),
            you=closed(may_vote={"type": "boolean"}, why=TEXT),
            resolution=_maybe(
                closed(state=STATE, by=listed(TEXT), reason=MAYBE_TEXT, at=TIME),
                "null while it is pending.",
            ),
        ),
    },
    "Record": {
        "description": "One record of the ledger; `docs/audit.md` has the types.",
        **closed(
            seq={"type": "integer", "minimum": 1},
            time=TIME,
            type=TEXT,
            call=MAYBE_TEXT,
            agent=MAYBE_TEXT,
            data={"type": "object"},
            prev={"type": "string", "pattern": "^[0-9a-f]{64}$"},
            hash={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        ),
    },
    "User": {
        "description": "A person with an account.",
        **closed(
            name=TEXT,
            role=ROLE,
            password={"type": "boolean", "description": "Whether they can log in to the page."},
            created_at=TIME,
            disabled_at=MAYBE_TIME,
        ),
    },
    "UserChange": {
        "type": "object",
        "properties": {"role": ROLE, "disabled": {"type": "boolean"}},
        "minProperties": 1,
        "additionalProperties": False,
    },
    "Session": {
        "description": "An open page session. The id names it and opens nothing.",
        **closed(
            id=TEXT,
            user=TEXT,
            client=TEXT,
            created_at=TIME,
            last_seen_at={**TIME, "description": "To the minute."},
            expires_at=TIME,
        ),
    },
    "Token": {
        "description": "An API token that works; never its value.",
        **closed(
            id=TEXT,
            user=TEXT,
            name=TEXT,
            created_at=TIME,
            last_used_at={**MAYBE_TIME, "description": "To the minute."},
            expires_at=MAYBE_TIME,
        ),
    },
}
