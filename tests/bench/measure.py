"""Blocks, medians and spreads; the CPU and memory of other processes; the table and the JSON."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


def cpu_of(pids: Iterable[int]) -> float:
    """Seconds of CPU that the processes have used, to the nanosecond, ended threads included."""
    # The CPU-time clock of another process; see clock_getcpuclockid(3).
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def loop_cpu_of(pid: int) -> float:
    """Seconds of CPU that a process's first thread has used, which runs the event loop."""
    ran, *_ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9


def memory_of(pid: int, field_name: str = "VmRSS") -> float:
    """MiB, now (`VmRSS`) or at most (`VmHWM`) since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"{pid} has no {field_name}")


def forget_peak(pid: int) -> None:
    """Lets `VmHWM` begin at what is in use now; see proc_pid_clear_refs(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of several blocks: their median and their ends."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, blocks: Sequence[float]) -> Figure:
        return cls(statistics.median(blocks), min(blocks), max(blocks))


@dataclass(slots=True)
class Row:
    """What was measured, for each that was measured."""

    what: str
    unit: str
    figures: dict[str, Figure] = field(default_factory=dict)
    ratio: Figure | None = None
    """Keybroker to mitmdump, block by block."""
    bar: str = ""
    """What it must meet, in words; empty where it is for information."""
    met: bool | None = None


def row(
    what: str,
    unit: str,
    blocks: Mapping[str, Sequence[float]],
    *,
    ours: str | None = None,
    rival: str | None = None,
    at_most: float | None = None,
) -> Row:
    """A row of the blocks of each; with `ours` and `rival` the ratio of the two, round by round."""
    made = Row(what, unit, {who: Figure.of(values) for who, values in blocks.items()})
    if ours is not None and rival is not None:
        made.ratio = Figure.of(
            [mine / theirs for mine, theirs in zip(blocks[ours], blocks[rival], strict=True)]
        )
        if at_most is not None:
            made.bar = f"at most {at_most:g} times {rival}'s"
            made.met = made.ratio.median <= at_most
    return made


def in_turns(
    rounds: int, blocks: Mapping[str, Callable[[], Mapping[str, float]]]
) -> dict[str, dict[str, list[float]]]:
    """Runs every block once a round, each round in another order; figure -> who -> its values."""
    found: dict[str, dict[str, list[float]]] = {}
    names = list(blocks)
    for turn in range(rounds):
        shift = turn % len(names)
        for who in (*names[shift:], *names[:shift]):
            for figure, value in blocks[who]().items():
                found.setdefault(figure, {}).setdefault(who, []).append(value)
    return found


def quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


class Report:
    """Prints each row as it comes; keeps all for `--json`."""

    COLUMNS = ("direct", "mitmdump", "keybroker", "keybroker+key")
    """`keybroker+key`: with a credential, and so with scrubbing."""

    def __init__(self, *, quiet: bool) -> None:
        self.rows: list[Row] = []
        self._quiet = quiet
        self._began = time.monotonic()

    def head(self, title: str, columns: Sequence[str] = COLUMNS) -> None:
        if not self._quiet:
            names = "".join(f"{name:>23}" for name in columns)
            print(f"\n{title:<48}{names}{'ratio':>22}", flush=True)

    def add(self, made: Row, columns: Sequence[str] = COLUMNS) -> None:
        self.rows.append(made)
        if self._quiet:
            return
        cells = "".join(f"{_cell(made.figures.get(name)):>23}" for name in columns)
        ratio = "" if made.ratio is None else f"{made.ratio.median:.2f} ({_ends(made.ratio)})"
        verdict = {None: "", True: "  met", False: "  MISSED"}[made.met]
        print(f"{f'{made.what}, {made.unit}':<48}{cells}{ratio:>22}{verdict}", flush=True)

    def note(self, text: str) -> None:
        if not self._quiet:
            print(text, flush=True)

    def json(self) -> str:
        return json.dumps(
            {
                "seconds": round(time.monotonic() - self._began, 1),
                "rows": [
                    {
                        "what": each.what,
                        "unit": each.unit,
                        "figures": {who: _plain(figure) for who, figure in each.figures.items()},
                        "ratio": None if each.ratio is None else _plain(each.ratio),
                        "bar": each.bar or None,
                        "met": each.met,
                    }
                    for each in self.rows
                ],
            },
            indent=1,
        )


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.low == figure.high:
        return _short(figure.median)
    return f"{_short(figure.median)} ({_ends(figure)})"


def _ends(figure: Figure) -> str:
    return f"{_short(figure.low)}-{_short(figure.high)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _plain(figure: Figure) -> dict[str, float]:
    return {
        "median": round(figure.median, 4),
        "low": round(figure.low, 4),
        "high": round(figure.high, 4),
    }
