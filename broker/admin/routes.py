"""Tables of routes: a method, a path, who may enter, and what then happens.

Everything that answers is in a table, so that roles, CSRF and methods are dealt with in one place
and tests can go through all of it. What a path does not know is 405 with `Allow` (RFC 9110 15.5.6).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.admin.roles import Who

type Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Entry[H]:
    """One line of a table. `handler` gets what the surface's door hands it."""

    method: str
    path: str
    who: Who
    handler: H


def routes[H](entries: Sequence[Entry[H]], door: Callable[[Entry[H]], Endpoint]) -> list[Route]:
    """One route a path, in the order of the table; `door` puts the checks before a handler."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for entry in entries:
        paths.setdefault(entry.path, {})[entry.method] = door(entry)
    return [_route(path, endpoints) for path, endpoints in paths.items()]


def _route(path: str, endpoints: dict[str, Endpoint]) -> Route:
    allowed = [*endpoints, *(["HEAD"] if "GET" in endpoints else []), "OPTIONS"]

    async def dispatch(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": ", ".join(sorted(allowed))})
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, dispatch, methods=allowed)
