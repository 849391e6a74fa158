"""The OpenAPI 3.1 document of the REST API: made from the table of routes and a word for each.

Who may enter, and the errors that follow from it, come from the table; an operation without its
word here is a KeyError, so that none goes undescribed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.admin.openapi_schemas import COUNT, SCHEMAS, STATE, TEXT, Schema, closed, listed, ref
from broker.admin.roles import Who
from broker.admin.routes import Entry

JSON = "application/json"
PROBLEM = "application/problem+json"
ERRORS = {
    400: "The request cannot be read, or has parameters that are not known",
    401: "No API token, or not a valid one",
    403: "This person may not do this",
    404: "There is no such thing",
    409: "It is not in the state for this: decided, stale, voted already, or the last admin",
    413: "The body is too large",
    422: "A member of the body is missing or wrong, or the tier asks for more",
    500: "An error of Keybroker's own",
    503: "The store or the audit log cannot be used; nothing was changed",
}
WORDS: Mapping[Who, str] = {
    "anyone": "Needs no token.",
    "person": "For every role.",
    "voter": "For approvers and admins.",
    "self_or_admin": "For the person themselves, and for admins.",
    "admin": "For admins.",
}


@dataclass(frozen=True, slots=True)
class Word:
    """What is said of one operation besides what the table says."""

    summary: str
    answer: Schema | None
    """Schema of the 200 answer; None: 204."""
    errors: tuple[int, ...] = ()
    query: tuple[Schema, ...] = ()
    body: str | None = None
    """Name of the schema of the body."""
    media: str = JSON
    tag: str = field(default="approvals")


def query(name: str, description: str, schema: Schema) -> Schema:
    """A query parameter; it may be there once."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def limit(most: int, default: int) -> Schema:
    """The parameter `limit`."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return query("limit", "At most so many.", schema)


def document(table: Sequence[Entry[Any]], words: Mapping[tuple[str, str], Word]) -> Schema:
    """The whole document."""
    paths: dict[str, Schema] = {}
    for entry in table:
        word = words[entry.method, entry.path]
        paths.setdefault(entry.path, {})[entry.method.lower()] = _operation(entry, word)
    for path, item in paths.items():
        if names := re.findall(r"\{(\w+)\}", path):
            item["parameters"] = [
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "description": PATH[name],
                    "schema": {"type": "string", "minLength": 1},
                }
                for name in names
            ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Keybroker",
            "version": "1",
            "description": (
                "Held calls and votes, the history of calls, and who may look after them."
                " Every error is a problem document (RFC 9457)."
            ),
        },
        "security": [{"token": []}],
        "tags": [{"name": name} for name in ("approvals", "history", "people", "program")],
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token: `keybroker user token NAME`.",
                }
            },
            "schemas": SCHEMAS,
        },
        "paths": paths,
    }


PATH = {"id": "As the lists name it.", "name": "The name of a person."}


def _operation(entry: Entry[Any], word: Word) -> Schema:
    errors = {*word.errors, 400, 500, 503}
    if entry.who != "anyone":
        errors.add(401)
    if entry.who not in ("anyone", "person"):
        errors.add(403)
    if "{" in entry.path:
        errors.add(404)
    if word.body:
        errors |= {413, 422}
    answers: dict[str, Schema] = (
        {"204": {"description": "Done"}}
        if word.answer is None
        else {"200": {"description": "As asked", "content": {word.media: {"schema": word.answer}}}}
    )
    answers |= {
        str(status): {
            "description": ERRORS[status],
            "content": {PROBLEM: {"schema": ref("Problem")}},
        }
        for status in sorted(errors)
    }
    operation: Schema = {
        "operationId": _operation_id(entry),
        "tags": [word.tag],
        "summary": word.summary,
        "description": WORDS[entry.who],
        "responses": answers,
    }
    if entry.who == "anyone":
        operation["security"] = []
    if word.query:
        operation["parameters"] = list(word.query)
    if word.body:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": ref(word.body)}},
        }
    return operation


def _operation_id(entry: Entry[Any]) -> str:
    parts = re.findall(r"\w+", entry.path.removeprefix("/api/v1"))
    return "_".join((entry.method.lower(), *parts))


_USER = "/api/v1/users/{name}"
APPROVALS: Mapping[tuple[str, str], Word] = {
    ("GET", "/api/v1/approvals"): Word(
        "Approvals, newest first, without their requests",
        closed(approvals=listed(ref("Approval"))),
        query=(query("state", "Only those in this state.", STATE), limit(200, 100)),
    ),
    ("GET", "/api/v1/approvals/{id}"): Word(
        "One approval, with the request as it will be sent", ref("Approval")
    ),
    ("POST", "/api/v1/approvals/{id}/votes"): Word(
        "Approve or deny; answers with the approval as it then is",
        ref("Approval"),
        errors=(409,),
        body="Vote",
    ),
}
PEOPLE: Mapping[tuple[str, str], Word] = {
    ("GET", "/api/v1/me"): Word("Who the token stands for", ref("User"), tag="people"),
    ("GET", "/api/v1/users"): Word(
        "All accounts, by name", closed(users=listed(ref("User"))), tag="people"
    ),
    ("GET", _USER): Word("One account", ref("User"), tag="people"),
    ("PATCH", _USER): Word(
        "Change the role, disable or enable; the last admin stays",
        ref("User"),
        errors=(409,),
        body="UserChange",
        tag="people",
    ),
    ("GET", f"{_USER}/sessions"): Word(
        "Open page sessions", closed(sessions=listed(ref("Session"))), tag="people"
    ),
    ("DELETE", f"{_USER}/sessions"): Word(
        "End all of them; answers with how many", closed(ended=COUNT), tag="people"
    ),
    ("DELETE", f"{_USER}/sessions/{{id}}"): Word("End one", None, tag="people"),
    ("GET", f"{_USER}/tokens"): Word(
        "API tokens that work", closed(tokens=listed(ref("Token"))), tag="people"
    ),
    ("DELETE", f"{_USER}/tokens/{{id}}"): Word("Revoke one", None, tag="people"),
}
PROGRAM: Mapping[tuple[str, str], Word] = {
    ("GET", "/api/v1/openapi.json"): Word("This document", {"type": "object"}, tag="program"),
    ("GET", "/healthz"): Word("Is the program up?", closed(status={"const": "ok"}), tag="program"),
    ("GET", "/readyz"): Word(
        "Can calls go through now? 503 tells in `checks` what fails, and in `faults` how, the"
        " latter to people with a token",
        closed(
            status={"const": "ok"},
            checks={"type": "object", "additionalProperties": {"const": "ok"}},
        ),
        tag="program",
    ),
    ("GET", "/metrics"): Word(
        "Counts as Prometheus text, without names", TEXT, media="text/plain", tag="program"
    ),
}
