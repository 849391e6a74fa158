"""Held calls in the running program: two workers, the admin process, people with tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.bao import free_port
from tests.support.program import AgentKey, Pending, Program, Reply, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

SECRET = "sk_live_approvals_8Rk1"
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
approvers: {finance: [alice, bob], security: [bob, carol]}
tiers:
  pair: {quorum: [{group: finance, count: 1}, {group: security, count: 1}], reason: required}
  brief: {decide_within: 2s}
  late: {execute_within: 2s}
rules:
  - id: medium
    agents: ["tag:pay"]
    match: {method: POST, host: "$HOST", path: /echo/medium/**}
    effect: hold
    risk: medium
    summary: "Pay {form:amount}"
    impact: Money leaves.
    use: [pay]
  - {id: high, agents: ["tag:pay"], match: {method: POST, host: "$HOST", path: /echo/high},
     effect: hold, risk: high, confirm: "form:amount", use: [pay]}
  - {id: pair, agents: ["tag:pay"], match: {method: POST, host: "$HOST", path: /echo/pair},
     effect: hold, risk: pair, use: [pay]}
  - {id: brief, agents: ["tag:pay"], match: {method: POST, host: "$HOST", path: /echo/brief},
     effect: hold, risk: brief, use: [pay]}
  - {id: late, agents: ["tag:pay"], match: {method: POST, host: "$HOST", path: /echo/late},
     effect: hold, risk: late, use: [pay]}
  - {id: away, agents: ["tag:pay"], match: {method: POST, host: "localhost:$AWAY", path: /echo},
     effect: hold}
"""


@dataclass(frozen=True)
class Office:
    """The program, an agent that waits, one that does not, and everybody's API tokens."""

    kb: Program
    bot: AgentKey
    hasty: AgentKey
    people: dict[str, str]
    away: int
    policy: str

    def start(self, path: str, body: str, *options: str) -> Pending:
        url = self.kb.upstream.url + path
        return self.kb.start_curl(self.bot, url, "-d", body, *options)

    def ask(self, path: str, body: str, *options: str) -> Reply:
        """As an agent that does not wait."""
        return self.kb.curl(self.hasty, self.kb.upstream.url + path, "-d", body, *options)

    def held(self, body: str) -> dict[str, Any]:
        """The card of the held call with this body, once it is there."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            for card in self.kb.pending(self.people["alice"]):
                card = self.card(card["id"])
                if (card["request"] or {}).get("body_text") == body:
                    found.append(card)
            return bool(found)

        wait_until(look, what=f"{body} is held")
        return found[0]

    def card(self, approval: str, person: str = "alice") -> dict[str, Any]:
        status, card = self.kb.api(self.people[person], f"/api/v1/approvals/{approval}")
        assert status == 200, card
        return card

    def vote(self, person: str, approval: str, decision: str = "approve", **extra: str) -> int:
        return self.kb.vote(self.people[person], approval, decision, **extra)[0]

    def arrived(self, body: str) -> int:
        """How often the upstream got this body."""
        return sum(r.body.decode() == body for r in self.kb.upstream.requests)

    def execute(self, approval: str) -> Reply:
        url = f"http://keybroker.internal/v1/approvals/{approval}/execute"
        return self.kb.curl(self.hasty, url, "-X", "POST")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    away = free_port()
    policy = POLICY.replace("$AWAY", str(away))
    with Upstream() as upstream:
        directory = tmp_path_factory.mktemp("office")
        with Program(directory, upstream, policy=policy, workers=2, hold_wait="40s") as kb:
            kb.secret("kv/pay", "api_key", SECRET)
            names = ("alice", "bob", "carol", "dora", "owen")
            people = {name: kb.user(name) for name in names}
            people["vic"] = kb.user("vic", "viewer")
            options = ["--owner", "owen", "--tag", "pay"]
            bot = kb.agent("bot", *options)
            hasty = kb.agent("hasty", *options, "--hold-wait", "0s")
            yield Office(kb, bot, hasty, people, away, policy)


# --- the wait


def test_a_vote_reaches_calls_held_by_both_workers(at: Office) -> None:
    """The vote is taken by a third process, the admin page's."""
    workers: set[str] = set()
    for turn in range(6):
        bodies = [f"amount=1&turn={turn}&n={n}" for n in range(4)]
        curls = [at.start("/echo/medium/a", body) for body in bodies]
        for body in bodies:
            assert at.vote("alice", at.held(body)["id"]) == 200
        replies = [curl.wait() for curl in curls]
        assert [reply.status for reply in replies] == [200] * 4
        for reply in replies:
            (sent,) = at.kb.records(call=reply.headers["keybroker-request-id"], type="call.sent")
            workers.add(sent["data"]["worker"])
        if len(workers) == 2:
            break
    assert len(workers) == 2, "the kernel gave every connection to one worker"


def test_what_the_reviewer_saw_is_what_goes_out(at: Office) -> None:
    curl = at.start(
        "/echo/medium/b?x=1", "amount=77", "-H", "Keybroker-Reason: the customer asked",
        "-H", "Authorization: Bearer mine", "-H", "X-Trace: 7",
    )  # fmt: skip
    card = at.held("amount=77")
    assert card["summaries"] == ["Pay 77"] and card["impacts"] == ["Money leaves."]
    assert card["claim"] == "the customer asked"
    assert card["request"]["method"] == "POST"
    assert card["request"]["url"] == f"{at.kb.upstream.url}/echo/medium/b?x=1"
    assert ["amount", "77"] in [list(pair) for pair in card["request"]["fields"]]
    assert card["credentials"][0]["name"] == "pay"
    assert SECRET not in json.dumps(card) and "Bearer mine" not in json.dumps(card)
    assert at.arrived("amount=77") == 0
    assert at.vote("alice", card["id"], reason="seen") == 200
    reply = curl.wait()
    assert reply.status == 200
    got = at.kb.upstream.requests[-1]
    assert got.values("authorization") == [f"Bearer {SECRET}"]
    assert got.header("x-trace") == "7" and got.header("keybroker-reason") is None
    shown = {name.lower(): value for name, value in card["request"]["headers"]}
    sent = {name.lower(): value for name, value in got.headers}
    for name in shown.keys() - {"authorization"}:
        assert sent[name] == shown[name], name
    assert sent.keys() - shown.keys() <= {"authorization", "host", "content-length"}
    # One commitment to the request from the opening to the sending; the vote names it too.
    about = [r for r in at.kb.records() if r["data"].get("approval") == card["id"]]
    named = {r["type"]: r["data"]["request"] for r in about if "request" in r["data"]}
    assert set(named) == {"approval.opened", "approval.voted", "call.sent"}
    assert len(set(named.values())) == 1
    vote = next(r["data"] for r in about if r["type"] == "approval.voted")
    assert (vote["user"], vote["decision"], vote["reason"]) == ("alice", "approve", "seen")


def test_a_call_still_held_is_told_so(at: Office) -> None:
    reply = at.ask("/echo/medium/c", "amount=3")
    assert (reply.status, reply.code) == (503, "approval_pending")
    assert int(reply.headers["retry-after"]) > 0
    assert reply.headers["content-type"] == "application/problem+json"
    told = reply.json
    assert {"status", "title", "detail", "code", "request_id", "approval"} <= told.keys()
    assert told["status"] == 503 and told["code"] == "approval_pending"
    assert told["request_id"] == reply.headers["keybroker-request-id"]
    assert set(told["approval"]) == {"id", "state", "expires_at"}
    assert told["approval"]["state"] == "pending"
    assert datetime.fromisoformat(told["approval"]["expires_at"]) > datetime.now(UTC)


def test_the_same_request_joins_and_any_other_does_not(at: Office) -> None:
    first = at.ask("/echo/medium/d", "amount=4").json["approval"]["id"]
    again = at.ask("/echo/medium/d", "amount=4", "-H", "Traceparent: 00-2-3-01")
    assert again.json["approval"]["id"] == first
    joined = at.kb.records(type="approval.joined", call=again.json["request_id"])
    assert [r["data"]["approval"] for r in joined] == [first]
    others = [
        at.ask("/echo/medium/d", "amount=40"),
        at.ask("/echo/medium/d?q=1", "amount=4"),
        at.ask("/echo/medium/d", "amount=4", "-H", "X-More: 1"),
        at.ask("/echo/medium/d", "amount=4", "-H", "Content-Type: text/plain"),
    ]
    ids = {first, *(other.json["approval"]["id"] for other in others)}
    assert len(ids) == 5


def test_respond_async_is_answered_at_once(at: Office) -> None:
    curl = at.start("/echo/medium/e", "amount=5", "-H", "Prefer: respond-async")
    reply = curl.wait()
    assert (reply.status, reply.code) == (202, "approval_pending")
    id = reply.json["approval"]["id"]
    assert reply.headers["location"] == f"http://keybroker.internal/v1/approvals/{id}"
    looked = at.kb.curl(at.bot, reply.headers["location"])
    assert looked.json["state"] == "pending" and looked.json["summary"] == ["Pay 5"]


# --- the decision, and what follows


def test_approved_after_the_agent_left_it_goes_out_when_repeated(at: Office) -> None:
    curl = at.start("/echo/medium/f", "amount=6")
    id = at.held("amount=6")["id"]
    curl.process.kill()
    curl.process.wait()
    assert curl.process.stderr is not None
    curl.process.stderr.close()
    assert at.vote("alice", id) == 200
    assert at.arrived("amount=6") == 0
    reply = at.start("/echo/medium/f", "amount=6").wait()
    assert reply.status == 200 and at.arrived("amount=6") == 1
    assert at.card(id)["state"] == "used"
    spent = at.ask("/echo/medium/f", "amount=6")
    assert spent.code == "approval_pending"  # one approval, one execution
    assert at.arrived("amount=6") == 1


def test_the_stored_request_is_sent_by_post_once(at: Office) -> None:
    id = at.ask("/echo/medium/g", "amount=7").json["approval"]["id"]
    early = at.execute(id)
    assert (early.status, early.code) == (503, "approval_pending")
    assert at.vote("alice", id) == 200
    reply = at.execute(id)
    assert reply.status == 200 and reply.json["body"] == "amount=7"
    assert reply.json["target"] == "/echo/medium/g" and at.arrived("amount=7") == 1
    again = at.execute(id)
    assert (again.status, again.code) == (409, "approval_used")
    assert at.arrived("amount=7") == 1


def test_a_denial_is_told_with_its_reason_and_remembered(at: Office) -> None:
    curl = at.start("/echo/medium/h", "amount=8")
    id = at.held("amount=8")["id"]
    assert at.vote("alice", id, "deny", reason="ask for less") == 200
    reply = curl.wait()
    assert (reply.status, reply.code) == (403, "approval_denied")
    assert "ask for less" in reply.json["detail"]
    assert reply.json["approval"] | {"expires_at": None} == {
        "id": id, "state": "denied", "expires_at": None,
    }  # fmt: skip
    again = at.start("/echo/medium/h", "amount=8").wait()
    assert again.code == "approval_denied" and again.json["approval"]["id"] == id
    assert at.arrived("amount=8") == 0
    assert at.vote("bob", id) == 409  # decided


def test_identical_calls_in_parallel_share_one_execution(at: Office) -> None:
    curls = [at.start("/echo/medium/i", "amount=9") for _ in range(5)]
    id = at.held("amount=9")["id"]
    wait_until(
        lambda: sum(
            r["data"]["approval"] == id for r in at.kb.records(type="approval.joined")
        ) == 4,
        what="all five wait",
    )  # fmt: skip
    assert at.vote("alice", id) == 200
    replies = [curl.wait() for curl in curls]
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409, 409]
    assert {reply.code for reply in replies} == {None, "approval_used"}
    assert at.arrived("amount=9") == 1


def test_an_upstream_that_was_not_reached_does_not_use_the_approval_up(at: Office) -> None:
    url = f"https://localhost:{at.away}/echo"
    id = at.kb.curl(at.hasty, url, "-d", "amount=10").json["approval"]["id"]
    assert at.vote("alice", id) == 200
    reply = at.kb.curl(at.hasty, url, "-d", "amount=10")
    assert (reply.status, reply.code) == (502, "upstream_unreachable")
    assert at.card(id)["state"] == "approved"
    with Upstream(port=at.away, ca=at.kb.upstream.ca) as late:
        reply = at.kb.curl(at.hasty, url, "-d", "amount=10")
        assert reply.status == 200 and len(late.requests) == 1
    assert at.card(id)["state"] == "used"


# --- who may decide


def test_the_value_must_be_retyped_by_two_people(at: Office) -> None:
    curl = at.start("/echo/high", "amount=11")
    card = at.held("amount=11")
    id = card["id"]
    assert card["confirm"]["place"] == "form:amount"
    assert at.vote("alice", id) == 422
    assert at.vote("alice", id, confirm="12") == 422
    assert at.vote("alice", id, confirm="11") == 200
    assert at.card(id)["state"] == "pending"
    assert at.vote("alice", id, confirm="11") == 409  # one person, one vote
    assert at.vote("bob", id, confirm="11") == 200
    assert curl.wait().status == 200 and at.arrived("amount=11") == 1


def test_a_quorum_takes_one_person_of_each_group(at: Office) -> None:
    """bob stands in both groups, and fills one place only."""
    curl = at.start("/echo/pair", "amount=12")
    id = at.held("amount=12")["id"]
    assert at.vote("bob", id) == 422  # the tier asks for a reason
    assert at.vote("dora", id, reason="me too") == 403  # in neither group
    assert at.vote("bob", id, reason="fine") == 200
    assert at.card(id)["state"] == "pending"
    assert at.vote("carol", id, reason="fine") == 200
    assert curl.wait().status == 200 and at.arrived("amount=12") == 1
    resolved = next(
        r for r in at.kb.records(type="approval.resolved") if r["data"]["approval"] == id
    )
    assert sorted(resolved["data"]["by"]) == ["bob", "carol"]


def test_owners_viewers_and_strangers_do_not_vote(at: Office) -> None:
    id = at.ask("/echo/medium/j", "amount=13").json["approval"]["id"]
    assert at.vote("owen", id) == 403
    assert at.card(id, "owen")["you"]["may_vote"] is False
    assert at.vote("vic", id) == 403
    for token in (None, "kb_user_wrong", at.hasty.token):
        status, _ = at.kb.api(token, f"/api/v1/approvals/{id}/votes", {"decision": "approve"})
        assert status == 401
    at.kb.cli("user", "add", "fay", "--role", "approver")
    fay = at.kb.json("user", "token", "fay")["token"]
    at.kb.cli("user", "disable", "fay")
    assert at.kb.vote(fay, id, "approve")[0] in (401, 403)
    assert at.card(id)["votes"] == [] and at.card(id)["state"] == "pending"
    assert at.vote("alice", "a-unknown") == 404


def test_votes_by_command_line_need_a_person(at: Office) -> None:
    id = at.ask("/echo/medium/k", "amount=14").json["approval"]["id"]
    nobody = at.kb.run("approvals", "approve", id)
    assert nobody.returncode != 0 and "a vote needs a person" in nobody.stderr
    owner = at.kb.run("approvals", "approve", id, env={"KEYBROKER_TOKEN": at.people["owen"]})
    assert owner.returncode != 0 and "owner" in owner.stderr
    assert "amount = 14" in at.kb.cli("approvals", "show", id)
    done = at.kb.run(
        "approvals", "approve", id, "--json", env={"KEYBROKER_TOKEN": at.people["bob"]}
    )
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "approved"
    assert at.execute(id).status == 200
    votes = [r["data"] for r in at.kb.records(type="approval.voted") if r["data"]["approval"] == id]
    assert [(v["user"], v["via"]) for v in votes] == [("bob", "cli")]


# --- the clocks


def test_nobody_decides_in_time(at: Office) -> None:
    curl = at.start("/echo/brief", "amount=15")
    id = at.held("amount=15")["id"]
    reply = curl.wait()
    assert (reply.status, reply.code) == (403, "approval_expired")
    assert at.vote("alice", id) == 409
    again = at.start("/echo/brief", "amount=15", "-H", "Prefer: respond-async").wait()
    assert again.code == "approval_pending"
    newer = again.json["approval"]["id"]
    assert newer != id
    opened = next(
        r for r in at.kb.records(type="approval.opened") if r["data"]["approval"] == newer
    )
    assert opened["data"]["after"] == id
    assert at.arrived("amount=15") == 0


def test_nobody_sends_it_in_time(at: Office) -> None:
    id = at.ask("/echo/late", "amount=16").json["approval"]["id"]
    assert at.vote("alice", id) == 200
    wait_until(lambda: at.card(id)["state"] == "expired", what="the approval expires")
    reply = at.execute(id)
    assert (reply.status, reply.code) == (403, "approval_expired")
    assert at.ask("/echo/late", "amount=16").code == "approval_pending"
    assert at.arrived("amount=16") == 0


# --- what changes meanwhile


def test_a_policy_change_between_vote_and_sending_holds_it_again(at: Office) -> None:
    approved = at.ask("/echo/medium/l", "amount=17").json["approval"]["id"]
    pending = at.ask("/echo/medium/m", "amount=18").json["approval"]["id"]
    by_post = at.ask("/echo/medium/n", "amount=19").json["approval"]["id"]
    untouched = at.ask("/echo/late", "amount=20").json["approval"]["id"]
    assert at.vote("alice", approved) == 200 and at.vote("alice", by_post) == 200
    waiting = at.start("/echo/medium/o", "amount=21")
    before = at.held("amount=21")["id"]
    at.kb.publish(at.policy.replace("Money leaves.", "Money leaves for good."))
    try:
        again = at.ask("/echo/medium/l", "amount=17")
        assert again.code == "approval_pending"
        assert again.json["approval"]["id"] != approved
        assert at.card(approved)["state"] == "superseded"
        assert at.execute(by_post).code == "approval_expired"
        assert at.vote("alice", pending) == 409
        assert at.vote("alice", untouched) == 200  # its rule and tier are as they were
        # A vote on the old one does not count for the call that waits; it is asked about anew.
        assert at.vote("alice", before) == 409
        wait_until(
            lambda: "Money leaves for good." in at.held("amount=21")["impacts"],
            what="the waiting call is held anew",
        )
        assert at.arrived("amount=17") == at.arrived("amount=19") == at.arrived("amount=21") == 0
        assert at.vote("alice", at.held("amount=21")["id"]) == 200
        assert waiting.wait().status == 200 and at.arrived("amount=21") == 1
    finally:
        at.kb.publish(at.policy + "# as before\n")


def test_a_policy_that_now_denies_wins_over_an_approval(at: Office) -> None:
    id = at.ask("/echo/medium/p", "amount=22").json["approval"]["id"]
    assert at.vote("alice", id) == 200
    rule = '  - {id: stop, agents: ["tag:pay"], match: {host: "$HOST", path: /**}, effect: deny}\n'
    at.kb.publish(at.policy + rule)
    try:
        assert at.ask("/echo/medium/p", "amount=22").code == "policy_denied"
        assert at.execute(id).code == "approval_expired"
        assert at.arrived("amount=22") == 0
    finally:
        at.kb.publish(at.policy + "# again as before\n")


def test_a_revoked_agents_held_call_cannot_be_approved(at: Office) -> None:
    agent = at.kb.agent("leaver", "--tag", "pay")
    curl = at.kb.start_curl(agent, at.kb.upstream.url + "/echo/medium/q", "-d", "amount=23")
    id = at.held("amount=23")["id"]
    at.kb.cli("agent", "revoke", "leaver")
    assert at.vote("alice", id) == 409
    assert curl.wait().status in (403, 407)
    assert at.arrived("amount=23") == 0


def test_the_ledger_is_whole_after_all_that(at: Office) -> None:
    at.kb.verify()
    assert not re.search(r"Traceback|failed", at.kb.log.read_text())
