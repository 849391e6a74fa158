"""Waking up: whoever waits for an approval learns of a change made anywhere."""

from __future__ import annotations

import asyncio

import pytest

from broker.changes import Changes
from broker.errors import StoreUnavailable
from tests.support.services import World, refund, until


async def held(world: World) -> str:
    """A held call, whose agent does not wait."""
    pipeline = world.pipeline(hold_wait=0)
    await pipeline.handle(world.client(), refund(), asyncio.Event())
    [approval] = world.pending()
    return approval


async def test_a_vote_in_another_process_wakes_who_waits(world: World) -> None:
    approval = await held(world)
    changes, other = world.services.changes, world.open()
    other.policies.refresh()
    since = changes.now()
    waiting = asyncio.create_task(changes.wait_for(approval, since, 60))
    any_change = asyncio.create_task(changes.wait(since, 60))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await asyncio.to_thread(world.vote, approval, services=other)
    async with asyncio.timeout(2):
        await waiting
        assert await any_change > since
    assert other.holds.get(approval).state == "approved"


async def test_a_change_between_looking_and_waiting_is_seen(world: World) -> None:
    approval = await held(world)
    changes = world.services.changes
    since = changes.now()
    world.vote(approval)
    async with asyncio.timeout(2):
        await changes.wait_for(approval, since, 60)
        assert await changes.wait(since, 60) == changes.now()


async def test_a_change_of_something_else_does_not_wake(world: World) -> None:
    approval = await held(world)
    changes = world.services.changes
    since = changes.now()
    waiting = asyncio.create_task(changes.wait_for("a-other", since, 60))
    world.vote(approval)
    async with asyncio.timeout(2):
        await changes.wait(since, 60)
    await asyncio.sleep(0.06)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_waiting_ends_by_itself(world: World) -> None:
    changes = world.services.changes
    since = changes.now()
    async with asyncio.timeout(2):
        await changes.wait_for("a-none", since, 0.05)
        assert await changes.wait(since, 0.05) == since


async def test_nobody_polls_while_nobody_waits(world: World) -> None:
    changes = world.services.changes
    await changes.wait(changes.now(), 0.01)
    poller = changes._poller
    assert poller is not None
    await until(poller.done)
    assert not changes._waiting


async def test_a_store_that_cannot_be_read_is_said(world: World) -> None:
    changes = Changes(world.services.store)
    since = changes.now()
    world.services.store.close()
    with pytest.raises(StoreUnavailable):
        await changes.wait(since, 0.05)
