"""The list of metrics: stable, well named, bounded."""

from __future__ import annotations

import itertools
import re

from broker.telemetry import metrics
from broker.telemetry.metrics import CELLS, COUNTED, METRICS, PLACES


def test_names_are_prometheus_names_with_units_and_no_family_is_there_twice() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"keybroker_[a-z]+(_[a-z]+)*", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds") and list(metric.buckets) == sorted(
                metric.buckets
            )


def test_no_label_can_be_filled_by_an_agent_an_upstream_or_a_request() -> None:
    """Every label, spelt out: a new one has to be thought about here."""
    assert {label for metric in METRICS for label in metric.labels} == {
        "outcome", "code", "stage", "class", "body", "result", "risk", "type", "state", "check",
        "version", "python", "process", "decided", "shadow",
    }  # fmt: skip
    counted = sum(len(metric.values) for metric in COUNTED)
    assert counted < 120
    assert all(("",) not in metric.values for metric in COUNTED)


def test_cells_do_not_overlap() -> None:
    taken = [PLACES[m] + i for m in COUNTED for i in range(m.size)]
    assert sorted(taken) == list(range(CELLS))


def test_every_stage_is_a_stage_of_the_metric() -> None:
    assert set(itertools.chain.from_iterable(metrics.STAGE_DURATION.values)) == set(metrics.STAGES)
