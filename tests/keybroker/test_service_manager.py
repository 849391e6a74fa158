"""systemd is told what it asked to be told, and children are not asked in its stead."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from keybroker.service_manager import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(0.2)
        yield listening


def heard(listening: socket.socket) -> list[bytes]:
    said = []
    try:
        while True:
            said.append(listening.recv(100))
    except TimeoutError:
        return said


def test_it_is_told_in_order(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "PATH": "/bin"}
    told = ServiceManager(environment)
    told.ready()
    told.alive()  # no watchdog was asked for
    told.stopping()
    assert heard(manager) == [b"READY=1", b"STOPPING=1"]
    assert environment == {"PATH": "/bin"}


def test_a_watchdog_hears_of_it_as_often_as_it_asked(manager: socket.socket) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "60000000"})
    for _ in range(5):
        told.alive()
    assert heard(manager) == [b"WATCHDOG=1"]


def test_a_watchdog_of_another_process_is_not_fed(manager: socket.socket) -> None:
    asked = {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    told = ServiceManager({"NOTIFY_SOCKET": manager.getsockname(), **asked})
    told.alive()
    assert heard(manager) == []


def test_abstract_addresses_serve() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0keybroker-test-{os.getpid()}")
        listening.settimeout(0.2)
        ServiceManager({"NOTIFY_SOCKET": f"@keybroker-test-{os.getpid()}"}).ready()
        assert heard(listening) == [b"READY=1"]


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "vsock:2:1"])
def test_who_cannot_be_told_is_not(address: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "junk"}).ready()
