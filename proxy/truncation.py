"""An end that an upstream did not mean, in the full engine: TLS that TCP ended first, and resets.

Anybody on the way can close TCP, so a body that lasts as long as its connection is whole only if
TLS said so (close_notify; RFC 9112 9.8, RFC 8446 6.1). The express lane knows by `Secure.finished`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from mitmproxy.proxy import commands, events, layers

Commands = Generator[commands.Command, Any, None]


class CutOff(events.ConnectionClosed):
    """Nothing more will come, and what came may not be all of it."""


class UpstreamTls(layers.ServerTLSLayer):
    """TLS to an upstream, as stock, which tells every end alike, and none behind an alert."""

    _ended = False

    def event_to_child(self, event: events.Event) -> Commands:
        if isinstance(event, events.ConnectionClosed) and event.connection is self.conn:
            self._ended = True
        yield from super().event_to_child(event)

    def receive_close(self) -> Commands:
        if not self._ended:
            yield from self.event_to_child(CutOff(self.conn))
