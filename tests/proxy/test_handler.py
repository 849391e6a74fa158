"""Hooks are run in place, events keep their order, and whatever raises is told and goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy.context import Context

from proxy.compat import CoreOptions
from proxy.handler import Handler


@dataclass
class AskHook(commands.StartHook):
    data: str


@dataclass
class TellHook(commands.StartHook):
    data: str
    blocking = False


class Writer:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.transport = self
        self.waiting = 0
        self.drained = 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drain(self) -> None:
        self.drained += 1


class Recorder(layer.Layer):
    """Notes every event; on data it does what the test wants."""

    def __init__(self, context: Context, react: Callable[[bytes], Generator[Any, Any, None]]):
        super().__init__(context)
        self.react = react
        self.seen: list[str] = []

    def _handle_event(self, event: events.Event) -> Generator[Any, Any, None]:
        if isinstance(event, events.DataReceived):
            self.seen.append(f"data {event.data.decode()}")
            yield from self.react(event.data)
            self.seen.append(f"done {event.data.decode()}")


class Connection(Handler):
    def __init__(self, react: Callable[[bytes], Generator[Any, Any, None]]) -> None:
        self.writer = Writer()
        super().__init__(
            asyncio.StreamReader(),
            self.writer,
            CoreOptions("1", 10, 10.0),
            mode_specs.ProxyMode.parse("regular"),
        )
        self.layer = Recorder(self.layer.context, react)
        self.failures: list[tuple[str, str]] = []
        self.logged: list[int] = []

    @property
    def seen(self) -> list[str]:
        assert isinstance(self.layer, Recorder)
        return self.layer.seen

    def failed_hook(self, name: str, error: BaseException) -> None:
        self.failures.append((name, type(error).__name__))

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        self.logged.append(level)

    async def arrives(self, text: str) -> None:
        await self.server_event(events.DataReceived(self.client, text.encode()))


def asks(data: bytes) -> Generator[Any, Any, None]:
    yield AskHook(data.decode())


async def test_a_hook_without_a_wait_is_over_when_the_event_is() -> None:
    connection = Connection(asks)
    connection._hooks = {"ask": lambda data: connection.seen.append(f"hook {data}")}
    await connection.arrives("a")
    assert connection.seen == ["data a", "hook a", "done a"]
    assert not connection._tasks


async def test_a_coroutine_that_waits_for_nothing_is_over_too() -> None:
    connection = Connection(asks)

    async def ask(data: str) -> None:
        connection.seen.append(f"hook {data}")

    connection._hooks = {"ask": ask}
    await connection.arrives("a")
    assert connection.seen == ["data a", "hook a", "done a"]
    assert not connection._tasks


async def test_a_hook_that_waits_holds_up_its_layer_and_nothing_else() -> None:
    connection = Connection(asks)
    go = asyncio.Event()

    async def ask(data: str) -> None:
        if data == "a":
            await go.wait()
        connection.seen.append(f"hook {data}")

    connection._hooks = {"ask": ask}
    await connection.arrives("a")
    await connection.arrives("b")
    assert connection.seen == ["data a"]
    assert connection.timeout_watchdog.blocker == 1  # such a wait is not idleness
    go.set()
    while connection._tasks:
        await asyncio.sleep(0)
    assert connection.seen == ["data a", "hook a", "done a", "data b", "hook b", "done b"]
    assert connection.timeout_watchdog.blocker == 0


async def test_hooks_nobody_asked_for_and_that_do_not_block() -> None:
    def react(data: bytes) -> Generator[Any, Any, None]:
        yield TellHook("told")
        yield AskHook("nobody")

    connection = Connection(react)
    told: list[str] = []
    connection._hooks = {"tell": told.append}
    await connection.arrives("a")
    assert (told, connection.seen) == (["told"], ["data a", "done a"])


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
@pytest.mark.parametrize("when", ["at once", "first step", "later"])
async def test_a_hook_that_raises_is_told_and_the_layer_goes_on(
    error: type[BaseException], when: str
) -> None:
    connection = Connection(asks)

    async def later(_: str) -> None:
        if when == "later":
            await asyncio.sleep(0)
        raise error

    def at_once(_: str) -> None:
        raise error

    connection._hooks = {"ask": at_once if when == "at once" else later}
    await connection.arrives("a")
    while connection._tasks:
        await asyncio.sleep(0)
    assert connection.failures == [("ask", error.__name__)]
    assert connection.seen == ["data a", "done a"]


async def test_an_event_inside_an_event_waits_its_turn() -> None:
    connection = Connection(asks)

    async def ask(data: str) -> None:
        if data == "a":
            await connection.arrives("b")
        connection.seen.append(f"hook {data}")

    connection._hooks = {"ask": ask}
    await connection.arrives("a")
    assert connection.seen == ["data a", "hook a", "done a", "data b", "hook b", "done b"]


async def test_a_layer_that_breaks_is_told_of_and_the_next_event_is_taken() -> None:
    def react(data: bytes) -> Generator[Any, Any, None]:
        if data == b"a":
            raise ZeroDivisionError
        yield commands.SendData(connection.client, data)

    connection = Connection(react)
    await connection.arrives("a")
    await connection.arrives("b")
    assert connection.logged == [logging.ERROR]
    assert connection.writer.written == [b"b"]


@pytest.mark.parametrize(
    "command",
    [
        commands.Command(),
        commands.ConnectionCommand,
        commands.OpenConnection,
    ],
)
async def test_a_command_that_makes_no_sense_is_a_fault(command: Any) -> None:
    def react(_: bytes) -> Generator[Any, Any, None]:
        yield command if isinstance(command, commands.Command) else command(connection.client)

    connection = Connection(react)
    await connection.arrives("a")
    assert connection.logged == [logging.ERROR]


async def test_what_is_for_a_closed_connection_is_dropped() -> None:
    def react(data: bytes) -> Generator[Any, Any, None]:
        yield commands.SendData(connection.client, data)
        yield commands.CloseConnection(connection.client)

    connection = Connection(react)
    connection.transports.clear()
    await connection.arrives("a")
    assert (connection.writer.written, connection.logged) == ([], [])


async def test_writers_are_waited_for_only_where_something_waits() -> None:
    connection = Connection(asks)
    await connection.drain_writers()
    assert connection.writer.drained == 0
    connection.writer.waiting = 1
    await connection.drain_writers()
    assert connection.writer.drained == 1
