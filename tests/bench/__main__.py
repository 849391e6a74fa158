"""`python -m tests.bench [--quick] [--json] [--only PART ...]`; exits 1 if a bar is missed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench import breakdown, calls, held, parts, past
from tests.bench.measure import Report
from tests.bench.rivals import (
    rival_of,
    running_keybroker,
    running_mitmdump,
    running_upstream,
)

PARTS = ("calls", "breakdown", "bodies", "held", "ledger", "decisions", "lint")
BY_HAND = ("replay",)
"""Minutes long, so only where it is asked for."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one document instead of a table")
    parser.add_argument(
        "--only", choices=(*PARTS, *BY_HAND), action="append", help="this part alone"
    )
    options = parser.parse_args()
    chosen = options.only or PARTS
    report = Report(quiet=options.json)
    if {"calls", "breakdown", "bodies", "held"} & set(chosen):
        _with_rivals(report, chosen, quick=options.quick)
    if "ledger" in chosen:
        parts.ledger(report, 5_000 if options.quick else 20_000)
    if "decisions" in chosen:
        parts.decisions(report)
    if "lint" in chosen:
        parts.lint(report)
    if "replay" in chosen:
        past.replay(report, 10_000 if options.quick else 100_000)
    if options.json:
        print(report.json())
    return 1 if any(row.met is False for row in report.rows) else 0


def _with_rivals(report: Report, chosen: tuple[str, ...] | list[str], *, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        upstream = stack.enter_context(running_upstream(directory))
        mitmdump = stack.enter_context(running_mitmdump(directory, upstream))
        program = stack.enter_context(running_keybroker(directory / "keybroker", upstream))
        rivals = {
            calls.MITM: mitmdump,
            calls.PLAIN: rival_of(program, upstream, "bot"),
            calls.KEYED: rival_of(program, upstream, "keyed"),
        }
        if "calls" in chosen:
            size = calls.QUICK if quick else calls.FULL
            calls.calls(report, size, upstream.door(), rivals)
        if "breakdown" in chosen:
            breakdown.breakdown(report, program, *((3, 100) if quick else (9, 200)))
        if "bodies" in chosen:
            calls.bodies(report, rivals)
        if "held" in chosen:
            held.held(report, program, upstream, 300 if quick else 2_000)


if __name__ == "__main__":
    sys.exit(main())
