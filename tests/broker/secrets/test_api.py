"""The API for administration against scripted servers: bounded, and nothing travels along."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.secrets import api
from broker.secrets.access import VaultAccess
from broker.secrets.api import Api
from broker.secrets.trouble import VaultUnavailable
from tests.support.servers import Answer, answering, hanging


def test_hvac_does_not_carry_the_token_to_where_a_redirect_leads() -> None:
    """hvac follows redirects to other hosts and sends X-Vault-Token along, unless told not to."""
    with answering(lambda method, path: (200, {}, b"{}")) as other:

        def away(method: str, path: str) -> Answer:
            return 307, {"Location": f"{other.url}{path}"}, b""

        with answering(away) as server, pytest.raises(VaultUnavailable, match="redirects"):
            Api(VaultAccess(server.url, None), "root").ask("GET", "kv/data/x")
    assert other.asked == []


def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy may see the token; neither address nor token of another Vault counts."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "VAULT_ADDR"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("VAULT_TOKEN", "from-environment")
    with answering(lambda method, path: (200, {}, b'{"data": {"a": 1}}')) as server:
        reply = Api(VaultAccess(server.url, None, namespace="team")).ask("GET", "x/y")
    assert reply.data == {"a": 1}
    [(method, path, headers, _)] = server.asked
    assert (method, path, headers["x-vault-namespace"]) == ("GET", "/v1/x/y", "team")
    assert "x-vault-token" not in headers


def test_a_server_that_hangs_is_given_up() -> None:
    with (
        hanging() as url,
        pytest.raises(VaultUnavailable, match="does not answer in time") as caught,
    ):
        Api(VaultAccess(url, None), "t", timeout=0.1).call("GET", "sys/health")
    assert caught.value.status is None
    assert caught.value.__context__ is None


def test_a_refused_call_says_what_the_status_means() -> None:
    with (
        answering(lambda method, path: (429, {}, b"")) as server,
        pytest.raises(VaultUnavailable, match="refused GET a/b: 429, too many requests"),
    ):
        Api(VaultAccess(server.url, None)).call("GET", "a/b")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"initialized": false, "sealed": true}', "is not initialised"),
        (b'{"initialized": true, "sealed": true}', "is sealed"),
        (b'{"initialized": true, "sealed": false, "standby": true}', "unsealed (standby)"),
        (b'{"initialized": true}', "is sealed"),
        (b"<html>", "cannot be reached"),
    ],
)
def test_health_is_read_from_the_body_and_doubt_is_sealed(body: bytes, why: str) -> None:
    with answering(lambda method, path: (503, {}, body)) as server:
        health = Api(VaultAccess(server.url, None)).health()
    assert why in health.sentence
    assert not health.active


def test_a_missing_ca_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        VaultUnavailable, match=r"nowhere\.pem for Vault cannot be read: No such file"
    ):
        Api(VaultAccess("https://127.0.0.1:1", None, ca_bundle=tmp_path / "nowhere.pem"))


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_ANSWER", 1000)
    with (
        answering(lambda method, path: (200, {}, b'"' + b"c4nary" * 1000)) as server,
        pytest.raises(VaultUnavailable, match="too long") as caught,
    ):
        Api(VaultAccess(server.url, None)).ask("GET", "x")
    assert "c4nary" not in str(caught.value)
    assert caught.value.kind == "garbled"
