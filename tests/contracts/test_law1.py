"""Law 1: deny is the starting state. Whichever stage crashes, hangs or answers nonsense, the agent
gets an Answer in time, nothing leaves, and the next call goes as if nothing had been.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from broker import dispatching, judging, pipeline, waiting
from broker.answers import Answer
from broker.parts import Limits, Parts
from broker.passage import Passage
from broker.pipeline import Pipeline
from broker.ports import Route
from broker.secret import Secret, SecretVersion
from rules.model import SecretRef
from rules.request import RawRequest
from tests.support.services import CANARY, World, complete, problem_of, raw, refund, until

pytestmark = pytest.mark.e2e  # real processes and time-outs

STAGE = 0.1
"""Seconds that a stage may take here."""

MODULES = {
    "pipeline": pipeline,
    "judging": judging,
    "waiting": waiting,
    "dispatching": dispatching,
}


class Trouble(Exception):
    """Not one of ours: nobody has thought of it."""


def raising(*_: object, **__: object) -> Any:
    raise Trouble(f"broken near {CANARY}")


def answering(value: object) -> Callable[..., Any]:
    return lambda *_, **__: value


async def forever(*_: object, **__: object) -> Any:
    await asyncio.Event().wait()


def promising(value: object) -> Callable[..., Any]:
    """An awaitable of it."""

    async def promise(*_: object, **__: object) -> object:
        return value

    return promise


async def failing(*_: object, **__: object) -> Any:
    raise Trouble(f"broken near {CANARY}")


def keeping(value: object) -> Callable[..., Any]:
    """A future of it, as changes of the store give them."""

    def keep(*_: object, **__: object) -> Future[object]:
        future: Future[object] = Future()
        future.set_result(value)
        return future

    return keep


def breaking(*_: object, **__: object) -> Future[object]:
    future: Future[object] = Future()
    future.set_exception(Trouble(f"broken near {CANARY}"))
    return future


def never(*_: object, **__: object) -> Future[object]:
    return Future()


class Odd:
    """Something that has every attribute and means nothing."""

    def __getattr__(self, name: str) -> Odd:
        return self

    def __call__(self, *_: object, **__: object) -> Odd:
        return self


NONSENSE: tuple[object, ...] = (None, "allow", b"x" * 16, {}, Odd())
Troubles = dict[str, list[Callable[..., Any]]]

SYNC: Troubles = {
    "raises": [raising],
    "answers nonsense": [answering(value) for value in NONSENSE],
}
AWAITED: Troubles = {
    "raises": [raising, failing],
    "hangs": [forever],
    "answers nonsense": [answering(None), *map(promising, NONSENSE)],
}
STORED: Troubles = {
    "raises": [raising, breaking],
    "hangs": [never],
    "answers nonsense": [answering(None), *map(keeping, NONSENSE)],
}
PURE: Troubles = {"raises": [raising], "answers nonsense": [answering(None)]}
CRASHING: Troubles = {"raises": [raising]}


@dataclass(frozen=True)
class Stage:
    """Where trouble is put. `part` is one of the Parts, or a module that uses the name."""

    part: str
    name: str
    troubles: Troubles
    held: bool = False
    """The stage is on the path of held calls only."""


STAGES = [
    Stage("agents", "current", SYNC),
    Stage("pipeline", "canonicalise", SYNC),
    Stage("policies", "current", SYNC),
    Stage("rulebook", "decide_on", SYNC),
    Stage("judging", "place", SYNC),
    Stage("judging", "request_digest", PURE),
    Stage("egress", "check", AWAITED),
    Stage("waiting", "resolve", PURE, held=True),
    Stage("waiting", "make_card", PURE, held=True),
    Stage("holds", "open_or_join", STORED, held=True),
    Stage("holds", "get", SYNC, held=True),
    Stage("holds", "is_due", CRASHING, held=True),
    Stage("holds", "stored", SYNC, held=True),
    Stage("holds", "claim", STORED, held=True),
    Stage("secrets", "read", AWAITED),
    Stage("dispatching", "inject", SYNC),
    Stage("dispatching", "Dispatch", SYNC),
    Stage("sending", "sent", STORED),
    Stage("dispatching", "Passage", CRASHING),
    Stage("parts", "new_id", CRASHING),
]
CASES = [
    pytest.param(stage, trouble, wire, id=f"{stage.part}.{stage.name}-{trouble}-{kind}")
    for stage in STAGES
    for trouble in stage.troubles
    for kind, wire in (("allowed", raw()), ("held", refund()))
    if kind == "held" or not stage.held
]


class Wrapped:
    """A part with one of its attributes replaced."""

    def __init__(self, part: object, name: str, value: object) -> None:
        self.__dict__.update(_part=part, _name=name, _value=value)

    def __getattr__(self, name: str) -> Any:
        return self._value if name == self._name else getattr(self._part, name)


def spoilt(world: World, stage: Stage, trouble: Callable[..., Any]) -> Parts:
    """The parts with trouble at the stage."""
    parts = world.parts()
    if stage.part == "parts":
        return replace(parts, **{stage.name: trouble})
    if stage.part == "rulebook":
        published = world.services.policies.current()
        assert published is not None
        book = replace(published, rulebook=Wrapped(published.rulebook, stage.name, trouble))
        return replace(parts, policies=Wrapped(parts.policies, "current", lambda: book))
    part = Wrapped(getattr(parts, stage.part), stage.name, trouble)
    return replace(parts, **{stage.part: part})


@contextmanager
def trouble_at(
    world: World, stage: Stage, trouble: Callable[..., Any], patch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    limits = Limits(hold_wait=5, stage=STAGE, body=1000)
    if stage.part not in MODULES:
        yield Pipeline(spoilt(world, stage, trouble), limits)
        return
    with patch.context() as patched:
        patched.setattr(MODULES[stage.part], stage.name, trouble)
        yield Pipeline(world.parts(), limits)


def has_left(world: World) -> list[str]:
    """Calls that the ledger has as sent and not as certainly unsent."""
    unsent = {r["call"] for r in world.records("call.failed") if r["sent"] is False}
    return [r["call"] for r in world.records("call.sent") if r["call"] not in unsent]


async def approve_all(world: World) -> None:
    """A reviewer who approves whatever comes."""
    while True:
        for approval in world.pending():
            world.vote(approval)
        await asyncio.sleep(0.01)


CODES = {
    "agent_unauthenticated",
    "internal_error",
    "ledger_unavailable",
    "policy_denied",
    "secret_unavailable",
    "upstream_unreachable",
}


@pytest.mark.parametrize(("stage", "trouble", "wire"), CASES)
async def test_nothing_leaves_whatever_goes_wrong(
    world: World, monkeypatch: pytest.MonkeyPatch, stage: Stage, trouble: str, wire: RawRequest
) -> None:
    client = world.client()
    reviewer = asyncio.create_task(approve_all(world))
    try:
        for number, spoil in enumerate(stage.troubles[trouble]):
            left = has_left(world)
            with trouble_at(world, stage, spoil, monkeypatch) as spoilt_one:
                async with asyncio.timeout(20 * STAGE):
                    outcome = await spoilt_one.handle(client, wire, asyncio.Event())
            assert isinstance(outcome, Answer), f"a Passage came out of trouble {number}"
            document = problem_of(outcome)
            assert document["code"] in CODES
            assert outcome.status >= 400
            assert CANARY not in outcome.body.decode()
            await until(lambda: world.rows("SELECT * FROM inflight") == [])
            assert has_left(world) == left
            assert spoilt_one.waiting_room.waiting == {}
        # And nothing is stuck: the next call goes.
        async with asyncio.timeout(5):
            passage = await world.pipeline(stage=5).handle(client, wire, asyncio.Event())
        assert isinstance(passage, Passage), passage
        await complete(passage)
        assert has_left(world) == [passage.call]
    finally:
        reviewer.cancel()
        await asyncio.gather(reviewer, return_exceptions=True)


async def anothers(world: World) -> dict[tuple[str, str], Callable[..., Any]]:
    """For each port an answer of the right kind, about something else."""
    agent, token = world.services.agents.add("second", by="cli:test")
    patient = world.pipeline(hold_wait=0)
    await patient.handle(world.client("second", token), refund(), asyncio.Event())
    [approval] = world.pending()
    held = world.services.holds.get(approval)
    stripe = SecretRef("kv", "other", "api_key")
    return {
        ("agents", "current"): answering(agent),
        ("egress", "check"): promising(Route("evil.example", 443, ("203.0.113.9",))),
        ("secrets", "read"): promising(SecretVersion(stripe, 1, Secret("another"))),
        ("holds", "open_or_join"): keeping(held),
        ("holds", "claim"): keeping(replace(held, state="executing")),
    }


@pytest.mark.parametrize(
    "port",
    [
        ("agents", "current"),
        ("egress", "check"),
        ("secrets", "read"),
        ("holds", "open_or_join"),
        ("holds", "claim"),
    ],
    ids=".".join,
)
async def test_an_answer_about_something_else_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch, port: tuple[str, str]
) -> None:
    spoil = (await anothers(world))[port]
    client = world.client()
    reviewer = asyncio.create_task(approve_all(world))
    try:
        with trouble_at(world, Stage(*port, {}), spoil, monkeypatch) as pipeline:
            async with asyncio.timeout(20 * STAGE):
                outcome = await pipeline.handle(client, refund(), asyncio.Event())
    finally:
        reviewer.cancel()
        await asyncio.gather(reviewer, return_exceptions=True)
    assert problem_of(outcome)["code"] == "internal_error"
    assert world.records("call.sent") == []


@pytest.mark.parametrize("trouble", AWAITED)
async def test_a_wait_that_goes_wrong_denies_or_goes_on_looking(world: World, trouble: str) -> None:
    """The wait for people is no gate: when it ends early or not at all, the store is looked at."""
    parts = world.parts()
    for spoil in AWAITED[trouble]:
        changes = Wrapped(parts.changes, "wait_for", spoil)
        pipeline = Pipeline(replace(parts, changes=changes), Limits(hold_wait=0.05, stage=STAGE))
        async with asyncio.timeout(20 * STAGE):
            outcome = await pipeline.handle(world.client(), refund(), asyncio.Event())
        assert problem_of(outcome)["code"] in {"approval_pending", "internal_error"}
    assert has_left(world) == []
    [approval] = world.pending()
    assert world.services.holds.get(approval).votes == ()


SYNC_STAGES = [
    stage
    for stage in STAGES
    if stage.troubles is SYNC and not stage.held and stage.name not in ("Dispatch", "inject")
]


@pytest.mark.parametrize("stage", SYNC_STAGES, ids=lambda stage: stage.name)
def test_nothing_leaves_while_a_stage_without_a_time_out_hangs(
    world: World, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """Such a stage computes and does not wait, so nothing cuts it off; but nothing passes it."""
    stuck, go_on = threading.Event(), threading.Event()

    def hangs(*_: object, **__: object) -> Any:
        stuck.set()
        assert go_on.wait(10)
        raise Trouble("after a while")

    client, outcomes = world.client(), []
    with trouble_at(world, stage, hangs, monkeypatch) as pipeline:

        def handle() -> None:
            outcomes.append(asyncio.run(pipeline.handle(client, raw(), asyncio.Event())))

        thread = threading.Thread(target=handle)
        thread.start()
        try:
            assert stuck.wait(10)
            time.sleep(0.05)
            assert not outcomes
            assert world.records("call.sent") == []
        finally:
            go_on.set()
            thread.join()
    assert [problem_of(outcome)["code"] for outcome in outcomes] == ["internal_error"]
    assert has_left(world) == []


async def test_when_even_the_refusal_cannot_be_recorded_the_answer_says_so(world: World) -> None:
    parts = world.parts()
    for trouble in (spoil for spoils in STORED.values() for spoil in spoils):
        sending = Wrapped(parts.sending, "denied", trouble)
        pipeline = Pipeline(replace(parts, sending=sending), Limits(stage=STAGE))
        async with asyncio.timeout(20 * STAGE):
            outcome = await pipeline.handle(world.client(), raw("DELETE"), asyncio.Event())
        assert problem_of(outcome)["code"] in {"ledger_unavailable", "policy_denied"}
    assert has_left(world) == []


async def test_a_notifier_in_trouble_is_no_ones_concern(world: World) -> None:
    parts = world.parts()
    notifier = Wrapped(parts.notifier, "opened", raising)
    pipeline = Pipeline(replace(parts, notifier=notifier), Limits(hold_wait=0, stage=STAGE))
    outcome = await pipeline.handle(world.client(), refund(), asyncio.Event())
    assert problem_of(outcome)["code"] == "approval_pending"
