"""The two lanes side by side: whatever an agent or an upstream sends, both must end alike.

Compared are the agent's answers and the end of its connection, what each passage was told and
shown, the raw requests that the middle saw, and the bytes that arrived upstream.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable

import pytest

from broker.model import Client
from proxy import pages
from rules.request import RawRequest
from tests.proxy.express.both import Agent, Both, Outcome, Say, Talk, Visit, answers, says
from tests.proxy.harness import FakePipeline

pytestmark = pytest.mark.e2e

HOST = b"\r\nHost: PLACE\r\n"
GET = b"GET /a?b=c HTTP/1.1" + HOST + b"\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
POST = b"POST /p HTTP/1.1" + HOST + b"Content-Length: 5\r\n\r\n"
UP = b"POST /p HTTP/1.1" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
DONE = ("head 200", "finish", "completed")


def reply(*lines: bytes, body: bytes = b"", status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines, b"", b""]) + body


def gone(sent: bool = True) -> str:
    return f"failed sent={sent}: {pages.GONE_UNDELIVERED if sent else pages.GONE_UNSENT}"


# -- what agents send

REQUESTS: dict[str, tuple[Say, list[int]]] = {
    "one": (says(GET), [200]),
    "one-after-another": (says(GET, POST + b"hello", GET, answers=3), [200] * 3),
    "pipelined": (says(GET + POST + b"hello" + GET, answers=3), [200] * 3),
    "a-body-in-pieces": (says(POST, b"he", b"l", b"lo" + GET, answers=2), [200] * 2),
    "a-head-in-pieces": (says(GET[:9], GET[9:-1], GET[-1:] + GET, answers=2), [200] * 2),
    "head": (says(HEAD + GET, answers=2, methods=["HEAD"]), [200] * 2),
    "no-length": (says(GET.replace(b"GET", b"POST")), [200]),
    "delete": (says(GET.replace(b"GET", b"DELETE")), [200]),
    "close": (
        says(GET[:-2] + b"Connection: close\r\n\r\n" + GET, rest=True),
        [200],
    ),
    "close-in-capitals": (
        says(GET[:-2] + b"Connection: Close\r\n\r\n" + GET, rest=True),
        [200],
    ),
    "keep-alive": (says((GET[:-2] + b"Connection: keep-alive\r\n\r\n") * 2, answers=2), [200] * 2),
    "odd-spaces": (says(GET[:-2] + b"X:\t \t a \t\r\n\r\n"), [200]),
    "odder-spaces": (says(GET[:-2] + b"X: \x0ba\x0c\r\n\r\n", rest=True), [400]),
    "not-ascii": (says(GET[:-2] + b"X: caf\xe9\r\n\r\n"), [400]),
    "a-target-that-is-not-ascii": (says(GET.replace(b"/a", b"/\xe9")), [400]),
    "asterisk": (says(GET.replace(b"GET /a?b=c", b"OPTIONS *")), [400]),
    "another-host": (says(GET.replace(b"PLACE", b"elsewhere.example")), [400]),
    "no-host": (says(b"GET / HTTP/1.1\r\n\r\n"), [400]),
    "two-hosts": (says(b"GET / HTTP/1.1" + HOST + HOST[2:] + b"\r\n"), [400]),
    "connect": (says(b"CONNECT PLACE HTTP/1.1" + HOST + b"\r\n", rest=True), [400]),
    "connect-in-odd-letters": (says(GET.replace(b"GET", b"Connect"), rest=True), [400]),
    "get-in-odd-letters": (says(GET.replace(b"GET", b"get") + GET, answers=2), [400, 200]),
    "a-length-too-many": (says(POST[:-2] + b"Content-Length: 5\r\n\r\nhello", rest=True), [400]),
    "empty-lines-first": (says(b"\r\n\r\n" + GET), [200]),
    "absolute": (says(GET.replace(b"/a", b"https://PLACE/a")), [200]),
    "1.0": (says(GET.replace(b"/1.1", b"/1.0"), rest=True), [200]),
    "not-http": (says(b"SSH-2.0-x\r\n\r\n", rest=True), [400]),
    "chunked": (says(UP), [200]),
    "expect": (
        says(POST[:-2] + b"Expect: 100-continue\r\n\r\n", b"hello", answers=2),
        [100, 200],
    ),
    "too-large": (says(POST.replace(b": 5", b": 2000000"), rest=True), [413]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(lanes: Both, name: str) -> None:
    say, statuses = REQUESTS[name]
    outcome = lanes.same(answers(OK, OK, OK), say)
    if name == "head":  # its length is of a body that does not come
        outcome = lanes.same(answers(OK[:-2], OK), say, methods=["HEAD"])
    assert outcome.statuses == statuses
    assert outcome.ended in ("open", "closed")
    assert outcome.told == (DONE,) * statuses.count(200)


CHANGES: dict[str, tuple[bytes, list[int]]] = {
    "a-chunked-body": (UP, [200]),
    "an-absolute-target": (GET.replace(b"/a", b"https://PLACE/a"), [200]),
    "te": (GET[:-2] + b"TE: trailers\r\nConnection: TE\r\n\r\n", [200]),
    "an-odd-head": (b"GET / HTTP/1.1\n\n", [400]),
    "an-upgrade": (GET[:-2] + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", [400]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_from_lane_to_lane_in_mid_connection(lanes: Both, name: str) -> None:
    """What is pipelined behind the change is served as well, unless that ended the connection."""
    odd, statuses = CHANGES[name]
    ends = name == "an-odd-head"
    say = says(GET + POST + b"hello" + odd + GET + UP, answers=5, rest=ends)
    express, core = lanes.outcomes(answers(*[OK] * 5), say)
    # The line's connection to the upstream is not handed over with the agent's.
    assert len(express.arrived) == (1 if ends else 2)
    assert b"".join(express.arrived) == b"".join(core.arrived)
    assert dataclasses.replace(express, arrived=()) == dataclasses.replace(core, arrived=())
    assert express.statuses == [200, 200, *statuses, *([] if ends else [200, 200])]
    assert express.ended == ("closed" if ends else "open")


# -- what upstreams send

RESPONSES: dict[str, tuple[Talk, list[int], str]] = {
    "none-close": (answers(b"", then="close"), [502], pages.NOT_HTTP),
    "none-fin": (answers(b"", then="fin"), [502], pages.NOT_HTTP),
    "none-reset": (answers(b"", then="reset"), [502], pages.NOT_HTTP),
    "half-a-head": (answers(OK[:20], then="close"), [502], pages.NOT_HTTP),
    "half-a-head-fin": (answers(OK[:20], then="fin"), [502], pages.NOT_HTTP),
    "half-a-body": (answers(OK[:-1], then="close"), [], pages.BROKE_OFF),
    "half-a-body-fin": (answers(OK[:-1], then="fin"), [], pages.BROKE_OFF),
    "half-a-chunk": (answers(reply(CHUNKED, body=b"9\r\nab"), then="close"), [], pages.BROKE_OFF),
    "until-the-fin": (answers(reply(body=b"ok"), then="fin"), [], pages.BROKE_OFF),
    "gzip-until-the-fin": (
        answers(reply(b"Transfer-Encoding: gzip", body=b"ok"), then="fin"),
        [],
        pages.BROKE_OFF,
    ),
    "until-broken-tls": (answers(reply(body=b"ok"), then="garbage"), [], pages.BROKE_OFF),
    "no-last-chunk": (answers(reply(CHUNKED, body=b"1\r\na\r\n"), then="fin"), [], pages.BROKE_OFF),
    "an-odd-chunk": (answers(reply(CHUNKED, body=b"z\r\n\r\n")), [], pages.BROKE_OFF),
    "an-odd-trailer": (answers(reply(CHUNKED, body=b"0\r\nX(: y\r\n\r\n")), [], pages.BROKE_OFF),
    "both-lengths": (answers(reply(CHUNKED, OK[17:34], body=b"0\r\n\r\n")), [502], pages.NOT_HTTP),
    "two-lengths": (answers(reply(OK[17:34], OK[17:34], body=b"ok")), [502], pages.NOT_HTTP),
    "a-list-of-lengths": (answers(OK.replace(b": 2", b": 2, 2")), [502], pages.NOT_HTTP),
    "an-odd-length": (answers(OK.replace(b": 2", b": +2")), [502], pages.NOT_HTTP),
    "an-odd-coding": (answers(reply(b"Transfer-Encoding: x")), [502], pages.NOT_HTTP),
    "chunked-1.0": (answers(reply(CHUNKED, status=b"HTTP/1.0 200 OK")), [502], pages.NOT_HTTP),
    "chunked-204": (answers(reply(CHUNKED, status=b"HTTP/1.1 204 No")), [502], pages.NOT_HTTP),
    "an-odd-name": (answers(reply(b"X(: y", b"Content-Length: 0")), [502], pages.NOT_HTTP),
    "no-colon": (answers(reply(b"X", b"Content-Length: 0")), [502], pages.NOT_HTTP),
    "no-colon-closed": (answers(reply(b"X", body=b"ok"), then="close"), [502], pages.NOT_HTTP),
    "a-bare-cr": (answers(reply(b"X: a\rb", b"Content-Length: 0")), [502], pages.UNSAFE_RESPONSE),
    "a-nul": (answers(reply(b"X: a\0b", b"Content-Length: 0")), [502], pages.UNSAFE_RESPONSE),
    "an-odd-status": (answers(OK.replace(b"200", b"600")), [502], pages.UNSAFE_RESPONSE),
    "a-huge-head": (answers(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 600_000), [502], pages.NOT_HTTP),
    "endless-hints": (answers(HINTS * 33 + OK), [502], pages.NOT_HTTP),
    "not-http": (answers(b"220 mail.example ESMTP\r\n\r\n"), [502], pages.NOT_HTTP),
    "101": (
        answers(reply(b"Upgrade: x", b"Connection: upgrade", status=b"HTTP/1.1 101 Switching")),
        [502],
        pages.UNSAFE_RESPONSE,
    ),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_responses_that_are_none(lanes: Both, name: str) -> None:
    """The agent asks once more, over what must be another connection: its own lives on, unless half
    an answer is out."""
    talk, statuses, sentence = RESPONSES[name]

    def first_only(visit: Visit) -> None:
        (talk if visit.number == 1 else answers(OK))(visit)

    def say(agent: Agent) -> None:
        agent.send(GET)
        agent.read(1)
        agent.linger(0.03)
        agent.send(GET)
        agent.read(2)

    outcome = lanes.same(first_only, say)
    assert outcome.statuses[0] == (statuses or [200])[0]
    assert outcome.told[0][-1] == f"failed sent=True: {sentence}"
    if statuses:
        assert outcome.statuses == [502, 200]
        assert outcome.told[1:] == (DONE,)
        assert len(outcome.arrived) == 2
    else:
        assert [(r.status, r.whole) for r in outcome.replies] == [(200, False)]
        assert outcome.ended == "closed"
        assert len(outcome.told) == 1


LEN = b"Content-Length: 2"
ENDINGS: dict[str, tuple[bytes | list[bytes], str, int, bytes]] = {
    # The first answer, what follows it, how many connections two calls then take, and its body.
    "length": (OK, "stay", 1, b"ok"),
    "in-pieces": ([OK[:5], OK[5:-1], OK[-1:]], "stay", 1, b"ok"),
    "chunks": (reply(CHUNKED, body=b"2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"), "stay", 1, b"ok"),
    "gzip-chunks": (
        reply(b"Transfer-Encoding: gzip, chunked", body=b"2\r\nok\r\n0\r\n\r\n"),
        "stay",
        1,
        b"ok",
    ),
    "hints": (HINTS * 31 + b"\r\n" + OK, "stay", 1, b"ok"),
    "lf": (OK.replace(b"\r\n", b"\n"), "stay", 1, b"ok"),
    "folded": (reply(b"A: b\r\n c", LEN, body=b"ok"), "stay", 1, b"ok"),
    "no-reason": (OK.replace(b" OK", b""), "stay", 1, b"ok"),
    "204": (b"HTTP/1.1 204 No\r\n\r\n", "stay", 1, b""),
    "304": (b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", "stay", 1, b""),
    "2.0": (OK.replace(b"1.1", b"2.0"), "stay", 1, b"ok"),
    "1.0-keep-alive": (
        reply(b"Connection: Keep-Alive", LEN, body=b"ok", status=b"HTTP/1.0 200 OK"),
        "stay",
        1,
        b"ok",
    ),
    "1.0": (OK.replace(b"1.1", b"1.0"), "stay", 2, b"ok"),
    "close": (reply(b"Connection: close", LEN, body=b"ok"), "stay", 2, b"ok"),
    "close-in-capitals": (reply(b"Connection: Close", LEN, body=b"ok"), "stay", 2, b"ok"),
    "closed-behind-it": (OK, "close", 2, b"ok"),
    "fin-behind-it": (OK, "fin", 2, b"ok"),
    "until-the-end": (reply(body=b"ok"), "close", 2, b"ok"),
    "gzip-until-the-end": (reply(b"Transfer-Encoding: gzip", body=b"ok"), "close", 2, b"ok"),
    "a-body-for-204": (OK.replace(b"200", b"204"), "stay", 2, b""),
    "two-at-once": (OK + OK.replace(b"ok", b"no"), "stay", 2, b"ok"),
    "one-unasked": ([OK, OK.replace(b"ok", b"no")], "stay", 2, b"ok"),
    "bytes-unasked": ([OK, b"\r\n"], "stay", 2, b"ok"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_the_end_of_a_response_and_what_follows(lanes: Both, name: str) -> None:
    """The second call gets its own answer, over the same connection if that is in step."""
    first, then, connections, body = ENDINGS[name]
    second = OK.replace(b"ok", b"2!")

    def talk(visit: Visit) -> None:
        if connections == 1:
            answers(first, second)(visit)
        elif visit.number == 1:
            answers(first, then=then)(visit)
        else:
            answers(second)(visit)

    def say(agent: Agent) -> None:
        agent.send(GET)
        agent.read(1)
        time.sleep(0.05)  # what is unasked for, or the end, comes now
        agent.send(GET)
        agent.read(2)

    outcome = lanes.same(talk, say)
    assert [reply.body for reply in outcome.replies] == [body, b"2!"]
    assert outcome.statuses[1] == 200
    assert len(outcome.arrived) == connections
    assert [told[-1] for told in outcome.told] == ["completed"] * 2


def test_a_body_behind_a_head_only(lanes: Both) -> None:
    """HEAD has none, whatever follows; the connection is of no more use."""
    talk = answers(OK, OK)
    outcome = lanes.same(talk, says(HEAD, GET, answers=2, methods=["HEAD"]), methods=["HEAD"])
    assert [reply.body for reply in outcome.replies] == [b"", b"ok"]
    assert len(outcome.arrived) == 2


def test_an_upstream_that_breaks_off_without_a_length(lanes: Both) -> None:
    """A reset is no end of a body. It may come before what was sent, which is lost then."""
    talk = answers([reply(body=b"half"), b"more"], then="reset")
    for outcome in lanes.outcomes(talk, says(GET, rest=True)):
        assert outcome.told[0][-1] in (
            f"failed sent=True: {pages.BROKE_OFF}",
            f"failed sent=True: {pages.NOT_HTTP}",
        )
        assert outcome.statuses == [502] or not outcome.replies[0].whole


# -- agents that leave


def _wait(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)


LEAVING = ["close", "close_notify", "fin", "reset"]


@pytest.mark.parametrize("how", LEAVING)
class TestLeaving:
    """Whatever the way and the moment, the same is recorded."""

    def leave(
        self,
        lanes: Both,
        how: str,
        talk: Talk,
        sent: bytes = GET,
        after: int = 1,
        until: bytes = b"",
    ) -> Outcome:
        """The agent leaves once the upstream has been visited `after` times."""
        visited = threading.Semaphore(0)

        def counted(visit: Visit) -> None:
            if visit.request():
                visited.release()
            talk(visit)

        def say(agent: Agent) -> None:
            agent.send(sent)
            for _ in range(after):
                assert visited.acquire(timeout=5)
            while until not in agent.got:
                agent.linger(0.01)
            time.sleep(0.02)
            getattr(agent, how)()
            if how == "fin":
                agent.linger()

        return lanes.same(counted, say)

    def test_before_the_request_is_whole(self, lanes: Both, how: str) -> None:
        outcome = self.leave(lanes, how, answers(OK), POST + b"he", after=0)
        assert (outcome.asked, outcome.told, outcome.arrived) == ((), (), ())

    def test_before_it_sent_anything(self, lanes: Both, how: str) -> None:
        outcome = self.leave(lanes, how, answers(OK), b"", after=0)
        assert (outcome.asked, outcome.told, outcome.arrived) == ((), (), ())

    def test_while_the_call_is_at_the_upstream(self, lanes: Both, how: str) -> None:
        outcome = self.leave(lanes, how, Visit.stay)
        assert outcome.told == ((gone(),),)

    def test_in_mid_response(self, lanes: Both, how: str) -> None:
        def half(visit: Visit) -> None:
            visit.write(reply(b"Content-Length: 9", body=b"half"))
            visit.stay()

        outcome = self.leave(lanes, how, half, until=b"half")
        assert outcome.told == (("head 200", gone()),)

    def test_with_a_call_behind_it(self, lanes: Both, how: str) -> None:
        """Which is not made any more."""
        outcome = self.leave(lanes, how, Visit.stay, GET + POST + b"hello")
        assert outcome.told == ((gone(),),)
        assert len(outcome.asked) == 1

    def test_while_the_call_is_held(self, lanes: Both, how: str) -> None:
        held = threading.Semaphore(0)

        def setup(pipeline: FakePipeline) -> None:
            async def hold(client: Client, raw: RawRequest, gone: asyncio.Event) -> object:
                held.release()
                await gone.wait()
                return await pipeline.let_through(client, raw, gone)

            pipeline.script = hold

        def say(agent: Agent) -> None:
            agent.send(GET + GET)
            assert held.acquire(timeout=5)
            getattr(agent, how)()
            if how == "fin":
                agent.linger()

        outcome = lanes.same(answers(OK), say, setup=setup)
        assert outcome.told == ((gone(sent=False),),)
        assert outcome.arrived == ()

    def test_together_with_the_request(self, lanes: Both, how: str) -> None:
        """It may have been made, or not; whatever happened is recorded, once."""

        def say(agent: Agent) -> None:
            agent.send(GET)
            getattr(agent, how)()
            if how == "fin":
                agent.linger()

        for outcome in lanes.outcomes(Visit.stay, say):
            assert outcome.told in ((), ((gone(),),), ((gone(sent=False),),))
            assert outcome.replies == ()
