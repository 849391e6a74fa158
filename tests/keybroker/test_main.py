"""An interrupt at any moment of the start ends the command without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["keybroker", "policy", "schema"]
from keybroker.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("module", "status"),
    [
        ("keybroker.cli.frame", -signal.SIGINT),
        ("certs.errors", 130),
        ("keybroker.cli.policies", 130),
    ],
)
def test_an_interrupt_while_it_starts(module: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(module=module)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_where_interrupts_are_ignored_they_stay_so() -> None:
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    script += INTERRUPTED.format(module="keybroker.cli.frame")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("{")
