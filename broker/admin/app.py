"""Puts the admin surface together: routes, guard, and one place where errors become answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from audit.errors import AuditError
from broker.admin.account import Account
from broker.admin.answers import TITLES, problem, status_of
from broker.admin.api import Api
from broker.admin.doors import Doors
from broker.admin.frame import Frame, SignIn
from broker.admin.guesses import Guesses
from broker.admin.history import HistoryOf, HistoryPages
from broker.admin.pages import Pages
from broker.admin.ports import Ledger, Monitor, Services
from broker.admin.routes import routes
from broker.admin.security import ANY_HOST, Guard, Refused, Site, add_headers, local_path
from broker.errors import KeybrokerError
from broker.sessions import IDLE, LONGEST

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
type Handler = Callable[[Request, Exception], Awaitable[Response]]


class Assets(StaticFiles):
    """Our own script and style: cached by the browser, but asked for again each time."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def create_app(
    services: Services,
    *,
    url: str,
    ledger: Ledger,
    monitor: Monitor,
    longest: int = LONGEST,
    idle: int = IDLE,
) -> Starlette:
    """The pages and the REST API over `services`.

    `url` is where people open the pages: http(s)://HOST[:PORT], else ValueError. Serve it without
    trusting forwarded headers and without an access log: addresses slow down password guessing,
    and one-time links carry their token in the query. `longest` and `idle` are the seconds of a
    page session.
    """
    site = Site.from_url(url)
    frame = Frame(services, site)
    pages = Pages(services, frame)
    history = HistoryOf(ledger)
    past = HistoryPages(services, ledger, history, frame)
    guesses = Guesses(services, site)
    doors = Doors(services, frame, site, guesses, longest=longest, idle=idle)
    account = Account(services, frame, doors, guesses)
    api = Api(services, ledger, monitor, history)
    on_error = _handler(frame)
    return Starlette(
        routes=[
            *api.routes(),
            *pages.routes(),
            *routes(past.table(), frame.door),
            *doors.routes(),
            *account.routes(),
            Mount("/static", Assets(directory=STATIC), name="static"),
        ],
        middleware=[Middleware(Guard, site=site)],
        exception_handlers=dict.fromkeys(
            (SignIn, Refused, HTTPException, KeybrokerError, AuditError, Exception), on_error
        ),
    )


def _handler(frame: Frame) -> Handler:
    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, SignIn):
            target = local_path(error.target)
            query = "?" + urlencode({"next": target}) if target != "/" else ""
            return RedirectResponse(f"/login{query}", 303)
        status, sentence, headers = _meaning(error)
        if request.url.path.startswith(ANY_HOST):
            response: Response = problem(status, sentence, headers)
        else:
            response = frame.error(status, TITLES.get(status, HTTPStatus(status).phrase), sentence)
            response.headers.update(headers)
        # The answer to an unforeseen error is made outside the guard.
        add_headers(MutableHeaders(raw=response.raw_headers))
        return response

    return answer


def _meaning(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Status, sentence and headers. Only errors made for people speak for themselves."""
    if isinstance(error, Refused):
        return error.status, error.sentence, error.headers
    if isinstance(error, HTTPException):
        sentence = "There is nothing here." if error.status_code == 404 else f"{error.detail}."
        return error.status_code, sentence, dict(error.headers or {})
    if isinstance(error, AuditError):
        return 503, "The audit log cannot be used, so nothing was changed.", {}
    if isinstance(error, KeybrokerError) and (status := status_of(error)) != 500:
        return status, str(error), {}
    log.error("an admin request failed: %s", type(error).__name__)
    return 500, "Keybroker failed at this. Its log says more.", {}
