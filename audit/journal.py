"""The only writer of the ledger. A future that resolves means: durable, and linked into the chain.

Any number of processes write one chain, each through one thread that takes the lock, reads where
the chain stands, and commits what has queued up in one transaction, with the store changes that
belong to it. Nothing is remembered between transactions: a failed one leaves nothing to repair.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from audit.errors import AuditError, LedgerUnavailable
from audit.head import head_is_sealed, head_mac
from audit.record import GENESIS, Draft, check, digest, timestamp

__all__ = ["AuditError", "Journal", "LedgerUnavailable", "Transaction", "connect"]

_LOCK_POLL = 0.0005  # seconds
# SQLite may have undone the whole transaction when one of these comes up, not the statement alone
# (https://sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction").
_FATAL = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
    }
)

_ENDS = f"""
SELECT head.seq, head.hash, head.mac, coalesce(last.seq, 0), coalesce(last.hash, '{GENESIS}')
FROM ledger_head head LEFT JOIN ledger last ON last.seq = (SELECT max(seq) FROM ledger)
"""  # noqa: S608 - made of a constant
"""The end of the chain as its head names it, and as it is."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection that may write: WAL, every commit synced to disk, foreign keys enforced.

    It never creates the file: a ledger that vanished must be noticed, not begun anew.
    """
    db = sqlite3.connect(
        path.absolute().as_uri() + "?mode=rw", uri=True, isolation_level=None, timeout=1.0
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        # What a savepoint may have to put back is kept here, not in a file made for it each time.
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        db.close()
        raise
    return db


type _Row = tuple[int, str, str, str | None, str | None, str, str, str]
"""seq, time, type, call, agent, data, prev, hash."""


class Transaction:
    """What `work` is given: the database, inside a transaction that it must not end itself."""

    __slots__ = ("_begun_at", "_rows", "db", "time")

    def __init__(self, db: sqlite3.Connection, moment: str, seq: int, tip: str) -> None:
        self.db = db
        self.time = moment
        """The time of every record of this transaction."""
        self._begun_at = seq, tip
        self._rows: list[_Row] = []

    def append(self, draft: Draft) -> None:
        """Adds one record to the chain. It is linked now, and written with all others at the end.

        Raises NotCanonical for a draft that cannot be written as it is.
        """
        data = check(draft)
        last, tip = self._end
        seq = last + 1
        link = digest(
            seq=seq,
            time=self.time,
            kind=draft.type,
            call=draft.call,
            agent=draft.agent,
            data=data,
            prev=tip,
        )
        row = (seq, self.time, draft.type, draft.call, draft.agent, data.decode(), tip, link)
        self._rows.append(row)

    def keep_salt(self, subject: str, salt: bytes) -> None:
        """Keeps the salt of the commitments about `subject` (a call's or an approval's id).

        Raises sqlite3.IntegrityError if the subject has one.
        """
        self.db.execute("INSERT INTO ledger_salts (subject, salt) VALUES (?, ?)", (subject, salt))

    # For the journal

    @property
    def length(self) -> int:
        """How many records were appended so far."""
        return len(self._rows)

    def forget(self, length: int) -> None:
        """Drops the records after the first `length`: the work that appended them is undone."""
        del self._rows[length:]

    def write(self, key: bytes) -> None:
        """Writes the records, all in one statement, and seals the last of them as the head."""
        if not self._rows:
            return
        self.db.executemany(
            "INSERT INTO ledger (seq, time, type, call, agent, data, prev, hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            self._rows,
        )
        seq, tip = self._end
        self.db.execute(
            "UPDATE ledger_head SET seq = ?, hash = ?, mac = ?", (seq, tip, head_mac(key, seq, tip))
        )

    @property
    def _end(self) -> tuple[int, str]:
        """Number and hash of the last record."""
        if not self._rows:
            return self._begun_at
        row = self._rows[-1]
        return row[0], row[-1]


class Watch(Protocol):
    """Told how the writer does, from its thread; quick, and never raises."""

    def durable(self, seconds: Sequence[float]) -> None:
        """Changes are on disk, each that long after it was handed over."""
        ...

    def lost(self, changes: int) -> None:
        """So many changes were not taken."""
        ...


class Unwatched:
    """Nobody is told."""

    def durable(self, seconds: Sequence[float]) -> None: ...

    def lost(self, changes: int) -> None: ...


def begin(db: sqlite3.Connection, first: Draft, *, moment: datetime, head_key: bytes) -> None:
    """Writes record 1 in the transaction that made the tables, so that no ledger is ever empty.

    An empty one is never begun again later: whoever emptied it would get it sealed anew.
    """
    tx = Transaction(db, timestamp(moment), 0, GENESIS)
    tx.append(first)
    tx.write(head_key)


@dataclass(slots=True)
class _Item[T]:
    """One piece of work and whoever waits for it."""

    work: Callable[[Transaction], T]
    future: Future[T]
    queued: float
    """When it was handed over, by time.monotonic."""
    patient: bool = False

    def run(self, tx: Transaction) -> Callable[[], None]:
        """Does the work inside a savepoint; returns what to tell the waiter once it is durable.

        An error of the work itself undoes this item only. Raises LedgerUnavailable or sqlite3.Error
        if the transaction as a whole is lost.
        """
        length = tx.length
        tx.db.execute("SAVEPOINT item")
        try:
            result = self.work(tx)
        except BaseException as error:
            if _is_fatal(error) or not tx.db.in_transaction:
                raise _unavailable(error) from error
            tx.db.execute("ROLLBACK TO item")
            tx.forget(length)
            failure = error
            return lambda: self.future.set_exception(failure)
        if not tx.db.in_transaction:
            raise LedgerUnavailable("the transaction was lost while the work went on")
        # The savepoint is not released: COMMIT does that, for all at once.
        return lambda: self.future.set_result(result)


class Journal:
    """Writes the ledger, and the store's changes with it.

    `path` is a database that has the tables of audit.schema. `clock` gives aware datetimes.
    `head_key` seals the head. `open_db` opens the connection, anew after every failure.

    In seconds: `linger` is how long an item waits for company while items come in crowds,
    `patience` how long one waits that nobody is waiting for, and `busy_timeout` how long a lock may
    be waited for before the ledger counts as unavailable.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime],
        head_key: bytes,
        linger: float = 0.001,
        patience: float = 0.01,
        max_batch: int = 64,
        busy_timeout: float = 5.0,
        open_db: Callable[[Path], sqlite3.Connection] = connect,
        watch: Watch | None = None,
    ) -> None:
        self._path = path
        self._clock = clock
        self._head_key = head_key
        self._linger = linger
        self._patience = patience
        self._max_batch = max_batch
        self._busy_timeout = busy_timeout
        self._open_db = open_db
        self._watch = watch or Unwatched()
        self._db: sqlite3.Connection | None = None
        self._hurried = True
        """The connection's own time-out is not `busy_timeout` now."""
        self._lock_file: int | None = None
        # Guards all that follows, down to `_closed`. (Not queue.SimpleQueue: a get() whose timeout
        # runs out at the wrong moment waits for ever, seen in CPython 3.12.1.)
        self._changed = threading.Condition()
        self._waiting: deque[_Item[object]] = deque()
        self._urgent = 0
        """Of those that wait, how many are not patient."""
        self._crowded = False
        """The last batch had several of them: another may well come within `linger`."""
        self._dozing = False
        """The writer sleeps until it is woken, not for `patience` at most."""
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    def commit[T](self, work: Callable[[Transaction], T], *, patient: bool = False) -> Future[T]:
        """Runs `work` in the writer's thread, in a transaction that it shares with others.

        The future gives what `work` returned, once that is on disk. If `work` raises, its own
        changes are undone and the future raises the same. If the transaction cannot be begun or
        committed, the future raises LedgerUnavailable and nothing of it counts. (After a power cut
        a commit that reported failure may turn out to be kept; nobody was told that it was, so
        nothing was sent.) A future cancelled before its turn does nothing.

        `patient` work goes, in its turn, with the next that is not, and by itself after twice
        `patience` at the latest: a commit and a wake-up less where nobody waits for it.
        """
        future: Future[T] = Future()
        item = _Item(work, future, time.monotonic(), patient)
        with self._changed:
            if not self._closed:
                self._waiting.append(item)  # type: ignore[arg-type]  # T is an object
                if not patient:
                    self._urgent += 1
                if self._dozing or not patient:
                    self._changed.notify()
                return future
        future.set_exception(LedgerUnavailable("the ledger's writer was closed"))
        return future

    def close(self) -> None:
        """Commits what is queued, then stops. May be called again; commit() fails from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    # The writer's thread

    def _write(self) -> None:
        while items := self._gather():
            # A future that is running can no longer be cancelled, so it resolves exactly once.
            items = _begin(items)
            if not items:
                continue
            began = time.monotonic()
            try:
                announcements = self._transact(items)
            except BaseException as error:  # noqa: BLE001 - the thread must outlive any failure
                if time.monotonic() - began >= self._busy_timeout:
                    # Those who queued up meanwhile have waited too; batch after batch of them
                    # would wait as long again.
                    items += _begin(self._take(None))
                self._watch.lost(len(items))
                for item in items:
                    item.future.set_exception(_unavailable(error))
            else:
                durable = time.monotonic()
                for announce in announcements:
                    announce()
                self._watch.durable([durable - item.queued for item in items])
        self._disconnect()
        if self._lock_file is not None:
            os.close(self._lock_file)

    def _gather(self) -> list[_Item[object]]:
        """The next batch; empty when there will be none."""
        with self._changed:
            quiet = False  # for the whole of a `patience`
            while not (self._urgent or self._closed or (quiet and self._waiting)):
                self._dozing = quiet
                quiet = not self._changed.wait(None if quiet else self._patience)
            self._dozing = False
            linger = self._crowded and not self._closed and len(self._waiting) < self._max_batch
        if linger:
            time.sleep(self._linger)
        return self._take(self._max_batch)

    def _take(self, most: int | None) -> list[_Item[object]]:
        with self._changed:
            count = len(self._waiting) if most is None else min(most, len(self._waiting))
            items = [self._waiting.popleft() for _ in range(count)]
            urgent = sum(not item.patient for item in items)
            self._urgent -= urgent
            self._crowded = urgent > 1
            return items

    def _transact(self, items: list[_Item[object]]) -> list[Callable[[], None]]:
        """One durable transaction; raises if nothing of it is to count."""
        deadline = time.monotonic() + self._busy_timeout
        lock = self._lock(deadline)
        try:
            db = self._connection()
            # The lock keeps writers of the ledger apart; SQLite's own may be held by anyone.
            left = max(0.001, deadline - time.monotonic())
            if left < self._busy_timeout / 2:
                # For once: setting it for every transaction costs as much as a row.
                db.execute(f"PRAGMA busy_timeout = {int(left * 1000)}")
                self._hurried = True
            elif self._hurried:
                db.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout * 1000)}")
                self._hurried = False
            db.execute("BEGIN IMMEDIATE")
            seq, tip = self._tip(db)
            tx = Transaction(db, timestamp(self._clock()), seq, tip)
            announcements = [item.run(tx) for item in items]
            tx.write(self._head_key)
            db.execute("COMMIT")
            return announcements
        except BaseException:
            # Undone before the lock is let go, so that no other writer has to wait for it.
            self._disconnect()
            raise
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    def _tip(self, db: sqlite3.Connection) -> tuple[int, str]:
        """Where the chain stands. Raises LedgerUnavailable if its tail is not the one sealed.

        Going on from a tail that was cut or rewritten would put our own seal on it.
        """
        found = db.execute(_ENDS).fetchone()
        if found is None or found[:2] != found[3:]:
            raise LedgerUnavailable("the ledger's last record is not the one its head names")
        seq, tip, mac = found[:3]
        if not head_is_sealed(self._head_key, seq, tip, mac):
            raise LedgerUnavailable("the ledger's head does not bear this workspace's seal")
        return seq, tip

    def _lock(self, deadline: float) -> int:
        """Takes the lock that ledger writers of all processes share.

        SQLite's own waiting sleeps up to 100 ms and is unfair; with this lock in front of it the
        slowest of four writers waits milliseconds. It dies with its process.
        """
        if self._lock_file is None:
            name = self._path.with_name(self._path.name + "-ledger.lock")
            self._lock_file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LedgerUnavailable("another process keeps the ledger locked") from None
                time.sleep(_LOCK_POLL)
            else:
                return self._lock_file

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = self._open_db(self._path)
            self._hurried = True  # `open_db` sets a time-out of its own
        return self._db

    def _disconnect(self) -> None:
        """Closes the connection, which undoes what it had begun. The next batch opens another."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()


def _begin(items: list[_Item[object]]) -> list[_Item[object]]:
    """Those that were not cancelled, from now on running."""
    return [item for item in items if item.future.set_running_or_notify_cancel()]


def _is_fatal(error: BaseException) -> bool:
    """Whether an error of the work means that the transaction as a whole is lost."""
    if isinstance(error, LedgerUnavailable):
        return True
    # The low byte is the primary result code (https://sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and (code & 0xFF) in _FATAL


def _unavailable(error: BaseException) -> LedgerUnavailable:
    """A LedgerUnavailable of one's own for each waiter: a shared one would gather tracebacks."""
    failure = LedgerUnavailable(
        str(error)
        if isinstance(error, LedgerUnavailable)
        else f"the ledger cannot be written: {error or type(error).__name__}"
    )
    failure.__cause__ = error
    return failure
