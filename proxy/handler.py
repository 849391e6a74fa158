"""Between mitmproxy's layers and the sockets, as stock, but that hooks are run in place.

Stock makes a task for every hook and goes through a lock for every event, which costs more than
what our hooks do. A hook that has nothing to wait for is over before the next event is looked at;
one that waits goes on by itself. Events keep their order.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.server import ConnectionIO, LiveConnectionHandler

from proxy.truncation import CutOff

Hook = Callable[[Any], Awaitable[None] | None]

_arguments: dict[type, str] = {}
"""The name of the one field that a kind of hook has."""


class Handler(LiveConnectionHandler):
    """One connection of an agent and those to upstreams that belong to it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._hooks: dict[str, Hook] = {}
        self._events: deque[events.Event] = deque()
        self._handling = False
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def failed_hook(self, name: str, error: BaseException) -> None:
        """Told of a hook that raised; what it had not lifted stays refused."""

    # -- what mitmproxy's core calls

    async def handle_hook(self, hook: commands.StartHook) -> None:
        waiting = self._begin_hook(hook)
        if waiting is not None:
            await self._end_hook(hook, waiting)

    async def server_event(self, event: events.Event) -> None:
        if isinstance(event, events.ConnectionClosed):
            # Stock takes a reset for an end.
            reader = self.transports[event.connection].reader
            if isinstance(reader, asyncio.StreamReader) and reader.exception() is not None:
                event = CutOff(event.connection)
        self._take(event)

    async def drain_writers(self) -> None:
        for transport in self.transports.values():
            writer = transport.writer
            if writer is not None and writer.transport.get_write_buffer_size():  # type: ignore[union-attr]
                await super().drain_writers()  # type: ignore[no-untyped-call]
                return

    # -- events and commands

    def _take(self, event: events.Event) -> None:
        """Hands the event to the layers and does what they ask for, never one inside another."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._handling = False

    def _handle(self, event: events.Event) -> None:
        self.timeout_watchdog.register_activity()  # type: ignore[no-untyped-call]
        try:
            for command in self.layer.handle_event(event):
                self._do(command)
        except Exception as error:  # noqa: BLE001 - as stock; `log` cuts the connection
            self.log("crash", logging.ERROR, (type(error), error, error.__traceback__))

    def _do(self, command: commands.Command) -> None:
        if isinstance(command, commands.StartHook):
            self._start_hook(command)
        elif isinstance(command, commands.Log):
            self.log(command.message, command.level)
        elif isinstance(command, commands.OpenConnection):
            if command.connection in self.transports:
                raise RuntimeError("this connection is open")
            task = asyncio.create_task(self.open_connection(command))
            self.transports[command.connection] = ConnectionIO(handler=task)
        elif isinstance(command, commands.RequestWakeup):
            self.wakeup_timer.add(asyncio.create_task(self.wakeup(command)))
        elif not isinstance(command, commands.ConnectionCommand):
            raise RuntimeError(f"an unexpected command: {type(command).__name__}")
        elif command.connection not in self.transports:
            return  # it has been closed already
        elif isinstance(command, commands.SendData):
            writer = self.transports[command.connection].writer
            if writer is None:
                raise RuntimeError("this connection is not open yet")
            if not writer.is_closing():
                writer.write(command.data)
        elif isinstance(command, commands.CloseTcpConnection):
            self.close_connection(command.connection, command.half_close)
        elif isinstance(command, commands.CloseConnection):
            self.close_connection(command.connection, False)
        else:
            raise RuntimeError(f"an unexpected command: {type(command).__name__}")

    # -- hooks

    def _start_hook(self, hook: commands.StartHook) -> None:
        waiting = self._begin_hook(hook)
        if waiting is None:
            if hook.blocking:
                self._events.append(events.HookCompleted(hook))
            return
        loop = asyncio.get_running_loop()
        # Its first step is taken here and now; often there is no second.
        task = asyncio.Task(self._see_through(hook, waiting), loop=loop, eager_start=True)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _see_through(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        await self._end_hook(hook, waiting)
        if hook.blocking:
            self._take(events.HookCompleted(hook))

    def _begin_hook(self, hook: commands.StartHook) -> Awaitable[None] | None:
        """Calls the hook; what it returned to wait for."""
        called = self._hooks.get(hook.name)
        if called is None:
            return None
        kind = type(hook)
        if kind not in _arguments:
            (only,) = dataclasses.fields(kind)  # type: ignore[arg-type]  # they are dataclasses
            _arguments[kind] = only.name
        try:
            waiting = called(getattr(hook, _arguments[kind]))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - see `failed_hook`
            self._failed(hook, error)
            return None
        return waiting if inspect.isawaitable(waiting) else None

    async def _end_hook(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        with self.timeout_watchdog.disarm():  # waiting for people is not idleness
            try:
                await waiting
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - see `failed_hook`
                self._failed(hook, error)

    def _failed(self, hook: commands.StartHook, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise error
        self.failed_hook(hook.name, error)  # if cancelled, then inside, not us
