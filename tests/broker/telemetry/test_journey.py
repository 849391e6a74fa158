"""A call's journey: told once, to all, and never in the way."""

from __future__ import annotations

import logging

import pytest

from broker.telemetry import metrics
from broker.telemetry.journey import Journey, counted
from broker.telemetry.meters import Meters
from broker.telemetry.metrics import CELLS, PLACES


def test_it_ends_once_and_everybody_is_told() -> None:
    told: list[str] = []
    listeners = [lambda j: told.append(j.code), lambda j: told.append(j.outcome)]
    journey = Journey("c-1", "bot", listeners)
    journey.end("denied", "policy_denied", 403)
    journey.end("completed")
    assert told == ["policy_denied", "denied"]
    assert journey.ended >= journey.began > 0 and journey.status == 403


def test_a_listener_that_fails_hinders_neither_the_call_nor_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []

    def fail(_: Journey) -> None:
        raise RuntimeError("sk_live_canary")

    with caplog.at_level(logging.ERROR):
        Journey("c-1", "bot", [fail, lambda j: told.append(j.call)]).end("completed")
    assert told == ["c-1"]
    assert "RuntimeError" in caplog.text and "canary" not in caplog.text


def test_stages_are_noted_with_how_they_went() -> None:
    journey = Journey("c-1", "bot")
    with journey.stage("decide"):
        pass
    with pytest.raises(TimeoutError), journey.stage("fetch"):
        raise TimeoutError
    assert [(name, well) for name, _, _, well in journey.stages] == [
        ("decide", True), ("fetch", False),
    ]  # fmt: skip
    assert all(end >= begin for _, begin, end, _ in journey.stages)


def test_a_journey_is_counted() -> None:
    cells = memoryview(bytearray(CELLS * 8)).cast("d")
    journey = Journey("c-1", "bot", [counted(Meters(cells))])
    with journey.stage("commit"):
        pass
    journey.sent, journey.received, journey.delivered, journey.masked = 3, 5, 7, 2
    journey.end("completed", status=404)

    def at(metric: metrics.Metric, *values: str) -> float:
        return cells[PLACES[metric] + metric.values.index(values) * metric.width]

    assert at(metrics.CALLS, "completed", "none") == 1
    assert [at(metrics.BYTES, b) for b in ("request", "received", "delivered")] == [3, 5, 7]
    assert at(metrics.RESPONSES, "4xx") == 1 and at(metrics.MASKED) == 2
    first = PLACES[metrics.STAGE_DURATION] + metrics.STAGES.index("commit") * 16
    assert sum(cells[first : first + 15]) == 1


@pytest.mark.parametrize("status", [0, 99, 600, 1000])
def test_an_odd_status_is_another_one(status: int) -> None:
    cells = memoryview(bytearray(CELLS * 8)).cast("d")
    Journey("c-1", "bot", [counted(Meters(cells))]).end("completed", status=status)
    place = PLACES[metrics.RESPONSES] + metrics.RESPONSES.values.index(("other",))
    assert cells[place] == 1
