"""The instruments: exact, bounded, and shared by threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.errors import CODES
from broker.telemetry import metrics
from broker.telemetry.exposition import family
from broker.telemetry.meters import Meters
from broker.telemetry.metrics import CELLS, PLACES


def cells_of(metric: metrics.Metric, cells: memoryview) -> dict[tuple[str, ...], list[float]]:
    row = cells.tolist()[PLACES[metric] : PLACES[metric] + metric.size]
    return {labels: list(values) for labels, values in family(metric, row).cells.items()}


@pytest.fixture
def cells() -> memoryview:
    return memoryview(bytearray(CELLS * 8)).cast("d")


def test_every_refusal_of_the_contract_can_be_counted() -> None:
    meters = Meters()
    for code in CODES:
        meters.calls.add("pending" if code == "approval_pending" else "denied", code)
        if code != "approval_pending":
            meters.calls.add("failed", code)
    for outcome in ("completed", "answered", "abandoned"):
        meters.calls.add(outcome, "none")


def test_an_unknown_value_makes_no_new_series(cells: memoryview) -> None:
    meters = Meters(cells)
    for values in (("completed", "x\ny"), ("denied", "nothing"), ("denied",)):
        with pytest.raises(KeyError):
            meters.calls.add(*values)
    assert not any(cells)


def test_observations_fall_into_their_buckets(cells: memoryview) -> None:
    meters = Meters(cells)
    for seconds in (0.0, 0.0005, 0.0006, 10.0, 11.0):
        meters.ledger_lag.observe(seconds)
    (row,) = cells_of(metrics.LEDGER_LAG, cells).values()
    *buckets, total = row
    assert (buckets[0], buckets[1], buckets[-2], buckets[-1]) == (2, 1, 1, 1)  # `le` is inclusive
    assert sum(buckets) == 5 and total == pytest.approx(21.0011)


def test_threads_lose_nothing(cells: memoryview) -> None:
    meters = Meters(cells)

    def count(_: int) -> None:
        for _ in range(2000):
            meters.connections_total.add()
            meters.ledger_lag.observe(0.001)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))
    assert cells_of(metrics.CONNECTIONS_TOTAL, cells)[()] == [8000.0]
    assert sum(cells_of(metrics.LEDGER_LAG, cells)[()][:-1]) == 8000.0


def test_what_a_dead_process_had_open_is_closed_and_its_counts_stay(cells: memoryview) -> None:
    before = Meters(cells)
    before.opened()
    before.calls_held.add()
    Meters(cells).opened()
    assert cells_of(metrics.CONNECTIONS, cells)[()] == [1.0]
    assert cells_of(metrics.CALLS_HELD, cells)[()] == [0.0]
    assert cells_of(metrics.CONNECTIONS_TOTAL, cells)[()] == [2.0]
