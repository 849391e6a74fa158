"""An exchange begins with everything refused."""

from __future__ import annotations

import pytest
from mitmproxy.test import tflow

from proxy import pages
from proxy.exchange import Exchange, Wire, attach, exchange_of
from proxy.patience import Timeouts, overdue_sentence


def test_nothing_is_granted_at_the_start() -> None:
    exchange = Exchange(Wire(b"GET", b"", b"", b"/", b"HTTP/1.1"))
    granted = (exchange.cleared, exchange.sent, exchange.answered, exchange.settled)
    assert granted == (False, False, False, False)
    assert exchange.passage is None
    assert not exchange.gone.is_set()
    exchange.on_end()
    assert exchange.backlog() == 0


@pytest.mark.parametrize(
    ("marks", "revoked", "sentence"),
    [
        ("", False, None),
        ("", True, None),
        ("gone", False, pages.GONE_UNSENT),
        ("gone", True, pages.GONE_UNSENT),
        ("sent", False, pages.NOT_HTTP),
        ("sent late", False, overdue_sentence("idle", Timeouts())),
        ("sent answered", False, pages.BROKE_OFF),
        ("sent answered late", False, overdue_sentence("idle", Timeouts())),
        ("sent answered late gone", False, pages.GONE_UNDELIVERED),
        ("sent answered late gone", True, pages.REVOKED),
    ],
)
def test_why_there_is_no_result(marks: str, revoked: bool, sentence: str | None) -> None:
    exchange = Exchange(Wire(b"GET", b"", b"", b"/", b"HTTP/1.1"))
    exchange.sent, exchange.answered = "sent" in marks, "answered" in marks
    exchange.late = "idle" if "late" in marks else None
    if "gone" in marks:
        exchange.gone.set()
    assert exchange.unfinished(Timeouts(), revoked=revoked) == sentence


def test_it_travels_with_its_flow() -> None:
    flow = tflow.tflow()
    with pytest.raises(KeyError):
        exchange_of(flow)
    exchange = Exchange(Wire.of(flow.request))
    attach(flow, exchange)
    assert exchange_of(flow) is exchange
    assert exchange.wire.path == flow.request.data.path
