"""One stage per test process, and a table of what became of the attacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.stage import Stage, running

FOLDER = Path(__file__).parent.name


@pytest.fixture(scope="session")
def whole_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(tmp_path_factory.mktemp("attacks")) as stage:
        yield stage


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The stage with nothing arrived yet; what has arrived by the end of the test is judged."""
    whole_stage.begin()
    yield whole_stage
    whole_stage.lawful()


@pytest.fixture
def weak(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Marks an attack that was repelled, but not as well as one would like, with the reason."""
    return lambda reason: record_property("weak", reason)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    table: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(VERDICTS, 0))
    reasons: list[str] = []
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            file, _, name = report.nodeid.partition("::")
            path = Path(file)
            if path.parent.name != FOLDER:
                continue
            weaknesses = [value for key, value in report.user_properties if key == "weak"]
            kind = path.stem.removeprefix("test_").replace("_", " ")
            verdict = "break" if outcome != "passed" else "weak" if weaknesses else "held"
            table[kind][verdict] += 1
            reasons += [f"{kind}: {name}: {reason}" for reason in weaknesses]
    if not table:
        return
    terminalreporter.section("attacks")
    terminalreporter.line(f"{'class':<24}" + "".join(f"{v:>8}" for v in VERDICTS))
    totals = {verdict: sum(row[verdict] for row in table.values()) for verdict in VERDICTS}
    for kind, row in (*sorted(table.items()), ("all", totals)):
        terminalreporter.line(f"{kind:<24}" + "".join(f"{row[v]:>8}" for v in VERDICTS))
    for reason in reasons:
        terminalreporter.line(f"weak: {reason}")


VERDICTS = ("break", "weak", "held")
