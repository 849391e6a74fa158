"""A future that resolves means durable and linked, however and wherever a write is broken."""

from __future__ import annotations

import fcntl
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import closing, suppress
from pathlib import Path

import pytest

from audit.errors import NotCanonical
from audit.journal import Journal, LedgerUnavailable, Transaction, connect
from audit.query import export
from audit.reading import open_ledger
from audit.record import Draft, Record
from audit.verify import verify
from tests.audit.ledgers import CREATED, KEY, create, tampering, ticking, write

pytestmark = pytest.mark.e2e  # real processes and time-outs

PATIENCE = 20.0
"""Seconds after which a test gives up; nothing is expected to take long."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = write(create(tmp_path / "ledger.db"), [CREATED])
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE store (id INTEGER PRIMARY KEY, note TEXT)")
        db.execute("CREATE TABLE child (id INTEGER REFERENCES store (id))")
    return path


Starter = Callable[..., Journal]


@pytest.fixture
def start(path: Path) -> Iterator[Starter]:
    """Makes a journal; all are closed in the end."""
    journals: list[Journal] = []

    def start(**settings: object) -> Journal:
        options = {"clock": ticking(), "head_key": KEY, "busy_timeout": 0.2} | settings
        journals.append(Journal(path, **options))  # type: ignore[arg-type]
        return journals[-1]

    yield start
    for journal in journals:
        journal.close()


def login(user: str) -> Callable[[Transaction], str]:
    """Work that changes the store and appends a record of it."""

    def work(tx: Transaction) -> str:
        tx.db.execute("INSERT INTO store (note) VALUES (?)", (user,))
        tx.append(Draft("user.login", {"user": user, "method": "test"}))
        return user

    return work


def failing(error: BaseException, user: str = "nobody") -> Callable[[Transaction], str]:
    def work(tx: Transaction) -> str:
        login(user)(tx)
        raise error

    return work


def records(path: Path) -> list[Record]:
    with closing(open_ledger(path)) as db:
        return list(export(db))


def kept(path: Path) -> list[str]:
    """Who is in the ledger, after a check that the store says the same and that all is whole."""
    users = [str(r.data["user"]) for r in records(path) if r.type == "user.login"]
    with closing(sqlite3.connect(path)) as db:
        assert [note for (note,) in db.execute("SELECT note FROM store ORDER BY id")] == users
    assert verify(path, head_key=KEY).faults == []
    return users


def result[T](future: Future[T]) -> T:
    return future.result(PATIENCE)


def refused(future: Future[str]) -> str:
    """The sentence of a LedgerUnavailable."""
    with pytest.raises(LedgerUnavailable) as caught:
        future.result(PATIENCE)
    return str(caught.value)


class Held:
    """Work that keeps the writer busy until it is let go, so that a batch can queue up behind."""

    def __init__(self, journal: Journal) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self.future = journal.commit(self._work)
        assert self._begun.wait(PATIENCE)

    def _work(self, tx: Transaction) -> None:
        self._begun.set()
        assert self._go.wait(PATIENCE)

    def let_go(self) -> None:
        self._go.set()
        result(self.future)


class Fragile(sqlite3.Connection):
    """A connection that breaks at a statement: before it was done (lost) or after (kept)."""

    breaks_at = ""
    kept = False
    seen: list[str] = []  # noqa: RUF012 - shared by the connections of one test

    def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
        return self._broken_or_done(super().execute, sql, *args)

    def executemany(self, sql: str, *args: object) -> sqlite3.Cursor:
        return self._broken_or_done(super().executemany, sql, *args)

    def _broken_or_done(
        self, do: Callable[..., sqlite3.Cursor], sql: str, *args: object
    ) -> sqlite3.Cursor:
        self.seen.append(sql)
        if not (self.breaks_at and sql.strip().startswith(self.breaks_at)):
            return do(sql, *args)
        if self.kept:
            do(sql, *args)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error


@pytest.fixture
def fragile() -> Iterator[type[Fragile]]:
    class Own(Fragile):
        seen: list[str] = []  # noqa: RUF012

    return Own


def through(kind: type[Fragile]) -> Callable[[Path], sqlite3.Connection]:
    def open_db(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, factory=kind)
        db.execute("PRAGMA synchronous = FULL")
        return db

    return open_db


# The plain path


def test_store_and_ledger_change_together(path: Path, start: Starter) -> None:
    assert result(start().commit(login("alice"))) == "alice"
    assert kept(path) == ["alice"]


def test_what_one_transaction_appends_has_one_time(path: Path, start: Starter) -> None:
    def work(tx: Transaction) -> str:
        tx.append(Draft("secret.read", {"secrets": []}, "c1", "bot"))
        tx.append(Draft("call.sent", {"approval": None}, "c1", "bot"))
        return tx.time

    time = result(start().commit(work))
    assert [r.time for r in records(path)[1:]] == [time, time]


def test_the_connection_is_as_durable_as_it_gets(start: Starter) -> None:
    def settings(tx: Transaction) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [tx.db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert result(start().commit(settings)) == ["wal", 2, 1]


def test_work_that_appends_nothing_leaves_the_head_alone(path: Path, start: Starter) -> None:
    result(start().commit(lambda tx: tx.db.execute("SELECT 1").fetchone()))
    assert len(records(path)) == 1
    assert verify(path, head_key=KEY).ok


def test_a_salt_is_kept_apart_and_once(path: Path, start: Starter) -> None:
    journal = start()
    result(journal.commit(lambda tx: tx.keep_salt("c1", b"s" * 32)))
    with pytest.raises(sqlite3.IntegrityError):
        result(journal.commit(lambda tx: tx.keep_salt("c1", b"t" * 32)))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM ledger_salts").fetchall() == [("c1", b"s" * 32)]


def test_what_queues_up_is_one_commit(path: Path, start: Starter, fragile: type[Fragile]) -> None:
    journal = start(open_db=through(fragile), max_batch=4)
    held = Held(journal)
    futures = [journal.commit(login(f"u{i}")) for i in range(10)]
    fragile.seen.clear()
    held.let_go()
    assert [result(future) for future in futures] == [f"u{i}" for i in range(10)]
    assert fragile.seen.count("COMMIT") == 1 + 3  # the held one; 4, 4 and 2
    assert kept(path) == [f"u{i}" for i in range(10)]


@pytest.mark.parametrize("linger", [0.0, 1e-6, 1e-5, 1e-4])
def test_a_lone_item_never_waits_for_company_in_vain(start: Starter, linger: float) -> None:
    """queue.SimpleQueue.get(timeout) hung here now and then, with the item in hand."""
    journal = start(linger=linger)
    for _ in range(100):
        result(journal.commit(lambda tx: None))


# Work that nobody waits for


def test_patient_work_goes_with_the_next_that_somebody_waits_for(
    path: Path, start: Starter, fragile: type[Fragile]
) -> None:
    journal = start(open_db=through(fragile), patience=PATIENCE)
    result(journal.commit(login("before")))
    fragile.seen.clear()
    patient = [journal.commit(login(user), patient=True) for user in ("one", "two")]
    urgent = journal.commit(login("three"))
    assert result(urgent) == "three"
    assert [result(future) for future in patient] == ["one", "two"]
    assert fragile.seen.count("COMMIT") == 1
    assert kept(path) == ["before", "one", "two", "three"]  # in their order


@pytest.mark.parametrize("rest", [0.0, 0.05], ids=["awake", "asleep"])
def test_patient_work_goes_by_itself_if_nothing_else_comes(
    path: Path, start: Starter, rest: float
) -> None:
    journal = start(patience=0.01)
    for user in ("one", "two"):
        time.sleep(rest)  # long enough for the writer to go to sleep, or not
        assert result(journal.commit(login(user), patient=True)) == user
    assert kept(path) == ["one", "two"]


def test_closing_writes_patient_work_at_once(path: Path, start: Starter) -> None:
    journal = start(patience=PATIENCE)
    futures = [journal.commit(login(user), patient=True) for user in ("one", "two")]
    journal.close()
    assert [future.result(0) for future in futures] == ["one", "two"]
    assert kept(path) == ["one", "two"]


def test_patient_work_that_fails_tells_its_future(path: Path, start: Starter) -> None:
    journal = start(patience=0.001)
    bad = journal.commit(failing(KeyError("mine")), patient=True)
    with pytest.raises(KeyError, match="mine"):
        result(bad)
    assert kept(path) == []


def test_a_crowd_is_waited_for_and_a_lone_item_is_not(
    path: Path, start: Starter, fragile: type[Fragile]
) -> None:
    journal = start(open_db=through(fragile), linger=0.2)
    held = Held(journal)
    crowd = [journal.commit(login(user)) for user in ("one", "two")]
    held.let_go()
    for future in crowd:
        result(future)
    fragile.seen.clear()
    first = journal.commit(login("three"))
    time.sleep(0.02)
    second = journal.commit(login("four"))
    assert (result(first), result(second)) == ("three", "four")
    assert fragile.seen.count("COMMIT") == 1
    assert kept(path) == ["one", "two", "three", "four"]


# Work that fails


def test_an_error_of_the_work_undoes_its_own_item_only(path: Path, start: Starter) -> None:
    journal = start()
    held = Held(journal)
    before, after = journal.commit(login("before")), None
    error = KeyError("mine")
    bad = journal.commit(failing(error))
    after = journal.commit(login("after"))
    held.let_go()
    with pytest.raises(KeyError) as caught:
        result(bad)
    assert caught.value is error
    assert (result(before), result(after)) == ("before", "after")
    assert kept(path) == ["before", "after"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_even_an_exit_reaches_the_waiter_and_not_the_thread(
    path: Path, start: Starter, error: BaseException
) -> None:
    journal = start()
    with pytest.raises(type(error)):
        result(journal.commit(failing(error)))
    result(journal.commit(login("alice")))
    assert kept(path) == ["alice"]


def test_a_draft_that_cannot_be_written_fails_alone(path: Path, start: Starter) -> None:
    journal = start()
    held = Held(journal)
    bad = journal.commit(lambda tx: tx.append(Draft("user.login", {"at": 1.5})))  # type: ignore[dict-item]
    good = journal.commit(login("alice"))
    held.let_go()
    with pytest.raises(NotCanonical, match="a float has no place"):
        result(bad)
    result(good)
    assert kept(path) == ["alice"]


def test_a_constraint_of_the_store_fails_alone(path: Path, start: Starter) -> None:
    journal = start()
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        result(journal.commit(lambda tx: tx.db.execute("INSERT INTO child VALUES (77)")))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        result(journal.commit(lambda tx: tx.db.execute("SELECT * FROM nowhere")))
    result(journal.commit(login("alice")))
    assert kept(path) == ["alice"]


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT"])
def test_work_that_ends_the_transaction_gets_nothing(path: Path, start: Starter, end: str) -> None:
    journal = start()
    assert "transaction was lost" in refused(journal.commit(lambda tx: str(tx.db.execute(end))))
    result(journal.commit(login("alice")))
    assert kept(path) == ["alice"]


def test_an_error_of_an_earlier_item_takes_its_records_along(path: Path, start: Starter) -> None:
    """The chain goes on from the last record that stays."""
    journal = start()
    held = Held(journal)

    def twice(tx: Transaction) -> None:
        login("mallory")(tx)
        login("mallory")(tx)
        raise KeyError

    futures = [journal.commit(work) for work in (login("one"), twice, login("two"), twice)]
    held.let_go()
    assert [type(future.exception(PATIENCE)) for future in futures] == [
        type(None),
        KeyError,
        type(None),
        KeyError,
    ]
    assert kept(path) == ["one", "two"]


# Each statement of a write broken twice


STATEMENTS = [
    "BEGIN IMMEDIATE",
    "SELECT head.seq",
    "SAVEPOINT",
    "INSERT INTO store",
    "INSERT INTO ledger",
    "UPDATE ledger_head",
    "COMMIT",
]


@pytest.mark.parametrize("was_kept", [False, True], ids=["lost", "kept"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_broken_write_tells_every_waiter_and_the_next_goes_on(
    path: Path, start: Starter, fragile: type[Fragile], statement: str, was_kept: bool
) -> None:
    journal = start(open_db=through(fragile))
    result(journal.commit(login("before")))
    held = Held(journal)
    futures = [journal.commit(login(user)) for user in ("one", "two")]
    held.let_go()
    for future in futures:
        result(future)
    fragile.breaks_at, fragile.kept = statement, was_kept
    held_back = [journal.commit(login(user)) for user in ("three", "four")]
    sentences = [refused(future) for future in held_back]
    assert all("disk I/O error" in sentence for sentence in sentences)
    # Only a commit that was done but reported as failed can stay; nobody was told that it did.
    lasting = ["three", "four"] if statement == "COMMIT" and was_kept else []
    assert kept(path)[:3] == ["before", "one", "two"]
    assert set(kept(path)[3:]) <= set(lasting)
    fragile.breaks_at = ""
    result(journal.commit(login("after")))
    assert kept(path)[-1] == "after"
    assert set(kept(path)[3:-1]) == set(lasting)


@pytest.mark.parametrize("was_kept", [False, True], ids=["lost", "kept"])
def test_a_connection_that_breaks_at_once_is_replaced(
    path: Path, start: Starter, fragile: type[Fragile], was_kept: bool
) -> None:
    fragile.breaks_at, fragile.kept = "PRAGMA busy_timeout", was_kept
    journal = start(open_db=through(fragile))
    futures = [journal.commit(login(user)) for user in ("one", "two")]
    assert all("disk I/O error" in refused(future) for future in futures)
    fragile.breaks_at = ""
    result(journal.commit(login("after")))
    assert kept(path) == ["after"]


def test_each_waiter_gets_an_error_of_its_own(start: Starter, fragile: type[Fragile]) -> None:
    """A shared exception would gather the tracebacks of all who raise it."""
    journal = start(open_db=through(fragile))
    held = Held(journal)
    futures = [journal.commit(login("a")), journal.commit(login("b"))]
    fragile.breaks_at = "COMMIT"
    with pytest.raises(LedgerUnavailable):
        held.let_go()
    errors = [future.exception(PATIENCE) for future in futures]
    assert errors[0] is not errors[1]


def test_a_clock_that_fails_is_survived(path: Path, start: Starter) -> None:
    good, broken = ticking(), threading.Event()
    broken.set()

    def clock():  # type: ignore[no-untyped-def]
        if broken.is_set():
            raise OSError("no clock")
        return good()

    journal = start(clock=clock)
    assert "no clock" in refused(journal.commit(login("bob")))
    broken.clear()
    result(journal.commit(login("alice")))
    assert kept(path) == ["alice"]


# A ledger that cannot be written


def test_a_locked_database_is_unavailable_and_comes_back(path: Path, start: Starter) -> None:
    journal = start()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "database is locked" in refused(journal.commit(login("bob")))
        other.execute("ROLLBACK")
    result(journal.commit(login("alice")))
    assert kept(path) == ["alice"]


def test_a_writer_that_hangs_makes_the_ledger_unavailable(path: Path, start: Starter) -> None:
    journal = start()
    with (path.parent / "ledger.db-ledger.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sentence = refused(journal.commit(login("bob")))
        assert sentence == "another process keeps the ledger locked"
    result(journal.commit(login("alice")))
    assert kept(path) == ["alice"]


def test_those_who_queued_behind_a_lock_do_not_wait_for_it_one_after_the_other(
    path: Path, start: Starter, fragile: type[Fragile]
) -> None:
    journal = start(open_db=through(fragile), max_batch=1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        held = Held(journal)
        futures = [journal.commit(login(f"u{i}")) for i in range(20)]
        fragile.seen.clear()
        with (path.parent / "ledger.db-ledger.lock").open("w") as lock:
            # The held one has this lock until it is let go.
            threading.Thread(target=held.let_go).start()
            fcntl.flock(lock, fcntl.LOCK_EX)
            other.execute("BEGIN IMMEDIATE")
            fcntl.flock(lock, fcntl.LOCK_UN)
            outcomes = [type(future.exception(PATIENCE)) for future in futures]
        other.execute("ROLLBACK")
    lost = outcomes.count(LedgerUnavailable)
    assert lost
    assert fragile.seen.count("BEGIN IMMEDIATE") <= (20 - lost) + 2
    assert len(kept(path)) == 20 - lost


def test_a_full_database_is_unavailable_and_comes_back(path: Path, start: Starter) -> None:
    limit: list[int] = []

    def open_db(path: Path) -> sqlite3.Connection:
        db = connect(path)
        db.execute(f"PRAGMA max_page_count = {limit[0] if limit else 2**30}")
        return db

    with closing(sqlite3.connect(path)) as db:
        limit.append(db.execute("PRAGMA page_count").fetchone()[0])
    journal = start(open_db=open_db)
    big = login("x" * 100_000)
    assert "full" in refused(journal.commit(big))
    held = Held(journal)
    futures = [journal.commit(work) for work in (login("early"), big, login("late"))]
    held.let_go()
    assert ["full" in refused(future) for future in futures] == [True] * 3
    assert kept(path) == []
    limit.clear()
    result(journal.commit(login("alice")))
    assert kept(path)[-1] == "alice"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_unavailable_and_comes_back(small_disk: Path) -> None:
    path = write(create(small_disk / "ledger.db"), [CREATED])
    ballast = small_disk / "ballast"
    journal = Journal(path, clock=ticking(), head_key=KEY, busy_timeout=0.2)
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)

    def work(tx: Transaction) -> None:
        tx.append(Draft("user.login", {"user": "u" * 10_000}))

    durable, lost = 0, 0
    while lost < 3:
        try:
            result(journal.commit(work))
            durable += 1
        except LedgerUnavailable:
            lost += 1
    assert len(records(path)) == 1 + durable
    ballast.unlink()
    result(journal.commit(work))
    journal.close()
    verdict = verify(path, head_key=KEY)
    assert verdict.ok
    assert verdict.records == 1 + durable + 1


def test_a_missing_file_is_not_made_anew(path: Path, start: Starter) -> None:
    journal = start()
    moved = path.rename(path.with_name("elsewhere.db"))
    assert "unable to open database file" in refused(journal.commit(login("bob")))
    assert not path.exists()
    moved.rename(path)
    result(journal.commit(login("alice")))
    assert kept(path) == ["alice"]


def test_a_file_without_the_schema_is_unavailable(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    journal = Journal(tmp_path / "empty.db", clock=ticking(), head_key=KEY)
    assert "no such table" in refused(journal.commit(login("bob")))
    journal.close()


# A tail that is not ours gets no seal of ours


def test_a_cut_tail_is_not_built_upon(path: Path, start: Starter) -> None:
    write(path, [Draft("user.login"), Draft("user.logout")])
    with tampering(path) as db:
        db.execute("DELETE FROM ledger WHERE seq = 3")
    sentence = "the ledger's last record is not the one its head names"
    assert refused(start().commit(login("bob"))) == sentence
    with tampering(path) as db:
        db.execute(
            "UPDATE ledger_head SET (seq, hash) = (SELECT seq, hash FROM ledger WHERE seq=2)"
        )
    sentence = "the ledger's head does not bear this workspace's seal"
    assert refused(start().commit(login("bob"))) == sentence
    with tampering(path) as db:
        db.execute("DELETE FROM ledger_head")
    assert "its head" in refused(start().commit(login("bob")))


def test_another_key_cannot_go_on(path: Path, start: Starter) -> None:
    assert "seal" in refused(start(head_key=b"other" * 8).commit(login("bob")))


# Ends


def test_close_commits_what_is_queued_and_takes_nothing_more(path: Path, start: Starter) -> None:
    journal = start()
    held = Held(journal)
    futures = [journal.commit(login(f"u{i}")) for i in range(100)]
    closer = threading.Thread(target=journal.close)
    closer.start()
    held.let_go()
    closer.join()
    assert [future.done() for future in futures] == [True] * 100
    assert kept(path) == [f"u{i}" for i in range(100)]
    assert refused(journal.commit(login("late"))) == "the ledger's writer was closed"
    journal.close()


def test_a_cancelled_future_does_nothing_and_a_running_one_cannot_be(
    path: Path, start: Starter
) -> None:
    journal = start()
    held = Held(journal)
    assert not held.future.cancel()
    future = journal.commit(login("bob"))
    assert future.cancel()
    last = journal.commit(login("alice"))
    held.let_go()
    result(last)
    with pytest.raises(CancelledError):
        result(future)
    assert kept(path) == ["alice"]


# Several processes


def writer(path: Path, count: int, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.audit.writer", str(path), str(count), name],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def names(path: Path) -> list[str]:
    return [str(r.data["user"]) for r in records(path) if r.type == "user.login"]


def test_several_processes_write_one_chain(path: Path, start: Starter) -> None:
    children = [writer(path, 120, name) for name in ("a", "b", "c")]
    journal = start(busy_timeout=PATIENCE)
    for i in range(40):
        result(journal.commit(lambda tx, i=i: tx.append(Draft("user.login", {"user": f"d-{i}"}))))
    told = {line for child in children for line in child.communicate(timeout=60)[0].split()}
    assert [child.returncode for child in children] == [0, 0, 0]
    written = names(path)
    expected = {f"{name}-{i}" for name in "abc" for i in range(120)}
    assert told == expected
    assert set(written) == expected | {f"d-{i}" for i in range(40)}
    assert len(written) == 400
    for name in "abcd":  # each writer's records are in its own order
        own = [int(w.split("-")[1]) for w in written if w.startswith(name)]
        assert own == sorted(own)
    assert verify(path, head_key=KEY).faults == []


def test_a_writer_killed_in_the_middle_loses_nothing_that_it_announced(path: Path) -> None:
    victim, other = writer(path, 0, "victim"), writer(path, 150, "other")
    assert victim.stdout is not None
    announced = [victim.stdout.readline().strip() for _ in range(60)]
    victim.kill()
    with victim.stdout as rest:  # communicate() would pass over what readline() had read ahead
        announced += [line.strip() for line in rest if line.endswith("\n")]
    victim.wait(PATIENCE)
    told, _ = other.communicate(timeout=60)
    assert other.returncode == 0
    assert len(told.split()) == 150
    written = set(names(path))
    assert set(announced) <= written
    assert set(told.split()) <= written
    assert verify(path, head_key=KEY).faults == []


def test_the_lock_dies_with_its_process(path: Path, start: Starter) -> None:
    """A lock file left behind by the dead keeps nobody out."""
    lock = path.with_name("ledger.db-ledger.lock")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
            " print('held', flush=True); time.sleep(600)",
            str(lock),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    journal = start()
    refused(journal.commit(login("bob")))
    holder.kill()
    holder.communicate()
    assert lock.exists()
    result(journal.commit(login("alice")))
    assert kept(path) == ["alice"]
