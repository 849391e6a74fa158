"""VaultAdmin writes and lists secrets, for commands; values are never shown and hardly ever asked
for.

Works with KV engines of either version. On version 2 two writers lose nothing, because each names
the version that it means to follow; version 1 has no such thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from broker.errors import InvalidInput, SecretUnavailable
from broker.secrets import kv
from broker.secrets.access import VaultAccess
from broker.secrets.api import Api, Health
from broker.secrets.kv import Engine
from broker.secrets.login import Grant, Reply, carry, enter, is_good, leave
from broker.secrets.trouble import VaultUnavailable, meaning_of
from rules.model import SecretRef

_CAS_TRIES = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A path in a KV engine as it is listed: names and the version, never values."""

    path: str
    fields: tuple[str, ...] | None
    """None in a version 1 engine, which would tell them with their values only."""
    version: int | None
    """0 if the newest version is deleted; None where there are no versions."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected of a token. Of what it may not ask about itself nothing is known."""

    ends_in: int | None
    """Seconds; None if it does not end."""
    renewable: bool
    refused: tuple[tuple[SecretRef, str], ...]
    """Secrets that it may not read, each with the reason."""


class VaultAdmin:
    """One log-in for some commands. Use as a context manager: it gives its token back."""

    def __init__(self, access: VaultAccess, grant: Grant | None = None) -> None:
        """`grant` is a token to use instead of a log-in; it is not given back."""
        self._access = access
        self._given = grant
        self._grant: Grant | None = None

    def __enter__(self) -> VaultAdmin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the token back, if one was taken."""
        grant, self._grant = self._grant, None
        if grant is None:
            return
        api = Api(self._access)
        try:
            carry(leave(grant), api.answer)
        except VaultUnavailable:
            return  # the token ends by itself when its lease does
        finally:
            api.close()

    def write(self, mount: str, path: str, field: str, value: str) -> int | None:
        """Sets one field, keeps the others, and returns the new version (None: there are none).

        Raises InvalidInput for a value or name that could not be used later, VaultUnavailable.
        """
        ref = SecretRef(mount, path, field)
        fault = kv.fault_of(value)
        if fault is not None:
            raise InvalidInput(f"The value for {ref} cannot be used: {fault}.")
        if not field or not field.isprintable():
            raise InvalidInput(f"A field needs a printable name; {field!r} is none.")
        whole = kv.whole_of(ref)
        with self._entered() as api:
            engine = _engine(api, whole)
            target = engine.path("data", whole).removeprefix("/v1/")
            if not engine.versioned:
                fields = _present_unversioned(api, target)
                reply = api.ask("POST", target, {**fields, field: value})
                if reply.status not in {200, 204}:
                    raise _not_done(f"{ref} was not written", api, reply)
                return None
            for _ in range(_CAS_TRIES):
                fields, version = _present(api, target)
                body = {"options": {"cas": version}, "data": {**fields, field: value}}
                reply = api.ask("POST", target, body)
                written = reply.data.get("version")
                if reply.status == 200 and type(written) is int:
                    return written
                # 400 is what a failed check-and-set gives; anything else will not mend itself.
                if reply.status != 400:
                    raise _not_done(f"{ref} was not written", api, reply)
        raise VaultUnavailable(
            f"{ref} was not written: Vault at {self._access.url} refused it {_CAS_TRIES} times "
            "(400); others write there at once, try again.",
            400,
        )

    def list(self, mount: str) -> list[Entry]:
        """Every path in the engine, sorted; values are not even asked for (`subkeys`)."""
        with self._entered() as api:
            engine = _engine(api, mount)
            return sorted(self._walk(api, engine, mount), key=lambda entry: entry.path)

    def check(self) -> Health:
        """How the server is, after a log-in if it is up. Raises VaultUnavailable if that fails."""
        api = Api(self._access)
        try:
            health = api.health()
        finally:
            api.close()
        if health.reachable and not health.sealed:
            with self._entered() as entered:
                if not carry(is_good(self._token()), entered.answer):
                    raise VaultUnavailable(
                        f"Vault at {self._access.url} refuses the token: it is wrong, has expired"
                        " or was revoked; put a good one in its place.",
                        403,
                    )
        return health

    def outlook(self, refs: Iterable[SecretRef]) -> Outlook:
        """How long the token lasts, and which of these secrets it may not read; none is read.

        Raises VaultUnavailable.
        """
        refused = []
        with self._entered() as api:
            known = api.ask("GET", "auth/token/lookup-self").data
            for ref in refs:
                try:
                    whole = kv.whole_of(ref)
                    path = _engine(api, whole).path("data", whole).removeprefix("/v1/")
                except (InvalidInput, VaultUnavailable) as error:
                    refused.append((ref, str(error)))
                    continue
                reply = api.ask("POST", "sys/capabilities-self", {"paths": [path]})
                allowed = reply.data.get(path) if reply.status == 200 else None
                if isinstance(allowed, list) and not {"read", "root"} & set(allowed):
                    refused.append((ref, f"its capabilities on {path} are {', '.join(allowed)}"))
        ttl = known.get("ttl")
        ends_in = ttl if type(ttl) is int and ttl > 0 else None
        return Outlook(ends_in, known.get("renewable") is True, tuple(refused))

    def _walk(self, api: Api, engine: Engine, whole: str) -> Iterator[Entry]:
        reply = api.ask("LIST", engine.path("metadata", whole).removeprefix("/v1/"))
        if reply.status == 404:
            return
        if reply.status != 200:
            raise _not_done(f"{whole} could not be listed", api, reply)
        for name in reply.data.get("keys", ()):
            below = f"{whole}/{name}"
            if below.endswith("/"):
                yield from self._walk(api, engine, below.rstrip("/"))
            else:
                yield _entry(api, engine, below)

    def _token(self) -> str:
        if self._given is not None:
            return self._given.token
        if self._grant is None:
            api = Api(self._access)
            try:
                self._grant = carry(enter(self._access), api.answer)
            finally:
                api.close()
        return self._grant.token

    @contextmanager
    def _entered(self) -> Iterator[Api]:
        api = Api(self._access, self._token())
        try:
            yield api
        finally:
            api.close()


def _engine(api: Api, whole: str) -> Engine:
    try:
        path = kv.mounts_path(whole)
    except ValueError as error:
        raise InvalidInput(f"{whole} is no path of a secret: {error}.") from error
    reply = api.ask("GET", path)
    if reply.status != 200:
        raise _not_done(f"It is not known which engine {whole} lies in", api, reply)
    try:
        return kv.engine_of(whole, reply.data)
    except SecretUnavailable as error:
        raise VaultUnavailable(str(error), reply.status) from error


def _present(api: Api, target: str) -> tuple[dict[str, Any], int]:
    """The fields under a data path, and the version that a check-and-set write must name."""
    reply = api.ask("GET", target)
    metadata = reply.data.get("metadata")
    version = metadata.get("version") if isinstance(metadata, dict) else None
    if reply.status == 404:
        # Nothing there, or a newest version that is deleted: its number still counts.
        return {}, version if type(version) is int else 0
    fields = reply.data.get("data")
    if reply.status != 200 or not isinstance(fields, dict) or type(version) is not int:
        raise _not_done("The secret was not written, the present fields cannot be read", api, reply)
    return fields, version


def _present_unversioned(api: Api, target: str) -> dict[str, Any]:
    reply = api.ask("GET", target)
    if reply.status == 404:
        return {}
    if reply.status != 200 or not isinstance(reply.body.get("data"), dict):
        raise _not_done("The secret was not written, the present fields cannot be read", api, reply)
    return dict(reply.data)


def _entry(api: Api, engine: Engine, whole: str) -> Entry:
    path = whole.removeprefix(f"{engine.mount}/")
    if not engine.versioned:
        return Entry(path, None, None)
    reply = api.ask("GET", engine.path("subkeys", whole).removeprefix("/v1/"))
    if reply.status == 404:
        return Entry(path, (), 0)
    fields, metadata = reply.data.get("subkeys"), reply.data.get("metadata")
    if reply.status != 200 or not isinstance(fields, dict) or not isinstance(metadata, dict):
        raise _not_done(f"{whole} could not be listed", api, reply)
    return Entry(path, tuple(sorted(fields)), int(metadata.get("version", 0)))


def _not_done(what: str, api: Api, reply: Reply) -> VaultUnavailable:
    return VaultUnavailable(
        f"{what}: Vault at {api.url} says {meaning_of(reply.status)}.", reply.status
    )
