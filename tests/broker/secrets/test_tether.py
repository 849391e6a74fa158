"""A tethered command ends when the process that started it does, by whatever end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.secrets import tether

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()),
                          sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state in {"Z", "X"}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_the_command_dies_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tether.__file__], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # Until the interpreter has asked the kernel, the check of the parent covers it.
        parent.kill()
    for _ in range(500):
        if gone(pid):
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    pytest.fail("the command outlived its parent")


def test_it_becomes_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), "/bin/echo", "-n", "a b"],
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"a b"


def test_an_orphan_does_not_even_start() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", tether.__file__, "1", "/bin/echo", "no"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the parent is gone" in done.stderr
