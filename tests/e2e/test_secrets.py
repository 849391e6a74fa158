"""Secrets in the running program: where they come from, when they are read, where they end up."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.secrets.server import make_certificate
from tests.support.bao import ADMINISTER, READ_ALL, RealBao
from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
  robot: {secret: "kv/team/basic#password", hosts: ["$HOST"], inject: {basic: {username: robot}}}
  head:
    secret: kv/head#key
    hosts: ["$HOST"]
    inject: {header: X-Api-Key, format: "v1={secret};"}
  absent: {secret: "kv/absent#key", hosts: ["$HOST"], inject: bearer}
  fieldless: {secret: "kv/pay#other", hosts: ["$HOST"], inject: bearer}
  odd: {secret: "kv/odd#key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: pay, agents: [bot], match: {host: "$HOST", path: /echo/pay}, effect: allow, use: [pay]}
  - {id: basic, agents: [bot], match: {host: "$HOST", path: /echo/basic}, effect: allow,
     use: [robot]}
  - {id: head, agents: [bot], match: {host: "$HOST", path: /echo/head}, effect: allow, use: [head]}
  - {id: both, agents: [bot], match: {host: "$HOST", path: /echo/both}, effect: allow,
     use: [head, robot]}
  - {id: absent, agents: [bot], match: {host: "$HOST", path: /echo/absent}, effect: allow,
     use: [absent]}
  - {id: fieldless, agents: [bot], match: {host: "$HOST", path: /echo/fieldless}, effect: allow,
     use: [fieldless]}
  - {id: odd, agents: [bot], match: {host: "$HOST", path: /echo/odd}, effect: allow, use: [odd]}
  - {id: held, agents: [bot], match: {host: "$HOST", path: /echo/held}, effect: hold, use: [pay]}
"""


@dataclass(frozen=True)
class Setup:
    kb: Program
    bot: AgentKey
    before_up: str
    """What the first command that touched the vault said on stderr, while `up` was down."""

    def call(self, path: str, *options: str) -> tuple[int, str | None, dict[str, list[str]]]:
        """Status, our code, and the headers that the upstream got."""
        count = len(self.kb.upstream.requests)
        reply = self.kb.curl(self.bot, f"{self.kb.upstream.url}/echo/{path}", *options)
        got: dict[str, list[str]] = {}
        for request in self.kb.upstream.requests[count:]:
            for name, value in request.headers:
                got.setdefault(name.lower(), []).append(value)
        return reply.status, reply.code, got


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Upstream() as upstream:
        kb = Program(tmp_path_factory.mktemp("secrets"), upstream, policy=POLICY)
        kb.init()
        first = kb.run("secret", "set", "kv/pay", "api_key", "--stdin", stdin="sk_first")
        assert first.returncode == 0, first.stderr
        try:
            kb.start()
            kb.secret("kv/team/basic", "password", "p:ss w%rd!")
            kb.secret("kv/head", "key", "k-123")
            yield Setup(kb, kb.agent("bot"), first.stderr)
        finally:
            kb.stop()


def test_bearer_replaces_what_the_agent_sent(at: Setup) -> None:
    status, _, got = at.call("pay", "-H", "Authorization: Bearer guessed")
    assert status == 200 and got["authorization"] == ["Bearer sk_first"]


def test_basic_is_user_and_secret(at: Setup) -> None:
    status, _, got = at.call("basic", "-u", "me:mine")
    assert status == 200
    (value,) = got["authorization"]
    assert base64.b64decode(value.removeprefix("Basic ")).decode() == "robot:p:ss w%rd!"


def test_any_header_by_its_format(at: Setup) -> None:
    status, _, got = at.call("head", "-H", "x-API-key: mine", "-H", "X-Other: kept")
    assert status == 200 and got["x-api-key"] == ["v1=k-123;"] and got["x-other"] == ["kept"]
    assert "authorization" not in got


def test_two_credentials_in_two_slots(at: Setup) -> None:
    status, _, got = at.call("both")
    assert status == 200 and got["x-api-key"] == ["v1=k-123;"]
    assert got["authorization"][0].startswith("Basic ")


def test_a_secret_can_be_written_before_the_first_up(at: Setup) -> None:
    """The recovery keys are handed over by whichever command starts the vault first, once."""
    assert "recovery keys of the new vault are in" in at.before_up
    assert "recovery keys" not in at.kb.log.read_text()


def test_a_rotated_secret_is_used_by_the_next_call(at: Setup) -> None:
    for turn in range(3):
        version = at.kb.json("secret", "set", "kv/pay", "api_key", "--stdin", stdin=f"sk_{turn}")
        status, _, got = at.call("pay")
        assert status == 200 and got["authorization"] == [f"Bearer sk_{turn}"]
        read = at.kb.records(type="secret.read")[-1]["data"]["secrets"]
        assert read == [{"name": "pay", "ref": "kv/pay#api_key", "version": version["version"]}]


def test_a_secret_is_read_only_after_the_decision(at: Setup) -> None:
    alice = at.kb.user("alice")
    at.kb.secret("kv/pay", "api_key", "sk_before_the_vote")
    held = at.kb.start_curl(at.bot, at.kb.upstream.url + "/echo/held", "-d", "x")
    (card,) = at.kb.pending(alice)
    assert at.kb.records(type="secret.read", call=card["call"]) == []
    at.kb.secret("kv/pay", "api_key", "sk_after_the_hold")
    assert at.kb.vote(alice, card["id"], "approve")[0] == 200
    assert held.wait().status == 200
    assert at.kb.upstream.requests[-1].header("authorization") == "Bearer sk_after_the_hold"
    order = [r["type"] for r in at.kb.records(call=card["call"])]
    assert order == [
        "approval.opened", "approval.voted", "approval.resolved", "secret.read", "call.sent",
        "call.completed",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["absent", "fieldless"])
def test_a_secret_that_cannot_be_used_stops_the_call(at: Setup, path: str) -> None:
    status, code, got = at.call(path)
    assert (status, code) == (502, "secret_unavailable") and got == {}
    denied = at.kb.records(type="call.denied")[-1]
    assert denied["data"]["code"] == "secret_unavailable"
    assert path in denied["data"]["sentence"]  # which credential
    assert at.call("pay")[0] == 200


def test_a_value_that_no_header_can_carry_is_refused_when_it_is_written(at: Setup) -> None:
    for value in ("two\nlines", "caf\u00e9", ""):
        done = at.kb.run("secret", "set", "kv/odd", "key", "--stdin", stdin=value)
        assert done.returncode != 0 and "Traceback" not in done.stderr
        assert not value or value not in done.stderr
    assert at.call("odd")[:2] == (502, "secret_unavailable")


def test_list_shows_names_and_versions_and_no_value(at: Setup) -> None:
    shown = at.kb.cli("secret", "list") + at.kb.cli("secret", "list", "--json")
    assert "k-123" not in shown and "sk_" not in shown
    listed = {one["secret"]: one for one in at.kb.json("secret", "list")}
    assert listed["kv/head"]["fields"] == ["key"] and listed["kv/head"]["version"] == 1
    assert {"kv/pay", "kv/team/basic"} <= listed.keys()


def test_writing_a_field_keeps_the_others_and_is_recorded(at: Setup) -> None:
    at.kb.secret("kv/many", "a", "one-1")
    at.kb.secret("kv/many", "b", "two-2")
    listed = {one["secret"]: one for one in at.kb.json("secret", "list")}
    assert sorted(listed["kv/many"]["fields"]) == ["a", "b"]
    written = [r["data"] for r in at.kb.records(type="secret.written")]
    assert [w["ref"] for w in written if "many" in w["ref"]] == ["kv/many#a", "kv/many#b"]
    assert all(w["by"].startswith("cli:") for w in written)


# --- a vault that somebody else runs


@dataclass(frozen=True)
class External:
    kb: Program
    bot: AgentKey
    bao: RealBao
    token_file: Path | None

    def status(self) -> tuple[int, str | None]:
        reply = self.kb.curl(self.bot, self.kb.upstream.url + "/echo/pay")
        return reply.status, reply.code

    def authorization(self) -> str | None:
        return self.kb.upstream.requests[-1].header("authorization")


@pytest.fixture(scope="module", params=["token file", "AppRole over TLS"])
def outside(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[External]:
    directory = tmp_path_factory.mktemp("outside")
    certificate, key = directory / "vault-ca.pem", directory / "vault.key"
    make_certificate(certificate, key)
    by_token = request.param == "token file"
    with (
        Upstream() as upstream,
        RealBao(directory / "bao", tls=None if by_token else (certificate, key)) as bao,
    ):
        bao.policy("broker", READ_ALL + ADMINISTER)
        bao.put_secret("pay", {"api_key": "sk_outside", "other": "x"})
        token_file = None
        if by_token:
            token_file = bao.token_file(["broker"])
            vault = {"url": bao.url, "auth": {"token_file": str(token_file)}}
        else:
            role_id, file = bao.approle("keybroker", ["broker"], token_ttl="2s")
            approle = {"role_id": role_id, "secret_id_file": str(file)}
            auth = {"approle": approle}
            vault = {"url": bao.url, "ca_bundle": str(certificate), "auth": auth}
        program = Program(directory / "kb", upstream, policy=POLICY, vault=json.dumps(vault))
        with program as kb:
            yield External(kb, kb.agent("bot"), bao, token_file)


def test_an_external_vault_is_read(outside: External) -> None:
    assert outside.status() == (200, None)
    assert outside.authorization() == "Bearer sk_outside"
    assert outside.kb.processes("server") == []  # no embedded one beside it
    assert not (outside.kb.workspace / "state" / "vault").exists()


def test_a_secret_rotated_there_or_by_command_is_used_at_once(outside: External) -> None:
    outside.bao.put_secret("pay", {"api_key": "sk_there", "other": "x"})
    assert outside.status() == (200, None) and outside.authorization() == "Bearer sk_there"
    outside.kb.secret("kv/pay", "api_key", "sk_here")
    assert outside.status() == (200, None) and outside.authorization() == "Bearer sk_here"
    assert outside.bao.get_secret("pay")["other"] == "x"


def test_a_value_that_no_header_can_carry_stops_the_call(outside: External) -> None:
    outside.bao.put_secret("odd", {"key": "two\r\nX-Injected: lines"})
    count = len(outside.kb.upstream.requests)
    reply = outside.kb.curl(outside.bot, outside.kb.upstream.url + "/echo/odd")
    assert (reply.status, reply.code) == (502, "secret_unavailable")
    assert b"Injected" not in reply.body
    assert len(outside.kb.upstream.requests) == count


def test_a_value_too_short_to_be_masked_is_neither_written_nor_used(outside: External) -> None:
    done = outside.kb.run("secret", "set", "kv/odd", "key", "--stdin", stdin="pin")
    assert done.returncode == 1
    assert "it is shorter than 4 characters and cannot be masked" in done.stderr
    outside.bao.put_secret("odd", {"key": "pin"})  # as somebody else writes it
    count = len(outside.kb.upstream.requests)
    reply = outside.kb.curl(outside.bot, outside.kb.upstream.url + "/echo/odd")
    assert (reply.status, reply.code) == (502, "secret_unavailable")
    assert "kv/odd" not in reply.json["detail"]
    assert len(outside.kb.upstream.requests) == count
    log = outside.kb.log.read_text()
    assert "kv/odd#key cannot be used: it is shorter than 4 characters and cannot be masked" in log


def test_its_login_is_renewed_when_it_ends(outside: External) -> None:
    if outside.token_file is None:
        time.sleep(2.5)  # the AppRole's tokens live two seconds
    else:
        outside.bao.root(
            "POST", "auth/token/revoke", {"token": outside.token_file.read_text().strip()}
        )
        assert outside.status() == (502, "secret_unavailable")
        outside.token_file.write_text(outside.bao.token(["broker"]))
    wait_until(lambda: outside.status() == (200, None), what="it is logged in again")


def test_a_sealed_vault_stops_calls_and_nothing_else(outside: External) -> None:
    outside.bao.seal()
    count = len(outside.kb.upstream.requests)
    assert outside.status() == (502, "secret_unavailable")
    assert outside.kb.curl(outside.bot, "http://keybroker.internal/v1/whoami").status == 200
    wait_until(lambda: outside.kb.api(None, "/readyz")[0] == 503, what="it is not ready")
    checks = outside.kb.api(None, "/readyz")[1]["checks"]
    assert [name for name, found in checks.items() if found != "ok"] == ["vault"]
    assert outside.kb.api(None, "/healthz")[0] == 200
    assert len(outside.kb.upstream.requests) == count
    doctor = outside.kb.run("doctor")
    assert "sealed" in doctor.stdout + doctor.stderr
    outside.bao.unseal()
    wait_until(lambda: outside.status() == (200, None), what="secrets are read again", timeout=40)


def test_a_silent_vault_is_given_up_on(outside: External) -> None:
    outside.bao.hang()
    try:
        count = len(outside.kb.upstream.requests)
        assert outside.status() == (502, "secret_unavailable")
        assert len(outside.kb.upstream.requests) == count
    finally:
        outside.bao.resume()
    wait_until(lambda: outside.status() == (200, None), what="secrets are read again", timeout=40)
    outside.kb.verify()
