"""The OpenAPI 3.1 document of the REST API, kept by hand; a test holds it to the routes."""

from __future__ import annotations

from typing import Any, get_args

from broker.model import ApprovalState

type Schema = dict[str, Any]


def _json(schema: Schema, description: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problems(*statuses: int) -> Schema:
    texts = {
        400: "The request cannot be read",
        401: "No API token, or not a valid one",
        403: "This person may not do this",
        404: "There is no such thing",
        409: "Decided, stale, or voted already",
        413: "The body is too large",
        422: "The vote lacks, or has wrong, what the tier asks for",
        503: "The store or the audit log cannot be used; nothing was changed",
    }
    return {
        str(status): {
            "description": texts[status],
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status in statuses
    }


def _query(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_NUMBER: Schema = {"type": ["integer", "null"]}
ID: Schema = {"name": "id", "in": "path", "required": True, "schema": TEXT}
APPROVAL: Schema = {"$ref": "#/components/schemas/Approval"}

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
            "reason": {"type": "string", "maxLength": 2000},
            "confirm": {
                "type": "string",
                "maxLength": 2000,
                "description": "The retyped value, where the tier asks for it.",
            },
        },
        "required": ["decision"],
        "additionalProperties": False,
    },
    "Approval": {
        "type": "object",
        "description": "A held call and its decision. What the agent wrote is not to be trusted.",
        "properties": {
            "id": TEXT,
            "state": {"enum": list(get_args(ApprovalState))},
            "agent": TEXT,
            "owner": MAYBE_TEXT,
            "risk": TEXT,
            "tiers": {"type": "array", "items": TEXT},
            "summaries": {"type": "array", "items": TEXT},
            "impacts": {"type": "array", "items": TEXT},
            "rules": {
                "type": "array",
                "items": {"type": "object", "properties": {"id": TEXT, "sentence": TEXT}},
            },
            "policy_version": {"type": "integer"},
            "opened_at": {"type": "string", "format": "date-time"},
            "decide_by": {"type": "string", "format": "date-time"},
            "execute_by": {"type": ["string", "null"], "format": "date-time"},
            "now": {"type": "string", "format": "date-time", "description": "The server's clock."},
            "request": {
                "type": ["object", "null"],
                "description": "Exactly what will go out; null once the approval has ended.",
            },
            "what": {"type": "object"},
            "credentials": {
                "type": "array",
                "description": "Names and slots, never values.",
                "items": {"type": "object"},
            },
            "claim": {**MAYBE_TEXT, "description": "The agent's own reason, unverified."},
            "requirement": {"type": "object"},
            "confirm": {"type": ["object", "null"]},
            "votes": {"type": "array", "items": {"type": "object"}},
            "needs": {"description": "What is still missing."},
            "notes": {"type": "array", "items": TEXT},
            "you": {"type": "object", "properties": {"may_vote": {"type": "boolean"}}},
            "resolution": {"type": ["object", "null"]},
            "request_commitment": TEXT,
        },
        "required": ["id", "state", "agent"],
    },
    "Call": {
        "type": "object",
        "properties": {
            "call": TEXT,
            "agent": MAYBE_TEXT,
            "started": {"type": "string", "format": "date-time"},
            "method": MAYBE_TEXT,
            "host": MAYBE_TEXT,
            "path": MAYBE_TEXT,
            "outcome": TEXT,
            "code": MAYBE_TEXT,
            "status": MAYBE_NUMBER,
            "rules": {"type": "array", "items": TEXT},
            "approval": MAYBE_TEXT,
            "risk": MAYBE_TEXT,
            "duration_ms": MAYBE_NUMBER,
            "seq": {"type": "integer", "description": "Give it as `before` for the next page."},
        },
        "required": ["call", "started", "outcome", "seq"],
    },
    "Record": {
        "type": "object",
        "description": "One record of the ledger.",
        "properties": {
            "seq": {"type": "integer"},
            "time": {"type": "string", "format": "date-time"},
            "type": TEXT,
            "call": MAYBE_TEXT,
            "agent": MAYBE_TEXT,
            "data": {"type": "object"},
            "prev": TEXT,
            "hash": TEXT,
        },
        "required": ["seq", "time", "type", "data", "prev", "hash"],
    },
}


def _list(name: str, schema: str) -> Schema:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}}
    return {"type": "object", "properties": {name: items}, "required": [name]}


def document() -> Schema:
    """The whole document."""
    limit = _query("limit", "At most so many.", {"type": "integer", "minimum": 1, "maximum": 200})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Keybroker",
            "version": "1",
            "description": "Held calls, votes and the history of calls.",
        },
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": SCHEMAS,
        },
        "paths": {
            "/api/v1/approvals": {
                "get": {
                    "summary": "Approvals, newest first",
                    "parameters": [
                        _query("state", "Only those in this state.", TEXT),
                        limit,
                    ],
                    "responses": {
                        "200": _json(_list("approvals", "Approval"), "The approvals"),
                        **_problems(400, 401, 503),
                    },
                }
            },
            "/api/v1/approvals/{id}": {
                "get": {
                    "summary": "One approval, with the request as it will be sent",
                    "parameters": [ID],
                    "responses": {"200": _json(APPROVAL, "The card"), **_problems(401, 404, 503)},
                }
            },
            "/api/v1/approvals/{id}/votes": {
                "post": {
                    "summary": "Approve or deny",
                    "parameters": [ID],
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Vote"}}
                        },
                    },
                    "responses": {
                        "200": _json(APPROVAL, "The card after the vote"),
                        **_problems(400, 401, 403, 404, 409, 413, 422, 503),
                    },
                }
            },
            "/api/v1/calls": {
                "get": {
                    "summary": "The history of calls, newest first",
                    "parameters": [
                        _query("agent", "Only this agent's.", TEXT),
                        _query("outcome", "Only those that ended so.", TEXT),
                        _query("host", "Only those to this host.", TEXT),
                        limit,
                        _query("before", "Only those before this seq.", {"type": "integer"}),
                    ],
                    "responses": {
                        "200": _json(_list("calls", "Call"), "The calls"),
                        **_problems(400, 401, 503),
                    },
                }
            },
            "/api/v1/calls/{id}": {
                "get": {
                    "summary": "The ledger records of one call",
                    "parameters": [ID],
                    "responses": {
                        "200": _json(_list("records", "Record"), "The records, oldest first"),
                        **_problems(401, 404, 503),
                    },
                }
            },
            "/api/v1/openapi.json": {
                "get": {
                    "summary": "This document",
                    "security": [],
                    "responses": {"200": _json({"type": "object"}, "OpenAPI 3.1")},
                }
            },
            "/healthz": {
                "get": {
                    "summary": "Is the program up, and does its store answer?",
                    "security": [],
                    "responses": {
                        "200": _json({"type": "object"}, "It is"),
                        **_problems(503),
                    },
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Counts, as Prometheus text",
                    "security": [],
                    "responses": {
                        "200": {
                            "description": "Counts only, no names",
                            "content": {"text/plain": {"schema": TEXT}},
                        },
                        **_problems(503),
                    },
                }
            },
        },
    }
