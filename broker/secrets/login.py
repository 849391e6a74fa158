"""How to get into a Vault, stay in and leave: conversations, whoever carries them.

Each function here is a generator that yields what to Ask and is sent the Reply; it does no network
I/O, so that the worker's event loop and a command's plain code carry on the same conversation. The
file of a token, a SecretID or a JWT is read at every log-in: those who issue them renew them there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.secrets import kv
from broker.secrets.access import AppRole, JwtFile, TokenFile, VaultAccess
from broker.secrets.trouble import REDIRECTS, VaultUnavailable, kind_of, meaning_of, unreachable

MAX_FILE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ask:
    """A request under `/v1/`. Token and body hold secrets, so it shows neither."""

    method: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)

    @property
    def payload(self) -> bytes:
        """The body as JSON; empty if there is none."""
        return b"" if self.body is None else json.dumps(self.body).encode()


@dataclass(frozen=True, slots=True)
class Reply:
    """What Vault answered. It may hold secrets, so it shows only its status."""

    status: int
    body: Mapping[str, Any] = field(repr=False)
    date: str = ""
    """The Date field: what time it is there."""

    @property
    def data(self) -> Mapping[str, Any]:
        """The member `data`, empty if there is none."""
        data = self.body.get("data")
        return data if isinstance(data, dict) else {}


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, and for how long it is good."""

    token: str = field(repr=False)
    lease: int = 0
    """Seconds; 0 if it does not end, or nobody may ask when."""
    renewable: bool = False
    own: bool = True
    """Taken by us, so that it is ours to give back. One from a file is others'."""


Conversation = Generator[Ask, Reply, Grant]


def carry[T](conversation: Generator[Ask, Reply, T], ask: Callable[[Ask], Reply]) -> T:
    """Carries it by plain calls. Raises what the conversation or `ask` raises."""
    try:
        question = next(conversation)
        while True:
            question = conversation.send(ask(question))
    except StopIteration as end:
        result: T = end.value
        return result


def enter(access: VaultAccess) -> Conversation:
    """Logs in as `access` says. Raises VaultUnavailable."""
    auth = access.auth
    if isinstance(auth, TokenFile):
        return (yield from _look_up(access, read_line(auth.path, "token")))
    if isinstance(auth, AppRole):
        secret_id = auth.secret_id
        if secret_id is None:
            if auth.secret_id_file is None:
                raise VaultUnavailable(
                    "The AppRole has neither a SecretID nor a file for it; set one of them.",
                    kind="log_in",
                )
            secret_id = read_line(auth.secret_id_file, "SecretID")
        body = {"role_id": auth.role_id, "secret_id": secret_id}
        return (yield from _log_in(access, auth.mount, body, _APPROLE))
    if isinstance(auth, JwtFile):
        body = {"role": auth.role, "jwt": read_line(auth.path, "JWT")}
        return (yield from _log_in(access, auth.mount, body, _JWT.format(auth=auth)))
    raise VaultUnavailable(f"No log-in is set for Vault at {access.url}.", kind="log_in")


def renew(access: VaultAccess, grant: Grant) -> Generator[Ask, Reply, Grant | None]:
    """The same token for longer; None if it takes a new log-in. Raises VaultUnavailable."""
    reply = yield Ask("POST", "auth/token/renew-self", {}, grant.token)
    if reply.status != 200 and kind_of(reply.status) != "refused":
        raise _failed(access, "the renewal of its token", reply)
    found = _granted(reply)
    # Near its maximal TTL a token is renewed for less than it was worth: take a new one.
    if found is None or found.lease * 2 < grant.lease:
        return None
    return Grant(grant.token, found.lease, found.renewable, grant.own)


def leave(grant: Grant) -> Generator[Ask, Reply, None]:
    """Gives a token of our own back; one from a file belongs to others and stays."""
    if grant.own:
        yield Ask("POST", "auth/token/revoke-self", {}, grant.token)


def is_good(token: str) -> Generator[Ask, Reply, bool]:
    """Whether Vault knows the token, whatever its policies allow. Raises VaultUnavailable."""
    # Answered for every token that is good for anything, and 403 for any other.
    reply = yield Ask("GET", "sys/internal/ui/mounts", token=token)
    return reply.status != 403


_APPROLE = "check the RoleID and the SecretID"
_JWT = (
    "check that the role {auth.role} exists at auth/{auth.mount} and that it takes the JWT in "
    "{auth.path} (issuer, audience, subject, end)"
)


def _log_in(access: VaultAccess, mount: str, body: Mapping[str, str], check: str) -> Conversation:
    reply = yield Ask("POST", f"{_mounted(mount)}/login", body)
    granted = _granted(reply)
    if granted is not None:
        return granted
    if reply.status != 200 and kind_of(reply.status) != "refused":
        raise _failed(access, "the log-in", reply)
    raise VaultUnavailable(
        f"Vault at {access.url} refuses the log-in at auth/{mount} ({reply.status}); {check}.",
        reply.status,
        kind="log_in",
    )


def _mounted(mount: str) -> str:
    try:
        return kv.api_path("auth", mount).removeprefix("/v1/")
    except ValueError as error:
        raise VaultUnavailable(
            f"auth/{mount} is no path of an auth method: {error}; mend `vault.auth`.",
            kind="log_in",
        ) from error


def _look_up(access: VaultAccess, token: str) -> Conversation:
    """How long a token from a file is good. A narrow policy may not let it ask."""
    reply = yield Ask("GET", "auth/token/lookup-self", token=token)
    if reply.status != 200 and kind_of(reply.status) != "refused":
        raise _failed(access, "the look at its token", reply)
    ttl = reply.data.get("ttl")
    lease = ttl if type(ttl) is int and ttl > 0 else 0
    return Grant(token, lease, reply.data.get("renewable") is True, own=False)


def _granted(reply: Reply) -> Grant | None:
    granted = reply.body.get("auth")
    if reply.status != 200 or not isinstance(granted, dict):
        return None
    token, lease = granted.get("client_token"), granted.get("lease_duration")
    if not isinstance(token, str) or not _sendable(token) or type(lease) is not int or lease < 0:
        return None
    return Grant(token, lease, granted.get("renewable") is True)


def _failed(access: VaultAccess, what: str, reply: Reply) -> VaultUnavailable:
    if 300 <= reply.status < 400:
        return VaultUnavailable(unreachable(access.url, REDIRECTS), reply.status)
    return VaultUnavailable(
        f"Vault at {access.url} failed at {what}: {meaning_of(reply.status)}.", reply.status
    )


def _sendable(text: str) -> bool:
    """Whether it can stand in a header field and means only itself there."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def read_line(path: Path, what: str) -> str:
    """The one line in a file that holds a token, a SecretID or a JWT. Raises VaultUnavailable."""
    try:
        with path.open("rb") as file:
            line = file.read(MAX_FILE).decode("ascii").strip()
    except (OSError, ValueError):
        line = ""
    if not _sendable(line):
        raise VaultUnavailable(
            f"The {what} file {path} cannot be used: it is missing, unreadable, empty or not one "
            "line of ASCII.",
            kind="log_in",
        )
    return line
