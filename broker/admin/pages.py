"""The pages of held calls. They work without script too; a vote is one form."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from broker.admin import events, view
from broker.admin.answers import status_of
from broker.admin.frame import Frame, PageHandler, SignIn, Visit
from broker.admin.openapi_schemas import LONGEST
from broker.admin.ports import MOST_HELD, Services
from broker.admin.routes import Entry, routes
from broker.admin.security import Refused
from broker.errors import Conflict, NotEntitled, NotFound, Unconfirmed
from broker.model import Choice, Session


class Pages:
    """Handlers of what is looked at and voted on."""

    def __init__(self, services: Services, frame: Frame) -> None:
        self._services, self._frame = services, frame

    def routes(self) -> list[Route]:
        door = self._frame.door
        return [
            *routes([Entry("GET", "/events", "person", self.events)], lambda e: e.handler),
            *routes(self.table(), door),
        ]

    def table(self) -> list[Entry[PageHandler]]:
        """All but the stream of events, which answers 401 where a page leads to the log-in."""
        return [
            Entry("GET", "/", "person", self.held),
            Entry("GET", "/approvals/{id}", "person", self.card),
            Entry("GET", "/approvals/{id}/body", "person", self.body),
            Entry("POST", "/approvals/{id}/vote", "voter", self.vote),
        ]

    # Held calls

    async def held(self, request: Request, visit: Visit) -> Response:
        session = visit.session
        cards = sorted(
            await run_sync(self._services.desk.list, "pending", MOST_HELD),
            key=lambda card: card["decide_by"],
        )
        values = {
            "session": session,
            "pending": len(cards),
            "cards": cards,
            "here": "held",
            "now": events.server_now(),
        }
        return self._frame.render("held.html", values)

    async def events(self, request: Request) -> Response:
        try:
            session = await self._frame.session(request)
        except SignIn:
            # An EventSource gives up for good on anything but 200.
            return Response("Not signed in.\n", 401, media_type="text/plain")
        return StreamingResponse(
            events.stream(self._services, session.token), media_type="text/event-stream"
        )

    async def card(self, request: Request, visit: Visit) -> Response:
        session = visit.session
        return await self._card(request.path_params["id"], session)

    async def _card(
        self,
        approval: str,
        session: Session,
        *,
        status: int = 200,
        error: str | None = None,
        form: Mapping[str, str] | None = None,
    ) -> HTMLResponse:
        card = await run_sync(self._services.desk.card, approval, session.user)
        values = {
            "card": card,
            "request": view.shown_request(card),
            "sentences": view.requirement_sentences(card.get("requirement")),
            "error": error,
            "form": form or {},
            "longest": LONGEST,
        }
        return await self._frame.page("card.html", session, values, status)

    async def body(self, request: Request, visit: Visit) -> Response:
        """The body's exact bytes, as a file: never shown by the browser as a page of ours."""
        session = visit.session
        approval = request.path_params["id"]
        shown = (await run_sync(self._services.desk.card, approval, session.user)).get("request")
        if not shown:
            raise NotFound("The request was deleted when its approval ended.")
        return Response(
            base64.b64decode(shown["body_base64"]),
            media_type="application/octet-stream",
            headers={
                "content-disposition": 'attachment; filename="request-body.bin"',
                "content-security-policy": "default-src 'none'; sandbox",
            },
        )

    async def vote(self, request: Request, visit: Visit) -> Response:
        session, form = visit.session, visit.form
        approval, decision = request.path_params["id"], form.get("decision")
        if decision not in ("approve", "deny"):
            raise Refused(400, "A vote is either approve or deny.")
        choice: Choice = "approve" if decision == "approve" else "deny"
        reason, confirm = form.get("reason", "").strip() or None, form.get("confirm") or None
        if max(len(reason or ""), len(confirm or "")) > LONGEST:
            raise Refused(400, f"A reason has at most {LONGEST} characters.")
        cast = partial(
            self._services.desk.vote,
            approval,
            session.user,
            choice,
            reason=reason,
            confirm=confirm,
            via="page",
        )
        try:
            await run_sync(cast)
        except (Conflict, NotEntitled, Unconfirmed) as problem:
            return await self._card(
                approval, session, status=status_of(problem), error=str(problem), form=form
            )
        return RedirectResponse(f"/approvals/{quote(approval, safe='')}#standing", 303)
