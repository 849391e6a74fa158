"""Limits: nothing that an agent does lets more out than they say, or takes another's share."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from urllib.parse import parse_qsl

import pytest

from tests.attacks.stage import Got, Stage, speak_h2
from tests.support.program import AgentKey, wait_until

pytestmark = pytest.mark.e2e

FORM = "Content-Type: application/x-www-form-urlencoded"
JSON = "Content-Type: application/json"
_NUMBERS = itertools.count()


@pytest.fixture
def spender(stage: Stage) -> AgentKey:
    """An agent that has used nothing yet."""
    return new_spender(stage)


def new_spender(stage: Stage) -> AgentKey:
    name = f"spender-{next(_NUMBERS)}"
    stage.agents[name] = stage.kb.agent(name, "--tag", "metered")
    return stage.agents[name]


def pay(stage: Stage, body: bytes, *headers: str, target: str = "/metered/form") -> bytes:
    kind = JSON if target.endswith("json") else FORM
    return stage.get(target, *(headers or (kind,)), method="POST", body=body)


def spent(stage: Stage) -> Decimal:
    """What arrived, as a server adds it up."""
    return sum((Decimal(dict(parse_qsl(r.body.decode()))["amount"]) for r in stage.arrived),
               Decimal(0))  # fmt: skip


def test_many_calls_at_once_in_both_lanes(stage: Stage, spender: AgentKey) -> None:
    fields = [
        (":method", "GET"), (":scheme", "https"), (":authority", stage.at()),
        (":path", "/counted/x"),
    ]  # fmt: skip

    def call(number: int) -> Got:
        if number % 2:
            return stage.ask(stage.get("/counted/x"), agent=spender)
        with stage.tls(alpn=("h2",), agent=spender) as sock:
            return speak_h2(sock, fields)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(call, range(40)))
    assert len(stage.arrived) == 5
    assert sum("policy_denied" in got.codes for got in answers) == 35


def test_other_spellings_of_a_call_count_alike(stage: Stage, spender: AgentKey) -> None:
    targets = ["/counted/a", "/counted/b?x=1", "/counted/c/d", "/counted/a?", "/counted/"]
    for target in targets:
        assert stage.ask(stage.get(target), agent=spender).status == 404, target
    for target in (*targets, "/counted/z"):
        assert "policy_denied" in stage.ask(stage.get(target), agent=spender).codes
    assert len(stage.arrived) == len(targets)


def test_a_sum_in_pieces(stage: Stage, spender: AgentKey) -> None:
    for amount in ("60", "60", "39.999", "0.0009", "0.0002", "100", "0.0001"):
        stage.ask(pay(stage, b"amount=" + amount.encode()), agent=spender)
    assert spent(stage) == Decimal("100")
    for amount in ("0.000000000000000001", "1"):
        got = stage.ask(pay(stage, b"amount=" + amount.encode()), agent=spender)
        assert "policy_denied" in got.codes


SPELLINGS = [
    "1e3", "1E3", "+5", "-5", "-0", "0x10", "%D9%A3", "%EF%BC%95", "1_000", "1,000", "1.000,00",
    "05", ".5", "5.", "%205", "5%20", "5%00", "5%0A", "NaN", "Infinity", "-Infinity", "1/2", "",
    "5e", "9" * 25, "0." + "0" * 18 + "1", "%2B5", "5;amount=5000", "%zz",
]  # fmt: skip


@pytest.mark.parametrize("amount", SPELLINGS)
def test_amounts_that_readers_differ_about(stage: Stage, spender: AgentKey, amount: str) -> None:
    got = stage.ask(pay(stage, f"amount={amount}".encode()), agent=spender)
    stage.held(got)
    assert got.codes[0] in ("policy_denied", "request_ambiguous")


FIELDS = [
    b"amount=1&amount=5000",
    b"amount=5000&amount=1",
    b"amount=1&Amount=5000",
    b"amount=1&amount%5B%5D=5000",
    b"amount=1&amount[0]=5000",
    b"amount=1&%61mount=5000",
    b"amount=1&amount+=5000",
    b"amount=1&%20amount=5000",
    b"total=5000",
    b"",
]


@pytest.mark.parametrize("body", FIELDS)
def test_fields_that_stand_for_the_same(stage: Stage, spender: AgentKey, body: bytes) -> None:
    stage.held(stage.ask(pay(stage, body), agent=spender))


@pytest.mark.parametrize("query", ["amount=5000", "AMOUNT=5000", "amount[]=5000", "%61mount=5000"])
def test_the_amount_in_the_query_too(stage: Stage, spender: AgentKey, query: str) -> None:
    got = stage.ask(pay(stage, b"amount=1", target=f"/metered/form?{query}"), agent=spender)
    stage.held(got)


OTHER_BODIES = [
    (b'{"amount": 1}', JSON),
    (b"amount=1", "Content-Type: text/plain"),
    (b"amount=1", "X-Nothing: 1"),
    (b"amount=1", f"{FORM}; charset=utf-7"),
    (b"a\0m\0o\0u\0n\0t\0=\x001\0", f"{FORM}; charset=utf-16le"),
    (
        b'--b\r\nContent-Disposition: form-data; name="amount"\r\n\r\n1\r\n'
        b'--b\r\nContent-Disposition: form-data; name="amount"\r\n\r\n5000\r\n--b--\r\n',
        "Content-Type: multipart/form-data; boundary=b",
    ),
]


@pytest.mark.parametrize(("body", "header"), OTHER_BODIES)
def test_an_amount_in_a_body_of_another_kind(
    stage: Stage, spender: AgentKey, body: bytes, header: str
) -> None:
    stage.held(stage.ask(pay(stage, body, header), agent=spender))


DOCUMENTS = [
    b'{"order": {"amount": 1, "amount": 5000}}',
    b'{"order": {"amount": 1, "Amount": 5000}}',
    b'{"order": {"amount": 1}, "Order": {"amount": 5000}}',
    b'{"order": {"amount": 1, "\\u0061mount": 5000}}',
    b'{"order": {"amount": -5000}}',
    b'{"order": {"amount": [1, 5000]}}',
    b'{"order": [{"amount": 1}, {"amount": 5000}]}',
    b'{"order": {"amount": "1e3"}}',
    b'{"order": {"amount": 1e99}}',
    b'{"order": {"amount": 1.00000000000000000001}}',
    b'[{"order": {"amount": 1}}]',
    b'{"order": {"amount": 1}} {"order": {"amount": 5000}}',
    b"{}",
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_that_say_two_things(stage: Stage, spender: AgentKey, document: bytes) -> None:
    stage.held(stage.ask(pay(stage, document, target="/metered/json"), agent=spender))


def test_a_json_number_counts_as_what_it_is(stage: Stage, spender: AgentKey) -> None:
    def order(amount: str) -> Got:
        body = f'{{"order": {{"amount": {amount}}}}}'.encode()
        return stage.ask(pay(stage, body, target="/metered/json"), agent=spender)

    assert "policy_denied" in order("1e3").codes
    assert order("9e1").status == 404  # arrived: the upstream has nothing there
    assert "policy_denied" in order("1.1e1").codes
    assert order('"10.00"').status == 404
    assert len(stage.arrived) == 2


def test_hanging_up_does_not_get_back_what_arrived(stage: Stage, spender: AgentKey) -> None:
    for attempt in range(20):
        sock = stage.tls(agent=spender)
        sock.sendall(stage.get("/counted/x"))
        # A reset, some of them before the call is decided, some after it was sent.
        time.sleep(0.01 * (attempt % 4))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    answers = [stage.ask(stage.get("/counted/x"), agent=spender) for _ in range(10)]
    assert "policy_denied" in answers[-1].codes
    assert 0 < len(stage.arrived) <= 5


def test_holding_calls_takes_only_ones_own_share_and_frees_none(
    stage: Stage, spender: AgentKey
) -> None:
    def ask(number: int, agent: AgentKey = spender) -> Got:
        body = pay(stage, b"n=%d" % number, FORM, "Prefer: respond-async", target="/metered/ask")
        return stage.ask(body, agent=agent)

    held = [ask(number).json["approval"]["id"] for number in range(3)]
    assert ask(0).json["approval"]["id"] == held[0]  # joined, not counted again
    for number in range(3, 6):
        assert ask(number).codes == ["policy_denied"]
    assert ask(0, new_spender(stage)).codes == ["approval_pending"], "another agent's own share"
    # A denial gives back its own, once, however often the call is repeated.
    assert stage.kb.vote(stage.boss, held[0], "deny")[0] == 200
    for _ in range(3):
        assert ask(0).codes == ["approval_denied"]
    assert ask(3).codes == ["approval_pending"]
    assert ask(4).codes == ["policy_denied"]
    # What was sent stays used, whatever becomes of others.
    stage.approve(held[1])
    assert stage.internal(f"/v1/approvals/{held[1]}/execute", "POST", spender).status == 404
    assert stage.internal(f"/v1/approvals/{held[1]}/execute", "POST", spender).status == 409
    assert ask(1).codes == ["policy_denied"]  # a new call, for which there is no room
    assert len(stage.arrived) == 1


def test_a_revoked_agent_leaves_nothing_and_gets_nothing(stage: Stage, spender: AgentKey) -> None:
    got = stage.ask(pay(stage, b"n=1", FORM, "Prefer: respond-async", target="/metered/ask"),
                    agent=spender)  # fmt: skip
    approval = got.json["approval"]["id"]
    stage.kb.cli("agent", "revoke", spender.name)

    def ended() -> bool:
        _, card = stage.kb.api(stage.boss, f"/api/v1/approvals/{approval}")
        return bool(card["state"] == "superseded")

    wait_until(ended, what="its approval ends")
    assert stage.kb.vote(stage.boss, approval, "approve")[0] == 409
    assert stage.arrived == []
    # Its name is not to be had again, so neither is a share that is fresh.
    assert stage.kb.run("agent", "add", spender.name, "--tag", "metered").returncode != 0


def test_a_burst_in_pieces_stays_within_the_sum(stage: Stage, spender: AgentKey) -> None:
    def call(amount: str) -> None:
        stage.ask(pay(stage, f"amount={amount}".encode()), agent=spender)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(call, ["33.4", "7", "0.1"] * 12))
    # There are enough of the largest to fill it up to less than one of them.
    assert Decimal("66.6") < spent(stage) <= Decimal(100)
