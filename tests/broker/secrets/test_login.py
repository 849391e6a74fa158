"""Log-in, renewal and leaving as conversations: what is asked, and what each answer leads to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.secrets.access import AppRole, Auth, JwtFile, TokenFile, VaultAccess
from broker.secrets.login import (
    Ask,
    Grant,
    Reply,
    carry,
    enter,
    is_good,
    leave,
    read_line,
    renew,
)
from broker.secrets.trouble import Kind, VaultUnavailable

SECRET_ID = "canary-secret-id"
URL = "https://vault.example"


class Vault:
    """Answers each question with the same reply, and keeps the questions."""

    def __init__(self, status: int, body: object) -> None:
        self.reply = Reply(status, body if isinstance(body, dict) else {})
        self.asked: list[Ask] = []

    def __call__(self, question: Ask) -> Reply:
        self.asked.append(question)
        return self.reply


def granted(token: str = "t1", lease: int = 90, renewable: bool = True) -> dict[str, object]:
    return {"auth": {"client_token": token, "lease_duration": lease, "renewable": renewable}}


def access(auth: Auth | None = None) -> VaultAccess:
    return VaultAccess(URL, auth or AppRole("role", secret_id=SECRET_ID))


def test_an_approle_gives_its_two_halves(tmp_path: Path) -> None:
    file = tmp_path / "secret-id"
    file.write_text(f"  {SECRET_ID}\n")
    vault = Vault(200, granted())
    grant = carry(enter(access(AppRole("role", secret_id_file=file, mount="team/ar"))), vault)
    assert (grant.token, grant.lease, grant.renewable, grant.own) == ("t1", 90, True, True)
    [question] = vault.asked
    assert (question.method, question.path) == ("POST", "auth/team/ar/login")
    assert question.body == {"role_id": "role", "secret_id": SECRET_ID}


def test_a_jwt_is_read_again_at_every_log_in(tmp_path: Path) -> None:
    """Kubernetes replaces a projected token long before it ends."""
    file = tmp_path / "jwt"
    vault = Vault(200, granted())
    for jwt in ("a.b.c", "d.e.f"):
        file.write_text(jwt)
        carry(enter(access(JwtFile("keybroker", file, "kubernetes"))), vault)
    assert [question.body for question in vault.asked] == [
        {"role": "keybroker", "jwt": "a.b.c"},
        {"role": "keybroker", "jwt": "d.e.f"},
    ]
    assert vault.asked[0].path == "auth/kubernetes/login"


def test_a_token_from_a_file_is_others_to_keep(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hvs.x\n")
    vault = Vault(200, {"data": {"ttl": 60, "renewable": True}})
    grant = carry(enter(access(TokenFile(file))), vault)
    assert (grant.token, grant.lease, grant.own) == ("hvs.x", 60, False)
    narrow = Vault(403, {})
    assert carry(enter(access(TokenFile(file))), narrow) == Grant("hvs.x", 0, False, own=False)
    carry(leave(grant), vault)
    assert [question.path for question in vault.asked] == ["auth/token/lookup-self"]


def test_our_own_token_is_given_back() -> None:
    vault = Vault(204, {})
    carry(leave(Grant("t1")), vault)
    assert [(q.path, q.token) for q in vault.asked] == [("auth/token/revoke-self", "t1")]


@pytest.mark.parametrize(
    ("status", "body", "kind", "why"),
    [
        (400, {}, "log_in", "refuses the log-in at auth/approle (400)"),
        (403, {}, "log_in", "check the RoleID and the SecretID"),
        (200, {}, "log_in", "refuses the log-in"),
        (200, granted(token=""), "log_in", "refuses the log-in"),
        (200, granted(token="a b"), "log_in", "refuses the log-in"),
        (200, granted(token="a\r\nX: y"), "log_in", "refuses the log-in"),
        (200, granted(lease=-1), "log_in", "refuses the log-in"),
        (429, {}, "rate_limited", "too many requests"),
        (500, {}, "server_error", "failed at the log-in"),
        (503, {}, "sealed", "sealed or down"),
        (307, {}, "redirected", "redirects"),
    ],
)
def test_a_failed_log_in_says_why_and_shows_no_secret_id(
    status: int, body: dict[str, object], kind: Kind, why: str
) -> None:
    with pytest.raises(VaultUnavailable) as caught:
        carry(enter(access()), Vault(status, body))
    error = caught.value
    assert why in str(error)
    assert (error.kind, error.status) == (kind, status)
    assert SECRET_ID not in str(error) + repr(vars(error))


def test_a_refused_jwt_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "jwt"
    file.write_text("canary.jwt")
    with pytest.raises(VaultUnavailable, match=r"role kb exists at auth/jwt.*audience") as caught:
        carry(enter(access(JwtFile("kb", file))), Vault(400, {}))
    assert "canary" not in str(caught.value)


def test_no_log_in_at_all_is_said_plainly() -> None:
    vault = Vault(200, granted())
    with pytest.raises(VaultUnavailable, match="No log-in is set"):
        carry(enter(VaultAccess(URL, None)), vault)
    with pytest.raises(VaultUnavailable, match="neither a SecretID nor a file"):
        carry(enter(access(AppRole("r"))), vault)
    for mount in ("../sys", "a//b", "", "a\nb"):
        with pytest.raises(VaultUnavailable, match="no path of an auth method"):
            carry(enter(access(AppRole("r", secret_id="s", mount=mount))), vault)
    assert vault.asked == []


@pytest.mark.parametrize("content", [None, "", "two\nlines", "two words", "n\u00f6", "x" * 70_000])
def test_a_file_that_is_no_one_line_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, encoding="latin-1")
    if content and len(content) > 1000:
        assert len(read_line(file, "token")) == 64 * 1024
        return
    with pytest.raises(VaultUnavailable, match=f"token file {file} cannot be used"):
        read_line(file, "token")


def test_a_renewal_keeps_the_token() -> None:
    vault = Vault(200, granted("other", 90))
    longer = carry(renew(access(), Grant("t1", 90, renewable=True)), vault)
    assert longer is not None
    assert (longer.token, longer.lease) == ("t1", 90)
    assert [(q.path, q.token) for q in vault.asked] == [("auth/token/renew-self", "t1")]


@pytest.mark.parametrize(("status", "lease"), [(403, 90), (400, 90), (200, 20)])
def test_a_renewal_refused_or_cut_short_calls_for_a_new_log_in(status: int, lease: int) -> None:
    """Near its maximal TTL a token is renewed for ever less."""
    vault = Vault(status, granted(lease=lease))
    assert carry(renew(access(), Grant("t1", 90, renewable=True)), vault) is None


@pytest.mark.parametrize("status", [302, 429, 500, 503])
def test_a_renewal_that_could_not_be_asked_for_is_no_refusal(status: int) -> None:
    with pytest.raises(VaultUnavailable):
        carry(renew(access(), Grant("t1", 90, renewable=True)), Vault(status, {}))


def test_a_token_is_good_unless_vault_does_not_know_it() -> None:
    assert carry(is_good("t"), Vault(200, {}))
    assert carry(is_good("t"), Vault(404, {}))
    assert not carry(is_good("t"), Vault(403, {}))


def test_nothing_here_shows_a_secret() -> None:
    shown = repr(
        (
            Ask("POST", "x", {"k": "canary"}, "canary"),
            Reply(200, {"k": "canary"}),
            Grant("canary"),
            access(AppRole("r", secret_id="canary")),
        )
    )
    assert "canary" not in shown
    assert Ask("GET", "x").payload == b""
    assert json.loads(Ask("POST", "x", {"a": 1}).payload) == {"a": 1}
