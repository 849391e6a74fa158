"""A piece of memory that the processes of one `up` share: a row of numbers for each of them.

`up` makes it and hands it down like a socket. So it outlives each process: the worker that takes a
dead one's place counts on from where that one stopped, and no counter ever falls. It needs no disk,
no lock between processes (a row has one writer) and no copying. Nothing depends on what stands
here; it is only looked at (law 12).
"""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from broker.telemetry.meters import Meters
from broker.telemetry.metrics import CELLS, COUNTED, PLACES, Metric

BEAT = 1.0
"""Seconds between two beats of a process."""
STALE = 5.0
"""Seconds after its last beat that a process counts as gone or stuck."""

_HEAD = 4
"""Cells before the metrics: last beat, process id, start, whether calls are taken."""
_BEAT, _PID, _START, _ACCEPTING = range(_HEAD)
_ROW = _HEAD + CELLS


@dataclass(frozen=True, slots=True)
class Process:
    """One row's process, as it is at the moment."""

    name: str
    pid: int
    """0: it never ran."""
    started: float
    """Unix time."""
    alive: bool
    accepting: bool


class Row:
    """What one process writes. Cells are eight bytes, aligned: a reader sees all of one or none."""

    def __init__(self, cells: memoryview[float], *, clock: Callable[[], float]) -> None:
        self._cells = cells
        self._clock = clock
        cells[_PID], cells[_START], cells[_ACCEPTING] = os.getpid(), time.time(), 0.0
        self.meters = Meters(cells[_HEAD:])
        self.beat()

    def beat(self) -> None:
        """Says that this process is alive."""
        self._cells[_BEAT] = self._clock()

    async def keep_beating(self, look: Callable[[], None] = lambda: None) -> None:
        """Beats on the event loop until cancelled: a loop that hangs stops it, as it should.

        `look` is called each time, to set gauges.
        """
        while True:
            self.beat()
            look()
            await asyncio.sleep(BEAT)

    def accept(self, yes: bool) -> None:
        """Says whether this process takes new calls."""
        self._cells[_ACCEPTING] = float(yes)


class Board:
    """The rows: `up` itself, the admin page, and the workers."""

    def __init__(self, fd: int, workers: int, *, clock: Callable[[], float] = time.monotonic):
        """Over memory that `create` made, perhaps in another process. Raises OSError, ValueError.

        `clock` is the machine's monotonic clock, which all processes share.
        """
        self.fd = fd
        self.names = ("up", "admin", *(f"worker-{i}" for i in range(workers)))
        self._clock = clock
        self._memory = mmap.mmap(fd, _ROW * 8 * len(self.names))
        self._cells = memoryview(self._memory).cast("d")

    @classmethod
    def create(cls, workers: int) -> Board:
        """A new one, all zero. Raises OSError."""
        size = _ROW * 8 * (2 + workers)
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("keybroker-board", os.MFD_CLOEXEC)
        else:  # no such call (macOS): a file without a name, which goes with its last holder
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size)
        return cls(fd, workers)

    def row(self, name: str) -> Row:
        """The row of the process `name`, to be written by it alone. Raises ValueError."""
        return Row(self._span(self.names.index(name)), clock=self._clock)

    def processes(self) -> list[Process]:
        """Every process that should run."""
        now, found = self._clock(), []
        for index, name in enumerate(self.names):
            head = self._span(index)[:_HEAD]
            alive = head[_PID] > 0 and now - head[_BEAT] < STALE
            found.append(
                Process(name, int(head[_PID]), head[_START], alive, alive and head[_ACCEPTING] > 0)
            )
        return found

    def totals(self) -> dict[Metric, list[float]]:
        """The cells of each counted metric, summed over the rows; gauges over living ones only."""
        rows = [
            (self._span(index)[_HEAD:].tolist(), process.alive)
            for index, process in enumerate(self.processes())
        ]
        everything = [sum(column) for column in zip(*(row for row, _ in rows), strict=True)]
        living = [sum(column) for column in zip(*(row for row, on in rows if on), strict=True)]
        return {
            metric: ((living or [0.0] * CELLS) if metric.kind == "gauge" else everything)[
                PLACES[metric] : PLACES[metric] + metric.size
            ]
            for metric in COUNTED
        }

    def close(self) -> None:
        """Gives the memory back; rows made of it must not be used after."""
        os.close(self.fd)

    def _span(self, index: int) -> memoryview[float]:
        return self._cells[index * _ROW : (index + 1) * _ROW]
