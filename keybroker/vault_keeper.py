"""The vault of one `up`: there before a secret is read, looked after by a thread, stopped last.

An embedded one is a server of ours. Into another's each process logs in by itself, unless its
SecretID can be used once: then this log-in is everybody's.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from broker.errors import KeybrokerError
from keybroker import compose
from keybroker.errors import Unusable
from keybroker.first_start import keys_to_operator
from keybroker.logs import warn
from keybroker.settings import Settings
from keybroker.workspace import Workspace

if TYPE_CHECKING:
    from broker.secrets.embedded import EmbeddedVault
    from broker.secrets.wrapped import WrappedLogin
    from broker.services import Services

TEND = 2.0
"""Seconds between looks at the embedded vault."""
TEND_LOGIN = 0.2
"""Seconds between looks at a log-in that is held for all; workers wait for a new one."""


class VaultKeeper:
    """Starts it, tends it, stops it; each once."""

    def __init__(self, workspace: Workspace, settings: Settings, services: Services) -> None:
        self._workspace = workspace
        self._settings = settings
        self._services = services
        self._kept: EmbeddedVault | WrappedLogin | None = None
        self._pause = TEND
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Raises KeybrokerError with what to mend if secrets could not be read."""
        if self._settings.vault is None:
            vault = compose.embedded_vault(self._workspace)
            self._kept = vault
            vault.start(hand_over=keys_to_operator(self._workspace, warn))
            return
        login = compose.wrapped_login(self._settings, self._services)
        if login is not None:
            self._kept, self._pause = login, TEND_LOGIN
            login.start()
        with compose.vault_admin(self._workspace, self._settings, self._services) as admin:
            health = admin.check()
        if not health.reachable or health.sealed:
            raise Unusable(health.cause or f"vault {self._settings.vault.url}: {health.sentence}")

    def tend(self) -> None:
        """Looks after it from now on, in a thread: to bring a dead one back, or to log in anew,
        takes seconds."""
        if self._kept is None:
            return
        self._thread = threading.Thread(
            target=self._look_after, args=(self._kept,), name="vault", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stops it, started or not."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()  # or it would be brought back
        if self._kept is not None:
            self._kept.stop()

    def _look_after(self, kept: EmbeddedVault | WrappedLogin) -> None:
        while not self._stopping.wait(self._pause):
            try:
                sentence = kept.tend()
            except KeybrokerError as error:
                sentence = str(error)
            except Exception as error:  # noqa: BLE001 -- the next look must come
                sentence = f"the vault could not be looked after ({type(error).__name__})"
            if sentence is not None:
                warn(sentence)
