"""The seam between the two lanes of the data plane: plain calls go one way, all else the other.

Both share one connection of an agent. Nothing may be read by one lane and judged by the other, no
call may get another one's answer, and no decision may be gone around by taking the other lane.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.attacks.stage import Got, Stage, count_answers, leak, say, wait_for
from tests.attacks.test_smuggling import BAD, CHUNKED, SMUGGLED, Case, spell
from tests.attacks.test_streams import UPGRADE, masked
from tests.support.upstream import Conversation, Cut, Received
from tests.support.upstream_routes import token_of

pytestmark = pytest.mark.e2e

ASYNC = "Prefer: respond-async"
LANES = ["plain", "chunked", "h2"]
"""How the same request is said so that it takes the one lane or the other."""


def by(stage: Stage, lane: str, path: str, *headers: str) -> Got:
    """POST with a body of `amount=5`."""
    kind = "Content-Type: application/x-www-form-urlencoded"
    if lane == "h2":
        fields = [(":method", "POST"), (":scheme", "https"), (":authority", stage.at())]
        fields += [(":path", path), ("content-type", kind.partition(": ")[2])]
        fields += [(n.lower(), v) for n, _, v in (line.partition(": ") for line in headers)]
        return stage.ask_h2(fields, b"amount=5")
    if lane == "chunked":
        body = b"8\r\namount=5\r\n0\r\n\r\n"
        head = stage.get(path, kind, *headers, "Transfer-Encoding: chunked", method="POST")
        return stage.ask(head + body)
    return stage.ask(stage.get(path, kind, *headers, method="POST", body=b"amount=5"))


# --- what is read once is read once ----------------------------------------------------------


GOOD = Case("", "Content-Length: 5\r\n", "hello")


@pytest.mark.parametrize("case", [case for case in BAD if case.body], ids=lambda case: case.name)
def test_framing_behind_a_plain_call(stage: Stage, case: Case) -> None:
    """In one write: the plain call is answered, the odd one goes to the other lane, and no part of
    it becomes a request there either."""
    data = spell(stage, GOOD, "tunnel") + spell(stage, case, "tunnel")
    got = stage.ask(data, answers=2, patience=0.3, linger=0.02, first=10)
    assert leak(got.data) is None
    assert got.statuses[:1] == [404]
    # What is behind a body of no length may be a request of its own; it is judged, and denied.
    assert all(status in (100, 400, 403, 413) for status in got.statuses[1:]), got.data
    assert case.code in ("", *got.codes)
    assert [request.body for request in stage.arrived] == [b"hello"]


@pytest.mark.parametrize("change", ["chunked", "expect", "absolute", "te", "a head in pieces"])
def test_a_body_that_looks_like_a_request_in_either_lane(stage: Stage, change: str) -> None:
    """Plain, then not plain, then plain again: each length counts for its own body."""
    hidden = SMUGGLED.replace("TARGET2", "/open/private/smuggled").replace("HOST", stage.at())
    text = hidden.encode()
    plain = stage.get("/open/1", method="POST", body=text)
    second = {
        "chunked": stage.get("/open/2", CHUNKED.strip(), method="POST")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text),
        "expect": stage.get("/open/2", "Expect: 100-continue", method="POST", body=text),
        "absolute": stage.get(f"https://{stage.at()}/open/2", method="POST", body=text),
        "te": stage.get("/open/2", "TE: trailers", "Connection: TE", method="POST", body=text),
    }.get(change, stage.get("/open/2", method="POST", body=text))
    with stage.tls() as sock:
        if change == "a head in pieces":
            sock.sendall(plain + second[:20])
            time.sleep(0.05)
            got = say(sock, second[20:] + plain, answers=3)
        else:
            got = say(sock, plain + second + plain, answers=3)
    assert [status for status in got.statuses if status != 100] == [404] * 3, got.data
    assert [request.path for request in stage.arrived] == ["/open/1", "/open/2", "/open/1"]
    assert all(request.body == text for request in stage.arrived)


def test_frames_behind_an_upgrade_behind_a_plain_call(stage: Stage) -> None:
    """What is pipelined behind an upgrade is frames, not requests of the lane it came from."""
    data = stage.get("/open/1") + stage.get("/ws", *UPGRADE)
    for behind in (stage.get("/open/private/smuggled"), masked(b"hi") + stage.get("/open/1")):
        stage.begin()
        with stage.tls() as sock:
            got = say(sock, data + behind, answers=3, patience=1)
        assert got.statuses == [404, 101], got.data
        assert [request.path for request in stage.arrived] == ["/open/1", "/ws"]


# --- decisions ---------------------------------------------------------------------------------


def test_what_is_pipelined_behind_a_held_call_waits_and_is_judged(stage: Stage) -> None:
    held = stage.get("/ask/pipelined")
    data = held + stage.get("/open/private/x") + stage.get("/open/held/x") + stage.get("/open/1")
    chunked = stage.get("/open/private/y", CHUNKED.strip(), method="POST") + b"0\r\n\r\n"
    got = stage.ask(data + chunked, answers=5, patience=5)
    assert got.statuses == [503, 403, 503, 404, 403], got.data
    assert [request.path for request in stage.arrived] == ["/open/1"]


@pytest.mark.parametrize("lane", LANES)
def test_a_hold_is_a_hold_in_every_lane(stage: Stage, lane: str) -> None:
    """And the same one: the lane is no part of what was asked."""
    first = by(stage, "plain", "/ask/lane", ASYNC)
    got = by(stage, lane, "/ask/lane", ASYNC)
    stage.held(got, "approval_pending")
    approval = first.json["approval"]["id"]
    assert approval.encode() in got.data


def test_one_approval_is_one_execution_whatever_the_lane(stage: Stage) -> None:
    patient = stage.agents["patient"]

    def ask(lane: str) -> Got:
        framing = "Transfer-Encoding: chunked" if lane == "chunked" else "Content-Length: 8"
        body = b"8\r\namount=5\r\n0\r\n\r\n" if lane == "chunked" else b"amount=5"
        head = stage.get("/ask/once-by-lane", framing, method="POST")
        return stage.ask(head + body, agent=patient, patience=25)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, lane) for lane in ("plain", "chunked") * 2]
        wait_for(lambda: _waiting(stage, "/ask/once-by-lane"), "the approval")
        time.sleep(0.3)  # so that all four wait for it
        stage.approve(_waiting(stage, "/ask/once-by-lane")[0])
        got = [future.result() for future in asked]
    assert sorted(one.status for one in got) == [404, 409, 409, 409], [one.data for one in got]
    assert [request.path for request in stage.arrived] == ["/ask/once-by-lane"]


def _waiting(stage: Stage, path: str) -> list[str]:
    _, said = stage.kb.api(stage.boss, "/api/v1/approvals?state=pending")
    return [one["id"] for one in said["approvals"] if path in str(one)]


def test_an_agent_that_hangs_up_in_one_lane_is_not_served_in_the_other(stage: Stage) -> None:
    """Held, and a chunked call behind it; then the agent is gone."""
    with stage.tls(agent=stage.agents["patient"]) as sock:
        sock.sendall(stage.get("/ask/left-behind"))
        sock.sendall(stage.get("/open/1", CHUNKED.strip(), method="POST") + b"0\r\n\r\n")
        wait_for(lambda: _waiting(stage, "/ask/left-behind"), "the approval")
        approval = _waiting(stage, "/ask/left-behind")[0]
    time.sleep(0.3)
    stage.approve(approval)
    time.sleep(0.5)
    assert stage.arrived == []


def test_a_revoked_agent_has_no_lane_left(stage: Stage) -> None:
    """Its connection was opened, and served, in good time."""
    key = stage.kb.agent("lanes-leaver", "--tag", "streamer")
    with stage.tls(agent=key) as plain, stage.tls(agent=key) as other:
        request = stage.get("/stream/1")
        chunked = stage.get("/stream/1", CHUNKED.strip(), method="PUT") + b"0\r\n\r\n"
        assert say(plain, request).status == say(other, chunked).status == 404
        stage.kb.cli("agent", "revoke", "lanes-leaver")
        time.sleep(1.2)
        stage.begin()
        for sock, data in ((plain, request), (plain, chunked), (other, request), (other, chunked)):
            with contextlib.suppress(OSError):
                stage.held(say(sock, data, patience=2))
    assert stage.arrived == []


# --- connections to upstreams --------------------------------------------------------------------

STOLEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def raw_replies(stage: Stage, *pieces: bytes) -> Iterator[None]:
    """`/made/raw` is answered so, piece by piece, and its connection is then held open."""

    def route(request: Received, conversation: Conversation) -> None:
        for piece in pieces:
            conversation.write(piece)
            time.sleep(0.05)
        with contextlib.suppress(OSError):
            while conversation.read(65536):
                pass

    stage.upstream.heads["/made/raw"] = route
    try:
        yield
    finally:
        del stage.upstream.heads["/made/raw"]


TWO = {
    "two-at-once": [OK + STOLEN],
    "another-unasked": [OK, STOLEN],
    "half-of-another-unasked": [OK, STOLEN[:30]],
    "behind-204": [b"HTTP/1.1 204 No\r\n\r\n" + STOLEN],
    "behind-304": [b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\n" + STOLEN],
    "behind-a-longer-body": [OK + b"more" + STOLEN],
    "behind-chunks": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + STOLEN
    ],
    "behind-trailers": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        STOLEN,
    ],
    "behind-101": [b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + STOLEN],
    "behind-a-length-of-both-kinds": [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + STOLEN
    ],
    "behind-two-lengths": [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 2\r\n\r\nok" + STOLEN
    ],
    "behind-hints": [b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK + STOLEN],
    "behind-an-interim-length": [b"HTTP/1.1 100 C\r\nContent-Length: 60\r\n\r\n" + OK + STOLEN],
}


@pytest.mark.parametrize("second", ["plain", "chunked"])
@pytest.mark.parametrize("name", TWO)
def test_no_call_gets_an_answer_that_was_not_for_it(stage: Stage, name: str, second: str) -> None:
    """An upstream that answers twice; the next call goes in the same lane, or in the other."""
    with raw_replies(stage, *TWO[name]), stage.tls() as sock:
        first = say(sock, stage.get("/made/raw"), patience=0.5)
        assert b"stolen" not in first.data
        time.sleep(0.15)
        asked = stage.get("/open/next")
        if second == "chunked":
            asked = stage.get("/open/next", CHUNKED.strip(), method="POST") + b"0\r\n\r\n"
        got = say(sock, asked)
    assert got.status == 404, got.data
    assert b"stolen" not in got.data
    connections = [request.connection for request in stage.arrived]
    assert len(connections) == 2
    assert connections[0] != connections[1]


def test_an_answer_to_head_has_no_body_to_steal_from(stage: Stage) -> None:
    with raw_replies(stage, OK[:-2] + STOLEN), stage.tls() as sock:
        sock.sendall(stage.get("/made/raw", method="HEAD"))
        sock.settimeout(1)
        assert b"stolen" not in sock.recv(65536)
        time.sleep(0.1)
        got = say(sock, stage.get("/open/next"))
    assert (got.status, b"stolen" in got.data) == (404, False)


def test_a_stored_request_takes_nobody_elsewhere(stage: Stage) -> None:
    """Executed inside a tunnel to Keybroker's own host: its upstream gets that call alone, and the
    calls behind it do not follow it there."""
    approval = stage.hold(stage.get("/ask/stored-by-lane", ASYNC))
    stage.approve(approval)
    host = "keybroker.internal"

    def own(method: str, path: str, *headers: str) -> bytes:
        return "\r\n".join(
            [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]
        ).encode()

    data = own("POST", f"/v1/approvals/{approval}/execute", "Content-Length: 0")
    data += own("GET", "/open/private/smuggled") + own("GET", "/v1/whoami")
    with stage.tls(f"{host}:443") as sock:
        got = say(sock, data, answers=3)
    assert got.statuses == [404, 404, 200], got.data
    assert [(r.path, r.header("host")) for r in stage.arrived] == [
        ("/ask/stored-by-lane", stage.at())
    ]


@pytest.mark.parametrize("host", ["basic.localhost", "free.localhost", "127.0.0.1"])
def test_another_host_on_a_connection_that_has_an_upstream(stage: Stage, host: str) -> None:
    """The connection to the first one is there, and has had its credential put in."""
    at = stage.at().replace("localhost", host)
    with stage.tls() as sock:
        assert say(sock, stage.get("/open/1")).status == 404
        stage.begin()
        plain = stage.get("/open/2").replace(stage.at().encode(), at.encode())
        absolute = stage.get(f"https://{at}/open/2")
        chunked = plain.replace(b"GET", b"POST").replace(
            b"\r\n\r\n", b"\r\n" + CHUNKED.encode() + b"\r\n0\r\n\r\n"
        )
        got = say(sock, plain + absolute + chunked, answers=3)
    stage.held(got, "request_ambiguous")
    assert got.statuses == [400, 400, 400], got.data


@pytest.mark.parametrize("sni", ["free.localhost", "basic.localhost"])
def test_another_name_inside_the_tunnel(stage: Stage, sni: str) -> None:
    got = stage.ask(stage.get("/open/1"), sni=sni)
    stage.held(got, "request_ambiguous")
    other = stage.get("/open/1").replace(
        stage.at().encode(), f"{sni}:{stage.upstream.port}".encode()
    )
    stage.held(stage.ask(other, sni=sni), "request_ambiguous")


def test_agents_do_not_meet_on_a_connection(stage: Stage) -> None:
    """Whose credential was put into it is whose it stays."""
    for agent in ("bot", "other", "bot"):
        with stage.tls(agent=stage.agents[agent]) as sock:
            assert say(sock, stage.get("/open/1") * 2, answers=2).statuses == [404, 404]
    connections = [request.connection for request in stage.arrived]
    assert len(connections) == 6
    assert len(set(connections)) == 3


@pytest.mark.parametrize("lane", ["plain", "chunked"])
def test_a_credential_is_masked_wherever_it_comes_in(stage: Stage, lane: str) -> None:
    """Said in pieces, over a connection that has served calls before."""

    def route(request: Received, conversation: Conversation) -> None:
        token = token_of(request).encode()
        conversation.write(b"HTTP/1.1 200 OK\r\nX-T: " + token + b"\r\n\r\n")
        for at in range(0, len(token), 5):
            conversation.write(token[at : at + 5])
            time.sleep(0.01)

    stage.upstream.heads["/made/pieces"] = route
    try:
        with stage.tls() as sock:
            assert say(sock, stage.get("/open/1")).status == 404
            asked = stage.get("/made/pieces")
            if lane == "chunked":
                asked = stage.get("/made/pieces", CHUNKED.strip(), method="POST") + b"0\r\n\r\n"
            got = say(sock, asked)
    finally:
        del stage.upstream.heads["/made/pieces"]
    assert leak(got.data) is None
    assert got.data.count(b"[keybroker:masked]") == 2, got.data


@pytest.mark.parametrize("lane", LANES[:2])
def test_an_answer_that_somebody_cut_does_not_look_whole(stage: Stage, lane: str) -> None:
    """Who sits on the way cannot read TLS, but can end TCP in the middle of a list of what is
    forbidden (RFC 9112 9.8). The agent sees that it was cut, and the ledger says so."""

    def route(request: Received, conversation: Conversation) -> None:
        conversation.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nforbidden: a, b, ")
        raise Cut

    stage.upstream.heads["/made/cut"] = route
    try:
        got = by(stage, lane, "/made/cut")
    finally:
        del stage.upstream.heads["/made/cut"]
    assert b"forbidden: a" in got.data
    assert count_answers(got.data) == 0, got.data
    asked = re.search(rb"(?i)keybroker-request-id: (\S+)", got.data)
    assert asked is not None
    [failed] = stage.kb.records(type="call.failed", call=asked[1].decode())
    assert failed["agent"] == "bot"


def test_tls_that_breaks_between_the_lanes_breaks_both(stage: Stage) -> None:
    """A record that nobody could have sent, in front of a request for the other lane."""
    with stage.tls() as sock:
        assert say(sock, stage.get("/open/1")).status == 404
        stage.begin()
        raw = socket.socket(fileno=sock.detach())
    with raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"g" * 32 + stage.get("/open/private/smuggled"))
        raw.settimeout(5)
        with contextlib.suppress(OSError):
            while raw.recv(65536):
                pass
    assert stage.arrived == []
