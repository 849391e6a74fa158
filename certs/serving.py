"""The certificate of a listener of our own: loaded strictly, followed while it is in use.

A pair that cannot be used never takes the place of one that can. Whoever serves calls `look` now
and then; connections that are open keep the certificate that they began with.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Protocol

from cryptography import x509

from certs.authority import Authority
from certs.errors import ServingUnusable

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; those of TLS 1.3 are all good."""


class Source(Protocol):
    """Where a listener's certificate comes from."""

    renews_itself: ClassVar[bool]

    def mark(self) -> object:
        """Changes when there may be another certificate. Cheap."""
        ...

    def load(self) -> tuple[ssl.SSLContext, x509.Certificate]:
        """A server context with what there is now. Raises ServingUnusable."""
        ...


@dataclass(frozen=True, slots=True)
class PairOfFiles:
    """A certificate (its chain behind it) and its key, in PEM, that somebody else renews."""

    certificate: Path
    key: Path
    renews_itself: ClassVar[bool] = False

    def mark(self) -> object:
        found: list[object] = []
        for path in (self.certificate, self.key):
            with contextlib.suppress(OSError):
                at = path.stat()
                found.append((path, at.st_ino, at.st_size, at.st_mtime_ns))
        return tuple(found)

    def load(self) -> tuple[ssl.SSLContext, x509.Certificate]:
        for path in (self.certificate, self.key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise ServingUnusable(f"{path} cannot be read ({error.strerror})") from error
        context = _loaded(self.certificate, self.key)
        try:
            certificate = x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]
        except (OSError, ValueError) as error:
            raise ServingUnusable(f"{self.certificate} cannot be read as PEM") from error
        now = datetime.now(UTC)
        if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
            raise ServingUnusable(
                f"the certificate in {self.certificate} is valid from"
                f" {certificate.not_valid_before_utc:%Y-%m-%d} to"
                f" {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, which is not now"
            )
        return context, certificate


@dataclass(frozen=True, slots=True)
class OwnLeaf:
    """A certificate of the workspace's authority, which agents trust already, for `hosts`."""

    authority: Authority
    hosts: Sequence[str]
    renews_itself: ClassVar[bool] = True

    def mark(self) -> object:
        return self.authority.leaf(*self.hosts)

    def load(self) -> tuple[ssl.SSLContext, x509.Certificate]:
        leaf = self.authority.leaf(*self.hosts)
        # The ssl module reads files only; this one is the owner's alone and gone in a moment.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(leaf.cert_pem + leaf.key_pem)
            file.flush()
            context = _loaded(Path(file.name), Path(file.name))
        return context, x509.load_pem_x509_certificate(leaf.cert_pem)


class Serving:
    """A server context whose new connections get the newest certificate that can be used."""

    def __init__(self, source: Source, protocols: Sequence[str]) -> None:
        """`protocols`: for ALPN, the preferred first. Raises ServingUnusable."""
        self._source = source
        self.renews_itself = source.renews_itself
        self._protocols = list(protocols)
        self._mark = source.mark()
        self._current, self.certificate = self._load()
        self.context, _ = self._load()
        """To listen with, as long as this object lives."""
        self.context.sni_callback = self._choose

    def look(self) -> ServingUnusable | bool:
        """Takes up a change: True if there is a new certificate, or why it could not be used."""
        mark = self._source.mark()
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            self._current, self.certificate = self._load()
        except ServingUnusable as error:
            return error
        return True

    def _load(self) -> tuple[ssl.SSLContext, x509.Certificate]:
        context, certificate = self._source.load()
        context.set_alpn_protocols(self._protocols)
        return context, certificate

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        # Called for every handshake, with or without a server name.
        connection.context = self._current


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether the certificate is for `host`, a DNS name or an address (RFC 9525 6)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        pass
    host = host.lower()
    known = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return host in known or f"*.{host.partition('.')[2]}" in known


def _loaded(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_to_ask)
    except _Encrypted:
        raise ServingUnusable(f"{key} is encrypted; give the key without a passphrase") from None
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            why = f"{key} is not the key of the certificate in {certificate}"
        else:
            why = f"{certificate} and {key} are not a certificate and its key in PEM"
        raise ServingUnusable(why) from error
    except OSError as error:
        raise ServingUnusable(
            f"{certificate} or {key} cannot be read ({error.strerror})"
        ) from error
    return context


class _Encrypted(Exception):
    pass


def _refuse_to_ask() -> str:
    # OpenSSL would ask on the terminal.
    raise _Encrypted


__all__ = ["OwnLeaf", "PairOfFiles", "Serving", "ServingUnusable", "Source", "covers"]
