"""The bench's own arithmetic: what it says of others must be right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from tests.bench.measure import Report, cpu_of, in_turns, loop_cpu_of, memory_of, row


def test_blocks_run_in_turns_and_each_round_begins_with_another() -> None:
    ran: list[str] = []

    def block(name: str) -> dict[str, float]:
        ran.append(name)
        return {"n": float(len(ran))}

    found = in_turns(3, {"a": lambda: block("a"), "b": lambda: block("b")})
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert found == {"n": {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}}


def test_the_ratio_is_taken_round_by_round() -> None:
    made = row(
        "x", "ms", {"a": [1.0, 4.0, 9.0], "b": [2.0, 2.0, 2.0]}, ours="a", rival="b", at_most=1.0
    )
    assert made.ratio is not None
    assert (made.ratio.low, made.ratio.median, made.ratio.high) == (0.5, 2.0, 4.5)
    assert made.met is False
    assert made.figures["a"].median == 4.0


def test_a_bar_is_met_when_it_is_reached() -> None:
    assert row("x", "ms", {"a": [2.0], "b": [2.0]}, ours="a", rival="b", at_most=1.0).met is True


def test_cpu_and_memory_of_another_process() -> None:
    program = "sum(range(20_000_000)); print('done', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert cpu_of([other.pid]) > 0.01
        assert cpu_of([other.pid, os.getpid()]) > cpu_of([other.pid])
        assert 1 < memory_of(other.pid) <= memory_of(other.pid, "VmHWM")
        other.communicate(b"\n")


def test_the_document_holds_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(quiet=True)
    report.head("calls")
    report.add(row("cpu", "ms", {"a": [1.0, 3.0]}))
    assert capsys.readouterr().out == ""
    (only,) = json.loads(report.json())["rows"]
    assert only["figures"] == {"a": {"median": 2.0, "low": 1.0, "high": 3.0}}
    assert only["met"] is None


def test_the_event_loops_part_is_that_of_the_first_thread() -> None:
    """A second thread works, and the first one waits for it."""
    pid = os.getpid()
    before = cpu_of([pid]), loop_cpu_of(pid)

    def work() -> None:
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert cpu_of([pid]) - before[0] >= 0.2
    assert loop_cpu_of(pid) - before[1] < 0.15
