"""What the ledger's thread says reaches whoever waits for it on the event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from audit.errors import LedgerUnavailable
from broker.parts import Stages, outcome


def later(change: Future[str], result: str | Exception) -> threading.Timer:
    """Another thread ends the change in a moment."""

    def end() -> None:
        if isinstance(result, Exception):
            change.set_exception(result)
        else:
            change.set_result(result)

    timer = threading.Timer(0.02, end)
    timer.start()
    return timer


async def test_a_result_is_had_whether_it_is_there_or_comes() -> None:
    change: Future[str] = Future()
    timer = later(change, "salt")
    assert await outcome(change) == "salt"
    assert await outcome(change) == "salt"
    timer.join()


async def test_what_the_change_raised_is_raised() -> None:
    change: Future[str] = Future()
    timer = later(change, KeyError("mine"))
    with pytest.raises(KeyError, match="mine"):
        await Stages(20).ledgered(change)
    timer.join()


async def test_a_change_that_is_given_up_before_its_turn_does_nothing() -> None:
    change: Future[str] = Future()
    with pytest.raises(LedgerUnavailable, match="in time"):
        await Stages(0.05).ledgered(change)
    assert change.cancelled()


async def test_a_change_that_has_begun_goes_on_though_nobody_waits() -> None:
    change: Future[str] = Future()
    change.set_running_or_notify_cancel()
    with pytest.raises(LedgerUnavailable, match="in time"):
        await Stages(0.05).ledgered(change)
    assert not change.cancelled()
    change.set_result("late")  # and is heard by nobody
    await asyncio.sleep(0)


def test_a_loop_that_is_gone_is_not_told() -> None:
    change: Future[str] = Future()
    change.set_running_or_notify_cancel()

    async def give_up() -> None:
        with pytest.raises(LedgerUnavailable):
            await Stages(0.05).ledgered(change)

    asyncio.run(give_up())
    change.set_result("late")
    assert change.result() == "late"
