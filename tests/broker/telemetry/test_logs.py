"""The line of a call: who, where, how it ended; no path, no query, no body, no secret."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from broker.parts import Limits
from broker.pipeline import Pipeline
from broker.telemetry.logs import about, called
from tests.support.services import CANARY, World, complete, raw

log = logging.getLogger("test.calls")


def test_nothing_unknown_is_said() -> None:
    assert about("x", call="c-1", agent=None) == {
        "about": {"event": "x", "call": "c-1", "agent": None}
    }


async def test_a_call_is_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    listener = called(log, place=lambda host, port: f"{host}:{port}")
    pipeline = Pipeline(replace(world.parts(), listeners=(listener,)), Limits())
    wire = raw(path="/v1/charges/pathsecret?key=querysecret", body=b"bodysecret")
    with caplog.at_level(logging.INFO):
        passage = await pipeline.handle(world.client(), wire, asyncio.Event())
        await complete(passage, CANARY.encode())  # type: ignore[arg-type]
        await pipeline.handle(world.client(), raw("DELETE", path="/x"), asyncio.Event())
    first, second = (record for record in caplog.records if record.name == log.name)
    assert first.getMessage().startswith(
        f"call {passage.call} of bot: GET api.stripe.com:443 completed (none 200) in "  # type: ignore[union-attr]
    )
    facts = first.about  # type: ignore[attr-defined]
    assert facts["rules"] == "read" and facts["policy"] == 1 and facts["duration_ms"] >= 0
    assert (facts["event"], facts["outcome"], facts["agent"]) == ("call.ended", "completed", "bot")
    assert second.about["code"] == "policy_denied"  # type: ignore[attr-defined]
    whole = "".join(record.getMessage() + str(record.__dict__) for record in caplog.records)
    for word in ("pathsecret", "querysecret", "bodysecret", CANARY):
        assert word not in whole
