"""The breaker's moves, with a clock that stands still unless it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.secrets.breaker import Breaker, Leave, Open


class World:
    def __init__(self) -> None:
        self.time = 100.0
        self.breaker = Breaker(
            clock=lambda: self.time,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.time),
            most=3,
            pause=1.0,
            longest_pause=4.0,
        )

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed(self.breaker.enter())

    def shut(self) -> bool:
        try:
            leave = self.breaker.enter()
        except Open:
            return True
        self.breaker.given_up(leave)
        return False


@pytest.fixture
def world() -> World:
    return World()


def test_only_failures_in_a_row_open_it(world: World) -> None:
    world.fail(2)
    world.breaker.succeeded(world.breaker.enter())
    world.fail(2)
    assert not world.shut()
    since = world.breaker.since
    world.time += 7
    world.fail()
    assert world.shut()
    assert world.breaker.state == "open"
    assert world.breaker.since - since == timedelta(seconds=7)


def test_after_the_pause_one_tries_and_no_other(world: World) -> None:
    world.fail(3)
    world.time += 0.9
    assert world.shut()
    world.time += 0.1
    assert world.breaker.state == "half_open"
    trial = world.breaker.enter()
    assert trial.trial
    assert world.shut()
    world.breaker.succeeded(trial)
    assert world.breaker.state == "closed"
    assert not world.shut()


def test_a_failed_trial_doubles_the_pause_up_to_its_limit(world: World) -> None:
    world.fail(3)
    since = world.breaker.since
    for pause in (1.0, 2.0, 4.0, 4.0):
        assert world.breaker.pause_left == pytest.approx(pause)
        world.time += pause
        world.fail()
    assert world.breaker.since == since
    world.time += 4
    world.breaker.succeeded(world.breaker.enter())
    world.fail(3)
    assert world.breaker.pause_left == pytest.approx(1.0)


def test_a_trial_that_came_to_nothing_leaves_room_for_the_next(world: World) -> None:
    world.fail(3)
    world.time += 1
    world.breaker.given_up(world.breaker.enter())
    assert world.breaker.enter().trial


def test_what_was_asked_before_it_opened_changes_nothing_after(world: World) -> None:
    early = [world.breaker.enter() for _ in range(6)]
    for leave in early[:3]:
        world.breaker.failed(leave)
    assert world.shut()
    world.breaker.succeeded(early[3])
    assert world.shut()
    world.time += 1
    trial = world.breaker.enter()
    world.breaker.failed(early[4])
    world.breaker.given_up(early[5])
    assert world.shut()
    world.breaker.succeeded(trial)
    assert world.breaker.state == "closed"


@given(st.lists(st.sampled_from(["enter", "succeed", "fail", "give up", "wait"]), max_size=60))
def test_never_more_than_one_trial_and_never_shut_for_ever(steps: list[str]) -> None:
    world = World()
    out: list[Leave] = []
    for step in steps:
        if step == "wait":
            world.time += 0.7
        elif step == "enter":
            try:
                out.append(world.breaker.enter())
            except Open:
                continue
        elif out:
            leave = out.pop(0)
            {
                "succeed": world.breaker.succeeded,
                "fail": world.breaker.failed,
                "give up": world.breaker.given_up,
            }[step](leave)
        assert sum(leave.trial for leave in out) <= 1
    for leave in out:
        world.breaker.given_up(leave)
    world.time += 5
    assert not world.shut()
