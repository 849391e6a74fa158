"""One call: whatever comes in whatever order, it has one end, which is told once."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import http

from broker.model import Client
from proxy import compat, pages
from proxy.express.call import Call
from proxy.express.heads import plain_head
from proxy.express.replies import Fields
from proxy.express.upstream import NoUpstream, Place, Upstream
from proxy.patience import Timeouts
from proxy.setup import Entered, Setup
from rules.request import Request
from tests.proxy.harness import FakeAnswer, FakePassage, refused

HEAD = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"
REQUEST = Request("POST", "https", "localhost", 443, "/a", None, (("x-a", "1"),), b"ok")


@dataclasses.dataclass
class Side:
    """An agent's connection, and the middle and the upstream behind it, as a call sees them."""

    passage: Any
    outcome: Any = None
    """What the middle says; the passage if it is None."""
    at_head: Any = None
    connecting: BaseException | None = None
    """What becomes of the connection to the upstream."""
    leaves: bool = False
    """The agent leaves while the connection is made."""
    revoked: bool = False
    written: bytes = b""
    ends: list[str] = dataclasses.field(default_factory=list)
    sent: list[bytes] = dataclasses.field(default_factory=list)
    tasks: list[asyncio.Task[None]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        options = compat.CoreOptions(body_size_limit="10", tcp_timeout=1, head_timeout=1)
        timeouts = Timeouts(first_byte=-1, idle=-1)  # all that is asked about is late
        self.setup = Setup(self, None, options, timeouts)  # type: ignore[arg-type]
        self.entered = Entered(Client("bot", "t1"), ("localhost", 443), encrypted=False)
        head = plain_head(HEAD)
        assert head is not None
        self.call = Call(self, head, b"ok")

    # the middle

    async def begin(self, *_: object) -> Any:
        return self.at_head

    async def handle(self, *_: object) -> Any:
        return self.passage if self.outcome is None else self.outcome

    # the agent's connection

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True))

    async def upstream_at(self, place: Place) -> Upstream:
        assert place == ("https", "localhost", 443)
        if self.leaves:
            self.call.left()
        if self.connecting is not None:
            raise self.connecting
        return self  # type: ignore[return-value]

    def drop_upstream(self) -> None:
        self.ends.append("dropped")

    def write(self, *parts: bytes) -> None:
        self.written += b"".join(parts)

    def flush(self) -> None:
        return

    def answered(self) -> None:
        self.ends.append("answered")

    def broken_off(self) -> None:
        self.ends.append("broken off")

    # the upstream

    def ask(self, request: bytes, method: bytes, asker: object) -> None:
        assert asker is self.call
        self.sent.append(request)

    def abort(self) -> None:
        self.ends.append("aborted")

    # a conversation

    async def served(self, *events: str) -> None:
        self.start(self.call.serve())
        response = http.Response.make(200, b"oo")
        for event in events:
            {
                "head": lambda: self.call.on_head(response),
                "data": lambda: self.call.on_data(b"o"),
                "end": lambda: self.call.on_end([]),
                "break": self.call.on_break,
                "left": self.call.left,
                "late": self.call.give_up_late,
                "turn": self.call.on_turn,
                "pause": lambda: None,
            }[event]()
            if event == "pause":
                await asyncio.sleep(0)
        await asyncio.gather(*self.tasks)

    def run(self, *events: str) -> list[str]:
        """What the passage was told of these events."""
        asyncio.run(self.served(*events))
        told: list[str] = self.passage.told
        return told


class Slow(FakePassage):
    """Whose records take their time."""

    async def completed(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await super().completed()

    async def failed(self, sentence: str, *, sent: bool) -> FakeAnswer:
        await asyncio.sleep(0)
        return await super().failed(sentence, sent=sent)


@st.composite
def conversations(draw: st.DrawFn) -> list[str]:
    """What an upstream may say, with agents that leave and clocks that strike in between."""
    end = draw(st.sampled_from([["end"], ["break"], []]))
    whole = ["head", *["data"] * draw(st.integers(0, 2)), *end]
    said = whole[: draw(st.integers(0, len(whole)))]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(said)))
        said.insert(at, draw(st.sampled_from(["left", "late", "pause", "turn", "break"])))
    return [*said, "pause", "pause", draw(st.sampled_from(["left", "late", "break"])), "pause"]


@settings(max_examples=300, deadline=None)
@given(conversations(), st.sampled_from([FakePassage, Slow]))
def test_one_end_which_is_told_once(events: list[str], kind: type[FakePassage]) -> None:
    side = Side(kind(REQUEST))
    told = side.run(*events)
    ends = [one for one in told if one == "completed" or one.startswith("failed")]
    assert len(ends) == 1, told
    assert told[-1] == ends[0]
    assert len([end for end in side.ends if end in ("answered", "broken off")]) == 1
    assert side.sent == [
        b"POST /a HTTP/1.1\r\nhost: localhost\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nok"
    ]
    if told[-1] == "completed":
        assert side.written.endswith(b"\r\n\r\n" + b"o" * events.count("data"))


def test_a_whole_one() -> None:
    side = Side(FakePassage(REQUEST))
    assert side.run("head", "data", "data", "end") == ["head 200", "finish", "completed"]
    assert side.written == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\noo"
    assert side.ends == ["answered"]


@pytest.mark.parametrize(
    ("events", "sentence", "ends"),
    [
        (["break"], pages.NOT_HTTP, ["answered"]),
        (["left"], pages.GONE_UNDELIVERED, ["answered"]),
        (["late"], "The upstream did not begin to answer within -1 s.", ["dropped", "answered"]),
        (["head", "break"], pages.BROKE_OFF, ["broken off"]),
        (["head", "left"], pages.GONE_UNDELIVERED, ["broken off"]),
        (
            ["head", "data", "late"],
            "The upstream sent nothing for -1 s in the middle of its response.",
            ["dropped", "broken off"],
        ),
    ],
)
def test_why_there_is_no_result(events: list[str], sentence: str, ends: list[str]) -> None:
    side = Side(FakePassage(REQUEST))
    assert side.run(*events)[-1] == f"failed sent=True: {sentence}"
    assert side.ends == ends


@pytest.mark.parametrize("events", [["left"], ["head", "left"]])
def test_that_the_agent_was_revoked(events: list[str]) -> None:
    side = Side(FakePassage(REQUEST), revoked=True)
    assert side.run(*events)[-1] == f"failed sent=True: {pages.REVOKED}"


@pytest.mark.parametrize(
    ("leaves", "error", "sentence"),
    [
        (False, NoUpstream(pages.UNVERIFIED), pages.UNVERIFIED),
        (True, NoUpstream(pages.NOT_SET_UP), pages.GONE_UNSENT),
        (True, None, pages.GONE_UNSENT),
        (False, RuntimeError("s3cret"), pages.NOTHING_SENT),
    ],
)
def test_nothing_sent(leaves: bool, error: BaseException | None, sentence: str) -> None:
    side = Side(FakePassage(REQUEST), leaves=leaves, connecting=error)
    assert side.run() == [f"failed sent=False: {sentence}"]
    assert side.sent == []


NEVER: list[tuple[str, Any]] = [
    ("a header of two lines", FakePassage(dataclasses.replace(REQUEST, headers=(("a", "b\nc"),)))),
    ("a path that is not ASCII", FakePassage(dataclasses.replace(REQUEST, path="/é"))),
    ("an upgrade", FakePassage(dataclasses.replace(REQUEST, upgrade="websocket"))),
    ("too much of an unread body", FakePassage(dataclasses.replace(REQUEST, unread=True), most=1)),
]


@pytest.mark.parametrize("passage", [p for _, p in NEVER], ids=[name for name, _ in NEVER])
def test_what_is_never_sent(passage: FakePassage, caplog: pytest.LogCaptureFixture) -> None:
    side = Side(passage)
    with caplog.at_level(logging.ERROR):
        assert side.run()[-1] == f"failed sent=False: {pages.NOTHING_SENT}"
    assert side.sent == []


def test_an_answer_to_the_head_alone() -> None:
    side = Side(FakePassage(REQUEST), at_head=refused("policy_denied"))
    assert side.run() == []
    assert side.written.startswith(b"HTTP/1.1 403 ")


def test_a_body_that_was_let_out_by_its_head() -> None:
    passage = FakePassage(dataclasses.replace(REQUEST, body=b"", unread=True, length=2))
    side = Side(FakePassage(REQUEST), at_head=passage)
    side.run("head", "end")
    assert passage.told == ["sent", "head 200", "finish", "completed"]
    assert side.sent[0].endswith(b"content-length: 2\r\n\r\nok")


def test_records_that_are_lost_harm_no_agent(caplog: pytest.LogCaptureFixture) -> None:
    class Lost(FakePassage):
        async def completed(self) -> None:
            raise OSError("s3cret")

        async def failed(self, sentence: str, *, sent: bool) -> FakeAnswer:
            raise OSError("s3cret")

    side = Side(Lost(REQUEST))
    side.run("head", "data", "data", "end")
    assert side.written.endswith(b"oo")
    side = Side(Lost(REQUEST))
    side.run("break")
    assert side.written.startswith(b"HTTP/1.1 502 ")
    assert side.ends == ["answered"]
    assert "s3cret" not in caplog.text


def test_trailers_are_shown_and_kept_back() -> None:
    passage = FakePassage(REQUEST)
    for fields, told in (
        ([(b"x-a", b"1")], ["trailers came (('x-a', '1'),) False"]),
        ([(b"x-a", b"1\r\nx-b: 2")], []),
    ):
        passage.told.clear()
        side = Side(passage)
        asyncio.run(_with_trailers(side, fields))
        assert passage.told == ["head 200", "finish", *told, "completed"]
        assert b"x-a" not in side.written


async def _with_trailers(side: Side, fields: Fields) -> None:
    side.start(side.call.serve())
    side.call.on_head(http.Response.make(200, b"", {"content-length": "0"}))
    side.call.on_end(fields)
    await asyncio.gather(*side.tasks)
