"""What is counted, and that a snapshot stays as it was taken."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.secrets.health import BUCKETS, Meter

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_duration_falls_into_the_first_bucket_that_holds_it() -> None:
    meter = Meter()
    for seconds in (0.0, 0.001, 0.0011, 0.3, 99.0):
        meter.took(seconds)
    latency = meter.latency
    assert latency.count == 5
    assert latency.total == pytest.approx(99.3021)
    filled = {index for index, count in enumerate(latency.counts) if count}
    assert filled == {0, 1, BUCKETS.index(0.5), len(BUCKETS)}
    meter.took(1.0)
    assert latency.count == 5


def test_failures_are_counted_by_kind_and_the_last_is_kept() -> None:
    meter = Meter()
    meter.failed("timeout", NOW)
    meter.failed("sealed", NOW)
    meter.failed("timeout", NOW)
    assert meter.failures == {"timeout": 2, "sealed": 1}
    assert (meter.last_error, meter.last_error_at) == ("timeout", NOW)
