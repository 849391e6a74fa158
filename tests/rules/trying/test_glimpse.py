"""A glimpse tells what it can for certain, and nothing else."""

from __future__ import annotations

import pytest

from rules.bodies import Body
from rules.conditions import Condition, GrpcMethod, Header, Methods, Source, Upgrade, Window
from rules.model import BodyTest, Check, GrpcTest, SourceTest, Subject, TimeTest, ValueTest
from rules.trying.glimpse import Glimpse, Look

BOT = Subject("bot", frozenset({"ci"}))


def look(**known: object) -> Look:
    given = {"method": "POST", "path": "/a.B/C", **known}
    return Look(Glimpse(scheme="https", host="a.example", port=443, **given), BOT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "narrow", "wide"),
    [
        (Methods(frozenset(["POST"])), True, True),
        (Methods(frozenset(["GET"])), False, False),
        (Source(SourceTest(tags=("ci",))), True, True),
        (Source(SourceTest(via="gateway")), False, False),
        (Source(SourceTest(run=True)), False, False),
        (Source(SourceTest(run=False)), True, True),
        (Source(SourceTest(runs=("t-1",))), False, False),
        (Source(SourceTest(via="gateway", runs=("t-1",))), False, False),
        (Upgrade(True), None, None),
        (GrpcMethod(GrpcTest(services=("a.B",))), None, True),
        (GrpcMethod(GrpcTest(services=("x",))), False, False),
        (Header(ValueTest("a", exists=True)), None, None),
        # Its time is not known, which no rule that permits takes for any time.
        (Window.of(TimeTest("UTC", begin=0, end=60)), False, True),
        (Body(BodyTest(types=("text/*",))), None, None),
        (Body(BodyTest(size=(Check("lte", 5),))), None, None),  # type: ignore[arg-type]
    ],
)
def test_what_can_be_told(condition: Condition, narrow: bool | None, wide: bool | None) -> None:
    seen = look()
    assert seen.tell(condition, wide=False) is narrow
    assert seen.tell(condition, wide=True) is wide


def test_the_run_is_known() -> None:
    for run, holds in (("t-1", True), ("t-2", False)):
        assert look(run=run).tell(Source(SourceTest(runs=("t-1",))), wide=False) is holds
        assert look(run=run).tell(Source(SourceTest(run=True)), wide=False) is True


def test_a_size_is_enough_for_a_size() -> None:
    small = Body(BodyTest(size=(Check("lte", 5),)))  # type: ignore[arg-type]
    assert look(size=5).tell(small, wide=False) is True
    assert look(size=6).tell(small, wide=True) is False
