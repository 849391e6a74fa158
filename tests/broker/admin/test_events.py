"""The live stream tells of changes, beats, and ends with its session."""

import asyncio
import json

from broker.admin.events import stream
from tests.broker.admin.browser import browser
from tests.broker.admin.fakes import FakeServices, refund, services


def signed_in() -> tuple[FakeServices, str]:
    office = services()
    session = office.sessions.start(office.people.put("dave"))
    return office, session.token


def told(text: str) -> int:
    assert text.startswith("event: approvals\ndata: ")
    return int(json.loads(text.split("data: ")[1])["pending"])


async def test_a_change_is_told_and_so_is_the_state_at_the_start() -> None:
    office, token = signed_in()
    events = stream(office, token, tick=0.05)
    assert (await anext(events)).startswith("retry:")
    assert told(await anext(events)) == 0
    office.desk.put(refund())
    assert told(await anext(events)) == 1
    await events.aclose()  # type: ignore[attr-defined]


async def test_the_stream_carries_no_details() -> None:
    office, token = signed_in()
    office.desk.put(refund())
    events = stream(office, token, tick=0.05)
    await anext(events)
    assert "Refund" not in await anext(events)
    await events.aclose()  # type: ignore[attr-defined]


async def test_the_stream_ends_with_the_session() -> None:
    office, token = signed_in()
    events = stream(office, token, tick=0.01)
    await anext(events)
    await anext(events)
    office.sessions.end(token)
    assert await anext(events) == "event: signed-out\ndata: {}\n\n"
    assert [event async for event in events] == []


async def test_a_session_that_ends_during_the_wait_learns_nothing_more() -> None:
    office, token = signed_in()
    events = stream(office, token, tick=5)
    await anext(events)
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.02)
    office.sessions.end(token)
    office.desk.put(refund())
    assert "signed-out" in await waiting


async def test_it_beats_when_nothing_happens() -> None:
    office, token = signed_in()
    events = stream(office, token, tick=0.01, heartbeat=0)
    await anext(events)
    await anext(events)
    beat = await anext(events)
    assert beat.startswith(": heartbeat\n\nevent: clock\n")
    await events.aclose()  # type: ignore[attr-defined]


async def test_nobody_listens_without_a_session() -> None:
    async with browser(services()) as client:
        response = await client.get("/events")
    assert response.status_code == 401
