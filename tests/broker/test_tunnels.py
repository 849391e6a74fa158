"""Tunnels: in the ledger before they open, with their size when they end."""

from __future__ import annotations

import pytest

from audit.errors import LedgerUnavailable
from rules.model import Decision
from tests.support.services import ADDRESS, World

DECISION = Decision("tunnel", "passed on", rules=("pass",))


async def test_a_tunnel_is_recorded_at_its_beginning_and_end(world: World) -> None:
    tunnel = await world.services.tunnels.open(
        "c-1", "bot", "pass.example", 443, ADDRESS, DECISION, 1
    )
    [opened] = world.records("tunnel.opened")
    assert (opened["host"], opened["port"], opened["address"]) == ("pass.example", 443, ADDRESS)
    assert (opened["rules"], opened["policy"]) == (["pass"], 1)
    await tunnel.closed(10, 20)
    [closed] = world.records("tunnel.closed")
    assert (closed["call"], closed["sent_bytes"], closed["received_bytes"]) == ("c-1", 10, 20)


async def test_without_the_ledger_no_tunnel_opens(world: World) -> None:
    world.services.store.close()
    with pytest.raises(LedgerUnavailable):
        await world.services.tunnels.open("c-1", "bot", "h", 443, ADDRESS, DECISION, 1)


async def test_an_end_that_cannot_be_recorded_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    tunnel = await world.services.tunnels.open("c-1", "bot", "h", 443, ADDRESS, DECISION, 1)
    world.services.store.close()
    await tunnel.closed(1, 2)
    assert "the end of tunnel c-1 could not be recorded" in caplog.text
