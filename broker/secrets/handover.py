"""Handover: one token for all processes of a workspace, through the store, which is where they
meet (law 12).

For a log-in that can be made once only: the supervisor makes it, seals the token with the
workspace's key and publishes it; workers and commands take it from there, and say so when Vault
refuses it. The SecretID behind it never comes here. Which wrapping tokens were used is remembered
as MACs, so that one that is spent can be told from one that was stolen.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from audit.journal import Transaction
from audit.record import Draft
from broker.secrets.login import Grant
from broker.secrets.trouble import VaultUnavailable
from broker.stores.sqlite import Store, bump

_NONCE_BYTES = 12
_TOPIC = "vault"
_POLL = 0.05

Outcome = Literal["unwrapped", "refused"]


@dataclass(frozen=True, slots=True)
class Handed:
    """What is published now."""

    serial: int
    """Grows with every token."""
    grant: Grant | None
    trouble: str
    """Why there is no token; empty if there is one, or if nobody has said."""
    refused: bool
    """Whether somebody found that Vault refuses this token."""


@dataclass(frozen=True, slots=True)
class Use:
    """That a wrapping token was used here before: when, and what came of it (None: Keybroker was
    stopped before it knew)."""

    at: str
    outcome: Outcome | None


class Handover:
    """For any thread and process. Raises StoreUnavailable where the store does."""

    def __init__(self, store: Store, key: bytes, random: Callable[[int], bytes]) -> None:
        self._store = store
        self._key = key
        self._cipher = AESGCM(key)
        self._random = random

    def read(self) -> Handed:
        """What is published now."""
        row = (
            self._store.read()
            .execute("SELECT serial, sealed, trouble, refused FROM vault_token")
            .fetchone()
        )
        if row is None:
            return Handed(0, None, "", refused=False)
        serial, sealed, trouble, refused = row
        grant = None if sealed is None else self._open(sealed, serial)
        return Handed(serial, grant, trouble or "", refused=refused == serial)

    def publish(self, grant: Grant | None, trouble: str = "") -> None:
        """Replaces what is published; durable once it returns."""

        def work(tx: Transaction) -> None:
            row = tx.db.execute("SELECT serial FROM vault_token").fetchone()
            serial = 1 + (row[0] if row is not None else 0)
            sealed = None if grant is None else self._seal(grant, serial)
            tx.db.execute(
                "INSERT INTO vault_token VALUES (1, ?, ?, ?, 0) ON CONFLICT (id) DO UPDATE SET"
                " serial = excluded.serial, sealed = excluded.sealed, trouble = excluded.trouble",
                (serial, sealed, trouble or None),
            )
            bump(tx, _TOPIC)

        self._store.write(work)

    async def refuse(self, serial: int) -> None:
        """Says that Vault refuses the token of that number."""

        def work(tx: Transaction) -> None:
            tx.db.execute("UPDATE vault_token SET refused = ? WHERE serial = ?", (serial, serial))
            bump(tx, _TOPIC)

        await asyncio.wrap_future(self._store.submit(work))

    @property
    def changes(self) -> int:
        """A number that grows with every change; costs microseconds."""
        return self._store.counter(_TOPIC)

    def used(self, wrapping: str) -> Use | None:
        """Whether that wrapping token was used by this workspace."""
        row = (
            self._store.read()
            .execute(
                "SELECT begun_at, outcome FROM vault_wrappings WHERE mac = ?",
                (self._mac(wrapping),),
            )
            .fetchone()
        )
        return None if row is None else Use(row[0], row[1])

    def using(self, wrapping: str, record: Draft) -> None:
        """Remembers the token before it is used: whatever happens then, it is ours that was."""
        mac = self._mac(wrapping)

        def work(tx: Transaction) -> None:
            tx.db.execute(
                "INSERT OR IGNORE INTO vault_wrappings VALUES (?, ?, NULL)", (mac, tx.time)
            )
            tx.append(record)

        self._store.write(work)

    def came_out(self, wrapping: str, outcome: Outcome, record: Draft) -> None:
        """And what came of it."""
        mac = self._mac(wrapping)

        def work(tx: Transaction) -> None:
            tx.db.execute(
                "INSERT INTO vault_wrappings VALUES (?, ?, ?)"
                " ON CONFLICT (mac) DO UPDATE SET outcome = excluded.outcome",
                (mac, tx.time, outcome),
            )
            tx.append(record)

        self._store.write(work)

    def _mac(self, wrapping: str) -> bytes:
        return hmac.digest(self._key, b"wrapping\0" + wrapping.encode(), hashlib.sha256)

    def _seal(self, grant: Grant, serial: int) -> bytes:
        text = json.dumps([grant.token, grant.lease, grant.renewable]).encode()
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text, _bound_to(serial))

    def _open(self, sealed: bytes, serial: int) -> Grant | None:
        try:
            text = self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(serial)
            )
        except (InvalidTag, ValueError):
            return None  # changed, or of another workspace: as good as none
        token, lease, renewable = json.loads(text)
        return Grant(token, lease, renewable)


def _bound_to(serial: int) -> bytes:
    return f"vault-token {serial}".encode()


class Relayed:
    """An Entrance by the token that the supervisor holds; it renews it and gives it back."""

    def __init__(self, handover: Handover) -> None:
        self._handover = handover

    async def enter(self, refused: Grant | None) -> Grant:
        """The published token; one newer than `refused`, which is waited for."""
        handed = self._handover.read()
        if refused is not None and _is(handed, refused):
            await self._handover.refuse(handed.serial)
            while _is(handed, refused):
                await asyncio.sleep(_POLL)
                handed = self._handover.read()
        return taken(handed, own=False)

    async def renew(self, grant: Grant) -> Grant | None:
        """Not ours to do."""
        return None

    async def leave(self, grant: Grant) -> None:
        """Not ours to do."""

    def mark(self) -> object:
        return self._handover.changes

    @property
    def follows(self) -> bool:
        return True


def taken(handed: Handed, *, own: bool) -> Grant:
    """The published token for use here. Raises VaultUnavailable if there is none."""
    if handed.grant is None:
        raise VaultUnavailable(
            handed.trouble
            or "`keybroker up` has not logged in to Vault, and only it can (the SecretID is"
            " wrapped); start it.",
            kind="log_in",
        )
    # Without its lease: it is renewed elsewhere.
    return Grant(handed.grant.token, own=own)


def _is(handed: Handed, grant: Grant) -> bool:
    return handed.grant is not None and handed.grant.token == grant.token
