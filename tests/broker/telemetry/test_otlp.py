"""The exporter against real receivers: what arrives, and what never gets in a call's way."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import certifi
import pytest

from broker.errors import InvalidInput
from broker.telemetry import otlp
from broker.telemetry.otlp import BATCH, MOST_WAITING, Exporter, encode, read_headers
from broker.telemetry.traces import CLIENT, Span
from tests.support.collector import Collector
from tests.support.program import wait_until

SPAN = Span(
    "a" * 32, "b" * 16, "c" * 16, "keybroker.fetch", CLIENT, 1_785_000_000_123_456_789,
    1_785_000_000_223_456_789, (("n", 7), ("s", "x"), ("l", ("p", "q"))), (("d" * 32, "e" * 16),),
    failed=True,
)  # fmt: skip


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made
        made.shutdown()


class Sending:
    """An exporter, and what it told of its spans."""

    def __init__(self, url: str, headers_file: Path | None = None) -> None:
        self.told: Counter[str] = Counter()
        self.exporter = Exporter(
            url,
            roots=certifi.where(),
            resource={"service.name": "keybroker"},
            headers_file=headers_file,
            tell=lambda result, count: self.told.update({result: count}),
            every=0.02,
        )


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxies are not for these; one that is there would be noticed."""
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")


def test_the_encoding_is_that_of_otlp() -> None:
    """https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding"""
    document = json.loads(encode([SPAN], {"service.name": "keybroker"}))
    [resource] = document["resourceSpans"]
    assert resource["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "keybroker"}}
    ]
    [span] = resource["scopeSpans"][0]["spans"]
    assert span == {
        "traceId": "a" * 32,
        "spanId": "b" * 16,
        "parentSpanId": "c" * 16,
        "name": "keybroker.fetch",
        "kind": 3,
        "startTimeUnixNano": "1785000000123456789",
        "endTimeUnixNano": "1785000000223456789",
        "attributes": [
            {"key": "n", "value": {"intValue": "7"}},
            {"key": "s", "value": {"stringValue": "x"}},
            {
                "key": "l",
                "value": {"arrayValue": {"values": [{"stringValue": "p"}, {"stringValue": "q"}]}},
            },
        ],
        "links": [{"traceId": "d" * 32, "spanId": "e" * 16}],
        "status": {"code": 2},
    }


def test_spans_arrive_with_the_headers_of_the_file(collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer first\n\nX-Tenant:  a b\n")
    sending = Sending(collector.url, file)
    sending.exporter.emit([SPAN])
    wait_until(lambda: len(collector.got) == 1, what="the first arrives")
    file.write_text("Authorization: Bearer second\n")  # renewed
    sending.exporter.emit([SPAN])
    sending.exporter.close()
    (path, first, _), (_, second, _) = collector.got
    assert path == "/v1/traces" and first["Content-Type"] == "application/json"
    assert (first["Authorization"], first["X-Tenant"]) == ("Bearer first", "a b")
    assert second["Authorization"] == "Bearer second"
    assert sending.told == {"exported": 2}


def test_what_waits_at_the_end_is_sent_in_batches(collector: Collector) -> None:
    sending = Sending(collector.url)
    sending.exporter.emit([SPAN] * (BATCH + 1))
    sending.exporter.close()
    assert len(collector.spans()) == BATCH + 1 and len(collector.got) == 2


@pytest.mark.parametrize("status", [400, 429, 503, 307])
def test_a_collector_that_refuses_is_said_once_and_then_well_again(
    collector: Collector, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = status
    sending = Sending(collector.url)
    with caplog.at_level(logging.WARNING):
        for count in (1, 2):
            sending.exporter.emit([SPAN])
            wait_until(lambda count=count: sending.told["failed"] == count, what="it fails")  # type: ignore[misc]
        collector.status = 200
        sending.exporter.emit([SPAN])
        wait_until(lambda: sending.told["exported"] == 1, what="it is well again")
        sending.exporter.close()
    assert [r.getMessage() for r in caplog.records] == [
        f"traces are not exported: it answers {status}", "traces are exported again",
    ]  # fmt: skip
    assert len(collector.got) == 3  # no redirect was followed, nothing was sent twice


def test_a_collector_that_hangs_or_is_gone_costs_the_callers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue is bounded: what is too much is dropped, at once."""
    monkeypatch.setattr(otlp, "TIMEOUT", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        sending = Sending(f"http://127.0.0.1:{mute.getsockname()[1]}/")
        for _ in range(3 * MOST_WAITING):
            sending.exporter.emit([SPAN])
        assert sending.told["dropped"] >= MOST_WAITING
        wait_until(lambda: sending.told["failed"] > 0, what="the first batch is given up")
        sending.exporter.close()
    assert sending.told["exported"] == 0


def test_headers_that_cannot_be_used_are_said_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_headers(file)
    for text in ("no colon sk_live_canary", "a b: x", "X: \x07", ": x"):
        file.write_text(f"Good: 1\n{text}\n")
        with pytest.raises(InvalidInput, match=r"headers:2: write `Name: value`") as caught:
            Sending("http://127.0.0.1:1/", file)
        assert "canary" not in str(caught.value)


def test_headers_that_go_bad_later_stop_nothing(collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("X: 1\n")
    sending = Sending(collector.url, file)
    file.write_text("sk_live_canary\n")
    sending.exporter.emit([SPAN])
    wait_until(lambda: sending.told["failed"] == 1, what="it fails")
    file.write_text("X: 2\n")
    sending.exporter.emit([SPAN])
    wait_until(lambda: sending.told["exported"] == 1, what="it is well again")
    sending.exporter.close()
