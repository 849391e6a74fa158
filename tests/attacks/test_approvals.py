"""Approvals: one vote by a person who may, one execution, of exactly what was shown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.attacks.stage import POLICY, Got, Stage, say, wait_for
from tests.support.program import AgentKey, basic

pytestmark = pytest.mark.e2e

PENDING = "approval_pending"
USED = "approval_used"
ASYNC = "Prefer: respond-async"


def ask(stage: Stage, name: str, *headers: str, body: bytes = b"amount=5") -> bytes:
    """A held request; `name` keeps the tests apart."""
    lines = ["Content-Type: application/x-www-form-urlencoded", ASYNC, *headers]
    return stage.get(f"/ask/{name}", *lines, method="POST", body=body)


def execute(stage: Stage, approval: str, agent: AgentKey | None = None) -> Got:
    return stage.internal(f"/v1/approvals/{approval}/execute", "POST", agent)


def state(stage: Stage, approval: str) -> str:
    found: str = stage.kb.api(stage.boss, f"/api/v1/approvals/{approval}")[1]["state"]
    return found


def test_control(stage: Stage) -> None:
    """Held, approved by a person, executed: the upstream gets it, once, with the credential."""
    approval = stage.hold(ask(stage, "control"))
    stage.held(execute(stage, approval), PENDING)
    stage.approve(approval)
    assert execute(stage, approval).status == 404
    (request,) = stage.arrived
    assert (request.path, request.body) == ("/ask/control", b"amount=5")


# --- voting ------------------------------------------------------------------------------------


def test_an_agent_votes_through_the_proxy(stage: Stage) -> None:
    """The admin API is not reached: not under any rule, not by any name."""
    approval = stage.hold(ask(stage, "vote"))
    path = f"/api/v1/approvals/{approval}/votes"
    body = '{"decision": "approve"}'
    for agent, code in (("bot", "policy_denied"), ("roamer", "egress_refused")):
        for host in ("localhost", "127.0.0.1", "[::1]"):
            authority = f"{host}:{stage.kb.admin_port}"
            lines = [
                f"POST http://{authority}{path} HTTP/1.1",
                f"Host: {authority}",
                f"Authorization: Bearer {stage.boss}",
                f"Proxy-Authorization: {basic(stage.agents[agent])}",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
            ]
            got = stage.raw("\r\n".join([*lines, "", body]).encode())
            stage.held(got, code)
    assert state(stage, approval) == "pending"


def test_an_agents_token_is_nobodys_vote(stage: Stage) -> None:
    approval = stage.hold(ask(stage, "token"))
    for token in (stage.bot.token, stage.agents["other"].token, "", f"bot:{stage.bot.token}", None):
        status, _ = stage.kb.vote(token, approval, "approve")  # type: ignore[arg-type]
        assert status == 401, token
    stage.held(execute(stage, approval), PENDING)


@pytest.mark.parametrize("path", ["votes", "approve", "vote", "execute/../votes", "../votes"])
def test_keybrokers_own_host_takes_no_votes(stage: Stage, path: str) -> None:
    approval = stage.hold(ask(stage, "internal-" + path.replace("/", "-").replace(".", "")))
    got = stage.internal(f"/v1/approvals/{approval}/{path}", "POST")
    assert got.status in (400, 404)
    assert state(stage, approval) == "pending"
    stage.held(got)


def test_denied_stays_denied(stage: Stage) -> None:
    approval = stage.hold(ask(stage, "denied"))
    assert stage.kb.vote(stage.boss, approval, "deny", "no")[0] == 200
    assert stage.kb.vote(stage.boss, approval, "approve")[0] == 409
    stage.held(execute(stage, approval), "approval_denied")
    stage.held(stage.ask(ask(stage, "denied")), "approval_denied")


def test_a_person_votes_once(stage: Stage) -> None:
    approval = stage.hold(ask(stage, "once"))
    stage.approve(approval)
    assert stage.kb.vote(stage.boss, approval, "approve")[0] == 409
    assert execute(stage, approval).status == 404


# --- somebody else's ---------------------------------------------------------------------------


def test_another_agents_approval(stage: Stage) -> None:
    """Neither seen nor executed; the same request by another agent is another request."""
    other = stage.agents["other"]
    approval = stage.hold(ask(stage, "mine"))
    theirs = stage.hold(ask(stage, "mine"), agent=other)
    assert theirs != approval
    stage.approve(approval)
    stage.held(execute(stage, approval, other), "not_found")
    assert stage.internal(f"/v1/approvals/{approval}", agent=other).status == 404
    stage.held(execute(stage, theirs, other), PENDING)
    stage.held(stage.ask(ask(stage, "mine"), agent=other), PENDING)
    assert execute(stage, approval).status == 404
    assert len(stage.arrived) == 1


@pytest.mark.parametrize(
    "approval", ["x", "a-1", "..", "%2e%2e", "A" * 65, "0", "null", "a'--", "*", "a-", ""]
)
def test_approvals_that_are_none(stage: Stage, approval: str) -> None:
    got = execute(stage, approval)
    stage.held(got)
    assert got.status in (400, 404)


# --- once --------------------------------------------------------------------------------------


def test_execute_twice(stage: Stage) -> None:
    approval = stage.hold(ask(stage, "twice"))
    stage.approve(approval)
    assert execute(stage, approval).status == 404
    stage.held(execute(stage, approval), USED, arrived=1)


def test_replay_after_use(stage: Stage) -> None:
    """The same bytes again are a new call, which is held again."""
    approval = stage.hold(ask(stage, "replay"))
    stage.approve(approval)
    assert stage.ask(ask(stage, "replay")).status == 404
    again = stage.ask(ask(stage, "replay"))
    stage.held(again, arrived=1)
    assert again.codes in ([PENDING], [USED])
    if again.codes == [PENDING]:
        assert again.json["approval"]["id"] != approval


def race(count: int, work: Callable[[int], Got]) -> list[Got]:
    barrier = threading.Barrier(count)

    def run(number: int) -> Got:
        barrier.wait(20)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_twenty_executions_at_once(stage: Stage) -> None:
    approval = stage.hold(ask(stage, "race"))
    stage.approve(approval)
    results = race(20, lambda _: execute(stage, approval))
    assert sorted(got.status for got in results) == [404] + [409] * 19, [g.status for g in results]
    assert len(stage.arrived) == 1


def test_twenty_identical_calls_at_once(stage: Stage) -> None:
    """All wait for one approval; one gets the answer."""
    data = ask(stage, "herd").replace(ASYNC.encode() + b"\r\n", b"")
    patient = stage.agents["patient"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(race, 20, lambda _: stage.ask(data, agent=patient, patience=30))
        wait_for(
            lambda: any("/ask/herd" in str(a) for a in stage.kb.pending(stage.boss)), "the hold"
        )
        cards = [a for a in stage.kb.pending(stage.boss) if "/ask/herd" in str(a)]
        assert len(cards) == 1
        stage.approve(cards[0]["id"])
        results = running.result(40)
    statuses = [got.status for got in results]
    assert statuses.count(404) == 1, statuses
    for got in results:
        # Who came when it was used already opens a new approval, which nobody has voted on.
        assert got.status == 404 or got.codes in ([USED], [PENDING]), got.data
    assert len(stage.arrived) == 1


# --- exactly that ------------------------------------------------------------------------------

CHANGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("body-byte", lambda d: d.replace(b"amount=5", b"amount=6")),
    ("body-case", lambda d: d.replace(b"amount=5", b"Amount=5")),
    ("body-longer", lambda d: d.replace(b"amount=5", b"amount=50").replace(b": 8", b": 9")),
    ("path", lambda d: d.replace(b"/ask/change", b"/ask/Change")),
    ("path-slash", lambda d: d.replace(b" HTTP/1.1", b"/ HTTP/1.1")),
    ("query", lambda d: d.replace(b" HTTP/1.1", b"?a=b HTTP/1.1")),
    ("empty-query", lambda d: d.replace(b" HTTP/1.1", b"? HTTP/1.1")),
    ("method", lambda d: d.replace(b"POST", b"PUT")),
    ("header-more", lambda d: d.replace(b"Prefer", b"X-Account: other\r\nPrefer")),
    ("header-value", lambda d: d.replace(b"x-www-form-urlencoded", b"x-www-form-urlencoded;a")),
    ("cookie", lambda d: d.replace(b"Prefer", b"Cookie: a=b\r\nPrefer")),
]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[name for name, _ in CHANGES])
def test_one_change_after_the_vote(
    stage: Stage, name: str, change: Callable[[bytes], bytes]
) -> None:
    """What was approved waits for itself; what is different is asked for anew."""
    data = ask(stage, f"change-{name}")
    approval = stage.hold(data)
    stage.approve(approval)
    changed = stage.ask(change(data))
    stage.held(changed, PENDING)
    assert changed.json["approval"]["id"] != approval
    assert execute(stage, approval).status == 404
    (request,) = stage.arrived
    assert (request.target, request.body) == (f"/ask/change-{name}", b"amount=5")


def test_what_is_sent_with_execute_does_not_count(stage: Stage) -> None:
    """Body and query of the execution are not the request's."""
    approval = stage.hold(ask(stage, "stuffed"))
    stage.approve(approval)
    host = "keybroker.internal"
    lines = [
        f"POST http://{host}/v1/approvals/{approval}/execute?amount=9 HTTP/1.1",
        f"Host: {host}",
        f"Proxy-Authorization: {basic(stage.bot)}",
        "X-Account: other",
        "Content-Length: 8",
    ]
    stage.raw("\r\n".join([*lines, "", "amount=9"]).encode())
    for request in stage.arrived:
        assert (request.target, request.body) == ("/ask/stuffed", b"amount=5")
        assert request.header("x-account") is None
    assert len(stage.arrived) <= 1


# --- what happens meanwhile --------------------------------------------------------------------

NARROWED = [
    ("denied", 'effect: hold\n    summary: "Ask', 'effect: deny\n    summary: "Ask'),
    (
        "another-person",
        "tiers:\n  medium: {exclude: []",
        "tiers:\n  medium: {reason: required, exclude: []",
    ),
    (
        "no-credential",
        '    summary: "Ask {form:amount}"\n    use: [bearer]',
        '    summary: "Ask {form:amount}"',
    ),
    ("another-agent", "agents: [bot, other, patient,", "agents: [other, patient,"),
]


@pytest.mark.parametrize(("name", "old", "new"), NARROWED, ids=[row[0] for row in NARROWED])
def test_the_policy_is_narrowed_after_the_vote(stage: Stage, name: str, old: str, new: str) -> None:
    approval = stage.hold(ask(stage, f"narrow-{name}"))
    stage.approve(approval)
    policy = POLICY.format(port=stage.upstream.port, plain=stage.plain.port)
    assert old in policy
    stage.kb.publish(policy.replace(old, new))
    try:
        got = execute(stage, approval)
        stage.held(got)
        assert got.codes in (["approval_expired"], ["policy_denied"], [PENDING]), got.data
    finally:
        stage.kb.publish(policy)
    stage.held(execute(stage, approval))


def test_the_agent_hangs_up_before_the_vote(stage: Stage) -> None:
    """Nothing is sent on its behalf when the vote comes; it may still ask for it itself."""
    patient = stage.agents["patient"]
    data = ask(stage, "gone").replace(ASYNC.encode() + b"\r\n", b"")
    with stage.tls(agent=patient) as sock:
        sock.sendall(data)
        wait_for(lambda: "/ask/gone" in str(stage.kb.pending(stage.boss)), "the hold")
    (card,) = [a for a in stage.kb.pending(stage.boss) if "/ask/gone" in str(a)]
    stage.approve(card["id"])
    with stage.tls() as sock:
        say(sock, stage.get("/elsewhere"))  # by now the vote has reached the worker
    stage.held(b"")
    assert execute(stage, card["id"], patient).status == 404


def test_the_agent_is_revoked_after_the_vote(stage: Stage) -> None:
    stage.agents["gone-too"] = agent = stage.kb.agent("gone-too", "--tag", "short")
    approval = stage.hold(ask(stage, "revoked"), agent=agent)
    stage.approve(approval)
    stage.kb.cli("agent", "revoke", "gone-too")
    stage.held(execute(stage, approval, agent), "agent_unauthenticated")
