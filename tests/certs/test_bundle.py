"""Bundles hold the system's roots and ours, and are there whole or not at all."""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi
import pytest

from certs.authority import Authority
from certs.bundle import system_bundle, write_bundle
from certs.errors import BundleUnavailable


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"))


def roots_in(path: Path) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return context.cert_store_stats()["x509_ca"]


def test_holds_both(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    write_bundle(path, authority)
    assert roots_in(path) == roots_in(system_bundle()) + 1
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["bundle.pem"]


def test_is_written_again_only_when_it_changed(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    write_bundle(path, authority)
    first = path.stat().st_ino
    write_bundle(path, authority)
    assert path.stat().st_ino == first
    path.write_bytes(b"cut")
    write_bundle(path, authority)
    assert roots_in(path) > 1


def test_does_not_add_itself_twice(authority: Authority, tmp_path: Path) -> None:
    write_bundle(tmp_path / "one.pem", authority)
    write_bundle(tmp_path / "two.pem", authority, roots=tmp_path / "one.pem")
    assert (tmp_path / "one.pem").read_bytes() == (tmp_path / "two.pem").read_bytes()


def test_takes_roots_without_a_last_line_end(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(authority.pem.rstrip())
    other = Authority.load_or_create(tmp_path / "ca")
    write_bundle(tmp_path / "bundle.pem", other, roots=tmp_path / "roots.pem")
    assert roots_in(tmp_path / "bundle.pem") == 2


def test_looks_in_the_usual_places(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "told.pem"))
    empty, good = tmp_path / "empty.pem", tmp_path / "good.pem"
    empty.write_text("no certificate here")
    good.write_bytes(authority.pem)
    assert system_bundle([tmp_path / "missing.pem", tmp_path, empty, good]) == good
    assert system_bundle([]) == Path(certifi.where())
    (tmp_path / "told.pem").write_bytes(authority.pem)
    assert system_bundle([good]) == tmp_path / "told.pem"


def test_says_when_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "missing.pem"))
    with pytest.raises(BundleUnavailable, match="ca-certificates"):
        system_bundle([])


def test_says_when_it_cannot_be_written(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(BundleUnavailable, match="cannot be made"):
        write_bundle(tmp_path / "missing" / "bundle.pem", authority)
