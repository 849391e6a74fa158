"""A circuit breaker: after some failures in a row nobody asks for a while, then one does.

    closed --(`most` failures in a row)--> open --(the pause is over)--> half_open
    half_open --(the one trial succeeds)--> closed
    half_open --(it fails)--> open, for twice as long up to `longest_pause`
    half_open --(it comes to no result)--> half_open, for the next one to try

Only what began in the present state counts: answers to older questions arrive late and change
nothing. Does no I/O; for one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

State = Literal["closed", "open", "half_open"]


class Open(Exception):
    """Nobody is to ask now."""


@dataclass(frozen=True, slots=True)
class Leave:
    """To ask once, and to be handed back with what came of it."""

    turn: int
    trial: bool


class Breaker:
    """`clock` counts seconds and never goes back; `now` is what people read."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        most: int = 5,
        pause: float = 1.0,
        longest_pause: float = 30.0,
    ) -> None:
        self._clock = clock
        self._now = now
        self._most = most
        self._pause = self._first_pause = pause
        self._longest_pause = longest_pause
        self._state: State = "closed"
        self._turn = 0
        self._failures = 0
        self._until = 0.0
        self._trying = False
        self.since = now()
        """When Vault began to serve, or stopped to, as far as is known here."""

    @property
    def state(self) -> State:
        """What it is now."""
        if self._state == "open" and self._clock() >= self._until:
            return "half_open"
        return self._state

    @property
    def pause_left(self) -> float:
        """Seconds until somebody may ask again; 0 unless it is open."""
        return max(0.0, self._until - self._clock()) if self._state == "open" else 0.0

    def enter(self) -> Leave:
        """Raises Open, in no time, while nobody is to ask."""
        if self._state == "closed":
            return Leave(self._turn, trial=False)
        if self._trying or self._clock() < self._until:
            raise Open
        self._state = "half_open"
        self._trying = True
        return Leave(self._turn, trial=True)

    def succeeded(self, leave: Leave) -> None:
        """Vault served what was asked, or said no to it: it is well."""
        if leave.turn != self._turn:
            return
        self._failures = 0
        if leave.trial:
            self._turn += 1
            self._state = "closed"
            self._trying = False
            self._pause = self._first_pause
            self.since = self._now()

    def failed(self, leave: Leave) -> None:
        """Vault as a whole gave no use."""
        if leave.turn != self._turn:
            return
        self._failures += 1
        if leave.trial:
            self._pause = min(self._pause * 2, self._longest_pause)
        elif self._failures < self._most:
            return
        else:
            self.since = self._now()
        self._turn += 1
        self._state = "open"
        self._trying = False
        self._until = self._clock() + self._pause

    def given_up(self, leave: Leave) -> None:
        """Whoever asked went away before anything could be told."""
        if leave.turn == self._turn and leave.trial:
            self._trying = False
