"""Log-in and renewal against a scripted server, where no real one can be made to behave so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
import urllib3

from broker.secrets import api
from broker.secrets.access import AppRole, TokenFile, VaultAccess
from broker.secrets.api import Api, Login, VaultUnavailable
from tests.support.servers import Answer, answering, hanging

SECRET_ID = "canary-secret-id"


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Script:
    """Grants tokens t1, t2 .. with a lease of 90 s; renews for `renewal` seconds, 0 for a 403."""

    def __init__(self, renewal: int = 90) -> None:
        self.renewal = renewal
        self.granted = 0

    def __call__(self, method: str, path: str) -> Answer:
        if path.endswith("/login"):
            self.granted += 1
            return self._grant(f"t{self.granted}", 90)
        if path.endswith("/renew-self"):
            return self._grant("same", self.renewal) if self.renewal else (403, {}, b"{}")
        return 204, {}, b""

    @staticmethod
    def _grant(token: str, lease: int) -> Answer:
        auth = {"client_token": token, "lease_duration": lease, "renewable": True}
        return 200, {}, json.dumps({"auth": auth}).encode()


def role(url: str) -> VaultAccess:
    return VaultAccess(url, AppRole("role", secret_id=SECRET_ID))


def paths(asked: list[tuple[str, str, dict[str, str], bytes]]) -> list[str]:
    return [path.rsplit("/", 1)[1] for _, path, _, _ in asked]


def test_a_token_is_taken_once_and_renewed_before_it_ends() -> None:
    clock = FakeClock()
    with answering(Script()) as server:
        login = Login(role(server.url), clock)
        assert [login.token(), login.token()] == ["t1", "t1"]
        clock.now += 61
        assert login.token() == "t1"
        clock.now += 59
        assert login.token() == "t1"
    assert paths(server.asked) == ["login", "renew-self"]
    assert server.asked[1][2]["x-vault-token"] == "t1"


@pytest.mark.parametrize("renewal", [0, 20])
def test_a_renewal_refused_or_cut_short_leads_to_a_new_log_in(renewal: int) -> None:
    """Near its maximal TTL a token is renewed for ever less."""
    clock = FakeClock()
    with answering(Script(renewal)) as server:
        login = Login(role(server.url), clock)
        login.token()
        clock.now += 61
        assert login.token() == "t2"
    assert paths(server.asked) == ["login", "renew-self", "revoke-self", "login"]


def test_an_expired_token_is_not_even_tried() -> None:
    clock = FakeClock()
    with answering(Script()) as server:
        login = Login(role(server.url), clock)
        login.token()
        clock.now += 90
        assert login.token() == "t2"
    assert paths(server.asked) == ["login", "login"]


def test_a_refused_token_is_replaced_once_for_all_who_held_it() -> None:
    with answering(Script()) as server:
        login = Login(role(server.url))
        refused = login.token()
        assert [login.after_refusal(refused) for _ in range(3)] == ["t2", "t2", "t2"]
    assert paths(server.asked) == ["login", "revoke-self", "login"]


def test_closing_gives_the_token_back() -> None:
    with answering(Script()) as server:
        login = Login(role(server.url))
        login.token()
        login.close()
        login.close()
    assert paths(server.asked) == ["login", "revoke-self"]


def test_a_token_from_a_file_is_read_again_and_never_revoked(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    with answering(Script()) as server:
        login = Login(VaultAccess(server.url, TokenFile(file)))
        assert login.token() == "first"
        file.write_text("second\n")
        assert login.token() == "first"
        assert login.after_refusal("first") == "second"
        login.close()
    assert paths(server.asked) == ["lookup-self", "lookup-self"]


@pytest.mark.parametrize("content", [None, "", "two\nlines", "n\u00f6"])
def test_a_token_file_that_is_no_token_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, encoding="latin-1")
    with pytest.raises(VaultUnavailable, match=f"token file {file} cannot be used"):
        Login(VaultAccess("http://127.0.0.1:1", TokenFile(file))).token()


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (400, b"{}", "refuses the AppRole log-in"),
        (503, b"{}", "sealed or down"),
        (200, b"{}", "refuses the AppRole log-in"),
        (200, b'{"auth": {"client_token": ""}}', "refuses the AppRole log-in"),
        (200, b"not json", "refuses the AppRole log-in"),
        (307, b"", "redirects"),
    ],
)
def test_a_failed_log_in_says_why_and_shows_no_secret_id(
    status: int, body: bytes, why: str
) -> None:
    def answer(method: str, path: str) -> Answer:
        return status, {"Location": "http://127.0.0.1:1/"}, body

    with answering(answer) as server, pytest.raises(VaultUnavailable, match=why) as caught:
        Login(role(server.url)).token()
    assert SECRET_ID not in str(caught.value) + repr(vars(caught.value))
    assert caught.value.__context__ is None
    assert caught.value.status == status


def test_no_log_in_at_all_is_said_plainly() -> None:
    with pytest.raises(VaultUnavailable, match="No log-in is set"):
        Login(VaultAccess("http://127.0.0.1:1", None)).token()
    with pytest.raises(VaultUnavailable, match="neither a SecretID nor a file"):
        Login(VaultAccess("http://127.0.0.1:1", AppRole("r"))).token()


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


def test_a_reply_does_not_show_its_body() -> None:
    assert "canary" not in repr(api.Reply(200, {"data": {"k": "canary"}}))


def test_an_access_does_not_show_its_secret_id() -> None:
    assert SECRET_ID not in repr(role("http://x"))


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
    assert api.meaning_of(418) == "418"


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


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (requests.exceptions.SSLError("x"), "not trusted"),
        (urllib3.exceptions.SSLError("x"), "not trusted"),
        (requests.ConnectTimeout("x"), "in time"),
        (urllib3.exceptions.ReadTimeoutError(urllib3.HTTPConnectionPool("h"), "/", "x"), "in time"),
        (requests.ConnectionError("x"), "no connection"),
        (urllib3.exceptions.ProtocolError("x"), "no connection"),
        (OSError("x"), "OSError"),
    ],
)
def test_foreign_errors_get_words_of_our_own(error: Exception, why: str) -> None:
    assert why in api.cause_of(error)
