"""The page of metrics: kept a second, and there when the store is not."""

from __future__ import annotations

from broker.errors import StoreUnavailable
from broker.telemetry.board import Board
from broker.telemetry.exposition import Family
from broker.telemetry.lookups import Lookups
from broker.telemetry.monitor import Monitor
from broker.telemetry.readiness import Readiness
from tests.support.services import World


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Shut(Lookups):
    def stored(self) -> list[Family]:
        raise StoreUnavailable("the store is locked")


async def test_a_page_is_kept_a_second(world: World) -> None:
    board, clock = Board.create(1), Clock()
    meters = board.row("worker-0").meters
    readiness = Readiness({})
    lookups = Lookups(world.services.store, board, clock=world.clock)
    monitor = Monitor(board, lookups, readiness, guarded=True, monotonic=clock)
    assert monitor.guarded and await monitor.checks() == {}
    first = await monitor.metrics()
    meters.masked.add()
    assert await monitor.metrics() == first
    clock.now = 1.0
    assert "keybroker_masked_secrets_total 1\n" in await monitor.metrics()
    readiness.close()
    board.close()


async def test_without_the_store_the_rest_is_still_shown(world: World) -> None:
    board, readiness = Board.create(1), Readiness({"store": lambda: "locked"})
    lookups = Shut(world.services.store, board, clock=world.clock)
    text = await Monitor(board, lookups, readiness, guarded=False).metrics()
    assert 'keybroker_ready{check="store"} 0\n' in text
    assert "keybroker_calls_total{" in text and "keybroker_policy_version" not in text
    readiness.close()
    board.close()
