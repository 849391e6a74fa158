"""HTTP/2 as mitmproxy speaks it, where that is not enough. Put in by `proxy.compat.install`.

Stock opens every window as far as it goes and gives back at once what arrived: an agent could fill
the memory with one upload. Here a streamed body's window opens as the upstream takes the body.
Stock lets an agent open and reset streams without end, each of which begins a decision; and it
breaks off every call when an upstream says that it will take no more.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator
from typing import Any

import h2.errors
import h2.events
import mitmproxy.proxy.layers.http as http_layers
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _http2, _http_h2
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestData, ResponseProtocolError

Commands = Generator[commands.Command, Any, None]

WINDOW = 1 << 20
"""Bytes of one request's body that an agent may send ahead."""
HIGH_WATER = 1 << 20
"""Bytes of one body that may wait for the upstream's windows."""


MOST_STREAMS = 100
"""At a time, as HTTP/2 agents are told."""
MOST_DECIDING = 3 * MOST_STREAMS
"""Exchanges of one connection that may be there, those included that were reset meanwhile."""
RESETS, RESETS_A_SECOND = 200, 20
"""How many streams an agent may reset at once, and how many more each second."""


class StopSending(HttpEvent):
    """To the agent's side: the rest of the request is of no use to anyone."""


class Drained(HttpEvent):
    """To the agent's side: there may be room for more of the request's body."""


class Http2Server(_http2.Http2Server):
    """The agent's side."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._resets = Allowance(RESETS, RESETS_A_SECOND, time.monotonic)
        self._owed: defaultdict[int, int] = defaultdict(int)
        """Bytes of each stream whose window was not opened again yet."""
        settings = self.h2_conn.local_settings
        settings.initial_window_size = WINDOW
        settings.acknowledge()  # as stock does, or the old value would be announced

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, StopSending):
            if not self.is_closed(event.stream_id):
                # RFC 9113 8.1: after a whole response, without error.
                self.h2_conn.reset_stream(event.stream_id, h2.errors.ErrorCodes.NO_ERROR)
                yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        elif isinstance(event, Drained):
            if not self._is_full(event.stream_id):
                self._give_back(event.stream_id, self._owed.pop(event.stream_id, 0))
            yield from self._flush()
        else:
            yield from super()._handle_event(event)

    def handle_h2_event(self, event: h2.events.Event) -> Generator[commands.Command, Any, bool]:
        if isinstance(event, h2.events.StreamReset) and not self._resets.take():
            yield from self._calm_down()
            return True
        if isinstance(event, h2.events.RequestReceived) and len(self._streams()) > MOST_DECIDING:
            yield from self._calm_down()
            return True
        if not isinstance(event, h2.events.DataReceived):
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                # The connection's window counts these bytes too.
                self._give_back(event.stream_id, self._owed.pop(event.stream_id, 0))
            stop: bool = yield from super().handle_h2_event(event)
            return stop
        if event.stream_id in self.streams and (event.data or not event.stream_ended):
            yield ReceiveHttp(self.ReceiveData(event.stream_id, event.data))
        size = event.flow_controlled_length or 0
        if self._is_full(event.stream_id):
            self._owed[event.stream_id] += size
        else:
            self._give_back(event.stream_id, size)
        return False

    def _is_full(self, stream_id: int) -> bool:
        """Whether enough of the body is on its way."""
        exchange = getattr(self._streams().get(stream_id), "exchange", None)
        return exchange is not None and (
            exchange.deciding or (exchange.streaming and exchange.upload_backlog() > HIGH_WATER)
        )

    def _streams(self) -> dict[int, http_layers.HttpStream]:
        """All exchanges of this connection."""
        layer = self.context.layers[-2]
        assert isinstance(layer, http_layers.HttpLayer)
        return layer.streams

    def _calm_down(self) -> Commands:
        yield from self.protocol_error(
            "too many streams were opened and reset", h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        )

    def _give_back(self, stream_id: int, size: int) -> None:
        if size:
            self.h2_conn.acknowledge_received_data(size, stream_id)

    def _flush(self) -> Commands:
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)


class Allowance:
    """So many at once, and so many more each second."""

    def __init__(self, most: int, a_second: float, clock: Callable[[], float]) -> None:
        self._most, self._a_second, self._clock = most, a_second, clock
        self._left, self._seen = float(most), clock()

    def take(self) -> bool:
        """Takes one; False if there is none."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._seen) * self._a_second)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class LeavingConnection(_http_h2.BufferedH2Connection):
    """To an upstream that may say that it is about to leave, without an error (RFC 9113 6.8).

    hyper-h2 takes that for the end, but what it has begun to answer still comes.
    """

    last_stream: int | None = None
    """The last that it will answer, once it has said so."""

    def _receive_goaway_frame(self, frame: Any) -> Any:
        if frame.error_code != h2.errors.ErrorCodes.NO_ERROR:
            return super()._receive_goaway_frame(frame)
        self.last_stream = frame.last_stream_id
        return [], []


class Http2Client(_http2.Http2Client):
    """The upstream's side."""

    h2_conn: LeavingConnection

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = self.h2_conn.local_settings
        self.h2_conn = LeavingConnection(self.h2_conf)
        self.h2_conn.local_settings = settings
        self._full: set[int] = set()
        """The agent's ids of the streams that have too much waiting."""

    def waiting(self, stream_id: int) -> int:
        """Bytes of the agent's stream that the upstream's windows, or its limit of streams, do not
        let out yet."""
        queued = self.stream_queue.get(stream_id, ())
        size = sum(len(event.data) for event in queued if isinstance(event, RequestData))
        ours = self.our_stream_id.get(stream_id)
        if ours is not None:
            size += sum(len(part.data) for part in self.h2_conn.stream_buffers.get(ours, ()))
        return size

    def _handle_event(self, event: events.Event) -> Commands:
        stream_id = event.stream_id if isinstance(event, RequestData) else None
        yield from super()._handle_event(event)
        if stream_id is not None:
            if self.waiting(stream_id) > HIGH_WATER:
                self._full.add(stream_id)
        elif self._full:
            for full in tuple(self._full):
                if self.waiting(full) <= HIGH_WATER:
                    self._full.discard(full)
                    yield http_layers.SendHttp(Drained(full), self.context.client)
        if isinstance(event, events.DataReceived) and self.h2_conn.last_stream is not None:
            yield from self._leave(self.h2_conn.last_stream)

    def _leave(self, last: int) -> Commands:
        """No new calls go this way; those that the upstream took are waited for."""
        if self._handle_event == self.done:
            return
        self.conn.state &= ~ConnectionState.CAN_READ  # else it would be chosen again
        lost = [self.their_stream_id[ours] for ours in self.streams if ours > last]
        for ours in [ours for ours in self.streams if ours > last]:
            del self.streams[ours]
        lost += list(self.stream_queue)
        self.stream_queue.clear()
        for stream_id in lost:
            yield ReceiveHttp(
                ResponseProtocolError(stream_id, "leaving", ErrorCode.GENERIC_SERVER_ERROR)
            )
        if not self.streams:
            yield from self.close_connection("the upstream left")
