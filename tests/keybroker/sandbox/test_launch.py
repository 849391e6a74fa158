"""Standard streams that would be a way out, and what the inside may import."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keybroker.errors import Unusable
from keybroker.sandbox import inner, launch, unshared
from keybroker.sandbox.launch import check_streams


@pytest.fixture
def stream() -> Iterator[int]:
    """Standard input, put back afterwards."""
    kept = os.dup(0)
    yield 0
    os.dup2(kept, 0)
    os.close(kept)


def test_a_folder_leads_everywhere(stream: int) -> None:
    fd = os.open("/", os.O_RDONLY)
    os.dup2(fd, stream)
    os.close(fd)
    with pytest.raises(Unusable, match="standard input is a folder"):
        check_streams()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_can_be_connected_anew_leads_out(stream: int, kind: int) -> None:
    family = socket.AF_INET if kind == socket.SOCK_STREAM else socket.AF_UNIX
    with socket.socket(family, kind) as sock:
        os.dup2(sock.fileno(), stream)
        with pytest.raises(Unusable, match="network socket"):
            check_streams()


def test_pipes_and_connected_pairs_do_not(stream: int) -> None:
    """Node and journald give programs socket pairs."""
    for first, second in (os.pipe(), [sock.detach() for sock in socket.socketpair()]):
        os.dup2(first, stream)
        check_streams()
        os.close(first)
        os.close(second)


@pytest.mark.parametrize("module", [inner, unshared], ids=lambda module: module.__name__)
def test_the_inside_imports_the_standard_library_alone(module: object) -> None:
    """It runs without site-packages, and `inner` where our own files may be out of sight."""
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    allowed = {"keybroker"} if module is unshared else set()
    assert names - allowed <= sys.stdlib_module_names


SLOW = """
import os, signal, time
def stop(*_):
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGSTOP)
signal.signal(signal.SIGTSTP, stop)
print(flush=True)
while True:
    time.sleep(60)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTSTP, signal.SIG_IGN)
print(flush=True)
time.sleep(60)
"""


def test_a_group_counts_as_stopped_when_all_have_stopped_who_will(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "STOPPED_WITHIN", 1000)
    group = 0
    started = []
    try:
        for code in (SLOW, SLOW, DEAF):
            command = [sys.executable, "-c", code]
            process = subprocess.Popen(command, process_group=group, stdout=subprocess.PIPE)
            started.append(process)
            group = started[0].pid
            assert process.stdout is not None
            process.stdout.readline()
        os.killpg(group, signal.SIGTSTP)
        launch._until_stopped(group)
        states = [Path(f"/proc/{p.pid}/stat").read_text().split(")")[1][1] for p in started]
        assert states == ["T", "T", "S"]
    finally:
        for process in started:
            process.kill()
            process.communicate()
