"""Standard streams that would be a way out, and what the inside may import."""

from __future__ import annotations

import ast
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keybroker.errors import Unusable
from keybroker.sandbox import inner, unshared
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
