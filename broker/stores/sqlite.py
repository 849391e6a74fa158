"""The store: one SQLite file that all processes of a workspace share, and nothing else (law 12).

Every change goes through the ledger's journal, so that a change of state and the records that tell
of it become durable together or not at all. Reads use a connection a thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from audit.errors import LedgerUnavailable
from audit.journal import Journal, Transaction, Watch, begin
from audit.record import Draft
from broker.errors import StoreUnavailable
from broker.ports import Clock
from broker.stores.schema import VERSIONS, migrations

BUSY_TIMEOUT = 5.0
"""Seconds a read or a migration waits for a lock."""


def to_text(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds; sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def to_moment(text: str) -> datetime:
    """The inverse of `to_text`."""
    return datetime.fromisoformat(text)


def optional_moment(text: str | None) -> datetime | None:
    """`to_moment`, None for NULL."""
    return None if text is None else to_moment(text)


def _unreadable(error: sqlite3.Error) -> StoreUnavailable:
    return StoreUnavailable(f"the store cannot be read: {error}")


class _Cursor(sqlite3.Cursor):
    """Its errors are StoreUnavailable, wherever in a reading they come up."""

    def execute(self, *arguments: Any) -> _Cursor:
        try:
            super().execute(*arguments)
        except sqlite3.Error as error:
            raise _unreadable(error) from error
        return self

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.Error as error:
            raise _unreadable(error) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.Error as error:
            raise _unreadable(error) from error

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.Error as error:
            raise _unreadable(error) from error


class _Connection(sqlite3.Connection):
    """Reads with such cursors."""

    def execute(self, *arguments: Any) -> _Cursor:
        try:
            cursor = self.cursor(_Cursor)
        except sqlite3.Error as error:
            raise _unreadable(error) from error
        return cursor.execute(*arguments)


class _Reading:
    """A thread's connection. It is closed when the thread ends: threads of pools come and go."""

    def __init__(self, path: Path) -> None:
        try:
            db = sqlite3.connect(
                path,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
                factory=_Connection,
            )
        except sqlite3.Error as error:
            raise _unreadable(error) from error
        self.close = weakref.finalize(self, db.close)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA query_only = ON")
        self.db: sqlite3.Connection = db


class _Own(threading.local):
    reading: _Reading | None = None


class Store:
    """Opens (and migrates) the file; `read` and `write` are all that the services use."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        head_key: bytes,
        create: bool = False,
        watch: Watch | None = None,
    ) -> None:
        """With `create` a missing file is made; else one that vanished is never begun anew.
        `watch` is told how the ledger's writer does.

        Raises StoreUnavailable if the file is missing, unreadable, damaged or of a newer version.
        """
        self.path = path
        self.clock = clock
        self._migrate(head_key, create=create)
        self._own = _Own()
        self._readings: weakref.WeakSet[_Reading] = weakref.WeakSet()
        self._journal = Journal(path, clock=clock, head_key=head_key, watch=watch)

    def _migrate(self, head_key: bytes, *, create: bool) -> None:
        # Several processes open a new workspace at once: one migrates, the others wait for it.
        if not create and not self.path.exists():
            raise StoreUnavailable(
                f"the store {self.path} is missing: put it back from a backup, or make a new"
                " workspace with `keybroker init`"
            )
        try:
            lock = os.open(
                self.path.with_name(self.path.name + "-migrate.lock"), os.O_CREAT | os.O_RDWR, 0o600
            )
        except OSError as error:
            raise StoreUnavailable(f"the store {self.path} cannot be opened: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _create(self.path)
            connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                database = Database(connection)
                unknown = {m.name for m in migrations.applied(database)} - VERSIONS
                if unknown:
                    raise StoreUnavailable(
                        f"the store {self.path} was written by a newer Keybroker"
                        f" (it has {', '.join(sorted(unknown))}): run that version instead"
                    )
                with database.atomic():
                    fresh = not migrations.applied(database)
                    if fresh and not create:
                        raise StoreUnavailable(f"{self.path} is no store of Keybroker's")
                    migrations.apply(database)
                    if fresh:
                        first = Draft("ledger.created", {"schema": sorted(VERSIONS)})
                        begin(connection, first, moment=self.clock(), head_key=head_key)
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"the store {self.path} cannot be opened: {error}") from error
        finally:
            os.close(lock)

    def read(self) -> sqlite3.Connection:
        """This thread's connection for reading; rows are sqlite3.Row.

        It raises StoreUnavailable when the file cannot be opened or read.
        """
        return self._reading().db

    def _reading(self) -> _Reading:
        reading = self._own.reading
        if reading is None:
            reading = self._own.reading = _Reading(self.path)
            self._readings.add(reading)
        return reading

    def counter(self, topic: str) -> int:
        """A number that grows with every change of `topic`, made in any process.

        Looking costs microseconds. (SQLite's data_version would tell no quicker, and each call
        changes that.) Raises StoreUnavailable.
        """
        found = self.read().execute("SELECT value FROM counters WHERE topic = ?", (topic,))
        value: int = found.fetchone()[0]
        return value

    def submit[T](self, work: Callable[[Transaction], T], *, patient: bool = False) -> Future[T]:
        """Runs `work` in the journal's next commit; the future resolves once that is durable.

        It carries LedgerUnavailable when the commit failed, and whatever `work` raised. `patient`
        work may wait some milliseconds for a commit that somebody waits for.
        """
        return self._journal.commit(work, patient=patient)

    def write[T](self, work: Callable[[Transaction], T]) -> T:
        """`submit`, and wait. Raises StoreUnavailable when the commit failed: nothing was kept."""
        try:
            return self.submit(work).result()
        except LedgerUnavailable as error:
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        """Writes what is waiting, then closes every connection."""
        self._journal.close()
        for reading in list(self._readings):
            reading.close()


def _create(path: Path) -> None:
    """Makes the file, for its owner only, unless it is there.

    One that is there is not even opened: to close it would drop every POSIX lock that this process
    has on it (fcntl(2)), and with them SQLite's. If it is open here already, the next process to
    leave would then take itself for the last one and remove the write-ahead log under everybody.
    https://sqlite.org/howtocorrupt.html 2.2
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def bump(tx: Transaction, topic: str) -> int:
    """Says that `topic` changed; returns the counter's new value."""
    row = tx.db.execute(
        "UPDATE counters SET value = value + 1 WHERE topic = ? RETURNING value", (topic,)
    ).fetchone()
    return int(row[0])
