"""Vaults of other people's under the whole program: log-ins that can be made once, and trouble in
the middle of things."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bao import ADMINISTER, RealBao
from tests.support.faults import FaultProxy
from tests.support.program import AgentKey, Program, wait_until
from tests.support.throwaway_ca import ThrowawayCA
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: pay, agents: [bot], match: {host: "$HOST", path: /echo/pay}, effect: allow, use: [pay]}
  - {id: held, agents: [bot], match: {host: "$HOST", path: /echo/held}, effect: hold, use: [pay]}
"""
TEAM = "team"


@dataclass(frozen=True)
class Site:
    kb: Program
    bot: AgentKey
    bao: RealBao
    way: FaultProxy
    file: Path

    def pay(self) -> tuple[int, str | None]:
        reply = self.kb.curl(self.bot, self.kb.upstream.url + "/echo/pay")
        return reply.status, reply.code

    def wrap(self) -> str:
        token = self.bao.wrapped(f"{TEAM}/auth/approle/role/kb/secret-id")
        self.file.write_text(token + "\n")
        return token

    def tokens(self) -> int:
        path = f"{TEAM}/auth/token/accessors"
        status, found = self.bao.request("LIST", path, token=self.bao.root_token)
        return 0 if status == 404 else len(found["data"]["keys"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two workers, TLS, a namespace, and a SecretID that is wrapped and good for one log-in."""
    directory = tmp_path_factory.mktemp("vaults")
    ca = ThrowawayCA()
    roots, server, file = (directory / name for name in ("ca.pem", "server.pem", "wrapping-token"))
    roots.write_bytes(ca.pem)
    server.write_bytes(ca.issue(["127.0.0.1"]))
    with (
        Upstream() as upstream,
        RealBao(directory / "bao", tls=(server, server), roots=roots) as bao,
        FaultProxy(bao.port) as way,
    ):
        bao.root("POST", f"sys/namespaces/{TEAM}", {})
        bao.root("POST", f"{TEAM}/sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
        bao.root("POST", f"{TEAM}/sys/auth/approle", {"type": "approle"})
        bao.await_kv(f"{TEAM}/kv")
        bao.root("PUT", f"{TEAM}/sys/policies/acl/kb", {"policy": ADMINISTER})
        bao.put_secret("pay", {"api_key": "sk_outside"}, mount=f"{TEAM}/kv")
        role = {"token_policies": ["kb"], "secret_id_num_uses": 1, "token_ttl": "60s"}
        bao.root("POST", f"{TEAM}/auth/approle/role/kb", role)
        role_id = bao.root("GET", f"{TEAM}/auth/approle/role/kb/role-id")["data"]["role_id"]
        approle = {"role_id": role_id, "secret_id_file": str(file), "wrapped": True}
        vault = {
            "url": f"https://127.0.0.1:{way.port}",
            "namespace": TEAM,
            "ca_bundle": str(roots),
            "timeout": "2s",
            "auth": {"approle": approle},
        }
        kb = Program(directory / "kb", upstream, policy=POLICY, workers=2, vault=json.dumps(vault))
        kb.init()
        site = Site(kb, AgentKey("", "", ""), bao, way, file)
        site.wrap()
        kb.start()
        try:
            yield Site(kb, kb.agent("bot"), bao, way, file)
        finally:
            kb.stop()


def test_one_wrapped_log_in_serves_both_workers(site: Site) -> None:
    workers: set[str] = set()
    deadline = time.monotonic() + 30
    while len(workers) < 2 and time.monotonic() < deadline:
        assert site.pay() == (200, None)
        workers = {r["data"]["worker"] for r in site.kb.records(type="call.sent")}
    assert len(workers) == 2
    assert site.kb.upstream.requests[-1].header("authorization") == "Bearer sk_outside"
    assert site.tokens() == 1
    site.kb.secret("kv/pay", "api_key", "sk_by_command")  # by the same token
    assert site.pay() == (200, None)
    assert site.kb.upstream.requests[-1].header("authorization") == "Bearer sk_by_command"
    assert site.tokens() == 1


def test_a_log_in_lost_is_mended_by_a_new_wrapping_token_without_a_restart(site: Site) -> None:
    """The SecretID is used up, so nobody but who issues wrapping tokens can help."""
    site.bao.root("PUT", f"{TEAM}/sys/leases/revoke-prefix/auth/approle/login", {})
    assert site.pay() == (502, "secret_unavailable")
    wait_until(lambda: "Issue a new one" in site.kb.log.read_text(), what="people are asked")
    site.wrap()
    wait_until(lambda: site.pay() == (200, None), what="the new wrapping token is taken up")


def test_a_spent_wrapping_token_stops_the_next_start_in_words(site: Site) -> None:
    kb = site.kb
    kb.stop()
    assert site.tokens() == 0  # given back
    said = kb.run("secret", "list")
    assert said.returncode == 1 and "only it can" in said.stderr
    up = kb.run("up")
    assert up.returncode == 1
    assert "was used by this Keybroker at" in up.stderr and "Issue a new one" in up.stderr
    assert "Traceback" not in up.stderr
    wrapping = site.wrap()
    kb.start()
    assert site.pay() == (200, None)
    types = [r["type"] for r in kb.records() if r["type"].startswith("vault.")]
    assert types == ["vault.unwrapping", "vault.unwrapped"] * 3
    for path in (kb.log, *kb.database.parent.glob("keybroker.db*")):
        assert wrapping.encode() not in path.read_bytes()
    kb.verify()


def test_an_approval_outlives_a_vault_that_is_down(site: Site) -> None:
    """Approved, not sent, recorded, not used up: the same request then goes out on it."""
    kb = site.kb
    alice = kb.user("alice")
    url = kb.upstream.url + "/echo/held"
    held = kb.start_curl(site.bot, url, "-d", "x")
    (card,) = kb.pending(alice)
    site.way.refuse()
    count = len(kb.upstream.requests)
    assert kb.vote(alice, card["id"], "approve")[0] == 200
    refused = held.wait()
    assert (refused.status, refused.code) == (502, "secret_unavailable")
    assert len(kb.upstream.requests) == count
    types = [r["type"] for r in kb.records(call=card["call"])]
    assert "secret.read" not in types and "call.sent" not in types
    assert types[-1] == "call.denied"
    site.way.heal()

    def again() -> bool:
        reply = kb.curl(site.bot, url, "-d", "x")
        assert reply.code in {None, "secret_unavailable"}, reply
        return reply.status == 200

    wait_until(again, what="it goes out")
    assert kb.api(alice, "/api/v1/approvals?state=pending")[1]["approvals"] == []
    sent = [r["data"] for r in kb.records(type="call.sent") if r["data"]["approval"] == card["id"]]
    assert len(sent) == 1
    kb.verify()


@pytest.mark.parametrize("fault", ["refuse", "silent", "cut"])
def test_trouble_costs_no_call_more_than_its_time_and_soon_none(site: Site, fault: str) -> None:
    kb = site.kb
    count = len(kb.upstream.requests)
    if fault == "cut":
        site.way.cut_after(40)
        site.way.drop()
    else:
        site.way.refuse() if fault == "refuse" else site.way.silent()
    running = [kb.start_curl(site.bot, kb.upstream.url + "/echo/pay") for _ in range(16)]
    replies = [curl.wait() for curl in running]
    assert {(r.status, r.code) for r in replies} == {(502, "secret_unavailable")}
    assert site.pay() == (502, "secret_unavailable")
    assert len(kb.upstream.requests) == count
    assert "reads are refused at once from now on" in kb.log.read_text()
    site.way.heal()
    wait_until(lambda: site.pay() == (200, None), what="it is tried again", timeout=40)
    kb.verify()
