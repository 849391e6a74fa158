"""The memory that processes share: counters that never fall, gauges of the living only."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from broker.telemetry import metrics
from broker.telemetry.board import STALE, Board


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Iterator[Board]:
    made = Board.create(2)
    yield Board(made.fd, 2, clock=clock)
    made.close()


def calls(board: Board) -> float:
    return sum(board.totals()[metrics.CALLS])


def test_a_new_board_counts_nothing_and_nobody_runs(board: Board) -> None:
    assert not any(value for cells in board.totals().values() for value in cells)
    assert [(p.name, p.pid, p.alive) for p in board.processes()] == [
        ("up", 0, False), ("admin", 0, False), ("worker-0", 0, False), ("worker-1", 0, False),
    ]  # fmt: skip


def test_rows_add_up(board: Board) -> None:
    for name in ("worker-0", "worker-1"):
        board.row(name).meters.calls.add("completed", "none")
    assert calls(board) == 2.0


def test_a_successor_counts_on(board: Board, clock: Clock) -> None:
    """Nothing is lost with a process: no reset that a monitor would take for growth."""
    first = board.row("worker-0")
    first.meters.calls.add("completed", "none")
    first.meters.opened()
    clock.now += STALE
    assert board.totals()[metrics.CONNECTIONS] == [0.0]  # it is gone, and so are its connections
    assert calls(board) == 1.0
    board.row("worker-0").meters.calls.add("completed", "none")
    assert calls(board) == 2.0
    assert board.totals()[metrics.CONNECTIONS] == [0.0]


def test_a_process_that_stopped_beating_takes_no_calls(board: Board, clock: Clock) -> None:
    row = board.row("worker-1")
    row.accept(True)
    assert [p.accepting for p in board.processes()] == [False, False, False, True]
    clock.now += STALE
    assert not any(p.accepting for p in board.processes())
    row.beat()
    assert any(p.accepting for p in board.processes())
    row.accept(False)
    assert [(p.alive, p.accepting) for p in board.processes()][3] == (True, False)


async def test_gauges_are_set_with_each_beat(board: Board, clock: Clock) -> None:
    row = board.row("worker-0")
    clock.now += STALE

    def look() -> None:
        row.meters.breakers_open.set(1.0)

    beating = asyncio.create_task(row.keep_beating(look))
    await asyncio.sleep(0)
    assert board.totals()[metrics.BREAKERS_OPEN] == [1.0]
    assert board.processes()[2].alive
    beating.cancel()


def test_a_row_belongs_to_a_process_of_this_up(board: Board) -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        board.row("worker-2")


def test_memory_that_is_too_small_is_refused() -> None:
    small = Board.create(1)
    try:
        with pytest.raises((ValueError, OSError)):
            Board(small.fd, 9)
    finally:
        small.close()


@pytest.mark.e2e
def test_another_process_counts_into_it_and_is_killed() -> None:
    board = Board.create(1)
    script = (
        "import os, sys; from broker.telemetry.board import Board\n"
        "row = Board(int(sys.argv[1]), 1).row('worker-0')\n"
        "row.meters.calls.add('completed', 'none'); row.accept(True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, str(board.fd)],
        pass_fds=[board.fd],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.returncode == -9
    assert calls(board) == 1.0
    assert board.processes()[2].pid > 0
    board.close()
