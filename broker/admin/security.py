"""Who may talk to the pages, and how: hosts, origins, cookies, headers, local redirects.

Pages answer on the configured host only and trust a cookie only with a CSRF token and an Origin.
The API answers on any host, and never looks at a cookie.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
SECURITY_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not `no-referrer`: under it browsers send `Origin: null` with a form (Fetch, "append a request
    # Origin header"), and the Origin of every POST is checked. To other sites neither says a word.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
HSTS = "max-age=31536000"
ANY_HOST = ("/api/", "/healthz", "/readyz", "/metrics")
FORM_LIMIT = 64 * 1024
"""Bytes of a posted form or of an API body."""


class Refused(Exception):
    """A page or API request is turned away; becomes an error page or a problem document."""

    def __init__(
        self, status: int, sentence: str, *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Site:
    """Where people open the pages: scheme, host name and port, from the configured URL."""

    scheme: str
    host: str
    port: int

    @classmethod
    def from_url(cls, url: str) -> Site:
        """Raises ValueError unless `url` is http(s)://HOST[:PORT] and nothing more."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the admin url must be http(s)://HOST[:PORT], not {url!r}")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
            raise ValueError(f"the admin url must end after the port: {url!r}")
        return cls(
            parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        )

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def lasting(self) -> bool:
        """Whether browsers may remember that it is https. A name of loopback is shared with other
        programs, whatever their ports, and many of them speak plain http."""
        return self.secure and self.host not in LOOPBACK and not self.host.endswith(".localhost")

    @property
    def session_cookie(self) -> str:
        """Cookies are shared between the ports of a host: the name keeps two brokers apart."""
        return "__Host-keybroker" if self.secure else f"keybroker_{self.port}"

    @property
    def visit_cookie(self) -> str:
        """Carries the CSRF token of forms that are posted before there is a session."""
        return f"{self.session_cookie}_visit"

    @property
    def device_cookie(self) -> str:
        """Says that a person logged in here before; see broker.admin.guesses. Lets nobody in."""
        return f"{self.session_cookie}_device"

    def set_cookie(
        self, response: Response, name: str, value: str, max_age: int | None = None
    ) -> None:
        """A cookie out of reach of scripts and of other sites; without `max_age` (seconds) it ends
        with the browser."""
        response.set_cookie(
            name, value, max_age=max_age, httponly=True, samesite="strict", secure=self.secure
        )

    def drop_cookie(self, response: Response, name: str) -> None:
        response.delete_cookie(name, httponly=True, samesite="strict", secure=self.secure)


class Guard:
    """The outermost layer: pages on the right host only, security headers on every answer."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # There are no WebSockets here; Starlette closes them. Lifespan passes.
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                add_headers(headers)
                if self._site.lasting:
                    headers["strict-transport-security"] = HSTS
            await send(message)

        path: str = scope["path"]
        if not path.startswith(ANY_HOST) and (answer := self._wrong_host(scope)) is not None:
            await answer(scope, receive, send_safely)
            return
        await self._app(scope, receive, send_safely)

    def _wrong_host(self, scope: Scope) -> Response | None:
        hosts = Headers(scope=scope).getlist("host")
        if hosts == [self._site.netloc]:
            return None
        if (
            len(hosts) == 1
            and scope["method"] in ("GET", "HEAD")
            and _host_name(hosts[0]) in LOOPBACK
        ):
            # A person who typed 127.0.0.1: the session, and later a passkey, lives on the one name.
            query = scope["query_string"].decode("ascii", "replace")
            where = f"{self._site.origin}{quote(scope['path'])}" + (f"?{query}" if query else "")
            return RedirectResponse(where, 307)
        sentence = f"This page is served at {self._site.origin} only.\n"
        return Response(sentence, 421, media_type="text/plain")


def _host_name(host: str) -> str:
    """The name in a Host header, without its port; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def add_headers(headers: MutableHeaders) -> None:
    """The security headers, where the answer has not set its own."""
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)


def local_path(target: str | None) -> str:
    """`target` if it is a path on this site, else `/`: no redirect leads elsewhere.

    Browsers read `//host` and `/\\host` as another host, and drop tabs and line ends.
    """
    if (
        not target
        or not target.startswith("/")
        or target.startswith(("//", "/\\"))
        or not target.isascii()
        or not target.isprintable()
        or "\\" in target
        or " " in target
    ):
        return "/"
    return target


async def read_body(request: Request) -> bytes:
    """The whole body; Refused (413) once it is over FORM_LIMIT."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT:
            raise Refused(413, "This is more than the page can take.")
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of an urlencoded form; Refused unless each is there once."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != (
        "application/x-www-form-urlencoded"
    ):
        raise Refused(415, "A form is expected here.")
    try:
        pairs = parse_qsl(
            (await read_body(request)).decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=32,
        )
    except ValueError:
        raise Refused(400, "This form cannot be read.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Refused(400, "A field of this form is there twice.")
    return form


def check_origin(request: Request, site: Site) -> None:
    """Refused unless the browser says that the form came from these pages."""
    if request.headers.getlist("origin") != [site.origin]:
        raise Refused(403, "This form did not come from a page of Keybroker.")


def check_csrf(form: dict[str, str], expected: str | None) -> None:
    """Refused unless the form carries the token of this session (or, before one, of this visit)."""
    given = form.get("csrf", "")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise Refused(403, "This form is stale. Go back, load the page again and repeat.")


def bearer(values: Iterable[str]) -> str | None:
    """The token of exactly one `Authorization: Bearer` header (RFC 6750), else None."""
    lines = list(values)
    if len(lines) != 1:
        return None
    scheme, _, token = lines[0].partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None
