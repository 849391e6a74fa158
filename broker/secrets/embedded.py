"""The embedded vault: an OpenBao over one directory, set up and unsealed by Keybroker itself.

One process owns it at a time (`lock`), others join. The first start is all or nothing:
`first-start` is written before it and `ready.json` after it, and an interrupted one is thrown away
and begun anew, which loses nothing because no secret can have been written yet. The seal key lies
beside the data: it keeps a copied raft file shut, not a reader of this directory out.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.secrets.access import AppRole, VaultAccess
from broker.secrets.api import Api, Health
from broker.secrets.filelock import FileLock
from broker.secrets.files import make_directory, sync_directory, write_private
from broker.secrets.provision import MOUNT, Provisioning, RecoveryKeys
from broker.secrets.server import Server
from broker.secrets.trouble import VaultUnavailable

__all__ = ["MOUNT", "EmbeddedVault", "RecoveryKeys", "VaultBusy", "running"]

HandOver = Callable[[RecoveryKeys], None]
PATIENCE = 20.0
"""Seconds to wait for a server to serve, or for another process to let go of the directory."""
_SEALED_PATIENCE = 4.0
_POLL = 0.03
_SEAL_KEY_BYTES = 32
_PORT_TRIES = 3
_SILENT_CHECKS = 3


class VaultBusy(VaultUnavailable):
    """Another process has the vault."""


class EmbeddedVault:
    """The vault in `directory`. Start it from one place; the accesses may be asked anywhere."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self._server = Server(self.directory)
        self._lock = FileLock(self.directory / "lock")
        self._begun = self.directory / "first-start"
        self._done = self.directory / "ready.json"
        self._silent = 0

    def start(
        self, port: int = 0, *, hand_over: HandOver | None = None, patience: float = PATIENCE
    ) -> RecoveryKeys | None:
        """Starts the server and returns once it serves; the recovery keys at the first start.

        `hand_over` gets the recovery keys before the first start is committed: if the process dies
        while showing them, the next start makes new ones. `port` 0 keeps the last one if it can.
        Raises VaultUnavailable: another process has the vault, files are missing, it stays sealed.
        """
        self._make_directory()
        if not self._lock.take(exclusive=True, patience=patience):
            raise VaultBusy(
                f"Another Keybroker process runs the vault in {self.directory}, or is stopping it; "
                "stop that one first."
            )
        try:
            first = self._prepare()
            self._server.end_stale()
            health = self._launch(port)
            if first:
                return self._set_up(hand_over)
            self._check_unsealed(health)
            return None
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise VaultUnavailable(
                    f"The vault in {self.directory} cannot be started: {error.strerror} "
                    f"({error.filename})."
                ) from error
            raise

    def stop(self) -> None:
        """Stops the server and lets go of the directory; a second call does nothing."""
        self._server.terminate()
        self._lock.release()

    def tend(self) -> str | None:
        """For the supervisor, every second or so: brings a dead or silent server back.

        Returns one sentence when something was or is wrong, else None. Never raises. A sealed
        server is left sealed: somebody may have sealed it on purpose.
        """
        try:
            return self._tend()
        except (VaultUnavailable, OSError) as error:
            return f"The embedded vault could not be brought back: {error}"

    def health(self) -> Health:
        """What the server says of itself; never raises."""
        try:
            api = Api(self._access(None), timeout=2.0)
        except VaultUnavailable:
            return Health(reachable=False)
        try:
            return api.health()
        finally:
            api.close()

    @property
    def ready(self) -> bool:
        """Whether it is set up and serves reads now."""
        return self._done.exists() and self.health().active

    @property
    def pid(self) -> int | None:
        """The server's process id while this object runs it."""
        return self._server.pid

    @property
    def address(self) -> str:
        """The URL it listens on, or did the last time. Raises VaultUnavailable before any start."""
        port = self._server.port
        if port is None:
            raise VaultUnavailable(
                f"The vault in {self.directory} has never run; start it with `keybroker up`."
            )
        return f"https://127.0.0.1:{port}"

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of 127.0.0.1 that it listens on, or did the last time; empty before any."""
        return self._server.ports

    def broker_access(self) -> VaultAccess:
        """How workers get in: they may read secrets, nothing else."""
        return self._access("broker")

    def operator_access(self) -> VaultAccess:
        """How the command line gets in: it may write and list secrets, nothing else."""
        return self._access("operator")

    def _access(self, role: str | None) -> VaultAccess:
        auth = None
        if role is not None:
            try:
                role_id = str(json.loads(self._done.read_bytes())["roles"][role])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise VaultUnavailable(
                    f"The vault in {self.directory} is not set up; start it with `keybroker up`."
                ) from error
            auth = AppRole(role_id, secret_id_file=self._secret_id_file(role))
        return VaultAccess(self.address, auth, ca_bundle=self._server.certificate)

    def _secret_id_file(self, role: str) -> Path:
        return self.directory / f"{role}.secret-id"

    def _make_directory(self) -> None:
        try:
            make_directory(self.directory)
        except OSError as error:
            raise VaultUnavailable(
                f"The vault directory {self.directory} cannot be used: {error.strerror}."
            ) from error

    def _prepare(self) -> bool:
        """Checks what is there; True if this is a first start, which it makes room for."""
        server = self._server
        if self._done.exists():
            self._begun.unlink(missing_ok=True)
            wanted = [server.seal_key, server.storage / "vault.db"]
            wanted += [self._secret_id_file(role) for role in ("broker", "operator")]
            missing = [path.name for path in wanted if not path.exists()]
            if missing:
                raise VaultUnavailable(
                    f"The vault in {self.directory} lacks {', '.join(missing)}; restore it from a "
                    "backup, or remove the directory to begin with an empty vault."
                )
            return False
        if self._begun.exists():
            self._server.end_stale()
            shutil.rmtree(server.storage, ignore_errors=True)
            server.audit.unlink(missing_ok=True)
        elif server.storage.exists() and any(server.storage.iterdir()):
            raise VaultUnavailable(
                f"{server.storage} holds data, but {self._done.name} beside it is missing; restore "
                "it from a backup, or remove the directory to begin with an empty vault."
            )
        write_private(self._begun, b"")
        write_private(server.seal_key, secrets.token_bytes(_SEAL_KEY_BYTES))
        return True

    def _launch(self, port: int) -> Health:
        """Starts the process and waits for its first word."""
        for left in reversed(range(1 if port else _PORT_TRIES)):
            self._server.launch(port)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and self._server.exit_status is None:
                health = self.health()
                if health.reachable:
                    return health
                time.sleep(_POLL)
            words = self._server.last_words()
            self._server.terminate()
            if left == 0 or "address already in use" not in words:
                break
        raise VaultUnavailable(
            f"The vault in {self.directory} did not start: {words or 'it does not answer'}"
        )

    def _set_up(self, hand_over: HandOver | None) -> RecoveryKeys:
        work = Provisioning(self._access(None))
        try:
            keys = work.initialise()
            identities = work.furnish()
            for role, identity in identities.items():
                write_private(self._secret_id_file(role), identity.secret_id.encode() + b"\n")
            if hand_over is not None:
                hand_over(keys)
            work.revoke_root()
        finally:
            work.close()
        roles = {role: identity.role_id for role, identity in identities.items()}
        write_private(self._done, json.dumps({"version": 1, "roles": roles}).encode() + b"\n")
        self._begun.unlink(missing_ok=True)
        sync_directory(self.directory)
        return keys

    def _check_unsealed(self, health: Health) -> None:
        """Waits until it serves; one that is sealed for seconds will not unseal itself."""
        began = time.monotonic()
        while not health.active:
            waited = time.monotonic() - began
            if not health.initialized and health.reachable:
                raise VaultUnavailable(
                    f"The vault in {self.directory} was set up, but its data is gone; restore it "
                    "from a backup, or remove the directory to begin with an empty vault."
                )
            if self._server.exit_status is not None:
                raise VaultUnavailable(
                    f"The vault in {self.directory} ended: {self._server.last_words()}"
                )
            if waited > (_SEALED_PATIENCE if health.sealed else PATIENCE):
                raise VaultUnavailable(
                    f"The vault in {self.directory} stays sealed: {self._server.seal_key.name} "
                    "does not fit its data; put the right key back."
                    if health.sealed
                    else f"The vault in {self.directory} does not get ready: "
                    f"{self._server.last_words()}"
                )
            time.sleep(_POLL)
            health = self.health()

    def _tend(self) -> str | None:
        if not self._lock.held:
            return "The embedded vault is not started."
        status = self._server.exit_status
        if self._server.pid is None:
            why = "was down"
        elif status is not None:
            why = f"had ended with status {status}"
        else:
            health = self.health()
            if health.reachable:
                self._silent = 0
                self._server.tend_audit()
                return "The embedded vault is sealed." if health.sealed else None
            self._silent += 1
            if self._silent < _SILENT_CHECKS:
                return "The embedded vault does not answer."
            why = "did not answer"
        self._silent = 0
        self._server.terminate(patience=0)
        self._check_unsealed(self._launch(0))
        return f"The embedded vault {why} and was started again."


@contextmanager
def running(
    directory: Path, *, hand_over: HandOver | None = None, patience: float = PATIENCE
) -> Iterator[EmbeddedVault]:
    """The vault in `directory`, serving: the one that runs already, or one started for the while.

    Whoever started it for the while waits at the end for those who joined meanwhile, up to
    `patience` seconds. `hand_over` as in `EmbeddedVault.start`. Raises VaultUnavailable.
    """
    vault = EmbeddedVault(directory)
    guests = FileLock(vault.directory / "guests")
    deadline = time.monotonic() + patience
    while True:
        try:
            vault.start(hand_over=hand_over, patience=0)
        except VaultBusy:
            if time.monotonic() > deadline:
                raise
        else:
            try:
                yield vault
            finally:
                guests.take(exclusive=True, patience=patience)
                vault.stop()
                guests.release()
            return
        if guests.take(exclusive=False, patience=0):
            try:
                if vault.ready:
                    yield vault
                    return
            finally:
                guests.release()
        time.sleep(_POLL)
