"""What is looked up in the store: the truth, counted once, whoever made it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from broker.telemetry import metrics
from broker.telemetry.board import Board
from broker.telemetry.exposition import Family
from broker.telemetry.lookups import Lookups
from tests.support.services import World, raw


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(2)
    yield made
    made.close()


@pytest.fixture
def lookups(world: World, board: Board) -> Lookups:
    return Lookups(world.services.store, board, clock=world.clock)


def by_metric(families: list[Family]) -> dict[metrics.Metric, dict[tuple[str, ...], list[float]]]:
    return {f.metric: {k: list(v) for k, v in f.cells.items()} for f in families}


async def hold(world: World, path: str = "/v1/refunds") -> str:
    """One held call that nobody waits for; its approval."""
    before = set(world.pending())
    pipeline = world.pipeline(hold_wait=0)
    await pipeline.handle(world.client(), raw("POST", path=path), asyncio.Event())
    (new,) = set(world.pending()) - before
    return new


async def test_held_calls_by_risk_and_the_oldest(world: World, lookups: Lookups) -> None:
    found = by_metric(lookups.stored())
    assert found[metrics.PENDING] == {("medium",): [0.0], ("high",): [0.0]}
    assert found[metrics.OLDEST] == {(): [0.0]}
    await hold(world)
    world.clock.forward(40)
    await hold(world, "/v1/payouts")
    await hold(world, "/v1/both")
    found = by_metric(lookups.stored())
    assert found[metrics.PENDING] == {("medium",): [1.0], ("high",): [1.0], ("both",): [1.0]}
    assert 40 <= found[metrics.OLDEST][()][0] < 41
    assert found[metrics.POLICY_VERSION] == {(): [1.0]}


async def test_decisions_are_timed_from_the_opening_and_counted_once(
    world: World, lookups: Lookups
) -> None:
    first, second = await hold(world), await hold(world, "/v1/payouts")
    world.clock.forward(20)
    world.vote(first)
    lookups.stored()
    world.clock.forward(80_000)
    world.services.holds.expire_due()  # ends `second` undecided, and `first` a second time
    for _ in range(3):
        holds = by_metric(lookups.stored())[metrics.HOLD]
    approved, expired = holds[("approved",)], holds[("expired",)]
    assert approved[metrics.HUMAN.index(30.0)] == 1 and 20 <= approved[-1] < 21
    assert sum(approved[:-1]) == 1 and sum(expired[:-1]) == 1
    assert sum(holds[("denied",)]) == sum(holds[("superseded",)]) == 0
    assert second


async def test_records_are_counted_as_they_come(world: World, lookups: Lookups) -> None:
    def total() -> float:
        return sum(v for (v,) in by_metric(lookups.stored())[metrics.RECORDS].values())

    assert total() == len(world.records())
    await hold(world)
    assert total() == len(world.records())
    fresh = Lookups(world.services.store, lookups._board, clock=world.clock)
    assert (
        by_metric(fresh.stored())[metrics.RECORDS] == by_metric(lookups.stored())[metrics.RECORDS]
    )


def test_what_is_around_needs_no_store(board: Board, lookups: Lookups) -> None:
    board.row("worker-1").accept(True)
    found = by_metric(lookups.around({"vault": None, "disk": "full"}))
    assert found[metrics.WORKERS] == {("configured",): [2.0], ("accepting",): [1.0]}
    assert found[metrics.READY] == {("vault",): [1.0], ("disk",): [0.0]}
    assert found[metrics.VAULT_UP] == {(): [1.0]}
    assert found[metrics.DISK_FREE][()][0] > 0
    assert list(found[metrics.PROCESS_MEMORY]) == [("worker-1",)]
    assert found[metrics.PROCESS_CPU][("worker-1",)][0] > 0
    assert found[metrics.PROCESS_FDS][("worker-1",)][0] > 0
