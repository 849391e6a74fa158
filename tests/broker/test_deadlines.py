"""Every wait ends in time, and an end that somebody else wants is not taken for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from broker.deadlines import Deadlines

SOON, LATE = 0.05, 20.0


async def number(n: int) -> int:
    return n


async def hang() -> None:
    await asyncio.Event().wait()


async def test_what_is_done_in_time_gives_its_result() -> None:
    deadlines = Deadlines(LATE)
    assert await deadlines.within(number(3)) == 3
    with pytest.raises(KeyError):
        await deadlines.within(failing(KeyError()))


async def failing(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error


async def test_what_hangs_is_cancelled_and_told_as_a_timeout() -> None:
    ended = asyncio.Event()

    async def stage() -> None:
        try:
            await hang()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await Deadlines(SOON).within(stage())
    assert ended.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_each_of_many_ends_and_those_that_come_later_do_too() -> None:
    deadlines = Deadlines(SOON)

    async def one(wait: float) -> str:
        await asyncio.sleep(wait)
        try:
            await deadlines.within(hang())
        except TimeoutError:
            return "late"
        return "done"

    waits = [one(n * SOON / 5) for n in range(12)]
    assert await asyncio.gather(*waits) == ["late"] * 12
    # The timer had nothing to stand at; the next wait sets it anew.
    assert await one(0) == "late"


async def test_who_is_done_leaves_the_timer_to_the_others() -> None:
    deadlines = Deadlines(SOON)
    hanging = asyncio.create_task(deadlines.within(hang()))
    for n in range(100):
        assert await deadlines.within(number(n)) == n
    with pytest.raises(TimeoutError):
        await hanging


async def test_a_task_that_others_cancel_is_cancelled() -> None:
    task = asyncio.create_task(Deadlines(LATE).within(hang()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("outer", "inner"), [(SOON, LATE), (LATE, SOON), (SOON, SOON)])
async def test_one_within_another(outer: float, inner: float) -> None:
    """The narrower one counts, and is told once."""
    caught: list[str] = []

    async def stage() -> None:
        try:
            await Deadlines(inner).within(hang())
        except TimeoutError:
            caught.append("inner")
            raise

    async def bounded(stage: Awaitable[None]) -> None:
        async with asyncio.timeout(outer):
            await stage

    for limit in (Deadlines(outer).within, bounded):
        caught.clear()
        with pytest.raises(TimeoutError):
            await limit(stage())
        assert caught == ["inner"] or outer <= inner
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_stage_that_turns_the_end_into_an_error_of_its_own_is_heard() -> None:
    async def stage() -> None:
        try:
            await hang()
        except asyncio.CancelledError:
            raise KeyError("mine") from None

    with pytest.raises(KeyError):
        await Deadlines(SOON).within(stage())
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
