"""The authority signs what real clients accept, survives restarts, and says what is wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.authority import (
    CACHED_LEAVES,
    CERTIFICATE_FILE,
    KEY_FILE,
    Authority,
    Leaf,
)
from certs.errors import AuthorityUnusable, BadName


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"), label="demo")


def extension[T: x509.ExtensionType](certificate: x509.Certificate, kind: type[T]) -> T:
    return certificate.extensions.get_extension_for_class(kind).value


def parse(leaf: Leaf) -> x509.Certificate:
    return x509.load_pem_x509_certificate(leaf.cert_pem)


@contextlib.contextmanager
def serving(leaf: Leaf, directory: Path) -> Iterator[int]:
    """A TLS server on a free port that shows `leaf` and answers any request."""
    file = directory / "leaf.pem"
    file.write_bytes(leaf.key_pem + leaf.cert_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with (
                contextlib.suppress(OSError),
                connection,
                context.wrap_socket(connection, server_side=True) as tls,
            ):
                if tls.recv(4096):
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


HOSTS = ["api.example.com", "127.0.0.1", "::1", "a" * 60 + ".example.com", "xn--bcher-kva.example"]


@pytest.mark.parametrize("host", HOSTS)
def test_python_accepts_a_leaf(authority: Authority, tmp_path: Path, host: str) -> None:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        serving(authority.leaf(host), tmp_path) as port,
        socket.create_connection(("127.0.0.1", port)) as connection,
        context.wrap_socket(connection, server_hostname=host) as tls,
    ):
        assert tls.version() == "TLSv1.3"


@pytest.mark.parametrize("host", [HOSTS[0], HOSTS[1], HOSTS[3]])
def test_curl_accepts_a_leaf(authority: Authority, tmp_path: Path, host: str) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.pem)
    with serving(authority.leaf(host), tmp_path) as port:
        command = ["curl", "-sS", "--noproxy", "*", "--cacert", str(ca_file)]
        command += ["--resolve", f"{host}:{port}:127.0.0.1", f"https://{host}:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("yes", "")


def test_a_leaf_is_for_one_name_only(authority: Authority, tmp_path: Path) -> None:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    with (
        serving(authority.leaf("example.com"), tmp_path) as port,
        socket.create_connection(("127.0.0.1", port)) as connection,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        context.wrap_socket(connection, server_hostname="www.example.com")


def test_what_the_certificates_say(authority: Authority) -> None:
    ca = x509.load_pem_x509_certificate(authority.pem)
    assert extension(ca, x509.BasicConstraints) == x509.BasicConstraints(True, 0)
    assert extension(ca, x509.KeyUsage).key_cert_sign
    assert not extension(ca, x509.KeyUsage).digital_signature
    common_name = ca.subject.rfc4514_string()
    assert "Keybroker CA demo " in common_name
    leaf = parse(authority.leaf("Example.COM"))
    assert extension(leaf, x509.SubjectAlternativeName) == x509.SubjectAlternativeName(
        [x509.DNSName("example.com")]
    )
    assert not extension(leaf, x509.BasicConstraints).ca
    assert leaf.public_key() != ca.public_key()
    now = datetime.now(UTC)
    assert leaf.not_valid_before_utc <= now - timedelta(minutes=59)
    assert now + timedelta(hours=23) < leaf.not_valid_after_utc <= now + timedelta(hours=24)


def test_each_name_has_its_own_key_and_keeps_it(authority: Authority) -> None:
    one, two = authority.leaf("one.example"), authority.leaf("two.example")
    assert parse(one).public_key() != parse(two).public_key()
    assert authority.leaf("ONE.example") is one
    key = serialization.load_pem_private_key(one.key_pem, None)
    assert key.public_key() == parse(one).public_key()
    assert "PRIVATE" not in repr(one)


@pytest.mark.parametrize(
    "host",
    [
        *("", ".", "a..b", "example.com.", "*.example.com", "under_score.example", "-a.example"),
        *("bücher.example", "a b.example", "a" * 64 + ".example", "a." * 126 + "aa", "a\n.example"),
        *("1.2.3", "127.1", "256.1.1.1", "[::1]", "fe80::1%eth0", "::1%25lo", "a,DNS:b.example"),
    ],
)
def test_refuses_what_is_no_name(authority: Authority, host: str) -> None:
    with pytest.raises(BadName, match="no certificate can be made"):
        authority.leaf(host)


def test_leaves_are_renewed_in_time(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority.load_or_create(tmp_path, clock=clock)
    first = authority.leaf("example.com")
    clock.now += timedelta(hours=17)
    assert authority.leaf("example.com") is first
    clock.now += timedelta(hours=2)
    second = authority.leaf("example.com")
    assert second.not_after == first.not_after + timedelta(hours=19)


def test_a_leaf_does_not_outlive_the_authority(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority.load_or_create(tmp_path, clock=clock)
    clock.now = authority.not_after - timedelta(hours=2)
    assert authority.leaf("example.com").not_after == authority.not_after


def test_the_cache_is_bounded(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certs.authority.CACHED_LEAVES", 3)
    assert CACHED_LEAVES >= 100
    first = authority.leaf("host-0.example")
    for number in range(1, 4):
        authority.leaf(f"host-{number}.example")
    assert authority.leaf("host-3.example") is authority.leaf("host-3.example")
    assert authority.leaf("host-0.example") is not first


def test_survives_a_restart(tmp_path: Path) -> None:
    first = Authority.load_or_create(tmp_path / "state" / "ca")
    again = Authority.load_or_create(tmp_path / "state" / "ca")
    assert again.pem == first.pem
    key = tmp_path / "state" / "ca" / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert (key.parent / CERTIFICATE_FILE).read_bytes() == first.pem


def test_processes_that_come_at_once_get_one_authority(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from certs.authority import Authority;"
        "sys.stdout.buffer.write(Authority.load_or_create(pathlib.Path(sys.argv[1])).pem)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "ca")]
    root = Path(__file__).parents[2]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1
    assert {process.returncode for process in started} == {0}


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", None]
)
def test_corrupt_files_give_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    Authority.load_or_create(tmp_path)
    key = tmp_path / KEY_FILE
    if content is None:  # another authority's certificate
        Authority.load_or_create(tmp_path / "other")
        own = key.read_bytes().partition(b"-----BEGIN CERTIFICATE-----")[0]
        content = own + (tmp_path / "other" / CERTIFICATE_FILE).read_bytes()
    key.write_bytes(content)
    before = key.read_bytes()
    with pytest.raises(AuthorityUnusable, match=r"ca-key\.pem does not hold a usable key.*restore"):
        Authority.load_or_create(tmp_path)
    assert key.read_bytes() == before


def test_a_readable_key_is_refused(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(AuthorityUnusable, match="other users may read"):
        Authority.load_or_create(tmp_path)


def test_a_lost_key_is_not_replaced_silently(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(AuthorityUnusable, match="restore the key"):
        Authority.load_or_create(tmp_path)


def test_a_lost_certificate_comes_back(tmp_path: Path) -> None:
    pem = Authority.load_or_create(tmp_path).pem
    (tmp_path / CERTIFICATE_FILE).unlink()
    assert Authority.load_or_create(tmp_path).pem == pem
    assert (tmp_path / CERTIFICATE_FILE).read_bytes() == pem


def test_an_expired_authority_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    Authority.load_or_create(tmp_path, clock=clock)
    clock.now += timedelta(days=5 * 365 + 1)
    with pytest.raises(AuthorityUnusable, match="has expired"):
        Authority.load_or_create(tmp_path, clock=clock)


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AuthorityUnusable, match="cannot be read or written"):
        Authority.load_or_create(tmp_path / "file" / "ca")
    (tmp_path / "ca" / KEY_FILE).mkdir(parents=True)
    with pytest.raises(AuthorityUnusable):
        Authority.load_or_create(tmp_path / "ca")
