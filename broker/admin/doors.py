"""Ways in and out: the first account, sign-in, sign-out, and one's own account page.

Wrong passwords slow down; a session id is new at each sign-in; no redirect leads off the site.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.admin.frame import Frame
from broker.admin.ports import Services
from broker.admin.security import Refused, Site, check_csrf, check_origin, local_path, read_form
from broker.admin.throttle import Throttle
from broker.errors import InvalidInput, NotFound
from broker.model import User
from broker.people import SHORTEST_PASSWORD


class Doors:
    """Handlers of everything about who is signed in."""

    def __init__(
        self,
        services: Services,
        frame: Frame,
        site: Site,
        *,
        session_ttl: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services, self._frame, self._site = services, frame, site
        self._session_ttl, self._monotonic = session_ttl, monotonic
        self._by_user = Throttle()
        self._by_address = Throttle(free=20)
        # argon2 takes tens of megabytes and of milliseconds each: two at a time.
        self._hashing = CapacityLimiter(2)

    def routes(self) -> list[Route]:
        return [
            Route("/account", self.account),
            Route("/account/tokens", self.new_token, methods=["POST"]),
            Route("/account/sessions/end", self.end_sessions, methods=["POST"]),
            Route("/login", self.login_form),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/setup", self.setup_form),
            Route("/setup", self.setup, methods=["POST"]),
        ]

    # Account

    async def account(self, request: Request) -> Response:
        session = await self._frame.session(request)
        return await self._frame.page("account.html", session, {"here": "account", "token": None})

    async def new_token(self, request: Request) -> Response:
        """A token outlives the session, so the password is asked once more."""
        session, form = await self._frame.posted(request)
        name = session.user.name
        if await self._check_password(request, name, form.get("password", "")) is None:
            values = {"here": "account", "token": None, "error": "The password is wrong."}
            return await self._frame.page("account.html", session, values, 403)
        token = await run_sync(self._services.people.new_api_token, name, name)
        return await self._frame.page("account.html", session, {"here": "account", "token": token})

    async def end_sessions(self, request: Request) -> Response:
        session, _ = await self._frame.posted(request)
        await run_sync(self._services.people.end_all, session.user.name)
        return self._signed_out()

    async def logout(self, request: Request) -> Response:
        session, _ = await self._frame.posted(request)
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
        response = self._frame.render(template, {**values, "csrf": token}, status)
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
            "shortest": SHORTEST_PASSWORD,
        }
        return self._visit(request, "setup.html", values, status)

    async def setup(self, request: Request) -> Response:
        form = await self._visited(request)
        token, name = form.get("token", ""), form.get("name", "").strip()
        password = form.get("password", "")
        # Before the costly hash, which anyone could ask for.
        await self._check_link(token)
        try:
            if password != form.get("again"):
                raise InvalidInput("The two passwords differ.")
            make = partial(self._services.people.redeem_link, token, name, password)
            user = await run_sync(make, limiter=self._hashing)
        except InvalidInput as problem:
            return self._setup_form(request, token, status=422, name=name, error=str(problem))
        return await self._enter(request, user, "/")
