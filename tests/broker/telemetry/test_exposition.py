"""The text format, read back by the parser of Prometheus's own Python client."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from broker.telemetry import metrics
from broker.telemetry.exposition import family, gauge, render
from broker.telemetry.meters import Meters
from broker.telemetry.metrics import COUNTED, PLACES


def test_everything_counted_can_be_parsed() -> None:
    cells = memoryview(bytearray(metrics.CELLS * 8)).cast("d")
    meters = Meters(cells)
    meters.calls.add("denied", "policy_denied", by=3)
    for seconds in (0.004, 0.3, 1000.0):
        meters.call_duration.observe(seconds)
    row = cells.tolist()
    text = render(family(m, row[PLACES[m] : PLACES[m] + m.size]) for m in COUNTED)
    found = {f.name: f for f in parse(text)}
    assert {m.name.removesuffix("_total") for m in COUNTED} == set(found)
    (denied,) = (s for s in found["keybroker_calls"].samples if s.value)
    assert denied.labels == {"outcome": "denied", "code": "policy_denied"} and denied.value == 3
    samples = found["keybroker_call_duration_seconds"].samples
    below = {s.labels["le"]: s.value for s in samples if s.name.endswith("_bucket")}
    assert (below["0.005"], below["0.5"], below["300.0"], below["+Inf"]) == (1, 2, 2, 3)
    assert list(below.values()) == sorted(below.values())
    assert [s.value for s in samples if s.name.endswith("_count")] == [3]
    assert [s.value for s in samples if s.name.endswith("_sum")] == [pytest.approx(1000.304)]


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", 'x"} 1\nkeybroker_fake 7\n', "ü\u2028"])
def test_a_value_stays_in_its_quotes(value: str) -> None:
    text = render([gauge(metrics.PENDING, {(value,): 2.0})])
    (only,) = parse(text)
    assert [(s.name, s.labels, s.value) for s in only.samples] == [
        ("keybroker_approvals_pending", {"risk": value}, 2.0)
    ]


def test_whole_numbers_are_written_whole() -> None:
    text = render([gauge(metrics.DISK_FREE, {(): 2.0**60}), gauge(metrics.OLDEST, {(): 0.25})])
    assert "keybroker_disk_free_bytes 1152921504606846976\n" in text
    assert "keybroker_approvals_oldest_pending_seconds 0.25\n" in text
