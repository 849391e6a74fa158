"""Which names our own certificate covers, and how a bad one is told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from keybroker.compose_tls import admin_serving, own_hosts, proxy_serving
from keybroker.errors import Unusable
from keybroker.settings import ProxySettings, Settings, load_settings
from keybroker.values import Listen
from keybroker.workspace import Workspace


@pytest.mark.parametrize(
    ("listen", "gateway", "hosts"),
    [
        ("127.0.0.1", None, ["127.0.0.1", "localhost"]),
        ("10.1.2.3", None, ["10.1.2.3"]),
        ("10.1.2.3", "https://gw.example:8443", ["gw.example", "10.1.2.3"]),
        ("proxy_1", None, []),
    ],
)
def test_a_listener_is_certified_for_what_it_is_called(
    listen: str, gateway: str | None, hosts: list[str]
) -> None:
    proxy = ProxySettings(listen=Listen(listen, 1))
    assert own_hosts(proxy.model_copy(update={"gateway": gateway})) == hosts


@pytest.mark.parametrize("machine", ["host-1", "no_name_of_dns"])
def test_one_on_every_address_is_certified_for_those_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: machine)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.0.0.7", 0))])
    names = [machine] if machine == "host-1" else []
    assert own_hosts(ProxySettings(listen=Listen("0.0.0.0", 1))) == [
        "localhost", "127.0.0.1", "::1", *names, "10.0.0.7",
    ]  # fmt: skip


def test_clear_text_is_no_certificate(tmp_path: Path) -> None:
    assert proxy_serving(Workspace(tmp_path), Settings()) is None
    assert admin_serving(Settings()) is None


def test_a_bad_certificate_is_told_with_its_setting(tmp_path: Path) -> None:
    files = {"certificate": "none.pem", "key": "none.pem"}
    settings = load_settings(
        f"proxy: {{tls: {files}}}\nadmin: {{tls: {files}}}", file="keybroker.yaml", base=tmp_path
    )
    with pytest.raises(Unusable, match=r"none.pem cannot be read .*`admin.tls` in keybroker.yaml"):
        admin_serving(settings)
    with pytest.raises(Unusable, match=r"`proxy\.tls` in keybroker\.yaml"):
        proxy_serving(Workspace(tmp_path), settings)


def test_our_own_certificate_comes_from_the_workspace(tmp_path: Path) -> None:
    serving = proxy_serving(Workspace(tmp_path), Settings(proxy=ProxySettings(tls="auto")))
    assert serving is not None
    assert serving.renews_itself
    assert (tmp_path / "state" / "ca" / "ca.pem").exists()
