"""A call on its way: what comes back is scrubbed, hashed and recorded once."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import brotli
import pytest

from audit.commitment import commit
from broker.answers import Answer
from broker.errors import Refusal
from broker.passage import Passage
from tests.support.services import CANARY, World, raw, refund, until

MASK = b"[keybroker:masked]"
Headers = list[tuple[str, str]]
TEXT: Headers = [("content-type", "text/plain")]


async def passage_of(world: World, method: str = "GET", host: str = "api.stripe.com") -> Passage:
    """An allowed call; with another host than the credential's, one without a credential."""
    passage = await world.pipeline().handle(world.client(), raw(method, host=host), asyncio.Event())
    assert isinstance(passage, Passage)
    return passage


async def sent(world: World) -> Passage:
    return await passage_of(world)


async def plain(world: World) -> Passage:
    return await passage_of(world, host="open.example")


def result(world: World) -> dict[str, Any]:
    [record] = world.records("call.completed", "call.failed", "call.unknown")
    return record


async def test_what_came_and_what_was_delivered_are_committed_to(world: World) -> None:
    passage = await sent(world)
    passage.head(200, "OK", TEXT)
    whole = f"key={CANARY};".encode()
    out = b"".join(passage.feed(whole[at : at + 3]) for at in range(0, len(whole), 3))
    out += passage.finish()
    await passage.completed()
    assert out == b"key=" + MASK + b";"
    done = result(world)
    [(salt,)] = world.rows("SELECT salt FROM ledger_salts WHERE subject = ?", passage.call)
    assert done["type"] == "call.completed"
    assert done["received"] == commit(salt, "received", whole)
    assert done["delivered"] == commit(salt, "delivered", out)
    assert (done["received_size"], done["delivered_size"]) == (len(whole), len(out))
    assert (done["status"], done["masked"]) == (200, 1)
    assert 0 <= done["first_byte_ms"] <= done["duration_ms"]


async def test_an_upstream_cannot_speak_as_keybroker(world: World) -> None:
    for passage in (await sent(world), await plain(world)):
        head = passage.head(
            200, "OK", [("Keybroker-Code", "ok"), ("keybroker-request-id", "c-x"), ("a", "b")]
        )
        assert [h for h in head.headers if h[0].lower().startswith("keybroker-")] == [
            ("keybroker-request-id", passage.call)
        ]
        await passage.completed()


@pytest.mark.parametrize("encoding", ["dcb", "zstd, lz4", "gzip, x", "x" * 100, CANARY])
async def test_an_encoding_that_cannot_be_looked_into_is_refused(
    world: World, encoding: str
) -> None:
    passage = await sent(world)
    head = passage.head(200, "OK", [("content-encoding", encoding)])
    assert isinstance(head.answer, Answer)
    document = json.loads(head.answer.body)
    assert (head.answer.status, document["code"]) == (502, "response_refused")
    assert "in which a reflected credential could not be masked" in document["detail"]
    assert encoding not in document["detail"]
    assert passage.feed(b"secret") + passage.finish() == b""
    await passage.completed()
    failed = result(world)
    assert (failed["type"], failed["code"], failed["sent"]) == (
        "call.failed",
        "response_refused",
        True,
    )


@pytest.mark.parametrize("where", ["middle", "end"])
async def test_a_corrupt_body_breaks_off_and_is_a_failure(world: World, where: str) -> None:
    passage = await sent(world)
    passage.head(200, "OK", [*TEXT, ("content-encoding", "gzip")])
    assert not passage.refused
    if where == "end":
        passage.feed(gzip.compress(b"x" * 1000)[:-9])
    break_off = passage.finish if where == "end" else lambda: passage.feed(b"no gzip at all")
    with pytest.raises(Refusal, match="The response could not be read") as refused:
        break_off()
    assert refused.value.code == "response_refused"
    assert passage.refused
    assert passage.feed(b"more") == passage.finish() == b""
    await passage.completed()
    assert (result(world)["type"], result(world)["sent"]) == ("call.failed", True)


@pytest.mark.parametrize(
    ("was_sent", "words"),
    [
        (True, "The request may have taken effect: look before you repeat it."),
        (False, "Nothing was sent; you can try again."),
    ],
)
async def test_a_failure_says_whether_anything_left(
    world: World, was_sent: bool, words: str
) -> None:
    passage = await sent(world)
    answer = await passage.failed(f"reset after {CANARY}. ", sent=was_sent)
    document = json.loads(answer.body)
    assert (answer.status, document["code"]) == (502, "upstream_unreachable")
    assert document["detail"] == f"reset after [keybroker:masked]. {words}"
    assert document["request_id"] == passage.call
    assert dict(answer.headers).get("x-should-retry") == ("false" if was_sent else None)
    assert (result(world)["sent"], result(world)["code"]) == (was_sent, "upstream_unreachable")


async def test_the_first_result_counts(world: World) -> None:
    passage = await sent(world)
    passage.head(200, "OK", TEXT)
    passage.finish()
    await passage.completed()
    await passage.completed()
    answer = await passage.failed("too late", sent=True)
    assert answer.status == 502
    assert result(world)["type"] == "call.completed"


async def test_a_failure_in_the_middle_of_the_body_is_no_completion(world: World) -> None:
    passage = await sent(world)
    passage.head(200, "OK", TEXT)
    passage.feed(b"half")
    await passage.failed("the connection broke", sent=True)
    await passage.completed()
    assert result(world)["type"] == "call.failed"


async def test_a_result_that_cannot_be_recorded_is_logged_and_found_by_recovery(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    other = world.open()
    passage = await world.pipeline(other).handle(world.client(), raw(), asyncio.Event())
    assert isinstance(passage, Passage)
    other.store._journal.close()
    passage.head(200, "OK", TEXT)
    passage.finish()
    await passage.completed()
    assert f"the result of {passage.call} could not be recorded" in caplog.text
    assert world.services.recover("w1") == 1
    assert result(world)["type"] == "call.unknown"


async def test_an_approved_calls_passage_decides_over_its_approval(world: World) -> None:
    client = world.client()
    waiting = asyncio.create_task(world.pipeline().handle(client, refund(), asyncio.Event()))
    [approval] = await until(world.pending)
    world.vote(approval)
    passage = await waiting
    assert isinstance(passage, Passage)
    await passage.failed("refused", sent=False)
    assert world.services.holds.get(approval).state == "approved"


async def test_a_passage_does_not_show_the_secret(world: World) -> None:
    passage = await sent(world)
    for shown in (repr(passage), str(passage), f"{passage}", repr(passage.request)):
        assert CANARY not in shown
    assert passage.call in repr(passage)
    await passage.completed()


async def test_trailers_are_masked_and_committed_to(world: World) -> None:
    passage = await sent(world)
    passage.head(200, "OK", TEXT)
    passage.feed(b"body")
    passage.finish()
    came = (("x-echo", CANARY), ("Content-Length", "9"), ("x-plain", "1"), ("keybroker-code", "x"),
            (f"x-{CANARY}", "1"))  # fmt: skip
    kept = passage.trailers(came, deliver=True)
    assert kept == (("x-echo", MASK.decode()), ("x-plain", "1"))
    await passage.completed()
    [(salt,)] = world.rows("SELECT salt FROM ledger_salts WHERE subject = ?", passage.call)
    done = result(world)
    lines = "".join(f"\r\n{name}: {value}" for name, value in came)
    assert done["received"] == commit(salt, "received", f"body{lines}".encode())
    assert done["delivered"] == commit(
        salt, "delivered", b"body\r\nx-echo: " + MASK + b"\r\nx-plain: 1"
    )


async def test_trailers_for_an_agent_that_takes_none_are_only_committed_to(world: World) -> None:
    passage = await plain(world)
    passage.head(200, "OK", TEXT)
    passage.finish()
    assert passage.trailers((("x-a", "1"),), deliver=False) == ()


async def test_a_response_that_swells_beyond_measure_breaks_off(world: World) -> None:
    """All that one chunk becomes is decoded at once: a few bytes must not become gigabytes."""
    passage = await sent(world)
    passage.head(200, "OK", [*TEXT, ("content-encoding", "br")])
    bomb = brotli.compress(bytes(64 << 20))
    assert len(bomb) < 1000
    with pytest.raises(Refusal, match="swells"):
        passage.feed(bomb)
    assert passage.refused
    await passage.completed()
    done = result(world)
    assert (done["type"], done["code"]) == ("call.failed", "response_refused")
