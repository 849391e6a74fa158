"""The REST API of accounts, page sessions and API tokens. No password, token or link goes in or
out: new ones are made on the page or the command line, by who has proven more than a token."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from broker.admin.answers import answer
from broker.admin.ports import Services
from broker.admin.routes import Entry
from broker.admin.security import Refused, read_body
from broker.errors import InvalidInput
from broker.model import ApiToken, OpenSession, User
from broker.people import ROLES
from broker.stores.sqlite import to_text

type Handler = Callable[[Request, User | None], Awaitable[Response]]
"""Gets who asked; None only where anyone may."""


def signed(user: User | None) -> User:
    """The person behind the token, in an operation that asks for one."""
    if user is None:
        raise Refused(401, "Send an API token: Authorization: Bearer TOKEN.")
    return user


def read_object(body: bytes, *names: str) -> dict[str, Any]:
    """The members of a JSON object; Refused 400 if it is none, 422 if it has other members."""
    try:
        fields: Any = json.loads(body, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        raise Refused(400, "The body must be a JSON object.") from None
    if not isinstance(fields, dict):
        raise Refused(400, "The body must be a JSON object.")
    if fields.keys() - set(names):
        raise Refused(422, f"The body has {', '.join(names)}, and nothing else.")
    return fields


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object in which no name is there twice: two readers would see two of them."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is there twice")
    return members


def no_query(request: Request) -> None:
    """Refused (400) if there are query parameters where none are known."""
    if request.query_params:
        raise Refused(400, "This takes no query parameters.")


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else to_text(moment)


def user_json(user: User) -> dict[str, object]:
    return {
        "name": user.name,
        "role": user.role,
        "password": user.has_password,
        "created_at": to_text(user.created_at),
        "disabled_at": _moment(user.disabled_at),
    }


def session_json(session: OpenSession) -> dict[str, object]:
    return {
        "id": session.id,
        "user": session.user,
        "client": session.client,
        "created_at": to_text(session.created_at),
        "last_seen_at": to_text(session.last_seen_at),
        "expires_at": to_text(session.expires_at),
    }


def token_json(token: ApiToken) -> dict[str, object]:
    return {
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "created_at": to_text(token.created_at),
        "last_used_at": _moment(token.last_used_at),
        "expires_at": _moment(token.expires_at),
    }


class PeopleApi:
    """Handlers of /api/v1/me and /api/v1/users."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def table(self) -> list[Entry[Handler]]:
        user = "/api/v1/users/{name}"
        return [
            Entry("GET", "/api/v1/me", "person", self.me),
            Entry("GET", "/api/v1/users", "admin", self.users),
            Entry("GET", user, "self_or_admin", self.user),
            Entry("PATCH", user, "admin", self.change),
            Entry("GET", f"{user}/sessions", "self_or_admin", self.sessions),
            Entry("DELETE", f"{user}/sessions", "self_or_admin", self.end_sessions),
            Entry("DELETE", f"{user}/sessions/{{id}}", "self_or_admin", self.end_session),
            Entry("GET", f"{user}/tokens", "self_or_admin", self.tokens),
            Entry("DELETE", f"{user}/tokens/{{id}}", "self_or_admin", self.revoke_token),
        ]

    async def me(self, request: Request, by: User | None) -> Response:
        no_query(request)
        return answer(user_json(signed(by)))

    async def users(self, request: Request, by: User | None) -> Response:
        no_query(request)
        users = await run_sync(self._services.people.list)
        return answer({"users": [user_json(user) for user in users]})

    async def user(self, request: Request, by: User | None) -> Response:
        no_query(request)
        return answer(user_json(await self._subject(request)))

    async def _subject(self, request: Request) -> User:
        return await run_sync(self._services.people.get, request.path_params["name"])

    async def change(self, request: Request, by: User | None) -> Response:
        """Role and state, one after the other; what is the case already is no error."""
        no_query(request)
        people, actor = self._services.people, signed(by).name
        fields = read_object(await read_body(request), "role", "disabled")
        role, disabled = fields.get("role"), fields.get("disabled")
        if not fields:
            raise Refused(422, "Give role, disabled, or both.")
        if "role" in fields and role not in ROLES:
            raise InvalidInput(f"role must be one of {', '.join(ROLES)}.")
        if "disabled" in fields and not isinstance(disabled, bool):
            raise Refused(422, "disabled must be true or false.")
        subject = await self._subject(request)
        if role is not None:
            await run_sync(partial(people.set_role, subject.name, role, actor))
        if disabled is not None and disabled != (subject.disabled_at is not None):
            await run_sync(
                partial(people.disable if disabled else people.enable, subject.name, actor)
            )
        return answer(user_json(await self._subject(request)))

    async def sessions(self, request: Request, by: User | None) -> Response:
        no_query(request)
        subject = await self._subject(request)
        found = await run_sync(self._services.sessions.list, subject.name)
        return answer({"sessions": [session_json(session) for session in found]})

    async def end_sessions(self, request: Request, by: User | None) -> Response:
        no_query(request)
        subject = await self._subject(request)
        end = partial(self._services.sessions.end_all, subject.name, signed(by).name)
        return answer({"ended": await run_sync(end)})

    async def end_session(self, request: Request, by: User | None) -> Response:
        no_query(request)
        name, id = request.path_params["name"], request.path_params["id"]
        await run_sync(self._services.sessions.end_one, id, name, signed(by).name)
        return Response(status_code=204)

    async def tokens(self, request: Request, by: User | None) -> Response:
        no_query(request)
        subject = await self._subject(request)
        found = await run_sync(self._services.tokens.list, subject.name)
        return answer({"tokens": [token_json(token) for token in found]})

    async def revoke_token(self, request: Request, by: User | None) -> Response:
        no_query(request)
        name, id = request.path_params["name"], request.path_params["id"]
        await run_sync(self._services.tokens.revoke, id, name, signed(by).name)
        return Response(status_code=204)
