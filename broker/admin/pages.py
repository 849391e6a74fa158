"""The pages, rendered on the server; they work without script too. A vote is one posted form.

What agents wrote reaches a template only through autoescape and the `inert` filters.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import jinja2
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from broker.admin import events, inert, view
from broker.admin.api import LONGEST, status_of, whole_number
from broker.admin.ports import MOST_HELD, Ledger, Services
from broker.admin.security import (
    FORM_LIMIT,
    Refused,
    Site,
    check_csrf,
    check_origin,
    local_path,
    read_form,
)
from broker.admin.throttle import Throttle
from broker.errors import Conflict, InvalidInput, NotEntitled, NotFound, Unconfirmed

if TYPE_CHECKING:
    from broker.model import Choice, Session, User

TEMPLATES = Path(__file__).parent / "templates"
PAGE_SIZE = 50
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
"""What the history can be filtered by."""


class SignIn(Exception):
    """There is no session: off to the login page, and back to `target` afterwards."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.target = target


def environment() -> jinja2.Environment:
    """Templates with autoescape for everything and the filters for what agents wrote."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["inert"] = lambda value: inert.visible(str(value))
    env.filters["inert_lines"] = lambda value: inert.visible(str(value), lines=True)
    env.filters["clipped"] = lambda value: inert.clipped(str(value))
    env.filters["tojson_ascii"] = lambda value: json.dumps(value)
    env.filters["clock"] = _clock
    env.filters["when"] = _when
    env.filters["segment"] = lambda value: quote(str(value), safe="")
    env.filters["headline"] = view.headline
    env.filters["seconds_left"] = view.seconds_left
    env.filters["progress"] = view.progress
    return env


def _clock(seconds: int) -> str:
    """90 -> 1:30, 3700 -> 1:01:40."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _when(text: str | None) -> str:
    """An RFC 3339 time to the second, in UTC."""
    return "" if not text else view.parse_time(text).strftime("%Y-%m-%d %H:%M:%S")


class Pages:
    """Handlers of everything that a browser opens."""

    def __init__(
        self,
        services: Services,
        ledger: Ledger,
        site: Site,
        *,
        session_ttl: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services, self._ledger, self._site = services, ledger, site
        self._session_ttl, self._monotonic = session_ttl, monotonic
        self._env = environment()
        self._by_user = Throttle()
        self._by_address = Throttle(free=20)
        # argon2 takes tens of megabytes and of milliseconds each: two at a time.
        self._hashing = CapacityLimiter(2)

    def routes(self) -> list[Route]:
        return [
            Route("/", self.held),
            Route("/events", self.events),
            Route("/approvals/{id}", self.card),
            Route("/approvals/{id}/body", self.body),
            Route("/approvals/{id}/vote", self.vote, methods=["POST"]),
            Route("/history", self.history),
            Route("/history/{id}", self.call),
            Route("/account", self.account),
            Route("/account/tokens", self.new_token, methods=["POST"]),
            Route("/account/sessions/end", self.end_sessions, methods=["POST"]),
            Route("/login", self.login_form),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/setup", self.setup_form),
            Route("/setup", self.setup, methods=["POST"]),
        ]

    # What every page needs

    def render(
        self, template: str, values: Mapping[str, object], status: int = 200
    ) -> HTMLResponse:
        defaults = {"session": None, "pending": 0, "here": "", "error": None}
        page = self._env.get_template(template).render({**defaults, **values})
        return HTMLResponse(page, status)

    def error(self, status: int, title: str, sentence: str) -> HTMLResponse:
        """An error page; it says nothing of who is signed in."""
        values = {"status": status, "title": title, "sentence": sentence}
        return self.render("error.html", values, status)

    async def _session(self, request: Request) -> Session:
        """The session of the cookie; SignIn where there is none."""
        token = request.cookies.get(self._site.session_cookie)
        session = await run_sync(self._services.people.session, token) if token else None
        if session is None:
            target = request.url.path
            if request.url.query:
                target += f"?{request.url.query}"
            raise SignIn(target if request.method in ("GET", "HEAD") else "/")
        return session

    async def _posted(self, request: Request) -> tuple[Session, dict[str, str]]:
        """The session and the form of a POST that came from these pages."""
        check_origin(request, self._site)
        session = await self._session(request)
        form = await read_form(request)
        check_csrf(form, session.csrf)
        return session, form

    async def _page(
        self, template: str, session: Session, values: Mapping[str, object], status: int = 200
    ) -> HTMLResponse:
        pending = len(await run_sync(self._services.desk.list, "pending", MOST_HELD))
        return self.render(template, {"session": session, "pending": pending, **values}, status)

    # Held calls

    async def held(self, request: Request) -> Response:
        session = await self._session(request)
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
        return self.render("held.html", values)

    async def events(self, request: Request) -> Response:
        try:
            session = await self._session(request)
        except SignIn:
            # An EventSource gives up for good on anything but 200.
            return Response("Not signed in.\n", 401, media_type="text/plain")
        return StreamingResponse(
            events.stream(self._services, session.token), media_type="text/event-stream"
        )

    async def card(self, request: Request) -> Response:
        session = await self._session(request)
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
        return await self._page("card.html", session, values, status)

    async def body(self, request: Request) -> Response:
        """The body's exact bytes, as a file: never shown by the browser as a page of ours."""
        session = await self._session(request)
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

    async def vote(self, request: Request) -> Response:
        session, form = await self._posted(request)
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

    # History

    async def history(self, request: Request) -> Response:
        session = await self._session(request)
        query = request.query_params
        chosen = {name: query.get(name, "").strip() for name in ("agent", "outcome", "host")}
        before = whole_number(query.get("before"), "before", least=0, most=2**62, default=0)
        find = partial(
            self._ledger.calls,
            agent=chosen["agent"] or None,
            outcome=chosen["outcome"] or None,
            host=chosen["host"].lower() or None,
            limit=PAGE_SIZE + 1,
            before=before or None,
        )
        calls = list(await run_sync(find))
        kept = {name: value for name, value in chosen.items() if value}
        older = None
        if len(calls) > PAGE_SIZE:
            calls = calls[:PAGE_SIZE]
            older = "/history?" + urlencode({**kept, "before": calls[-1].seq})
        values = {
            "calls": calls,
            "agents": sorted(agent.name for agent in await run_sync(self._services.agents.list)),
            "outcomes": OUTCOMES,
            "chosen": chosen,
            "older": older,
            "newest": "/history?" + urlencode(kept) if before else None,
            "here": "history",
        }
        return await self._page("history.html", session, values)

    async def call(self, request: Request) -> Response:
        session = await self._session(request)
        records = await run_sync(self._ledger.show, request.path_params["id"])
        if not records:
            raise NotFound("There is no such call.")
        first = next((record for record in records if record.data.get("what")), records[0])
        values = {"records": records, "first": first, "here": "history"}
        return await self._page("call.html", session, values)

    # Account

    async def account(self, request: Request) -> Response:
        session = await self._session(request)
        return await self._page("account.html", session, {"here": "account", "token": None})

    async def new_token(self, request: Request) -> Response:
        """A token outlives the session, so the password is asked once more."""
        session, form = await self._posted(request)
        name = session.user.name
        if await self._check_password(request, name, form.get("password", "")) is None:
            values = {"here": "account", "token": None, "error": "The password is wrong."}
            return await self._page("account.html", session, values, 403)
        token = await run_sync(self._services.people.new_api_token, name, name)
        return await self._page("account.html", session, {"here": "account", "token": token})

    async def end_sessions(self, request: Request) -> Response:
        session, _ = await self._posted(request)
        await run_sync(self._services.people.end_all, session.user.name)
        return self._signed_out()

    async def logout(self, request: Request) -> Response:
        session, _ = await self._posted(request)
        await run_sync(self._services.people.end_session, session.token)
        return self._signed_out()

    def _signed_out(self) -> Response:
        response = RedirectResponse("/login", 303)
        self._site.drop_cookie(response, self._site.session_cookie)
        return response

    # Signing in

    def _visit(
        self, request: Request, template: str, values: Mapping[str, object], status: int = 200
    ) -> Response:
        """A form for someone without a session; its CSRF token is double-submitted."""
        token = request.cookies.get(self._site.visit_cookie, "")
        fresh = not (32 <= len(token) <= 64 and token.isascii() and token.isprintable())
        if fresh:
            token = secrets.token_urlsafe(32)
        response = self.render(template, {**values, "csrf": token}, status)
        if fresh:
            self._site.set_cookie(response, self._site.visit_cookie, token)
        return response

    async def _visited(self, request: Request) -> dict[str, str]:
        check_origin(request, self._site)
        form = await read_form(request)
        check_csrf(form, request.cookies.get(self._site.visit_cookie))
        return form

    async def _check_password(self, request: Request, name: str, password: str) -> User | None:
        """The user; None if the pair is wrong; Refused (429) if there were too many guesses."""
        user = (f"user:{name.casefold()[:200]}",)
        address = (f"address:{request.client.host if request.client else ''}",)
        now = self._monotonic()
        wait = self._by_user.begin(user, now) or self._by_address.begin(address, now)
        if wait:
            raise Refused(
                429,
                f"Too many wrong passwords. Try again in {wait} seconds.",
                headers={"retry-after": str(wait)},
            )
        check = partial(self._services.people.check_password, name, password)
        found = await run_sync(check, limiter=self._hashing)
        if found is not None:
            self._by_user.succeeded(user)
            self._by_address.forgive(address)
        return found

    async def _enter(self, request: Request, user: User, target: str) -> Response:
        """A new session, whatever cookie came along; the old one ends."""
        people = self._services.people
        old = request.cookies.get(self._site.session_cookie)
        if old:
            await run_sync(people.end_session, old)
        session = await run_sync(partial(people.start_session, user, ttl=self._session_ttl))
        response = RedirectResponse(target, 303)
        self._site.set_cookie(response, self._site.session_cookie, session.token)
        self._site.drop_cookie(response, self._site.visit_cookie)
        return response

    async def login_form(self, request: Request) -> Response:
        target = local_path(request.query_params.get("next"))
        return await self._login_form(request, target)

    async def _login_form(
        self, request: Request, target: str, *, status: int = 200, name: str = "", error: str = ""
    ) -> Response:
        empty = not await run_sync(self._services.people.any)
        values = {
            "next": target,
            "name": name,
            "error": error or None,
            "empty": empty,
        }
        return self._visit(request, "login.html", values, status)

    async def login(self, request: Request) -> Response:
        form = await self._visited(request)
        name, target = form.get("name", "").strip(), local_path(form.get("next"))
        try:
            user = await self._check_password(request, name, form.get("password", ""))
        except Refused as refused:
            if refused.status != 429:
                raise
            response = await self._login_form(
                request, target, status=429, name=name, error=refused.sentence
            )
            response.headers.update(refused.headers)
            return response
        if user is None:
            wrong = "This name and password do not belong together."
            return await self._login_form(request, target, status=401, name=name, error=wrong)
        return await self._enter(request, user, target)

    async def setup_form(self, request: Request) -> Response:
        """Shows the form for the first user. Opening it uses nothing up."""
        token = request.query_params.get("token", "")
        if not token or not await run_sync(self._services.people.link_is_open, token):
            raise NotFound(
                "This link was used, has expired, or never was. As long as there is no account, "
                "keybroker up prints a new one."
            )
        return self._visit(request, "setup.html", {"token": token, "name": ""})

    async def setup(self, request: Request) -> Response:
        form = await self._visited(request)
        token, name = form.get("token", ""), form.get("name", "").strip()
        password = form.get("password", "")
        try:
            if password != form.get("again"):
                raise InvalidInput("The two passwords differ.")
            make = partial(self._services.people.redeem_link, token, name, password)
            user = await run_sync(make, limiter=self._hashing)
        except InvalidInput as problem:
            values = {"token": token, "name": name, "error": str(problem)}
            return self._visit(request, "setup.html", values, 422)
        return await self._enter(request, user, "/")


assert LONGEST < FORM_LIMIT, "a reason must fit into a form"
