"""Ways in and out: the first account, sign-in, sign-out, and the link that sets a new password.

Wrong passwords slow down; a session id is new at each sign-in; no redirect leads off the site.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import partial

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.admin.devices import client_of
from broker.admin.frame import Frame, Visit
from broker.admin.guesses import Guesses
from broker.admin.ports import Services
from broker.admin.routes import Endpoint, Entry, routes
from broker.admin.security import Refused, Site, check_csrf, check_origin, local_path, read_form
from broker.devices import DEVICE_TTL
from broker.errors import InvalidInput, NotFound
from broker.model import User
from broker.passwords import SHORTEST


class Doors:
    """Handlers of signing in and out. `longest` and `idle` are the seconds of a session."""

    def __init__(
        self,
        services: Services,
        frame: Frame,
        site: Site,
        guesses: Guesses,
        *,
        longest: int,
        idle: int,
    ) -> None:
        self._services, self._frame, self._site, self._guesses = services, frame, site, guesses
        self._longest, self._idle = longest, idle

    def routes(self) -> list[Route]:
        return [
            *routes([Entry("POST", "/logout", "person", self.logout)], self._frame.door),
            *routes(self.table(), lambda entry: entry.handler),
        ]

    def table(self) -> list[Entry[Endpoint]]:
        """The forms for those who have no session yet."""
        return [
            Entry("GET", "/login", "anyone", self.login_form),
            Entry("POST", "/login", "anyone", self.login),
            Entry("GET", "/setup", "anyone", self.setup_form),
            Entry("POST", "/setup", "anyone", self.setup),
            Entry("GET", "/reset", "anyone", self.reset_form),
            Entry("POST", "/reset", "anyone", self.reset),
        ]

    async def logout(self, request: Request, visit: Visit) -> Response:
        await run_sync(self._services.sessions.end, visit.session.token)
        response = RedirectResponse("/login", 303)
        self._site.drop_cookie(response, self._site.session_cookie)
        return response

    def _visit(
        self, request: Request, template: str, values: Mapping[str, object], status: int = 200
    ) -> Response:
        """A form for someone without a session; its CSRF token is double-submitted."""
        token = request.cookies.get(self._site.visit_cookie, "")
        fresh = not (32 <= len(token) <= 64 and token.isascii() and token.isprintable())
        if fresh:
            token = secrets.token_urlsafe(32)
        response = self._frame.render(template, {**values, "csrf": token}, status)
        if fresh:
            self._site.set_cookie(response, self._site.visit_cookie, token)
        return response

    async def _visited(self, request: Request) -> dict[str, str]:
        check_origin(request, self._site)
        form = await read_form(request)
        check_csrf(form, request.cookies.get(self._site.visit_cookie))
        return form

    async def enter(self, request: Request, user: User, target: str) -> Response:
        """A new session, whatever cookie came along; the old one ends."""
        sessions = self._services.sessions
        old = request.cookies.get(self._site.session_cookie)
        if old:
            await run_sync(sessions.end, old)
        start = partial(
            sessions.start,
            user,
            longest=self._longest,
            idle=self._idle,
            client=client_of(request.headers.get("user-agent", "")),
        )
        session = await run_sync(start)
        device = await run_sync(self._services.devices.new, user.name)
        response = RedirectResponse(target, 303)
        self._site.set_cookie(response, self._site.session_cookie, session.token)
        self._site.set_cookie(
            response, self._site.device_cookie, device, int(DEVICE_TTL.total_seconds())
        )
        self._site.drop_cookie(response, self._site.visit_cookie)
        return response

    # Signing in

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
            user = await self._guesses.check(request, name, form.get("password", ""))
        except Refused as refused:
            response = await self._login_form(
                request, target, status=refused.status, name=name, error=refused.sentence
            )
            response.headers.update(refused.headers)
            return response
        if user is None:
            wrong = "This name and password do not belong together."
            return await self._login_form(request, target, status=401, name=name, error=wrong)
        return await self.enter(request, user, target)

    # The first account

    async def _check_link(self, token: str) -> None:
        if not token or not await run_sync(self._services.people.link_is_open, token):
            raise NotFound(
                "This link was used, has expired, or never was. As long as there is no account, "
                "keybroker up prints a new one."
            )

    async def setup_form(self, request: Request) -> Response:
        """Shows the form for the first user. Opening it uses nothing up."""
        token = request.query_params.get("token", "")
        await self._check_link(token)
        return self._setup_form(request, token)

    def _setup_form(
        self, request: Request, token: str, *, status: int = 200, name: str = "", error: str = ""
    ) -> Response:
        values = {
            "token": token,
            "name": name,
            "error": error or None,
            "shortest": SHORTEST,
        }
        return self._visit(request, "setup.html", values, status)

    async def setup(self, request: Request) -> Response:
        form = await self._visited(request)
        token, name = form.get("token", ""), form.get("name", "").strip()
        # Before the costly hash, which anyone could ask for.
        await self._check_link(token)
        try:
            password = chosen_password(form)
            make = partial(self._services.people.redeem_link, token, name, password)
            user = await self._guesses.hash(make)
        except InvalidInput as problem:
            return self._setup_form(request, token, status=422, name=name, error=str(problem))
        return await self.enter(request, user, "/")

    # A new password

    async def _check_reset(self, token: str) -> str:
        name = await run_sync(self._services.people.reset_of, token) if token else None
        if name is None:
            raise NotFound(
                "This link was used, has expired, or never was. An admin makes a new one with "
                "keybroker user reset."
            )
        return name

    async def reset_form(self, request: Request) -> Response:
        """Shows the form for a new password. Opening it uses nothing up."""
        token = request.query_params.get("token", "")
        return self._reset_form(request, token, await self._check_reset(token))

    def _reset_form(
        self, request: Request, token: str, name: str, *, status: int = 200, error: str = ""
    ) -> Response:
        values = {
            "token": token,
            "name": name,
            "error": error or None,
            "shortest": SHORTEST,
        }
        return self._visit(request, "reset.html", values, status)

    async def reset(self, request: Request) -> Response:
        form = await self._visited(request)
        token = form.get("token", "")
        name = await self._check_reset(token)
        try:
            redeem = partial(self._services.people.redeem_reset, token, chosen_password(form))
            user = await self._guesses.hash(redeem)
        except InvalidInput as problem:
            return self._reset_form(request, token, name, status=422, error=str(problem))
        return await self.enter(request, user, "/")


def chosen_password(form: Mapping[str, str]) -> str:
    """The new password of a form, typed twice. Raises InvalidInput if the two differ."""
    password = form.get("password", "")
    if password != form.get("again"):
        raise InvalidInput("The two passwords differ.")
    return password
