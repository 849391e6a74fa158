"""Readiness: bounded in time and in how often it looks, whatever the checks do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

from broker.errors import StoreUnavailable
from broker.telemetry.readiness import Check, Readiness


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def look(checks: Mapping[str, Check], **options: float) -> Mapping[str, str | None]:
    readiness = Readiness(checks, **options)  # type: ignore[arg-type]
    try:
        return await readiness.look()
    finally:
        readiness.close()


async def test_a_check_that_raises_is_not_well_and_quotes_nothing_foreign() -> None:
    def ours() -> None:
        raise StoreUnavailable("the store is locked")

    def foreign() -> None:
        raise ValueError("sk_live_canary")

    assert await look({"a": lambda: None, "b": ours, "c": foreign, "d": lambda: "sealed"}) == {
        "a": None, "b": "the store is locked", "c": "ValueError", "d": "sealed",
    }  # fmt: skip


async def test_no_checks_are_all_well() -> None:
    assert await look({}) == {}


async def test_many_who_ask_at_once_cause_one_look_a_second() -> None:
    clock, looks = Clock(), []
    readiness = Readiness({"vault": lambda: looks.append(1)}, monotonic=clock)  # type: ignore[func-returns-value]
    await asyncio.gather(*(readiness.look() for _ in range(50)))
    assert len(looks) == 1
    clock.now = 0.9
    await readiness.look()
    assert len(looks) == 1
    clock.now = 1.0
    await readiness.look()
    assert len(looks) == 2
    readiness.close()


async def test_a_check_that_hangs_is_not_begun_again_and_comes_back() -> None:
    release, begun, clock = threading.Event(), [], Clock()

    def hang() -> None:
        begun.append(1)
        release.wait(30)

    readiness = Readiness({"vault": hang, "disk": lambda: None}, limit=0.05, monotonic=clock)
    for _ in range(3):
        found = await readiness.look()
        assert found["disk"] is None
        assert found["vault"] == "no answer within 0.05 s"
        clock.now += 1
    assert len(begun) == 1
    release.set()
    while (await readiness.look())["vault"] is not None:
        clock.now += 1
        await asyncio.sleep(0.01)
    readiness.close()
