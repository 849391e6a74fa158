"""Calls: over a kept-alive connection, over new ones, several at a time; events; large bodies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench.line import Door
from tests.bench.measure import (
    Report,
    cpu_of,
    forget_peak,
    in_turns,
    loop_cpu_of,
    memory_of,
    quantile,
    row,
)
from tests.bench.rivals import Rival

MITM, PLAIN, KEYED, DIRECT = "mitmdump", "keybroker", "keybroker+key", "direct"
LARGE = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    rounds: int
    calls: int
    """In a block over one kept-alive connection."""
    connections: int
    """New ones in a block."""
    together: int
    """Calls in a block with `AT_ONCE` connections."""


FULL = Size(rounds=9, calls=120, connections=24, together=240)
QUICK = Size(rounds=3, calls=60, connections=10, together=120)
AT_ONCE = 8


def calls(report: Report, size: Size, direct: Door, rivals: Mapping[str, Rival]) -> None:
    """The rows about calls."""
    report.head("HTTPS, kept-alive connection, one at a time")
    found = in_turns(
        size.rounds,
        {
            DIRECT: _keep_alive(direct, None, size.calls),
            **{who: _keep_alive(r.door, r, size.calls) for who, r in rivals.items()},
        },
    )
    report.add(
        row("CPU per call", "ms", found["cpu"], ours=KEYED, rival=MITM, at_most=1.0),
    )
    report.add(row("of it in the event loop; the rest writes the ledger", "ms", found["loop"]))
    report.add(row("CPU per call of vault, supervisor, admin", "ms", found["others"]))
    report.add(row("calls", "1/s", found["rate"], ours=KEYED, rival=MITM))
    for name in ("p50", "p99"):
        added = {
            who: [a - b for a, b in zip(values, found[name][DIRECT], strict=True)]
            for who, values in found[name].items()
            if who != DIRECT
        }
        report.add(row(f"added {name}", "ms", added, ours=KEYED, rival=MITM))

    report.head(f"HTTPS, {AT_ONCE} kept-alive connections at once")
    found = in_turns(size.rounds, {who: _together(r, size.together) for who, r in rivals.items()})
    report.add(row("CPU per call", "ms", found["cpu"], ours=KEYED, rival=MITM, at_most=1.0))
    report.add(row("calls", "1/s", found["rate"], ours=KEYED, rival=MITM))

    report.head("HTTPS, a new connection for each call")
    found = in_turns(
        size.rounds,
        {
            DIRECT: _fresh(direct, None, size.connections),
            **{who: _fresh(r.door, r, size.connections) for who, r in rivals.items()},
        },
    )
    report.add(row("CPU per call", "ms", found["cpu"], ours=KEYED, rival=MITM, at_most=1.0))
    report.add(row("calls", "1/s", found["rate"], ours=KEYED, rival=MITM))

    report.head("server-sent events")
    doors = {DIRECT: direct, MITM: rivals[MITM].door, KEYED: rivals[KEYED].door}
    found = in_turns(size.rounds, {who: _events(door) for who, door in doors.items()})
    report.add(row("first event after it was written", "ms", found["delay"]))


def bodies(report: Report, rivals: Mapping[str, Rival]) -> None:
    """100 MB down and up; what was in use before is not counted."""
    report.head("100 MiB in one body, credential and scrubbing")
    who = {MITM: rivals[MITM], KEYED: rivals[KEYED]}
    for way, go in (("down", _down), ("up", _up)):
        found = in_turns(1, {name: _large(rival, go) for name, rival in who.items()})
        report.add(row(f"{way}: CPU", "s", found["cpu"], ours=KEYED, rival=MITM))
        report.add(row(f"{way}: time", "s", found["seconds"], ours=KEYED, rival=MITM))
        report.add(row(f"{way}: memory at most, above rest", "MiB", found["peak"]))


def _keep_alive(door: Door, rival: Rival | None, count: int) -> Callable[[], dict[str, float]]:
    line = door.open()
    for _ in range(20):
        line.get("/small")

    def block() -> dict[str, float]:
        line.get("/small")
        times = []
        with _Costs(rival, count) as costs:
            for _ in range(count):
                start = time.perf_counter()
                line.get("/small")
                times.append(time.perf_counter() - start)
        return costs.figures | {
            "p50": quantile(times, 50) * 1e3,
            "p99": quantile(times, 99) * 1e3,
        }

    return block


def _together(rival: Rival, count: int) -> Callable[[], dict[str, float]]:
    lines = [rival.door.open() for _ in range(AT_ONCE)]
    each = count // AT_ONCE

    def block() -> dict[str, float]:
        faults: list[BaseException] = []

        def run(number: int) -> None:
            try:
                for _ in range(each):
                    lines[number].get("/small")
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(AT_ONCE)]
        with _Costs(rival, each * AT_ONCE) as costs:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not faults, faults
        return costs.figures

    block()
    return block


def _fresh(door: Door, rival: Rival | None, count: int) -> Callable[[], dict[str, float]]:
    def one() -> None:
        line = door.open()
        line.get("/small")
        line.close()

    for _ in range(3):
        one()

    def block() -> dict[str, float]:
        with _Costs(rival, count) as costs:
            for _ in range(count):
                one()
        return costs.figures

    return block


def _events(door: Door) -> Callable[[], dict[str, float]]:
    line = door.open()
    line.first_event("/events")
    return lambda: {"delay": line.first_event("/events") * 1e3}


def _down(door: Door) -> None:
    line = door.open()
    line.get(f"/down?{LARGE}")
    line.close()


def _up(door: Door) -> None:
    line = door.open()
    line.post("/up", LARGE)
    line.close()


def _large(rival: Rival, go: Callable[[Door], None]) -> Callable[[], dict[str, float]]:
    def block() -> dict[str, float]:
        forget_peak(rival.process)
        rest = memory_of(rival.process)
        with _Costs(rival, 1) as costs:
            go(rival.door)
        return {
            "cpu": costs.figures["cpu"] / 1e3,
            "seconds": 1 / costs.figures["rate"],
            "peak": memory_of(rival.process, "VmHWM") - rest,
        }

    return block


class _Costs:
    """CPU and time of what is done inside, for each of `count` calls."""

    def __init__(self, rival: Rival | None, count: int) -> None:
        self._rival, self._count = rival, count
        self.figures: dict[str, float] = {}

    def __enter__(self) -> _Costs:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        began, *before = self._before
        now, *after = self._now()
        self.figures = {"rate": self._count / (now - began)}
        if self._rival is not None:
            for name, old, new in zip(("cpu", "others", "loop"), before, after, strict=True):
                self.figures[name] = (new - old) / self._count * 1e3

    def _now(self) -> tuple[float, float, float, float]:
        if self._rival is None:
            return time.perf_counter(), 0.0, 0.0, 0.0
        process = self._rival.process
        return (
            time.perf_counter(),
            cpu_of([process]),
            cpu_of(self._rival.helpers),
            loop_cpu_of(process),
        )
