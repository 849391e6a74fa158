"""Limits over the whole program: exactly as many calls as allowed, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.e2e

POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: burst, agents: [crowd], match: {method: GET, host: "$HOST", path: /burst},
     effect: allow, limit: {calls: 20, per: 1h}}
  - {id: sum, agents: [crowd], match: {method: POST, host: "$HOST", path: /sum},
     effect: allow, limit: {sum: "form:amount", max: 100, per: 1d}}
  - {id: once, agents: [fragile], match: {method: GET, host: "$HOST", path: /once},
     effect: allow, use: [pay], limit: {calls: 1, per: 1d}}
  - {id: ask, agents: [asker], match: {method: POST, host: "$HOST", path: /ask},
     effect: allow, summary: "Pay {form:amount}",
     limit: {sum: "form:amount", max: 100, per: 1d, over: hold}}
"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class House:
    kb: Program
    agents: dict[str, AgentKey]
    alice: str

    @property
    def url(self) -> str:
        return self.kb.upstream.url

    def arrived(self, path: str) -> int:
        return sum(r.path == path for r in self.kb.upstream.requests)

    def uses(self, rule: str, where: str = "1") -> int:
        """How many uses the store has of the rule's limits."""
        with closing(sqlite3.connect(self.kb.database, timeout=10)) as db:
            query = "SELECT count(*) FROM limit_uses u JOIN limit_counters c ON c.id = u.counter"
            [count] = db.execute(f"{query} WHERE c.rule = ? AND {where}", (rule,)).fetchone()
            return int(count)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Upstream() as upstream:
        for path in ("/burst", "/sum", "/once", "/ask"):
            upstream.answer(path, Reply(200, body=b"fine"))
        directory = tmp_path_factory.mktemp("limits")
        with Program(directory, upstream, policy=POLICY, workers=2, hold_wait="0s") as kb:
            kb.secret("kv/pay", "api_key", "sk_live_limits_8Jd3")
            names = ("crowd", "fragile", "asker")
            yield House(kb, {name: kb.agent(name) for name in names}, kb.user("alice"))


def all_at_once(
    at: House,
    agent: AgentKey,
    method: str,
    path: str,
    body: str | None,
    connections: int,
    each: int,
) -> list[int]:
    """Statuses of `each` calls on each of so many connections, which all begin together."""
    start, lock = threading.Barrier(connections), threading.Lock()
    statuses: list[int] = []

    def call() -> None:
        client = at.kb.tunnel(agent, at.url)
        start.wait(30)
        for _ in range(each):
            client.request(method, path, body, FORM if body else {})
            with client.getresponse() as response:
                response.read()
                with lock:
                    statuses.append(response.status)
        client.close()

    threads = [threading.Thread(target=call) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(statuses) == connections * each
    return statuses


def test_two_workers_let_exactly_as_many_through(at: House) -> None:
    statuses = all_at_once(at, at.agents["crowd"], "GET", "/burst", None, 24, 3)
    assert sorted(set(statuses)) == [200, 403]
    assert statuses.count(200) == at.arrived("/burst") == 20
    refused = at.kb.curl(at.agents["crowd"], at.url + "/burst")
    assert (refused.status, refused.code) == (403, "policy_denied")
    limit = refused.json["limit"]
    assert (limit["rule"], limit["max"], limit["per"], limit["used"]) == ("burst", 20, 3600, 20)
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    workers = {r["data"]["worker"] for r in at.kb.records(type="call.sent")}
    assert len(workers) == 2, "the other worker was never asked"
    denied = at.kb.records(type="call.denied")
    assert {tuple(r["data"]["rules"]) for r in denied} == {("burst",)}


def test_a_sum_is_not_exceeded_by_pieces_at_once(at: House) -> None:
    statuses = all_at_once(at, at.agents["crowd"], "POST", "/sum", "amount=7.5", 10, 2)
    assert statuses.count(200) == at.arrived("/sum") == 13  # 97.5 of 100
    done = at.kb.curl(at.agents["crowd"], at.url + "/sum", "-d", "amount=2.5")
    assert done.status == 200
    assert at.kb.curl(at.agents["crowd"], at.url + "/sum", "-d", "amount=0.01").status == 403


def test_a_call_beyond_is_held_sent_once_and_counted(at: House) -> None:
    bot, url = at.agents["asker"], at.url + "/ask"
    assert at.kb.curl(bot, url, "-d", "amount=80").status == 200
    for _ in range(2):
        assert at.kb.curl(bot, url, "-d", "amount=50").code == "approval_pending"
    (card,) = at.kb.pending(at.alice)
    assert card["summaries"] == ["Pay 50"] and "which is 30 too much" in card["notes"][0]
    assert at.kb.vote(at.alice, card["id"], "approve")[0] == 200
    execute = f"http://keybroker.internal/v1/approvals/{card['id']}/execute"
    assert at.kb.curl(bot, execute, "-X", "POST").status == 200
    assert at.kb.curl(bot, execute, "-X", "POST").status == 409
    assert at.arrived("/ask") == 2 and at.uses("ask") == 2
    assert at.kb.curl(bot, url, "-d", "amount=1").code == "approval_pending"


def test_what_a_killed_worker_had_counted_and_not_sent_is_given_back(at: House) -> None:
    """It waits for its secret when it dies, so its call is counted and certainly not sent."""
    bot, url = at.agents["fragile"], at.url + "/once"
    (vault,) = at.kb.processes("server")
    os.kill(vault, signal.SIGSTOP)
    try:
        call = at.kb.start_curl(bot, url)
        wait_until(lambda: at.uses("once", "u.sent_at IS NULL") == 1, what="it is counted")
        before = at.kb.processes("worker")
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        assert call.wait().exit != 0
    finally:
        os.kill(vault, signal.SIGCONT)
    wait_until(lambda: at.uses("once") == 0, what="it is given back", timeout=60)

    def serves() -> bool:
        reply = at.kb.curl(bot, url)
        # Until a worker and the vault are there again nothing is sent, and nothing is used up.
        assert reply.status != 403, reply.body
        return reply.status == 200

    wait_until(serves, what="the only call of the day passes", timeout=60)
    assert at.arrived("/once") == 1
    # What was sent stays counted, whatever is killed after it.
    at.kb.kill()
    at.kb.start()
    wait_until(lambda: len(at.kb.processes("worker")) == 2, what="the workers are there")
    assert at.kb.curl(bot, url).code == "policy_denied"
    assert at.arrived("/once") == 1
    at.kb.verify()
