"""How to reach and enter a Vault: plain values, checked nowhere but where they are used."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import certifi


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file whose first line is a token (a Vault agent's sink, say); read again when refused."""

    path: Path


@dataclass(frozen=True, slots=True)
class AppRole:
    """A RoleID with its SecretID, given or in a file (which is read at every log-in)."""

    role_id: str
    secret_id: str | None = field(default=None, repr=False)
    secret_id_file: Path | None = None
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class VaultAccess:
    url: str
    auth: TokenFile | AppRole | None
    """None: for what Vault tells anybody (its health)."""
    namespace: str | None = None
    ca_bundle: Path | None = None
    """PEM file of trusted roots; None: the system's."""

    def roots(self) -> str:
        """The file of root certificates that an https connection to this Vault is verified by."""
        if self.ca_bundle is not None:
            return str(self.ca_bundle)
        system = ssl.get_default_verify_paths().cafile
        return system or certifi.where()
