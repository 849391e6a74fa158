"""The REST API: the same operations as the pages, for Bearer tokens only. Cookies are never read.

Errors are problem documents (RFC 9457). Text of agents goes out as ASCII-escaped JSON.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, get_args

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.admin.openapi import document
from broker.admin.ports import MOST_HELD, CallSummary, Ledger, Record, Services
from broker.admin.security import Refused, bearer, read_body
from broker.errors import (
    Conflict,
    InvalidInput,
    KeybrokerError,
    NotEntitled,
    NotFound,
    StoreUnavailable,
    Unconfirmed,
)
from broker.model import ApprovalState, Choice, User

STATES: tuple[str, ...] = get_args(ApprovalState)
MOST = 200
"""The longest page of a list."""
LONGEST = 2000
"""Characters of a reason or of a retyped value."""
TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not entitled",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Not confirmed",
    429: "Too many attempts",
    500: "Internal error",
    503: "Unavailable",
}

STATUS: Mapping[type[KeybrokerError], int] = {
    NotFound: 404,
    Conflict: 409,
    NotEntitled: 403,
    Unconfirmed: 422,
    InvalidInput: 422,
    StoreUnavailable: 503,
}

Handler = Callable[[Request, User], Awaitable[Response]]


def answer(content: object, status: int = 200) -> Response:
    """JSON in ASCII: lone surrogates and control characters stay escapes."""
    return Response(
        json.dumps(content, separators=(",", ":")), status, media_type="application/json"
    )


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document (RFC 9457)."""
    content = {"status": status, "title": TITLES.get(status, "Error"), "detail": detail}
    if status == 401:
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    return Response(
        json.dumps(content), status, dict(headers or {}), media_type="application/problem+json"
    )


def status_of(error: KeybrokerError) -> int:
    """The HTTP status of an error of the middle; 500 where it was not made for a caller."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def call_json(call: CallSummary) -> dict[str, object]:
    return {
        "call": call.call,
        "agent": call.agent,
        "started": call.started,
        "method": call.method,
        "host": call.host,
        "path": call.path,
        "outcome": call.outcome,
        "code": call.code,
        "status": call.status,
        "rules": list(call.rules),
        "approval": call.approval,
        "risk": call.risk,
        "duration_ms": call.duration_ms,
        "seq": call.seq,
    }


def record_json(record: Record) -> dict[str, object]:
    return {
        "seq": record.seq,
        "time": record.time,
        "type": record.type,
        "call": record.call,
        "agent": record.agent,
        "data": dict(record.data),
        "prev": record.prev,
        "hash": record.hash,
    }


def whole_number(text: str | None, name: str, *, least: int, most: int, default: int | None) -> int:
    """A query parameter; Refused (400) unless it is plain digits within the bounds."""
    if text is None or text == "":
        if default is None:
            raise Refused(400, f"{name} is missing.")
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise Refused(400, f"{name} must be a whole number from {least} to {most}.")
    return int(text)


def read_vote(body: bytes) -> tuple[Choice, str | None, str | None]:
    """(decision, reason, confirm) of a vote; Refused 400 for bad JSON, 422 for bad members."""
    try:
        fields: Any = json.loads(body, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        raise Refused(400, "The body must be a JSON object.") from None
    if not isinstance(fields, dict):
        raise Refused(400, "The body must be a JSON object.")
    unknown = set(fields) - {"decision", "reason", "confirm"}
    if unknown:
        raise Refused(422, "A vote has decision, reason and confirm, and nothing else.")
    decision = fields.get("decision")
    if decision not in ("approve", "deny"):
        raise Refused(422, 'decision must be "approve" or "deny".')
    texts = []
    for name in ("reason", "confirm"):
        text = fields.get(name)
        if text is not None and not _is_text(text):
            raise Refused(422, f"{name} must be a text of at most {LONGEST} characters.")
        texts.append(text)
    return ("approve" if decision == "approve" else "deny"), texts[0], texts[1]


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object in which no name is there twice: two readers would see two votes."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is there twice")
    return members


def _is_text(value: object) -> bool:
    """Short enough, and without lone surrogates, which no record can hold."""
    return (
        isinstance(value, str)
        and len(value) <= LONGEST
        and not any("\ud800" <= char <= "\udfff" for char in value)
    )


class Api:
    """Handlers of /api/v1, /healthz and /metrics."""

    def __init__(self, services: Services, ledger: Ledger) -> None:
        self._services, self._ledger = services, ledger

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.health),
            Route("/metrics", self.metrics),
            Route("/api/v1/openapi.json", self.openapi),
            Route("/api/v1/approvals", partial(self._signed, self.approvals)),
            Route("/api/v1/approvals/{id}", partial(self._signed, self.approval)),
            Route(
                "/api/v1/approvals/{id}/votes", partial(self._signed, self.vote), methods=["POST"]
            ),
            Route("/api/v1/calls", partial(self._signed, self.calls)),
            Route("/api/v1/calls/{id}", partial(self._signed, self.call)),
        ]

    async def _signed(self, handler: Handler, request: Request) -> Response:
        token = bearer(request.headers.getlist("authorization"))
        user = await run_sync(self._services.people.by_api_token, token) if token else None
        if user is None:
            raise Refused(401, "Send an API token: Authorization: Bearer TOKEN.")
        return await handler(request, user)

    async def approvals(self, request: Request, user: User) -> Response:
        state = request.query_params.get("state")
        if state is not None and state not in STATES:
            raise Refused(400, f"state must be one of {', '.join(STATES)}.")
        limit = whole_number(
            request.query_params.get("limit"), "limit", least=1, most=MOST, default=100
        )
        cards = await run_sync(self._services.desk.list, state, limit)
        return answer({"approvals": list(cards)})

    async def approval(self, request: Request, user: User) -> Response:
        return answer(await run_sync(self._services.desk.card, request.path_params["id"], user))

    async def vote(self, request: Request, user: User) -> Response:
        decision, reason, confirm = read_vote(await read_body(request))
        cast = partial(
            self._services.desk.vote,
            request.path_params["id"],
            user,
            decision,
            reason=reason,
            confirm=confirm,
            via="api",
        )
        return answer(await run_sync(cast))

    async def calls(self, request: Request, user: User) -> Response:
        query = request.query_params
        limit = whole_number(query.get("limit"), "limit", least=1, most=MOST, default=50)
        before = whole_number(query.get("before"), "before", least=0, most=2**62, default=0)
        find = partial(
            self._ledger.calls,
            agent=query.get("agent") or None,
            outcome=query.get("outcome") or None,
            host=query.get("host") or None,
            limit=limit,
            before=before or None,
        )
        return answer({"calls": [call_json(call) for call in await run_sync(find)]})

    async def call(self, request: Request, user: User) -> Response:
        records = await run_sync(self._ledger.show, request.path_params["id"])
        if not records:
            raise Refused(404, "There is no such call.")
        return answer({"records": [record_json(record) for record in records]})

    async def openapi(self, request: Request) -> Response:
        return answer(document())

    async def health(self, request: Request) -> Response:
        """Alive, and the store answers."""
        await run_sync(self._services.people.any)
        return answer({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Prometheus text. No login, so counts only: no names of agents, hosts or people."""
        pending = len(await run_sync(self._services.desk.list, "pending", MOST_HELD))
        counts = await run_sync(self._ledger.counts)
        lines = [
            "# HELP keybroker_approvals_pending Held calls that wait for a decision.",
            "# TYPE keybroker_approvals_pending gauge",
            f"keybroker_approvals_pending {pending}",
            "# HELP keybroker_ledger_records_total Ledger records by type.",
            "# TYPE keybroker_ledger_records_total counter",
        ]
        lines += [
            f'keybroker_ledger_records_total{{type="{kind}"}} {count}'
            for kind, count in sorted(counts.items())
        ]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")
