"""VaultSource reads secrets on a call's path; VaultAdmin writes and lists them (KV version 2).

Nothing is cached: a rotated secret is what the next read gives. Works alike with HashiCorp Vault
and OpenBao.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3

from broker.errors import InvalidInput, SecretUnavailable
from broker.secret import SecretVersion
from broker.secrets import kv
from broker.secrets.access import VaultAccess
from broker.secrets.api import (
    CONNECT_TIMEOUT,
    LIMIT,
    Api,
    Health,
    Login,
    Reply,
    VaultUnavailable,
    cause_of,
    check_roots,
    meaning_of,
    unreachable,
)
from rules.model import SecretRef

_MAX_ANSWER = 1 << 20
_CHUNK = 1 << 16
_THREADS = 8
_CAS_TRIES = 5


class _Line:
    """A pool of kept-alive connections to one Vault, and the log-in used on them."""

    def __init__(self, access: VaultAccess) -> None:
        check_roots(access)
        self.access = access
        self.login = Login(access)
        self._connections = urllib3.PoolManager(
            maxsize=_THREADS, cert_reqs="CERT_REQUIRED", ca_certs=access.roots()
        )

    def get(self, path: str, token: str, deadline: float) -> tuple[int, bytes]:
        """Status and body of one GET. Raises VaultUnavailable."""
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Accept": "application/json"}
        if self.access.namespace:
            headers["X-Vault-Namespace"] = self.access.namespace
        left = deadline - time.monotonic()
        if left <= 0:
            raise VaultUnavailable(unreachable(self.access.url, "it does not answer in time"))
        try:
            response = self._connections.request(
                "GET",
                self.access.url.rstrip("/") + path,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(total=left, connect=min(CONNECT_TIMEOUT, left)),
                preload_content=False,
            )
            body = _body_of(response, deadline)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            cause = cause_of(error)
        else:
            if body is not None:
                return response.status, body
            cause = "its answer is too long or too slow"
        raise VaultUnavailable(unreachable(self.access.url, cause))

    def close(self) -> None:
        self._connections.clear()
        self.login.close()


def _body_of(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes | None:
    """The whole body, and the connection back in its pool; None if it is too long or too slow."""
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > _MAX_ANSWER or time.monotonic() > deadline:
            response.close()
            return None
    response.release_conn()
    return bytes(body)


class VaultSource:
    """Reads secrets from a KV version 2 engine: each read asks Vault, nothing is kept.

    `locate` says where Vault is; it is asked again when a connection fails, so that a server that
    came back elsewhere is found. A plain VaultAccess stays where it is. A read takes no longer than
    `limit` seconds, log-in and second try included.
    """

    def __init__(
        self, locate: VaultAccess | Callable[[], VaultAccess], *, limit: float = LIMIT
    ) -> None:
        self._limit = limit
        self._locate: Callable[[], VaultAccess] = locate if callable(locate) else lambda: locate
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="vault")
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._closed = False

    async def read(self, ref: SecretRef) -> SecretVersion:
        """The newest version, read now, within the limit. Raises SecretUnavailable."""
        if self._closed:
            raise SecretUnavailable(f"The secret {ref} was not read: Keybroker is stopping.")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limit):
                return await loop.run_in_executor(self._threads, self._read, ref)
        except TimeoutError as error:
            raise SecretUnavailable(
                f"The secret {ref} could not be read: Vault did not answer within "
                f"{self._limit:g} s; check that it runs and that `vault.url` is right."
            ) from error

    def close(self) -> None:
        """Gives the token back and closes the connections; reads after it are refused.

        Takes up to LIMIT seconds where Vault hangs.
        """
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            try:
                line.close()
            except VaultUnavailable:
                return  # the token ends by itself when its lease does

    def _read(self, ref: SecretRef) -> SecretVersion:
        try:
            path = kv.data_path(ref)
        except ValueError as error:
            raise SecretUnavailable(
                f"The reference {ref} cannot be read: {error}; mend it in the policy."
            ) from error
        deadline = time.monotonic() + self._limit
        try:
            status, body = self._get(path, deadline)
        except VaultUnavailable as error:
            raise SecretUnavailable(f"The secret {ref} could not be read: {error}") from error
        return kv.version_of(ref, status, body)

    def _get(self, path: str, deadline: float) -> tuple[int, bytes]:
        line = self._current(None)
        try:
            return self._ask(line, path, deadline)
        except VaultUnavailable as error:
            # No answer at all: a kept-alive connection that had died, or a server that moved.
            if error.status is not None or time.monotonic() >= deadline:
                raise
        return self._ask(self._current(line), path, deadline)

    @staticmethod
    def _ask(line: _Line, path: str, deadline: float) -> tuple[int, bytes]:
        token = line.login.token()
        status, body = line.get(path, token, deadline)
        if status == 403:
            # Revoked, run out, or the server was set up anew: once more with a fresh log-in.
            token = line.login.after_refusal(token)
            status, body = line.get(path, token, deadline)
        return status, body

    def _current(self, failed: _Line | None) -> _Line:
        """The line in use; a new one at first, or if Vault is no longer where `failed` is."""
        with self._lock:
            if self._closed:
                raise VaultUnavailable("Keybroker is stopping.")
            line = self._line
            if line is None or line is failed:
                access = self._locate()
                if line is None or access != line.access:
                    line = self._line = _Line(access)
            return line


@dataclass(frozen=True, slots=True)
class Entry:
    """A path in a KV engine as it is listed: names and the version, never values."""

    path: str
    fields: tuple[str, ...]
    version: int
    """0 if the newest version is deleted."""


class VaultAdmin:
    """Writes and lists secrets. Use as a context manager: it gives its token back."""

    def __init__(self, access: VaultAccess) -> None:
        self._access = access
        self._login = Login(access)

    def __enter__(self) -> VaultAdmin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._login.close()

    def write(self, mount: str, path: str, field: str, value: str) -> int:
        """Sets one field, keeps the others, and returns the new version.

        Raises InvalidInput for a value or name that could not be used later, VaultUnavailable.
        """
        ref = SecretRef(mount, path, field)
        fault = kv.fault_of(value)
        if fault is not None:
            raise InvalidInput(f"The value for {ref} cannot be used: {fault}.")
        if not field or not field.isprintable():
            raise InvalidInput(f"A field needs a printable name; {field!r} is none.")
        target = _api_path(mount, "data", path)
        with self._entered() as api:
            for _ in range(_CAS_TRIES):
                fields, version = _present(api, target)
                body = {"options": {"cas": version}, "data": {**fields, field: value}}
                reply = api.ask("POST", target, body)
                written = reply.data.get("version")
                if reply.status == 200 and isinstance(written, int):
                    return written
                # 400 is what a failed check-and-set gives; anything else will not mend itself.
                if reply.status != 400:
                    raise _not_done(f"{ref} was not written", api, reply)
        raise VaultUnavailable(
            f"{ref} was not written: Vault at {self._access.url} refused it {_CAS_TRIES} times "
            "(400); either others write there at once, or the mount is no KV version 2 engine.",
            400,
        )

    def list(self, mount: str) -> list[Entry]:
        """Every path in the engine, sorted; values are not even asked for (`subkeys`)."""
        with self._entered() as api:
            return sorted(self._walk(api, mount, None), key=lambda entry: entry.path)

    def check(self) -> Health:
        """How the server is, after a log-in if it is up. Raises VaultUnavailable if that fails."""
        api = Api(self._access)
        try:
            health = api.health()
        finally:
            api.close()
        if health.reachable and not health.sealed:
            with self._entered() as entered:
                # Answered for every token that is good for anything, whatever its policies say.
                if entered.ask("GET", "sys/internal/ui/mounts").status == 403:
                    raise VaultUnavailable(
                        f"Vault at {self._access.url} refuses the token: it is wrong, has expired"
                        " or was revoked; put a good one in its place.",
                        403,
                    )
        return health

    def _walk(self, api: Api, mount: str, folder: str | None) -> Iterator[Entry]:
        reply = api.ask("LIST", _api_path(mount, "metadata", folder))
        if reply.status == 404:
            return
        if reply.status != 200:
            raise _not_done(f"{mount} could not be listed", api, reply)
        for name in reply.data.get("keys", ()):
            path = name if folder is None else f"{folder}/{name}"
            if path.endswith("/"):
                yield from self._walk(api, mount, path.rstrip("/"))
            else:
                yield _entry(api, mount, path)

    @contextmanager
    def _entered(self) -> Iterator[Api]:
        api = Api(self._access, self._login.token())
        try:
            yield api
        finally:
            api.close()


def _present(api: Api, target: str) -> tuple[dict[str, Any], int]:
    """The fields under a data path, and the version that a check-and-set write must name."""
    reply = api.ask("GET", target)
    metadata = reply.data.get("metadata")
    version = metadata.get("version") if isinstance(metadata, dict) else None
    if reply.status == 404:
        # Nothing there, or a newest version that is deleted: its number still counts.
        return {}, version if isinstance(version, int) else 0
    fields = reply.data.get("data")
    if reply.status != 200 or not isinstance(fields, dict) or not isinstance(version, int):
        raise _not_done("The secret was not written, the present fields cannot be read", api, reply)
    return fields, version


def _entry(api: Api, mount: str, path: str) -> Entry:
    reply = api.ask("GET", _api_path(mount, "subkeys", path))
    if reply.status == 404:
        return Entry(path, (), 0)
    fields, metadata = reply.data.get("subkeys"), reply.data.get("metadata")
    if reply.status != 200 or not isinstance(fields, dict) or not isinstance(metadata, dict):
        raise _not_done(f"{mount}/{path} could not be listed", api, reply)
    return Entry(path, tuple(sorted(fields)), int(metadata.get("version", 0)))


def _api_path(mount: str, kind: str, path: str | None) -> str:
    try:
        return kv.api_path(mount, kind, path).removeprefix("/v1/")
    except ValueError as error:
        raise InvalidInput(f"{mount}/{path} is no path of a secret: {error}.") from error


def _not_done(what: str, api: Api, reply: Reply) -> VaultUnavailable:
    return VaultUnavailable(
        f"{what}: Vault at {api.url} says {meaning_of(reply.status)}.", reply.status
    )
