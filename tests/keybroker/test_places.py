"""Places: one that dies is started again, after a pause that doubles while it keeps dying."""

from __future__ import annotations

import subprocess

import pytest

from keybroker.children import Child
from keybroker.places import LONGEST_PAUSE, SETTLED, SHORTEST_PAUSE, Place


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(clock: Clock) -> Place:
    def start() -> Child:
        return Child("worker 0", subprocess.Popen(["sh", "-c", "read x; exit 3"], stdin=-1), -1, -1)

    return Place("worker 0", start, clock)


def end(place: Place) -> int | None:
    """Its child leaves; what is found."""
    assert place.child is not None
    process = place.child.process
    process.communicate(b"\n")
    return place.fell()


def test_a_death_is_found_once(place: Place) -> None:
    assert place.due
    child = place.start()
    assert (place.child, place.fell(), place.due) == (child, None, False)
    assert end(place) == 3
    assert place.child is None
    assert place.fell() is None


def test_the_pause_doubles_while_it_keeps_dying_and_starts_anew_once_it_lived(
    place: Place, clock: Clock
) -> None:
    pause = SHORTEST_PAUSE
    for _ in range(8):
        place.start()
        assert end(place) == 3
        clock.now += pause * 0.99
        assert not place.due
        clock.now += pause * 0.02
        assert place.due
        pause = min(pause * 2, LONGEST_PAUSE)
    assert pause == LONGEST_PAUSE
    place.start()
    clock.now += SETTLED + 1
    end(place)
    clock.now += SHORTEST_PAUSE
    assert place.due


def test_what_cannot_be_started_waits_one_more_pause(place: Place, clock: Clock) -> None:
    place.postpone()
    assert not place.due
    clock.now += SHORTEST_PAUSE
    assert place.due
