"""The workspace's keys: one root of 32 random bytes, and one derived key a purpose (HKDF, RFC
5869).

Whoever reads the root key is an administrator; it never leaves the workspace's state directory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ROOT_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """One 32-byte key for each purpose; none of them shows itself."""

    digest: bytes = field(repr=False)
    """Keys request digests and join keys, so that they can be compared but not guessed."""
    sealing: bytes = field(repr=False)
    """Seals stored requests at rest."""
    ledger_head: bytes = field(repr=False)
    """Authenticates the ledger's newest record, so that a cut tail shows."""
    pages: bytes = field(repr=False)
    """Derives the CSRF token from a page session."""
    placeholders: bytes = field(repr=False)
    """Derives the placeholders of credentials, so that every worker knows them again."""
    vault: bytes = field(repr=False)
    """Seals the token for Vault that a workspace's processes share."""

    @classmethod
    def derive(cls, root: bytes) -> Keys:
        """All keys from the root; raises ValueError unless it is exactly 32 bytes."""
        if len(root) != ROOT_KEY_BYTES:
            raise ValueError(f"the workspace key must be {ROOT_KEY_BYTES} bytes, not {len(root)}")

        def key(purpose: str) -> bytes:
            info = f"keybroker/v1/{purpose}".encode()
            return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(root)

        purposes = ("digest", "sealing", "ledger-head", "pages", "placeholders", "vault")
        return cls(*(key(purpose) for purpose in purposes))
