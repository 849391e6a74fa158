"""Browsers in which somebody logged in, known by a token that they keep. It opens nothing.

Nothing is stored: a token is a date and a random number under a key that the person's password hash
is a part of, so that forged ones do not count and a new password ends them all.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

from broker.ports import RandomBytes
from broker.stores.sqlite import Store

DEVICE_TTL = timedelta(days=180)
"""How long a browser is known after a log-in."""


class Devices:
    """The tokens of all people."""

    def __init__(self, store: Store, *, pages_key: bytes, random: RandomBytes) -> None:
        self._store = store
        self._pages_key = pages_key
        self._random = random

    def new(self, name: str) -> str:
        """A token for the browser in which `name` has just logged in."""
        issued = int(self._store.clock().timestamp())
        body = f"{issued}.{self._random(16).hex()}"
        return f"{body}.{self._mac(name, body)}"

    def knows(self, name: str, token: str) -> bool:
        """Whether `name` logged in from there within DEVICE_TTL, under the present password."""
        body, _, mac = token.rpartition(".")
        issued = body.partition(".")[0]
        if not (issued.isascii() and issued.isdigit() and len(issued) < 12):
            return False
        age = self._store.clock().timestamp() - int(issued)
        right = hmac.compare_digest(mac.encode(), self._mac(name, body).encode())
        return right and age < DEVICE_TTL.total_seconds()

    def _mac(self, name: str, body: str) -> str:
        row = (
            self._store.read()
            .execute("SELECT password_hash FROM users WHERE name = ?", (name,))
            .fetchone()
        )
        under = (row and row[0]) or ""
        content = "\0".join(("device", name, body, under)).encode("utf-8", "surrogateescape")
        return hmac.new(self._pages_key, content, hashlib.sha256).hexdigest()
