"""The store: one file for all processes; writes are durable, reads show the present."""

from __future__ import annotations

import gc
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from audit.errors import LedgerUnavailable
from audit.record import GENESIS, Draft
from audit.verify import verify
from broker.errors import StoreUnavailable
from broker.stores.sqlite import Store, bump, optional_moment, to_moment, to_text
from tests.support.services import Clock, World

KEY = b"h" * 32


def open_store(path: Path) -> Store:
    return Store(path, clock=Clock(), head_key=KEY, create=True)


def test_a_moment_is_the_same_after_the_round_and_sorts_as_text() -> None:
    moment = datetime(2026, 11, 22, 10, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert to_text(moment) == "2026-11-22T08:00:00.000005Z"
    assert to_moment(to_text(moment)) == moment
    assert to_text(moment.replace(microsecond=0)) < to_text(moment)
    assert optional_moment(None) is None
    assert optional_moment("2026-11-22T08:00:00.000000Z") == datetime(2026, 11, 22, 8, tzinfo=UTC)


def test_a_new_store_is_readable_by_its_owner_only_and_begins_its_ledger(tmp_path: Path) -> None:
    path = tmp_path / "keybroker.db"
    open_store(path).close()
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    open_store(path).close()
    verdict = verify(path, head_key=KEY)
    assert verdict.ok, verdict.faults
    assert verdict.records == 1


def test_to_open_it_twice_in_one_process_takes_no_lock_away(tmp_path: Path) -> None:
    """SQLite's locks are the process's: if one goes, another process removes the log in use."""
    path = tmp_path / "keybroker.db"
    first = open_store(path)
    first.write(lambda tx: bump(tx, "agents"))
    open_store(path).close()
    before = first.counter("agents")
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
            "db.execute('UPDATE counters SET value = value + 1'); db.commit(); db.close()",
            str(path),
        ],
        check=True,
    )
    assert path.with_name(path.name + "-wal").exists()
    assert first.counter("agents") == before + 1
    first.write(lambda tx: bump(tx, "agents"))
    first.close()
    assert verify(path, head_key=KEY).ok


def test_many_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keybroker.db"
    with ThreadPoolExecutor(6) as pool:
        for store in pool.map(open_store, [path] * 6):
            store.close()
    verdict = verify(path, head_key=KEY)
    assert (verdict.ok, verdict.records) == (True, 1)


def test_a_store_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keybroker.db"
    open_store(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('keybroker', 'v9', 'tomorrow')"
        )
    with pytest.raises(StoreUnavailable, match=r"newer Keybroker \(it has v9\)"):
        open_store(path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keybroker.db"
    path.write_bytes(b"something else altogether" * 100)
    with pytest.raises(StoreUnavailable, match="cannot be opened: file is not a database"):
        open_store(path)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        open_store(tmp_path / "nowhere" / "keybroker.db")


def test_who_reads_cannot_write(world: World) -> None:
    with pytest.raises(StoreUnavailable, match="readonly"):
        world.services.store.read().execute("DELETE FROM users")


def test_a_file_that_cannot_be_read_any_more_is_a_store_that_is_unavailable(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path / "keybroker.db")
    assert store.counter("agents") == 0
    with pytest.raises(StoreUnavailable, match="no such table"):
        store.read().execute("SELECT * FROM nowhere")
    rows = store.read().execute("SELECT 1 AS one UNION SELECT 2")
    assert [row["one"] for row in rows] == [1, 2]
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.counter("agents")


def test_a_counter_shows_what_another_process_changed(world: World) -> None:
    other = world.open()
    seen = world.services.store.counter("agents")
    assert other.store.counter("agents") == seen
    other.store.write(lambda tx: bump(tx, "agents"))
    assert world.services.store.counter("agents") == seen + 1
    assert world.services.store.counter("policies") == other.store.counter("policies")


def test_work_that_fails_leaves_nothing(world: World) -> None:
    store = world.services.store
    before, records = store.counter("agents"), len(world.records())

    def work(tx: object) -> None:
        bump(tx, "agents")  # type: ignore[arg-type]
        tx.append(Draft("agent.rotated", {"agent": "bot"}))  # type: ignore[attr-defined]
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        store.write(work)
    assert store.counter("agents") == before
    assert len(world.records()) == records


def test_a_commit_that_fails_is_a_store_that_is_unavailable(world: World) -> None:
    store = world.services.store
    store.close()
    with pytest.raises(StoreUnavailable, match="writer was closed"):
        store.write(lambda tx: bump(tx, "agents"))
    future = store.submit(lambda tx: bump(tx, "agents"))
    with pytest.raises(LedgerUnavailable):
        future.result()


def test_a_thread_that_ends_leaves_no_file_open(world: World) -> None:
    """Pools of threads come and go for as long as the program runs."""
    store = world.services.store

    def opened() -> int:
        gc.collect()
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    store.counter("agents")
    before = opened()
    for _ in range(20):
        thread = threading.Thread(target=store.counter, args=("agents",))
        thread.start()
        thread.join()
    assert opened() <= before + 2


def test_a_store_that_vanished_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "keybroker.db"
    with pytest.raises(StoreUnavailable, match="is missing: put it back from a backup"):
        Store(path, clock=Clock(), head_key=KEY)
    assert not path.exists()


def test_a_ledger_that_was_emptied_is_not_sealed_anew(tmp_path: Path) -> None:
    """Whoever empties the file must not get a fresh ledger under the workspace's own seal."""
    path = tmp_path / "keybroker.db"
    open_store(path).close()
    with closing(sqlite3.connect(path)) as db:
        triggers = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DELETE FROM ledger")
        db.execute("UPDATE ledger_head SET seq = 0, hash = ?, mac = ''", (GENESIS,))
        db.commit()
    open_store(path).close()
    verdict = verify(path, head_key=KEY)
    assert not verdict.ok
    assert verdict.records == 0
