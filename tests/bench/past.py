"""`policy replay` of a long ledger, which the pipeline itself has written, call by call."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import batched
from pathlib import Path

from audit.past import Past
from audit.reading import open_ledger
from keybroker import replaying
from keybroker.policy import subjects
from rules.load import load_policy
from rules.request import RawRequest
from tests.bench.measure import Report, row
from tests.support.past import make
from tests.support.services import POLICY, Template, World, raw, refund, run

COLUMNS = ("keybroker",)
AT_ONCE = 200


def replay(report: Report, calls: int) -> None:
    """From the ledger on disk to what would change, by a policy that changes a good part of it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        world = World(directory / "past.db", Template.make(directory / "new.db"))
        try:
            run(_make(world, calls))
            world.settle()
            told, seconds = _replayed(world)
        finally:
            world.close()
    assert told == calls, f"{told} calls are in the ledger"
    report.head("replay", COLUMNS)
    made = row(f"policy replay of {calls} calls", "s", {"keybroker": [seconds]})
    made.bar, made.met = "below 60 s", seconds < 60
    report.add(made, COLUMNS)


async def _make(world: World, calls: int) -> None:
    pipeline, client = world.pipeline(hold_wait=0), world.client()

    for some in batched(_calls(calls), AT_ONCE):
        await asyncio.gather(*(make(pipeline, client, asked) for asked in some))


def _calls(count: int) -> Iterator[RawRequest]:
    """Of ten: six reads, two that change something, one denied, one held. Hardly a path twice."""
    for n in range(count):
        match n % 10:
            case 0:
                yield raw("DELETE", f"/v1/charges/{n}")
            case 1:
                yield refund(n % 50)
            case 2 | 3:
                yield raw("POST", f"/y/{n}", host="open.example", body=b'{"n": 1}')
            case _:
                yield raw(path=f"/v1/charges/{n}?limit=3")


def _replayed(world: World) -> tuple[int, float]:
    stricter = POLICY.replace("path: /v1/**", "path: '/v1/balance/{id}'")
    stricter = stricter.replace(
        "match: {host: open.example}", "match: {host: open.example, json: {/n: {lt: 5}}}"
    )
    services, shown = world.services, 0

    def progress(_: float) -> None:
        nonlocal shown
        shown += 1

    began = time.perf_counter()
    with closing(open_ledger(world.path)) as db:
        done = replaying.replay(
            Past(db),
            load_policy(stricter)[0],
            replaying.earlier(services.policies),
            subjects(services.agents.list()),
            services.people.list(),
            each=lambda _: None,
            progress=progress,
        )
    seconds = time.perf_counter() - began
    assert shown > 10, "progress is told of"
    assert {group.kind for group in done.replay.groups.values()} >= {"changed", "uncertain"}
    return done.replay.calls, seconds
