"""A listener's certificate: strict at the start, followed later, and never worse than before."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.authority import Authority
from certs.errors import ServingUnusable
from certs.serving import OwnLeaf, PairOfFiles, Serving, covers
from tests.support.throwaway_ca import ThrowawayCA


@pytest.fixture(scope="module")
def ca() -> ThrowawayCA:
    return ThrowawayCA("Listener test CA")


def write(pair: PairOfFiles, pem: bytes) -> None:
    """Certificate and key apart, as a renewing program leaves them."""
    key, mark, certificate = pem.partition(b"-----BEGIN CERTIFICATE-----")
    pair.key.write_bytes(key)
    pair.certificate.write_bytes(mark + certificate)


@pytest.fixture
def pair(tmp_path: Path, ca: ThrowawayCA) -> PairOfFiles:
    pair = PairOfFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    write(pair, ca.issue(["first.example", "127.0.0.1"]))
    return pair


def shown(
    serving: Serving, ca_pem: bytes, host: str, protocols: tuple[str, ...] = ("h2", "http/1.1")
) -> tuple[str | None, str | None]:
    """TLS version and ALPN that a client which verifies `host` gets; raises as it does."""
    context = ssl.create_default_context(cadata=ca_pem.decode())
    context.set_alpn_protocols(list(protocols))
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with ours, contextlib.suppress(OSError):  # the client does not always like it
            serving.context.wrap_socket(ours, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with theirs, context.wrap_socket(theirs, server_hostname=host) as tls:
            return tls.version(), tls.selected_alpn_protocol()
    finally:
        thread.join(10)


def test_a_pair_is_served_and_its_protocols_are_in_our_order(
    pair: PairOfFiles, ca: ThrowawayCA
) -> None:
    serving = Serving(pair, ["http/1.1", "h2"])
    assert shown(serving, ca.pem, "first.example") == ("TLSv1.3", "http/1.1")
    assert shown(serving, ca.pem, "127.0.0.1", ("h2",)) == ("TLSv1.3", "h2")
    assert not serving.renews_itself


def test_old_tls_is_not_spoken(pair: PairOfFiles) -> None:
    assert Serving(pair, ["h2"]).context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_new_pair_is_taken_up_with_or_without_a_server_name(
    pair: PairOfFiles, ca: ThrowawayCA
) -> None:
    serving = Serving(pair, ["http/1.1"])
    assert serving.look() is False
    write(pair, ca.issue(["second.example", "127.0.0.2"]))
    assert serving.look() is True
    assert serving.look() is False
    assert shown(serving, ca.pem, "second.example")[1] == "http/1.1"
    shown(serving, ca.pem, "127.0.0.2")
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(serving, ca.pem, "first.example")


@pytest.mark.parametrize("bad", ["mismatch", "expired", "gone", "no-pem", "half", "empty"])
def test_a_bad_new_pair_leaves_the_one_before(pair: PairOfFiles, ca: ThrowawayCA, bad: str) -> None:
    serving = Serving(pair, ["http/1.1"])
    if bad == "mismatch":
        pair.key.write_bytes(ca.issue(["x.example"]).partition(b"-----BEGIN CERT")[0])
    elif bad == "expired":
        write(pair, ca.issue(["first.example"], expired=True))
    elif bad == "gone":
        pair.key.unlink()
    elif bad == "half":
        pair.certificate.write_bytes(pair.certificate.read_bytes()[:200])
    else:
        pair.certificate.write_bytes(b"nonsense" if bad == "no-pem" else b"")
    found = serving.look()
    assert isinstance(found, ServingUnusable)
    assert str(pair.certificate) in str(found) or str(pair.key) in str(found)
    assert serving.look() is False, "said once"
    shown(serving, ca.pem, "first.example")
    write(pair, ca.issue(["third.example"]))
    assert serving.look() is True
    shown(serving, ca.pem, "third.example")


def test_a_bad_pair_at_the_start_is_refused(pair: PairOfFiles, ca: ThrowawayCA) -> None:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    write(pair, ca.issue(["x.example"], expired=True))
    with pytest.raises(ServingUnusable, match="which is not now"):
        Serving(pair, [])
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"pass"),
        )
    )
    with pytest.raises(ServingUnusable, match="without a passphrase"):
        Serving(pair, [])
    pair.key.unlink()
    with pytest.raises(ServingUnusable, match="No such file"):
        Serving(pair, [])


class Clock:
    now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def test_a_leaf_of_our_own_covers_all_hosts_and_renews_itself(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority.load_or_create(tmp_path / "ca", clock=clock)
    serving = Serving(OwnLeaf(authority, ["proxy.example", "127.0.0.1"]), ["http/1.1"])
    assert serving.renews_itself
    shown(serving, authority.pem, "proxy.example")
    shown(serving, authority.pem, "127.0.0.1")
    assert serving.look() is False
    before = serving.certificate
    clock.now += timedelta(hours=20)
    assert serving.look() is True
    assert serving.certificate.not_valid_after_utc > before.not_valid_after_utc
    assert list(tmp_path.iterdir()) == [tmp_path / "ca"]


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("a.example", True),
        ("A.Example", True),
        ("x.wild.example", True),
        ("wild.example", False),
        ("x.y.wild.example", False),
        ("b.example", False),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("::1", True),
    ],
)
def test_what_a_certificate_covers(ca: ThrowawayCA, host: str, covered: bool) -> None:
    pem = ca.issue(["a.example", "*.wild.example", "127.0.0.1", "::1"])
    certificate = x509.load_pem_x509_certificate(pem)
    assert covers(certificate, host) is covered


def test_a_certificate_without_names_covers_nothing(ca: ThrowawayCA) -> None:
    assert not covers(x509.load_pem_x509_certificate(ca.pem), "Listener test CA")
