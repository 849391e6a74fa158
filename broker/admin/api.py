"""The REST API: the same operations as the pages, for Bearer tokens only. Cookies are never read.

Errors are problem documents (RFC 9457). Text of agents goes out as ASCII-escaped JSON.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import get_args

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.admin.answers import answer, problem
from broker.admin.api_people import Handler, PeopleApi, no_query, read_object, signed
from broker.admin.history import MOST, HistoryApi, HistoryOf, parameters, whole_number
from broker.admin.openapi import APPROVALS, PEOPLE, PROGRAM, document
from broker.admin.openapi_history import HISTORY
from broker.admin.openapi_schemas import LONGEST
from broker.admin.ports import Ledger, Monitor, Services
from broker.admin.roles import admit
from broker.admin.routes import Endpoint, Entry, routes
from broker.admin.security import Refused, bearer, read_body
from broker.errors import StoreUnavailable
from broker.model import ApprovalState, Choice, User

STATES: tuple[str, ...] = get_args(ApprovalState)
WORDS = {**APPROVALS, **HISTORY, **PEOPLE, **PROGRAM}
METRICS_TYPE = "text/plain; version=0.0.4"


def read_vote(body: bytes) -> tuple[Choice, str | None, str | None]:
    """(decision, reason, confirm) of a vote; Refused 400 for bad JSON, 422 for bad members."""
    fields = read_object(body, "decision", "reason", "confirm")
    decision = fields.get("decision")
    if decision not in ("approve", "deny"):
        raise Refused(422, 'decision must be "approve" or "deny".')
    texts = []
    for name in ("reason", "confirm"):
        text = fields.get(name)
        if name in fields and not _is_text(text):
            raise Refused(422, f"{name} must be a text of at most {LONGEST} characters.")
        texts.append(text)
    return ("approve" if decision == "approve" else "deny"), texts[0], texts[1]


def _is_text(value: object) -> bool:
    """Short enough, and without lone surrogates, which no record can hold."""
    return (
        isinstance(value, str)
        and len(value) <= LONGEST
        and not any("\ud800" <= char <= "\udfff" for char in value)
    )


class Api:
    """Handlers of /api/v1, /healthz, /readyz and /metrics."""

    def __init__(
        self,
        services: Services,
        ledger: Ledger,
        monitor: Monitor,
        history: HistoryOf | None = None,
    ) -> None:
        self._services, self._ledger, self._monitor = services, ledger, monitor
        self._history = history or HistoryOf(ledger)

    def routes(self) -> list[Route]:
        return routes(self.table(), self._door)

    def table(self) -> list[Entry[Handler]]:
        return [
            Entry("GET", "/healthz", "anyone", self.health),
            Entry("GET", "/readyz", "anyone", self.ready),
            Entry("GET", "/metrics", "person" if self._monitor.guarded else "anyone", self.metrics),
            Entry("GET", "/api/v1/openapi.json", "anyone", self.openapi),
            Entry("GET", "/api/v1/approvals", "person", self.approvals),
            Entry("GET", "/api/v1/approvals/{id}", "person", self.approval),
            Entry("POST", "/api/v1/approvals/{id}/votes", "voter", self.vote),
            *HistoryApi(self._ledger, self._history).table(),
            *PeopleApi(self._services).table(),
        ]

    def _door(self, entry: Entry[Handler]) -> Endpoint:
        """What stands before every operation: the token, and the role that it takes."""

        async def enter(request: Request) -> Response:
            user = None
            if entry.who != "anyone":
                user = await self._signed_in(request)
                if user is None:
                    raise Refused(401, "Send an API token: Authorization: Bearer TOKEN.")
            admit(entry.who, user, request.path_params.get("name"))
            return await entry.handler(request, user)

        return enter

    async def _signed_in(self, request: Request) -> User | None:
        token = bearer(request.headers.getlist("authorization"))
        return await run_sync(self._services.tokens.user, token) if token else None

    async def approvals(self, request: Request, user: User | None) -> Response:
        given = parameters(request.query_params, frozenset({"state", "limit"}))
        state = given.get("state")
        if state is not None and state not in STATES:
            raise Refused(400, f"state must be one of {', '.join(STATES)}.")
        limit = whole_number(given.get("limit"), "limit", least=1, most=MOST, default=100)
        cards = await run_sync(self._services.desk.list, state, limit)
        return answer({"approvals": list(cards)})

    async def approval(self, request: Request, user: User | None) -> Response:
        no_query(request)
        return answer(await run_sync(self._services.desk.card, request.path_params["id"], user))

    async def vote(self, request: Request, user: User | None) -> Response:
        no_query(request)
        decision, reason, confirm = read_vote(await read_body(request))
        cast = partial(
            self._services.desk.vote,
            request.path_params["id"],
            signed(user),
            decision,
            reason=reason,
            confirm=confirm,
            via="api",
        )
        return answer(await run_sync(cast))

    async def openapi(self, request: Request, user: User | None) -> Response:
        return answer(document(self.table(), WORDS))

    async def health(self, request: Request, user: User | None) -> Response:
        """This process is alive. Looks at nothing: it may be asked as often as one likes."""
        return answer({"status": "ok"})

    async def ready(self, request: Request, user: User | None) -> Response:
        """Whether calls can go through now. What is wrong is told to people with a token only."""
        findings = await self._monitor.checks()
        checks = {name: "ok" if fault is None else "fail" for name, fault in findings.items()}
        faults = {name: fault for name, fault in findings.items() if fault is not None}
        if not faults:
            return answer({"status": "ok", "checks": checks})
        more: dict[str, object] = {"checks": checks}
        # The store that people's tokens are in may be what is down.
        with suppress(StoreUnavailable):
            if await self._signed_in(request) is not None:
                more["faults"] = faults
        return problem(503, f"Calls cannot go through: {', '.join(faults)}.", more=more)

    async def metrics(self, request: Request, user: User | None) -> Response:
        """Prometheus text: counts only, no names of agents, hosts or people."""
        return Response(await self._monitor.metrics(), media_type=METRICS_TYPE)
