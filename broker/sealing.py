"""Seals stored requests at rest (AES-256-GCM), bound to the approval they belong to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.errors import StoreUnavailable
from rules.request import Headers, Request

_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A held request: as it will be sent, and the headers it came with.

    The two differ in the credentials' slots, which the agent may have filled with something of its
    own. The policy is asked about `matched`, people see and approve `outgoing`.
    """

    outgoing: Request
    matched_headers: Headers

    @property
    def matched(self) -> Request:
        """The request as the policy matched it."""
        return replace(self.outgoing, headers=self.matched_headers)

    @property
    def size(self) -> int:
        """Bytes that it takes when sealed, a little less than in fact; costs nothing to ask."""
        headers = (*self.outgoing.headers, *self.matched_headers)
        text = sum(len(name) + len(value) for name, value in headers)
        return len(self.outgoing.target) + text + len(self.outgoing.body) * 4 // 3


class Sealer:
    """Turns stored requests into sealed bytes and back."""

    def __init__(self, key: bytes, random: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(key)
        self._random = random

    def seal(self, stored: StoredRequest, approval: str) -> bytes:
        """The request under a fresh nonce, bound to `approval`."""
        text = json.dumps([stored.outgoing.to_json(), stored.matched_headers])
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), approval.encode())

    def open(self, sealed: bytes, approval: str) -> StoredRequest:
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
        outgoing, headers = json.loads(text)
        return StoredRequest(Request.from_json(outgoing), tuple((n, v) for n, v in headers))
