"""An exchange begins with everything refused."""

from __future__ import annotations

import pytest
from mitmproxy.test import tflow

from proxy.exchange import Exchange, Wire, attach, exchange_of


def test_nothing_is_granted_at_the_start() -> None:
    exchange = Exchange(Wire(b"GET", b"", b"", b"/", b"HTTP/1.1"))
    granted = (exchange.cleared, exchange.sent, exchange.answered, exchange.settled)
    assert granted == (False, False, False, False)
    assert exchange.passage is None
    assert not exchange.gone.is_set()
    exchange.on_end()
    assert exchange.backlog() == 0


def test_it_travels_with_its_flow() -> None:
    flow = tflow.tflow()
    with pytest.raises(KeyError):
        exchange_of(flow)
    exchange = Exchange(Wire.of(flow.request))
    attach(flow, exchange)
    assert exchange_of(flow) is exchange
    assert exchange.wire.path == flow.request.data.path
