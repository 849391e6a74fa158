"""How to reach and enter a Vault: plain values, checked nowhere but where they are used."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import certifi

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where Kubernetes puts a pod's token, and a fresh one from time to time."""


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file whose one line is a token (a Vault agent's sink, say); read again when it changes."""

    path: Path


@dataclass(frozen=True, slots=True)
class AppRole:
    """A RoleID with its SecretID, given or in a file (which is read at every log-in)."""

    role_id: str
    secret_id: str | None = field(default=None, repr=False)
    secret_id_file: Path | None = None
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class JwtFile:
    """A role with a JWT in a file, read at every log-in: for the methods `jwt` and `kubernetes`."""

    role: str
    path: Path
    mount: str = "jwt"


@dataclass(frozen=True, slots=True)
class WrappedAppRole:
    """A RoleID with a SecretID that can be unwrapped once: see `wrapped` and `handover`."""

    role_id: str
    wrapping_token_file: Path
    mount: str = "approle"


Auth = TokenFile | AppRole | WrappedAppRole | JwtFile


@dataclass(frozen=True, slots=True)
class VaultAccess:
    url: str
    auth: Auth | None
    """None: for what Vault tells anybody (its health)."""
    namespace: str | None = None
    ca_bundle: Path | None = None
    """PEM file of trusted roots; None: the system's."""
    client_certificate: Path | None = None
    """PEM file to show where Vault asks for a client certificate (`client_key` beside it)."""
    client_key: Path | None = None

    def roots(self) -> str:
        """The file of root certificates that an https connection to this Vault is verified by."""
        if self.ca_bundle is not None:
            return str(self.ca_bundle)
        system = ssl.get_default_verify_paths().cafile
        return system or certifi.where()
