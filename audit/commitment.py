"""Commitments: what stands in the ledger for bodies and digests, which themselves stay out of it.

HMAC-SHA-256(salt, label || 0x00 || content). Whoever has the salt and the content can check it;
without the salt it cannot be guessed, however few contents there are to try. Salts are kept in
`ledger_salts`, apart from the chain, so that deleting one makes its commitments mean nothing while
the chain still verifies.
"""

from __future__ import annotations

import hashlib
import hmac

SALT_BYTES = 32


class Commitment:
    """A commitment to content that arrives in pieces. `label` says what is committed to."""

    __slots__ = ("_mac",)

    def __init__(self, salt: bytes, label: str) -> None:
        key, prefix = _checked(salt, label)
        self._mac = hmac.new(key, prefix, hashlib.sha256)

    def update(self, content: bytes) -> None:
        """Takes in the next piece; how content is cut into pieces makes no difference."""
        self._mac.update(content)

    def hexdigest(self) -> str:
        """The commitment to everything so far, 64 hex digits."""
        return self._mac.hexdigest()


def commit(salt: bytes, label: str, content: bytes) -> str:
    """The commitment to `content`, 64 hex digits."""
    key, prefix = _checked(salt, label)
    return hmac.digest(key, prefix + content, "sha256").hex()


def _checked(salt: bytes, label: str) -> tuple[bytes, bytes]:
    if len(salt) < 16:
        raise ValueError("a salt of less than 16 bytes could be guessed")
    if "\0" in label:
        raise ValueError("a label ends at the first NUL and so cannot hold one")
    return salt, label.encode() + b"\0"
