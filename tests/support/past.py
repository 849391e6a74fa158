"""Calls that really were made, for tests that look back on them: by the real pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from broker.model import Client
from broker.passage import Passage
from broker.pipeline import Pipeline
from rules.request import RawRequest
from tests.support.services import World, complete, run


async def make(pipeline: Pipeline, client: Client, asked: RawRequest) -> None:
    """One call, to its end."""
    outcome = await pipeline.handle(client, asked, asyncio.Event())
    if isinstance(outcome, Passage):
        await complete(outcome)


def go_by(world: World, *calls: RawRequest, client: Client | None = None) -> None:
    """Makes the calls one after the other, and returns once the ledger has them."""
    run(_all(world, calls, client or world.client()))
    world.settle()


async def _all(world: World, calls: Iterable[RawRequest], client: Client) -> None:
    pipeline = world.pipeline(hold_wait=0.05)
    for asked in calls:
        await make(pipeline, client, asked)
