"""Tells systemd (or who speaks its protocol, sd_notify(3)) that `up` serves, lives and stops."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping


class ServiceManager:
    """Silent where nobody asked to be told. For use by one thread."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Takes the variables out of the environment: they are meant for this process alone."""
        variables = os.environ if environment is None else environment
        self._address = variables.pop("NOTIFY_SOCKET", "")
        pid = variables.pop("WATCHDOG_PID", str(os.getpid()))
        micros = variables.pop("WATCHDOG_USEC", "")
        watched = micros.isdigit() and pid == str(os.getpid())
        # Half of what it is given, as sd_watchdog_enabled(3) advises.
        self._every = int(micros) / 2e6 if watched else None
        self._due = 0.0

    def ready(self) -> None:
        """It serves."""
        self._tell("READY=1")

    def alive(self) -> None:
        """To be called at least twice a second; tells only as often as was asked for."""
        if self._every is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """It finishes what is under way."""
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        # Nobody's work depends on the manager having heard it.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer,
        ):
            peer.settimeout(1)
            peer.sendto(state.encode(), address)
