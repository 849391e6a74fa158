"""Journeys over the real pipeline: every end of a call is told once, with what led to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from broker.errors import Refusal, SecretUnavailable
from broker.parts import Limits
from broker.passage import Passage
from broker.pipeline import Pipeline
from rules.request import RawRequest
from tests.support.services import CANARY, World, complete, internal, payout, raw, refund, until


async def walk(world: World, wire: RawRequest, **limits: Any) -> Any:
    return await world.pipeline(**limits).handle(world.client(), wire, asyncio.Event())


def the_journey(world: World) -> tuple[str, str, int, list[str]]:
    (journey,) = world.journeys
    return journey.outcome, journey.code, journey.status, [name for name, *_ in journey.stages]


async def test_a_completed_call(world: World) -> None:
    passage = await walk(world, raw(body=b"12"))
    assert world.journeys == []  # it goes on until the response is over
    await complete(passage, f"Bearer {CANARY}".encode(), status=201)
    assert the_journey(world) == (
        "completed", "none", 201, ["decide", "route", "fetch", "commit", "upstream", "deliver"],
    )  # fmt: skip
    (journey,) = world.journeys
    assert (journey.agent, journey.rules, journey.policy) == ("bot", ("read",), 1)
    assert journey.call == passage.call and journey.masked >= 1
    assert journey.sent == 2 and journey.received != journey.delivered
    await passage.failed("again", sent=True)
    assert len(world.journeys) == 1


async def test_a_held_call(world: World) -> None:
    task = asyncio.create_task(walk(world, refund()))
    [approval] = await until(world.pending)
    world.vote(approval)
    await complete(await task)
    outcome, _, _, stages = the_journey(world)
    assert outcome == "completed" and stages[:2] == ["decide", "hold"]
    assert world.journeys[0].approval == approval


def no_secret(world: World) -> None:
    world.secrets.fail()


def no_address(world: World) -> None:
    world.egress.error = Refusal("egress_refused", "not there")


def nothing(world: World) -> None: ...


@pytest.mark.parametrize(
    ("prepare", "wire", "outcome", "code", "status"),
    [
        (nothing, raw("DELETE"), "denied", "policy_denied", 403),
        (nothing, raw(path="/a%zz"), "denied", "request_ambiguous", 400),
        (nothing, raw(body=b"x" * 1001), "denied", "body_too_large", 413),
        (nothing, payout(), "pending", "approval_pending", 503),
        (no_secret, raw(), "denied", "secret_unavailable", 502),
        (no_address, raw(), "denied", "egress_refused", 403),
        (nothing, internal("GET", "/v1/whoami"), "answered", "none", 200),
    ],
)
async def test_every_answer_of_our_own_ends_it(
    world: World,
    prepare: Callable[[World], None],
    wire: RawRequest,
    outcome: str,
    code: str,
    status: int,
) -> None:
    prepare(world)
    await walk(world, wire, hold_wait=0)
    assert the_journey(world)[:3] == (outcome, code, status)


async def test_a_call_whose_upstream_failed(world: World) -> None:
    passage = await walk(world, raw(body=b"123"))
    assert isinstance(passage, Passage)
    await passage.failed("No connection could be made.", sent=False)
    assert the_journey(world)[:3] == ("failed", "upstream_unreachable", 502)
    assert world.journeys[0].sent == 0  # no byte left


async def test_a_call_that_is_cancelled(world: World) -> None:
    task = asyncio.create_task(walk(world, refund()))
    await until(world.pending)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert the_journey(world)[:2] == ("abandoned", "none")


async def test_a_call_whose_agent_left_while_people_were_asked(world: World) -> None:
    gone = asyncio.Event()
    task = asyncio.create_task(world.pipeline(hold_wait=60).handle(world.client(), refund(), gone))
    await until(world.pending)
    gone.set()
    await asyncio.wait_for(task, 10)
    journey = the_journey(world)
    assert journey[:2] == ("abandoned", "none")
    assert world.journeys[0].approval is not None


def test_a_stranger(world: World) -> None:
    world.pipeline().refusal_answer(Refusal("agent_unauthenticated", "who?"))
    assert the_journey(world)[:3] == ("denied", "agent_unauthenticated", 407)


async def test_reading_a_secret_is_timed_by_how_it_went(world: World) -> None:
    seen: list[str] = []
    world.meters.vault_duration = type(  # type: ignore[assignment]
        "Seen", (), {"observe": staticmethod(lambda _, result: seen.append(result))}
    )()
    await walk(world, raw())
    world.secrets.fail()
    await walk(world, raw())
    world.secrets.error, world.secrets.delay = None, 1.0
    await walk(world, raw(), stage=0.05)
    world.secrets.error, world.secrets.delay = SecretUnavailable("it is slow", late=True), 0.0
    await walk(world, raw())
    assert seen == ["ok", "failed", "timeout", "timeout"]


async def test_waiting_calls_are_counted_while_they_wait(world: World) -> None:
    counts: list[float] = []
    world.meters.calls_held = type(  # type: ignore[assignment]
        "Seen", (), {"add": staticmethod(lambda by=1.0: counts.append(by))}
    )()
    await walk(world, refund(), hold_wait=0)
    assert counts == [1.0, -1]


async def test_a_listener_that_fails_changes_nothing_for_the_agent(world: World) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    pipeline = Pipeline(replace(world.parts(), listeners=(fail,)), Limits())
    passage = await pipeline.handle(world.client(), raw(), asyncio.Event())
    assert isinstance(passage, Passage)
    assert await complete(passage) == b"ok"
