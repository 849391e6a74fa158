"""What every page shares: the templates, the session of a request, the checks of a posted form.

What agents wrote reaches a template only through autoescape and the `inert` filters.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from audit.filters import BadFilter, read_time
from broker.admin import inert, view
from broker.admin.ports import MOST_HELD, Services
from broker.admin.roles import admit
from broker.admin.routes import Endpoint, Entry
from broker.admin.security import Site, check_csrf, check_origin, read_form
from broker.model import Session
from rules.request import authority
from rules.words import place_parts

TEMPLATES = Path(__file__).parent / "templates"
REFRESH = "keybroker-refresh"
"""Header of what the page's script fetches by itself."""


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
    env.filters["sentence"] = _sentence
    env.filters["local"] = _local
    env.filters["place"] = place_parts
    env.filters["segment"] = lambda value: quote(str(value), safe="")
    env.filters["headline"] = view.headline
    env.filters["address"] = view.address
    env.filters["place_of"] = lambda call: authority(
        call.scheme or "https", call.host or "", call.port
    )
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


def _local(text: str) -> str:
    """A time as `<input type=datetime-local>` has it, which knows no zone: here it is UTC."""
    try:
        return read_time(text, "time")[:16] if text else ""
    except BadFilter:
        return ""


def _sentence(text: str) -> str:
    """An error of the broker's as a sentence of its own: the command line has them in its midst."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who is signed in, and the form that was posted (empty for a GET)."""

    session: Session
    form: Mapping[str, str]


type PageHandler = Callable[[Request, Visit], Awaitable[Response]]


class Frame:
    """Renders pages and knows who asks for them."""

    def __init__(self, services: Services, site: Site) -> None:
        self._services, self._site = services, site
        self._env = environment()

    def render(
        self, template: str, values: Mapping[str, object], status: int = 200
    ) -> HTMLResponse:
        """A page as it is, for anyone."""
        defaults = {"session": None, "pending": 0, "here": "", "error": None}
        page = self._env.get_template(template).render({**defaults, **values})
        return HTMLResponse(page, status)

    def error(self, status: int, title: str, sentence: str) -> HTMLResponse:
        """An error page; it says nothing of who is signed in."""
        values = {"status": status, "title": title, "sentence": sentence}
        return self.render("error.html", values, status)

    async def session(self, request: Request) -> Session:
        """The session of the cookie; SignIn where there is none."""
        token = request.cookies.get(self._site.session_cookie)
        session = await run_sync(self._services.sessions.get, token) if token else None
        if session is None:
            target = request.url.path
            if request.url.query:
                target += f"?{request.url.query}"
            raise SignIn(target if request.method in ("GET", "HEAD") else "/")
        # What the script fetches by itself is no sign that somebody is there.
        if REFRESH not in request.headers and request.url.path != "/events":
            await run_sync(self._services.sessions.seen, session)
        return session

    def door(self, entry: Entry[PageHandler]) -> Endpoint:
        """What stands before every page: the session, the role, and for a form where it came from.

        A page that needs nobody has a handler that looks after itself.
        """

        async def enter(request: Request) -> Response:
            posted = entry.method == "POST"
            if posted:
                check_origin(request, self._site)
            session = await self.session(request)
            admit(entry.who, session.user)
            form: dict[str, str] = {}
            if posted:
                form = await read_form(request)
                check_csrf(form, session.csrf)
            return await entry.handler(request, Visit(session, form))

        return enter

    async def page(
        self, template: str, session: Session, values: Mapping[str, object], status: int = 200
    ) -> HTMLResponse:
        """A page for whoever is signed in, with the number of held calls."""
        pending = len(await run_sync(self._services.desk.list, "pending", MOST_HELD))
        return self.render(template, {"session": session, "pending": pending, **values}, status)
