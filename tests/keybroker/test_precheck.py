"""What settings can tell before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from keybroker.errors import Unusable
from keybroker.precheck import check_egress, warn_of_clear_text
from keybroker.settings import load_settings


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("", []),
        ("proxy: {listen: 0.0.0.0:1, tls: auto}", []),
        ("proxy: {listen: 0.0.0.0:1}", ["set `proxy.tls`"]),
        (
            "proxy: {listen: 10.0.0.1:1}\nadmin: {listen: 10.0.0.1:2}",
            ["`proxy.tls`", "`admin.tls`"],
        ),
        (
            "admin: {listen: 10.0.0.1:2, tls: {certificate: a, key: b}}",
            [],
        ),
    ],
    ids=["loopback", "proxy with TLS", "proxy", "both", "page with TLS"],
)
def test_clear_text_on_the_network_is_warned_of(
    text: str, warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_clear_text(load_settings(text, file="keybroker.yaml", base=Path()))
    # Threads that another test has left to themselves may have something to say, too.
    lines = [r.getMessage() for r in caplog.records if r.name == "keybroker.up"]
    assert len(lines) == len(warnings)
    assert all(word in line for word, line in zip(warnings, lines, strict=True))


@pytest.mark.parametrize(
    ("egress", "because"),
    [
        ("ca_bundle: none.pem", "none.pem cannot be read: No such file or directory"),
        ("ca_bundle: text", "text holds no certificates in PEM (`egress.ca_bundle`)"),
        (
            "proxy: {url: 'https://p', ca_bundle: text}",
            "holds no certificates in PEM (`egress.proxy.ca_bundle`)",
        ),
        (
            "proxy: {url: 'http://p', username: u, password_file: none}",
            "none cannot be read: No such file or directory (`egress.proxy.password_file`)",
        ),
        (
            "proxy: {url: 'http://p', username: u, password_file: empty}",
            "empty holds no usable password in its first line",
        ),
        (
            "proxy: {url: 'http://p', username: u, password_file: binary}",
            "binary holds no usable password in its first line",
        ),
    ],
)
def test_a_file_that_would_fail_every_call_is_told_of(
    tmp_path: Path, egress: str, because: str
) -> None:
    (tmp_path / "text").write_text("no certificate\n")
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    text = f"egress: {{{egress}}}"
    with pytest.raises(Unusable) as refused:
        check_egress(load_settings(text, file="keybroker.yaml", base=tmp_path))
    assert because in str(refused.value)


def test_what_can_be_used_passes(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    text = "egress: {proxy: {url: 'http://p', username: u, password_file: password}}"
    for written in ("", text):
        check_egress(load_settings(written, file="keybroker.yaml", base=tmp_path))
