"""kill -9 of every process in turn: no approval is lost, nothing is sent twice, the ledger is
whole."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Received, Reply, Upstream

pytestmark = pytest.mark.e2e

SECRET = "sk_live_crash_2Qw7"
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: read, agents: [bot, hasty], match: {method: GET, host: "$HOST", path: /**}, effect: allow,
     use: [pay]}
  - {id: write, agents: [bot, hasty], match: {method: POST, host: "$HOST", path: /**}, effect: hold,
     summary: "Pay {form:amount}", use: [pay]}
"""


@dataclass(frozen=True)
class House:
    kb: Program
    bot: AgentKey
    hasty: AgentKey
    alice: str
    release: threading.Event
    """Set: the upstream's /stuck answers."""

    @property
    def url(self) -> str:
        return self.kb.upstream.url

    def arrived(self, body: str) -> int:
        return sum(r.body.decode() == body for r in self.kb.upstream.requests)

    def held(self, summary: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [c for c in self.kb.pending(self.alice) if c["summaries"] == [summary]]
            return bool(found)

        wait_until(look, what=f"{summary!r} is held")
        return found[0]

    def serves(self) -> bool:
        return self.kb.curl(self.hasty, self.url + "/echo").status == 200

    def healthy(self) -> bool:
        try:
            return self.kb.api(None, "/healthz")[0] == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    release = threading.Event()

    def stuck(_: Received) -> Reply:
        release.wait(60)
        return Reply(body=b"late")

    with Upstream() as upstream:
        upstream.answer("/stuck", stuck)
        directory = tmp_path_factory.mktemp("crash")
        with Program(directory, upstream, policy=POLICY, hold_wait="30s") as kb:
            kb.secret("kv/pay", "api_key", SECRET)
            alice = kb.user("alice")
            yield House(kb, kb.agent("bot"), kb.agent("hasty", "--hold-wait", "0s"), alice, release)
            release.set()


def test_a_worker_killed_with_a_call_at_the_upstream(at: House) -> None:
    """The call becomes unknown and is never sent again; another worker takes over."""
    (worker,) = at.kb.processes("worker")
    held = at.kb.start_curl(at.bot, at.url + "/stuck", "-d", "amount=1")
    card = at.held("Pay 1")
    assert at.kb.vote(at.alice, card["id"], "approve")[0] == 200
    at.kb.upstream.wait_for(1)
    waiting = at.kb.start_curl(at.bot, at.url + "/echo", "-d", "amount=2")
    other = at.held("Pay 2")
    os.kill(worker, signal.SIGKILL)
    assert held.wait().exit != 0 and waiting.wait().exit != 0
    wait_until(at.serves, what="another worker serves", timeout=60)
    assert worker not in at.kb.processes("worker")
    sent, unknown = [r for r in at.kb.records(call=card["call"]) if r["type"].startswith("call.")]
    assert (sent["type"], unknown["type"]) == ("call.sent", "call.unknown")
    at.release.set()
    # What was in flight is over, whoever asks for it; what was held is still there.
    assert at.kb.api(at.alice, f"/api/v1/approvals/{card['id']}")[1]["state"] == "unknown"
    execute = f"http://keybroker.internal/v1/approvals/{card['id']}/execute"
    again = at.kb.curl(at.bot, execute, "-X", "POST")
    assert (again.status, again.code) == (409, "approval_used")
    assert at.arrived("amount=1") == 1
    assert at.kb.vote(at.alice, other["id"], "approve")[0] == 200
    assert at.kb.curl(at.bot, at.url + "/echo", "-d", "amount=2").status == 200
    assert at.arrived("amount=2") == 1
    # The same request made anew is asked about anew, and the reviewer is told why.
    anew = at.kb.curl(at.hasty, at.url + "/stuck", "-d", "amount=1")
    assert anew.code == "approval_pending"
    at.kb.verify()


def test_everything_killed_while_calls_are_held(at: House) -> None:
    pending = at.kb.start_curl(at.bot, at.url + "/echo", "-d", "amount=3")
    approved = at.kb.curl(at.hasty, at.url + "/echo", "-d", "amount=4").json["approval"]["id"]
    assert at.kb.vote(at.alice, approved, "approve")[0] == 200
    before = at.held("Pay 3")
    at.kb.kill()
    for pid in [*at.kb.processes("worker"), *at.kb.processes("admin"), *at.kb.processes("server")]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it left with its parent
    assert pending.wait().exit != 0
    at.kb.start()
    id = before["id"]
    card = at.kb.api(at.alice, f"/api/v1/approvals/{id}")[1]
    assert card["state"] == "pending" and card["request"]["body_text"] == "amount=3"
    assert card["decide_by"] == before["decide_by"]
    assert at.kb.vote(at.alice, id, "approve")[0] == 200
    assert at.kb.curl(at.bot, at.url + "/echo", "-d", "amount=3").status == 200
    assert at.kb.curl(at.hasty, at.url + "/echo", "-d", "amount=4").status == 200
    assert (at.arrived("amount=3"), at.arrived("amount=4")) == (1, 1)
    at.kb.verify()


def test_only_up_killed_takes_its_children_along(at: House) -> None:
    assert at.kb.process is not None
    children = [*at.kb.processes("worker"), *at.kb.processes("admin")]
    assert len(children) == 2
    os.kill(at.kb.process.pid, signal.SIGKILL)
    wait_until(
        lambda: not (at.kb.processes("worker") or at.kb.processes("admin")),
        what="the children leave",
    )
    at.kb.kill()
    at.kb.start()
    assert at.serves()
    at.kb.verify()


def test_the_admin_process_killed(at: House) -> None:
    (admin,) = at.kb.processes("admin")
    held = at.kb.start_curl(at.bot, at.url + "/echo", "-d", "amount=5")
    card = at.held("Pay 5")
    os.kill(admin, signal.SIGKILL)
    assert at.serves()
    wait_until(at.healthy, what="the page is there again", timeout=60)
    assert at.kb.vote(at.alice, card["id"], "approve")[0] == 200
    assert held.wait().status == 200 and at.arrived("amount=5") == 1
    at.kb.verify()


def test_the_vault_killed(at: House) -> None:
    """It is started again; meanwhile calls that need a secret are told so, and nothing is sent."""
    (bao,) = at.kb.processes("server")
    id = at.kb.curl(at.hasty, at.url + "/echo", "-d", "amount=6").json["approval"]["id"]
    assert at.kb.vote(at.alice, id, "approve")[0] == 200
    assert at.kb.process is not None
    at.kb.process.send_signal(signal.SIGSTOP)  # `up` must not mend it before the call was made
    os.kill(bao, signal.SIGKILL)
    count = len(at.kb.upstream.requests)
    for reply in (
        at.kb.curl(at.hasty, at.url + "/echo", "-d", "amount=6"),
        at.kb.curl(at.hasty, at.url + "/echo"),
    ):
        assert (reply.status, reply.code) == (502, "secret_unavailable"), reply
    assert len(at.kb.upstream.requests) == count
    assert at.kb.api(at.alice, f"/api/v1/approvals/{id}")[1]["state"] == "approved"
    at.kb.process.send_signal(signal.SIGCONT)
    wait_until(at.serves, what="secrets are read again", timeout=60)
    assert at.kb.curl(at.hasty, at.url + "/echo", "-d", "amount=6").status == 200
    assert at.arrived("amount=6") == 1
    wait_until(lambda: "was started again" in at.kb.log.read_text(), what="up says so")
    assert at.kb.processes("server") != [bao]
    at.kb.verify()


def test_killed_in_the_middle_of_many_calls(at: House) -> None:
    """Every call that reached the upstream is in the ledger as sent, and has an end."""
    before = len(at.kb.upstream.requests)
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            at.kb.curl(at.hasty, at.url + "/echo?burst")

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    at.kb.upstream.wait_for(before + 12, timeout=60)
    at.kb.kill()
    for pid in at.kb.processes("worker"):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    stop.set()
    for thread in threads:
        thread.join(60)
    at.kb.start()
    records = at.kb.records()
    sent = {r["call"] for r in records if r["type"] == "call.sent"}
    over = {
        r["call"] for r in records if r["type"] in ("call.completed", "call.failed", "call.unknown")
    }
    assert sent == over
    with closing(sqlite3.connect(at.kb.database)) as db:
        assert db.execute("SELECT count(*) FROM inflight").fetchone() == (0,)
    reached = len(at.kb.upstream.requests) - before
    burst = [
        r for r in records if r["type"] == "call.sent" and r["data"]["what"]["path"] == "/echo"
    ]
    assert reached <= len(burst)
    at.kb.verify()
