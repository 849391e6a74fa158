"""Root certificates in one file: the system's own, and the system's with Keybroker's beside them.

Most clients' CA variables replace their trust store, so the file they get must hold both.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import certifi

from certs.authority import Authority
from certs.errors import BundleUnavailable
from certs.files import write_atomically

USUAL_PLACES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Arch, Alpine
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # Fedora, RHEL
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # older RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),  # macOS, OpenBSD, Alpine
    Path("/usr/local/share/certs/ca-root-nss.crt"),  # FreeBSD
)

_BEGIN = b"-----BEGIN CERTIFICATE-----"


def system_bundle(places: Sequence[Path] = USUAL_PLACES) -> Path:
    """The file with the root certificates that this system trusts.

    What OpenSSL was told (SSL_CERT_FILE) or built with comes first, then `places`, then certifi's
    copy of Mozilla's list. Raises BundleUnavailable if none of them holds a certificate.
    """
    for path in _candidates(places):
        try:
            if _BEGIN in path.read_bytes():
                return path
        except OSError:
            continue
    raise BundleUnavailable(
        "no root certificates were found: install the system's ca-certificates package, or name a"
        " PEM file in `egress: {ca_bundle: ...}`"
    )


def _candidates(places: Sequence[Path]) -> Iterator[Path]:
    told = ssl.get_default_verify_paths().cafile
    if told:
        yield Path(told)
    yield from places
    yield Path(certifi.where())


def write_bundle(path: Path, authority: Authority, roots: Path | None = None) -> None:
    """Write the certificates of `roots` (default: the system's) and the authority's to `path`.

    A reader sees the old file or the new one. Raises BundleUnavailable.
    """
    source = roots or system_bundle()
    try:
        data = source.read_bytes()
        if authority.pem not in data:  # it is there already where one run starts another
            data = data.rstrip(b"\n") + b"\n" + authority.pem
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data, 0o644)
    except OSError as error:
        raise BundleUnavailable(
            f"the CA bundle {path} cannot be made from {source} ({error.strerror or error})"
        ) from error
