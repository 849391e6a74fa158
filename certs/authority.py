"""The workspace's certificate authority: one P-256 key on disk, short-lived leaves in memory.

Every leaf has a key of its own, so that what a client's connection uses is worth nothing elsewhere.
The authority's key is written once, readable by its owner alone, and never leaves this module.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.errors import AuthorityUnusable, BadName
from certs.files import locked, write_atomically

CERTIFICATE_FILE = "ca.pem"
KEY_FILE = "ca-key.pem"
LOCK_FILE = "ca.lock"

AUTHORITY_LIFE = timedelta(days=5 * 365)
LEAF_LIFE = timedelta(hours=24)
BACKDATE = timedelta(hours=1)
"""For clients whose clock is behind."""
RENEW_BEFORE = timedelta(hours=6)
"""A cached leaf that ends sooner is replaced: connections and sessions outlive the handshake."""
CACHED_LEAVES = 1000

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A server certificate for one host, with its own key. PEM."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    not_after: datetime


class Authority:
    """Signs leaves for hosts. Safe for several threads; several processes can share the files."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        clock: Callable[[], datetime],
    ) -> None:
        self._key, self._certificate, self._clock = key, certificate, clock
        self._leaves: OrderedDict[str, Leaf] = OrderedDict()
        self._lock = threading.Lock()
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        """The certificate that clients must trust."""
        self.not_after = certificate.not_valid_after_utc

    @classmethod
    def load_or_create(
        cls,
        directory: Path,
        *,
        label: str = "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Authority:
        """The authority in `directory` (made if missing); a new one if it has none.

        `label` stands in a new authority's name, to tell workspaces apart in a trust store. Of
        several processes that come at once, one creates it. Raises AuthorityUnusable.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(directory / LOCK_FILE):
                if not (directory / KEY_FILE).exists():
                    _create(directory, label, clock())
                return cls(*_load(directory, clock()), clock)
        except OSError as error:
            raise AuthorityUnusable(
                f"the certificate authority in {directory} cannot be read or written"
                f" ({error.strerror or error}); check the directory's owner and permissions"
            ) from error

    def leaf(self, host: str, *others: str) -> Leaf:
        """A certificate for `host`: a DNS name in LDH form or an IP address without brackets.

        It is for `others`, too, and valid for at least RENEW_BEFORE from now. Raises BadName.
        """
        subjects = [subject_name(one) for one in (host, *others)]
        name = " ".join(str(subject.value) for subject in subjects)
        soon = self._clock() + RENEW_BEFORE
        with self._lock:
            known = self._leaves.get(name)
            if known and known.not_after > soon:
                self._leaves.move_to_end(name)
                return known
        made = self._sign(subjects)
        with self._lock:
            self._leaves[name] = made
            self._leaves.move_to_end(name)
            while len(self._leaves) > CACHED_LEAVES:
                self._leaves.popitem(last=False)
        return made

    def _sign(self, subjects: Sequence[x509.GeneralName]) -> Leaf:
        name = str(subjects[0].value)
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._clock()
        # A common name has at most 64 characters; without one the other name must be critical.
        fits = len(name) <= 64
        common = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if fits else []
        certificate = (
            _builder(x509.Name(common), self._certificate.subject, key, now)
            .not_valid_after(min(now + LEAF_LIFE, self.not_after))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(subjects), critical=not fits)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(
            certificate.public_bytes(serialization.Encoding.PEM),
            _private_pem(key),
            certificate.not_valid_after_utc,
        )


def subject_name(host: str) -> x509.GeneralName:
    """`host` as it stands in a certificate. Raises BadName."""
    with contextlib.suppress(ValueError):
        if "%" not in host:  # a zone (RFC 4007) has no place in a certificate
            return x509.IPAddress(ipaddress.ip_address(host))
    name = host.lower()
    labels = name.split(".")
    # RFC 1123 2.1: a last label of digits alone would be read as an address.
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise BadName(f"no certificate can be made for the host name {host[:253]!r}")
    return x509.DNSName(name)


def _create(directory: Path, label: str, now: datetime) -> None:
    if (directory / CERTIFICATE_FILE).exists():
        raise AuthorityUnusable(
            f"{directory / CERTIFICATE_FILE} is there but its key {KEY_FILE} is not: restore the"
            " key, or remove both to start a new authority (clients must then trust the new one)"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    shown = "".join(letter for letter in label if letter.isprintable())[:32].strip()
    name = " ".join(filter(None, ["Keybroker CA", shown, identifier.digest.hex()[:8]]))
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Keybroker"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    certificate = (
        _builder(subject, subject, key, now)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    # One file holds both, so that a crash cannot leave a key with another key's certificate.
    write_atomically(directory / KEY_FILE, _private_pem(key) + pem, 0o600)
    write_atomically(directory / CERTIFICATE_FILE, pem, 0o644)


def _load(directory: Path, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    path = directory / KEY_FILE
    if path.stat().st_mode & 0o077:
        raise AuthorityUnusable(
            f"other users may read {path}: run `chmod 600` on it, or remove it and"
            f" {CERTIFICATE_FILE} if somebody may have read it"
        )
    data = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(data, None)
        certificate = x509.load_pem_x509_certificate(data)
        sound = isinstance(key, ec.EllipticCurvePrivateKey) and (
            certificate.public_key() == key.public_key()
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _corrupt(path) from error
    if not sound or not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _corrupt(path)
    if certificate.not_valid_after_utc <= now:
        raise AuthorityUnusable(
            f"the certificate authority in {path} has expired: remove it and {CERTIFICATE_FILE}"
            " to start a new one (clients must then trust the new one)"
        )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    shown = directory / CERTIFICATE_FILE
    if not shown.exists() or shown.read_bytes() != pem:
        write_atomically(shown, pem, 0o644)  # a crash came between the two files
    return key, certificate


def _corrupt(path: Path) -> AuthorityUnusable:
    return AuthorityUnusable(
        f"{path} does not hold a usable key with its certificate: restore it, or remove it and"
        f" {CERTIFICATE_FILE} to start a new authority (clients must then trust the new one)"
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
