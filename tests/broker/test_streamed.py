"""Calls that their head decides: sent before their body was read, or read first as ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from audit.commitment import commit
from broker.answers import Answer
from broker.errors import Refusal
from broker.passage import Passage
from broker.pipeline import Pipeline
from rules.request import RawRequest
from tests.support.services import CANARY, POLICY, World, complete, problem_of, raw

RULES = """\
  - id: upload
    agents: [bot]
    match: {method: [PUT, POST], host: api.stripe.com, path: /v1/files/**}
    effect: allow
    body: stream
    body_limit: 1KiB
    use: [stripe]
  - id: held-upload
    agents: [bot]
    match: {method: PUT, host: api.stripe.com, path: /v1/files/held}
    effect: hold
  - id: denied-upload
    agents: [bot]
    match: {method: PUT, host: api.stripe.com, path: /v1/files/denied}
    effect: deny
"""
STREAMING = POLICY + RULES


def head(
    path: str = "/v1/files/a",
    length: int | None = 5,
    *headers: tuple[str, str],
    method: str = "PUT",
) -> RawRequest:
    framing = ("Transfer-Encoding", "chunked")
    if length is not None:
        framing = ("Content-Length", str(length))
    return replace(raw(method, path, headers=(framing, *headers)), unread=True)


@pytest.fixture
def pipeline(world: World) -> Pipeline:
    world.publish(STREAMING)
    return world.pipeline(body=100)


async def begin(world: World, pipeline: Pipeline, wire: RawRequest) -> Passage:
    passage = await pipeline.begin(world.client(), wire)
    assert isinstance(passage, Passage)
    return passage


async def test_a_streamed_calls_body_is_committed_to_with_its_result(
    world: World, pipeline: Pipeline
) -> None:
    passage = await begin(world, pipeline, head())
    assert ("authorization", f"Bearer {CANARY}") in passage.request.headers
    [sent] = world.records("call.sent")
    assert (sent["streamed"], sent["body"], sent["body_size"]) == (True, None, 5)
    passage.send(b"he")
    passage.send(b"llo")
    passage.send(b"")
    await complete(passage)
    [salt] = world.rows("SELECT salt FROM ledger_salts WHERE subject = ?", passage.call)[0]
    [done] = world.records("call.completed")
    assert done["body"] == commit(salt, "body", b"hello")
    assert (done["body_size"], done["body_whole"]) == (5, True)
    world.check()


async def test_a_body_of_any_length_may_follow(world: World, pipeline: Pipeline) -> None:
    passage = await begin(world, pipeline, head(length=None))
    assert world.records("call.sent")[0]["body_size"] is None
    passage.send(b"x" * 1024)
    with pytest.raises(Refusal) as refused:
        passage.send(b"x")
    assert refused.value.code == "body_too_large"
    answer = await passage.failed("it broke", sent=True)
    assert (answer.status, problem_of(answer)["code"]) == (413, "body_too_large")
    [failed] = world.records("call.failed")
    assert (failed["body_size"], failed["body_whole"], failed["sent"]) == (1024, False, True)
    world.check()


async def test_a_body_that_announces_too_much_is_refused_at_once(
    world: World, pipeline: Pipeline
) -> None:
    answer = await pipeline.begin(world.client(), head(length=1025))
    assert isinstance(answer, Answer)
    assert problem_of(answer)["code"] == "body_too_large"
    assert world.records("call.sent", "secret.read") == []
    assert world.records("call.denied")[0]["code"] == "body_too_large"


@pytest.mark.parametrize(
    "wire",
    [
        head("/v1/files/held"),
        head("/v1/files/HELD"),
        head("/v1/files/denied"),
        head("/v1/charges"),
        head("/v1/files/a", 5, ("Content-Type", "application/json")),
        head("/v1/files/a", 5, ("Content-Type", "multipart/form-data; boundary=b")),
        head("/v1/files/../a"),
        head("/v1/files/a", 5, ("X-HTTP-Method-Override", "DELETE")),
        head("/v1/files/a?_method=DELETE"),
        replace(head(), has_trailers=True),
        replace(head(), unread=False),
    ],
)
async def test_whatever_else_needs_the_body_first(
    world: World, pipeline: Pipeline, wire: RawRequest
) -> None:
    assert await pipeline.begin(world.client(), wire) is None
    assert world.records("call.sent", "call.denied", "secret.read", "approval.opened") == []


async def test_nothing_streams_under_a_policy_without_such_a_rule(world: World) -> None:
    assert await world.pipeline().begin(world.client(), head()) is None


async def test_a_revoked_agent_is_answered_when_its_request_is_whole(
    world: World, pipeline: Pipeline
) -> None:
    client = world.client()
    world.services.agents.revoke("bot", by="cli:test")
    assert await pipeline.begin(client, head()) is None
    assert world.records("call.sent") == []


async def test_what_goes_wrong_after_the_decision_is_answered_and_nothing_leaves(
    world: World, pipeline: Pipeline
) -> None:
    world.secrets.fail()
    answer = await pipeline.begin(world.client(), head())
    assert isinstance(answer, Answer)
    assert problem_of(answer)["code"] == "secret_unavailable"
    world.secrets.error = None
    world.egress.error = RuntimeError("odd")
    answer = await pipeline.begin(world.client(), head())
    assert isinstance(answer, Answer)
    assert problem_of(answer)["code"] == "internal_error"
    assert world.records("call.sent") == []


async def test_a_policy_that_changes_meanwhile_has_the_body_read(
    world: World, pipeline: Pipeline
) -> None:
    world.secrets.before = lambda: world.publish(STREAMING.replace("1KiB", "2KiB")) and None
    assert await pipeline.begin(world.client(), head()) is None
    assert world.records("call.sent") == []


async def test_a_request_that_was_read_has_no_parts_to_follow(world: World) -> None:
    passage = await world.pipeline().handle(world.client(), raw(), asyncio.Event())
    assert isinstance(passage, Passage)
    with pytest.raises(RuntimeError, match="in its request"):
        passage.send(b"more")


async def test_trailers_follow_a_streamed_body(world: World, pipeline: Pipeline) -> None:
    passage = await begin(world, pipeline, head(length=None))
    passage.send(b"hello")
    assert passage.send_trailers([(b"X-Sum", b"abc")]) == (("x-sum", "abc"),)
    passage.send(b"")
    await complete(passage)
    [(salt,)] = world.rows("SELECT salt FROM ledger_salts WHERE subject = ?", passage.call)
    [done] = world.records("call.completed")
    assert done["body"] == commit(salt, "body", b"hello\r\nx-sum: abc")
    assert done["body_size"] == 5


@pytest.mark.parametrize("name", [b"Authorization", b"Content-Length", b"accept-encoding", b"x_y"])
async def test_a_trailer_cannot_say_what_the_head_decided(
    world: World, pipeline: Pipeline, name: bytes
) -> None:
    passage = await begin(world, pipeline, head(length=None))
    with pytest.raises(Refusal) as refused:
        passage.send_trailers([(name, b"1")])
    assert refused.value.code == "request_ambiguous"
    answer = await passage.failed("it broke", sent=True)
    assert problem_of(answer)["code"] == "request_ambiguous"
