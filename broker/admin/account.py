"""One's own account page: password, sessions, API tokens. For admins also everybody's accounts.

What outlives the session (a password, a token) asks for the password once more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.admin.answers import status_of
from broker.admin.doors import Doors, chosen_password
from broker.admin.frame import Frame, PageHandler, Visit
from broker.admin.guesses import Guesses
from broker.admin.ports import Services
from broker.admin.routes import Entry, routes
from broker.admin.security import Refused
from broker.errors import Conflict, InvalidInput
from broker.passwords import SHORTEST
from broker.people import ROLES

LASTS = {"30": "30 days", "90": "90 days", "365": "a year", "": "until it is revoked"}
"""Days that a token made on the page may last."""
WRONG = "The password is wrong."


class Account:
    """Handlers of /account and /people."""

    def __init__(self, services: Services, frame: Frame, doors: Doors, guesses: Guesses) -> None:
        self._services, self._frame, self._doors = services, frame, doors
        self._guesses = guesses

    def routes(self) -> list[Route]:
        return routes(self.table(), self._frame.door)

    def table(self) -> list[Entry[PageHandler]]:
        return [
            Entry("GET", "/account", "person", self.account),
            Entry("POST", "/account/password", "person", self.new_password),
            Entry("POST", "/account/tokens", "person", self.new_token),
            Entry("POST", "/account/tokens/{id}/revoke", "person", self.revoke_token),
            Entry("POST", "/account/sessions/end", "person", self.end_others),
            Entry("POST", "/account/sessions/{id}/end", "person", self.end_session),
            Entry("GET", "/people", "admin", self.people),
            Entry("POST", "/people/{name}/role", "admin", self.set_role),
            Entry("POST", "/people/{name}/disable", "admin", self.disable),
            Entry("POST", "/people/{name}/enable", "admin", self.enable),
            Entry("POST", "/people/{name}/sessions/end", "admin", self.end_theirs),
        ]

    # One's own

    async def account(self, request: Request, visit: Visit) -> Response:
        return await self._account(visit)

    async def _account(self, visit: Visit, status: int = 200, **values: object) -> Response:
        name = visit.session.user.name
        shown = {
            "here": "account",
            "token": None,
            "problem_with": None,
            "lasts": LASTS,
            "shortest": SHORTEST,
            "form": {},
            "sessions": await run_sync(self._services.sessions.list, name),
            "tokens": await run_sync(self._services.tokens.list, name),
            **values,
        }
        return await self._frame.page("account.html", visit.session, shown, status)

    async def _right_password(self, request: Request, visit: Visit) -> bool:
        password = visit.form.get("current", "")
        name = visit.session.user.name
        return await self._guesses.check(request, name, password, visit.session) is not None

    async def new_password(self, request: Request, visit: Visit) -> Response:
        """All sessions end, this one too: its id must not outlive the password."""
        name = visit.session.user.name
        try:
            password = chosen_password(visit.form)
            if not await self._right_password(request, visit):
                return await self._account(visit, 403, problem_with="password", error=WRONG)
            change = partial(self._services.people.set_password, name, password, name)
            await self._guesses.hash(change)
        except InvalidInput as problem:
            return await self._account(visit, 422, problem_with="password", error=str(problem))
        except Refused as refused:
            return await self._account(
                visit, refused.status, problem_with="password", error=refused.sentence
            )
        return await self._doors.enter(request, visit.session.user, "/account")

    async def new_token(self, request: Request, visit: Visit) -> Response:
        name, label = visit.session.user.name, visit.form.get("label", "").strip()
        days = visit.form.get("lasts", "")
        if days not in LASTS:
            raise Refused(400, "A token lasts for one of the times that are offered.")
        make = partial(
            self._services.tokens.new,
            name,
            name,
            label=label,
            lasts=timedelta(days=int(days)) if days else None,
        )
        try:
            if not await self._right_password(request, visit):
                return await self._account(
                    visit, 403, problem_with="token", error=WRONG, form=visit.form
                )
            token = await run_sync(make)
        except (InvalidInput, Conflict) as problem:
            return await self._account(
                visit,
                status_of(problem),
                problem_with="token",
                error=str(problem),
                form=visit.form,
            )
        except Refused as refused:
            return await self._account(
                visit,
                refused.status,
                problem_with="token",
                error=refused.sentence,
                form=visit.form,
            )
        return await self._account(visit, token=token)

    async def revoke_token(self, request: Request, visit: Visit) -> Response:
        name = visit.session.user.name
        await run_sync(self._services.tokens.revoke, request.path_params["id"], name, name)
        return RedirectResponse("/account#tokens", 303)

    async def end_session(self, request: Request, visit: Visit) -> Response:
        name = visit.session.user.name
        await run_sync(self._services.sessions.end_one, request.path_params["id"], name, name)
        return RedirectResponse("/account#sessions", 303)

    async def end_others(self, request: Request, visit: Visit) -> Response:
        name = visit.session.user.name
        end = partial(self._services.sessions.end_all, name, name, keep=visit.session.id)
        await run_sync(end)
        return RedirectResponse("/account#sessions", 303)

    # Everybody's

    async def people(self, request: Request, visit: Visit) -> Response:
        return await self._people(visit)

    async def _people(self, visit: Visit, status: int = 200, error: str | None = None) -> Response:
        users = await run_sync(self._services.people.list)
        sessions = {
            user.name: await run_sync(self._services.sessions.list, user.name) for user in users
        }
        values = {
            "here": "people",
            "users": users,
            "sessions": sessions,
            "roles": ROLES,
            "error": error,
        }
        return await self._frame.page("people.html", visit.session, values, status)

    async def _change(self, visit: Visit, change: Callable[[], object]) -> Response:
        try:
            await run_sync(change)
        except (Conflict, InvalidInput) as problem:
            return await self._people(visit, status_of(problem), str(problem))
        return RedirectResponse("/people", 303)

    async def set_role(self, request: Request, visit: Visit) -> Response:
        name, by = request.path_params["name"], visit.session.user.name
        role = visit.form.get("role", "")
        return await self._change(visit, partial(self._services.people.set_role, name, role, by))

    async def disable(self, request: Request, visit: Visit) -> Response:
        name, by = request.path_params["name"], visit.session.user.name
        return await self._change(visit, partial(self._services.people.disable, name, by))

    async def enable(self, request: Request, visit: Visit) -> Response:
        name, by = request.path_params["name"], visit.session.user.name
        return await self._change(visit, partial(self._services.people.enable, name, by))

    async def end_theirs(self, request: Request, visit: Visit) -> Response:
        name, by = request.path_params["name"], visit.session.user.name
        return await self._change(visit, partial(self._services.sessions.end_all, name, by))
