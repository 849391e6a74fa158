"""Seals stored requests at rest (AES-256-GCM), bound to the approval they belong to."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.errors import StoreUnavailable
from rules.request import Request

_NONCE_BYTES = 12


class Sealer:
    """Turns requests into sealed bytes and back."""

    def __init__(self, key: bytes, random: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(key)
        self._random = random

    def seal(self, request: Request, approval: str) -> bytes:
        """The request under a fresh nonce, bound to `approval`."""
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, request.to_json().encode(), approval.encode())

    def open(self, sealed: bytes, approval: str) -> Request:
        """The request that was sealed for `approval`.

        Raises StoreUnavailable if the bytes were changed or belong to another approval.
        """
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            text = self._cipher.decrypt(nonce, body, approval.encode())
        except (InvalidTag, ValueError) as error:
            raise StoreUnavailable(
                f"the stored request of {approval} was changed or sealed under another key"
            ) from error
        return Request.from_json(text.decode())
