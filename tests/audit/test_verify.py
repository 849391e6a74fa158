"""verify() finds every way to spoil a ledger that the design names, and says where."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest

from audit.query import export, export_jsonl
from audit.reading import open_ledger
from audit.record import Draft
from audit.verify import MOST_FAULTS, Unreadable, Verdict, verify, verify_jsonl
from tests.audit.ledgers import (
    CREATED,
    GOOD,
    KEY,
    create,
    rechain,
    sent,
    set_data,
    tampering,
    write,
)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(create(tmp_path_factory.mktemp("ledger") / "good.db"), GOOD)


@pytest.fixture
def ledger(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "copy.db"))


def found(verdict: Verdict) -> set[tuple[int, str]]:
    assert verdict.ok == (not verdict.faults)
    return {(fault.seq, fault.kind) for fault in verdict.faults}


def jsonl(path: Path, to: Path) -> Path:
    with closing(open_ledger(path)) as db, to.open("w") as out:
        out.writelines(export_jsonl(export(db)))
    return to


def test_a_good_ledger_is_whole(ledger: Path) -> None:
    verdict = verify(ledger, head_key=KEY)
    assert verdict.faults == []
    assert verdict.ok
    assert verdict.records == len(GOOD)
    assert verdict.notes == []


def test_verifying_changes_nothing_and_a_live_ledger_may_be_verified(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert verify(ledger, head_key=KEY).ok
        db.execute("ROLLBACK")
    before = ledger.read_bytes()
    assert verify(ledger, head_key=KEY).ok
    assert ledger.read_bytes() == before


def test_a_ledger_of_which_only_the_file_was_copied_can_be_verified(ledger: Path) -> None:
    """On a read-only medium SQLite cannot make the files it wants beside a WAL database."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody who may not write")
    ledger.parent.chmod(0o555)
    ledger.chmod(0o444)
    for parent in [ledger.parent, *ledger.parent.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o555)
    script = (
        "import os, sys; from pathlib import Path; from audit.verify import verify;"
        " os.setuid(65534); print(verify(Path(sys.argv[1]), head_key=b'k' * 32).ok)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(ledger)], capture_output=True, text=True, check=True
    )
    assert result.stdout == "True\n"


# The chain

FIELDS = {
    "time": "2026-01-01T00:00:00.000000Z",
    "type": "call.allowed",
    "call": "c99",
    "agent": "other",
    "data": '{"changed":true}',
}


@pytest.mark.parametrize("field", FIELDS)
def test_any_field_of_any_record_changed_shows_at_that_record(ledger: Path, field: str) -> None:
    for seq in range(1, len(GOOD) + 1):
        with tampering(ledger) as db:
            (was,) = db.execute(f"SELECT {field} FROM ledger WHERE seq = ?", (seq,)).fetchone()
            db.execute(f"UPDATE ledger SET {field} = ? WHERE seq = ?", (FIELDS[field], seq))
        assert (seq, "hash") in found(verify(ledger, head_key=KEY)), seq
        with tampering(ledger) as db:
            db.execute(f"UPDATE ledger SET {field} = ? WHERE seq = ?", (was, seq))
    assert verify(ledger, head_key=KEY).ok


def test_a_hash_changed_shows_there_and_in_the_next_link(ledger: Path) -> None:
    with tampering(ledger) as db:
        db.execute("UPDATE ledger SET hash = ? WHERE seq = 10", ("0" * 64,))
    assert found(verify(ledger, head_key=KEY)) == {(10, "hash"), (11, "chain")}


def test_a_link_changed_shows(ledger: Path) -> None:
    with tampering(ledger) as db:
        db.execute("UPDATE ledger SET prev = ? WHERE seq = 10", ("0" * 64,))
    assert found(verify(ledger, head_key=KEY)) == {(10, "hash"), (10, "chain")}


@pytest.mark.parametrize("seq", range(1, len(GOOD)))
def test_a_deleted_record_is_missed_at_its_place(ledger: Path, seq: int) -> None:
    with tampering(ledger) as db:
        db.execute("DELETE FROM ledger WHERE seq = ?", (seq,))
    verdict = verify(ledger, head_key=KEY)
    assert (seq, "gap") in found(verdict)
    assert f"record {seq} is missing" in {fault.sentence for fault in verdict.faults}


def test_several_deleted_records_are_one_gap(ledger: Path) -> None:
    with tampering(ledger) as db:
        db.execute("DELETE FROM ledger WHERE seq BETWEEN 9 AND 10")
    verdict = verify(ledger, head_key=KEY)
    assert [f.sentence for f in verdict.faults] == ["records 9 to 10 are missing"]


def test_reordered_records_show(ledger: Path) -> None:
    with tampering(ledger) as db:
        for old, new in ((9, -1), (10, 9), (-1, 10)):
            db.execute("UPDATE ledger SET seq = ? WHERE seq = ?", (new, old))
    faults = found(verify(ledger, head_key=KEY))
    assert {(9, "hash"), (9, "chain"), (10, "hash"), (10, "chain"), (11, "chain")} == faults


def test_a_record_slipped_in_and_linked_shows_at_the_next_link(ledger: Path) -> None:
    with tampering(ledger) as db:
        db.execute("UPDATE ledger SET data = ? WHERE seq = 9", ('{"agent":"bot","by":"x"}',))
        last = db.execute("SELECT * FROM ledger WHERE seq > 9 ORDER BY seq").fetchall()
        db.execute("DELETE FROM ledger WHERE seq > 9")
        rechain(db, None)
        db.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?)", last)
    assert (10, "chain") in found(verify(ledger, head_key=KEY))


@pytest.mark.parametrize("cut", [1, 5, len(GOOD)])
def test_a_cut_tail_shows_at_the_cut(ledger: Path, cut: int) -> None:
    last = len(GOOD) - cut
    with tampering(ledger) as db:
        db.execute("DELETE FROM ledger WHERE seq > ?", (last,))
    verdict = verify(ledger, head_key=KEY)
    assert (last + 1, "head") in found(verdict)
    assert verdict.records == last


def test_a_cut_tail_with_the_head_moved_back_lacks_the_seal(ledger: Path) -> None:
    with tampering(ledger) as db:
        db.execute("DELETE FROM ledger WHERE seq > 13")
        db.execute(
            "UPDATE ledger_head SET (seq, hash) = (SELECT seq, hash FROM ledger WHERE seq = 13)"
        )
    assert found(verify(ledger, head_key=KEY)) == {(13, "head")}
    unsealed = verify(ledger, head_key=None)
    assert unsealed.ok
    assert "the seal on the head was not checked" in unsealed.notes[0]


def test_a_whole_chain_written_anew_lacks_the_seal(ledger: Path) -> None:
    with tampering(ledger) as db:
        set_data(db, 10, sentence="Rewritten.")
        rechain(db, None)
    assert found(verify(ledger, head_key=KEY)) == {(len(GOOD), "head")}
    assert found(verify(ledger, head_key=b"another key" * 3)) == {(len(GOOD), "head")}


def test_a_record_added_behind_the_journals_back_shows(ledger: Path) -> None:
    with tampering(ledger) as db:
        head = db.execute("SELECT seq, hash, mac FROM ledger_head").fetchone()
        db.execute(
            "INSERT INTO ledger SELECT seq + 1, time, 'user.login', NULL, NULL, '{}', hash, hash"
            " FROM ledger ORDER BY seq DESC LIMIT 1"
        )
        rechain(db, None)
        db.execute("UPDATE ledger_head SET seq = ?, hash = ?, mac = ?", head)
    assert found(verify(ledger, head_key=KEY)) == {(len(GOOD) + 1, "head")}


def test_an_emptied_ledger_does_not_pass_for_a_new_one(ledger: Path) -> None:
    """The head of an empty ledger has no seal, so its emptiness is the fault."""
    with tampering(ledger) as db:
        db.execute("DELETE FROM ledger")
        db.execute("UPDATE ledger_head SET seq = 0, hash = ?, mac = ''", ("0" * 64,))
    assert found(verify(ledger, head_key=KEY)) == {(0, "origin")}
    # What the journal then appends in good faith does not begin like a ledger.
    write(ledger, [Draft("broker.started")])
    assert found(verify(ledger, head_key=KEY)) == {(1, "origin")}


def test_a_ledger_is_created_once(tmp_path: Path) -> None:
    path = write(create(tmp_path / "l.db"), [CREATED, CREATED])
    assert found(verify(path, head_key=KEY)) == {(2, "origin")}


def test_a_missing_or_doubled_head_shows(ledger: Path) -> None:
    with tampering(ledger) as db:
        db.execute("DELETE FROM ledger_head")
    assert found(verify(ledger, head_key=KEY)) == {(0, "head")}
    with tampering(ledger) as db:
        db.execute("DROP TABLE ledger_head")
        db.execute("CREATE TABLE ledger_head (id, seq, hash, mac)")
        db.execute("INSERT INTO ledger_head VALUES (1, 'x', 2, 3.5)")
    assert (0, "head") in found(verify(ledger, head_key=KEY))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("DROP TRIGGER ledger_update", "ledger_update"),
        ("DROP TRIGGER ledger_head_update", "ledger_head_update"),
    ],
)
def test_a_guard_taken_away_shows(ledger: Path, spoil: str, told: str) -> None:
    with closing(sqlite3.connect(ledger)) as db:
        db.execute(spoil)
    verdict = verify(ledger, head_key=KEY)
    assert found(verdict) == {(0, "guard")}
    assert told in verdict.faults[0].sentence


def test_a_guard_that_was_disarmed_shows(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as db:
        db.execute("DROP TRIGGER ledger_delete")
        db.execute("CREATE TRIGGER ledger_delete BEFORE DELETE ON ledger BEGIN SELECT 1; END")
    assert found(verify(ledger, head_key=KEY)) == {(0, "guard")}


@pytest.mark.parametrize(
    "data",
    [
        '{"agent": "bot","by":"cli:root"}',
        '{"by":"cli:root","agent":"bot"}',
        '{"agent":"bot","agent":"bot","by":"cli:root"}',
        '{"agent":"b\\u006ft","by":"cli:root"}',
        '{"agent":1.5}',
        '{"agent":NaN}',
        '{"agent":"\\ud800"}',
        '{"agent":9007199254740992}',
        "[" * 100_000,
        '["agent"]',
        "",
        b"\xff\xfe",
    ],
)
def test_data_that_is_not_canonical_shows_even_with_a_hash_to_match(
    ledger: Path, data: str | bytes
) -> None:
    with tampering(ledger) as db:
        db.execute("UPDATE ledger SET data = CAST(? AS TEXT) WHERE seq = 9", (data,))
        if isinstance(data, str):
            rechain(db, KEY)
    assert found(verify(ledger, head_key=KEY)) == {(9, "form")}


def test_other_types_in_columns_show(ledger: Path) -> None:
    with tampering(ledger) as db:
        db.execute("CREATE TABLE loose (seq, time, type, call, agent, data, prev, hash)")
        db.execute("INSERT INTO loose SELECT * FROM ledger")
        db.execute("DROP TABLE ledger")
        db.execute("ALTER TABLE loose RENAME TO ledger")
        for seq, (field, value) in enumerate(
            {"time": 1, "type": None, "call": 2, "agent": 3, "data": 4, "prev": "x", "hash": None}
            .items(),
            start=10,
        ):  # fmt: skip
            db.execute(f"UPDATE ledger SET {field} = ? WHERE seq = ?", (value, seq))
        db.execute("UPDATE ledger SET seq = NULL WHERE seq = 1")
    faults = found(verify(ledger, head_key=KEY))
    assert {(seq, "form") for seq in (1, *range(10, 17))} <= faults


def test_faults_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    path = write(create(tmp_path / "l.db"), [CREATED] + [sent("c1")] * (MOST_FAULTS + 8))
    verdict = verify(path, head_key=KEY)
    assert len(verdict.faults) == MOST_FAULTS
    assert "7 more faults are not listed" in verdict.notes


def test_calls_without_result_and_a_clock_set_back_are_noted(tmp_path: Path) -> None:
    path = create(tmp_path / "l.db")
    write(path, [CREATED, sent("c1")])
    write(path, [sent("c2")])  # a new clock
    verdict = verify(path, head_key=KEY)
    assert verdict.ok
    assert verdict.notes == [
        "2 calls were sent and have no result yet",
        "the clock went backwards 1 times",
    ]


# What cannot be read


def test_what_is_no_ledger_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="there is no ledger at"):
        verify(tmp_path / "nothing.db", head_key=KEY)
    assert not (tmp_path / "nothing.db").exists()
    with pytest.raises(Unreadable, match="there is no ledger at"):
        verify(tmp_path, head_key=KEY)
    (tmp_path / "text").write_text("not a database, by far " * 100)
    with pytest.raises(Unreadable, match="cannot be read"):
        verify(tmp_path / "text", head_key=KEY)
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(Unreadable, match="no such table: ledger"):
        verify(tmp_path / "other.db", head_key=KEY)


def test_a_file_damaged_beneath_its_records_is_unreadable(ledger: Path) -> None:
    content = bytearray(ledger.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    ledger.write_bytes(content)
    with pytest.raises(Unreadable, match="cannot be read"):
        verify(ledger, head_key=KEY)


# Exports


def test_an_export_of_a_good_ledger_is_whole(ledger: Path, tmp_path: Path) -> None:
    verdict = verify_jsonl(jsonl(ledger, tmp_path / "out.jsonl"))
    assert verdict.ok
    assert verdict.records == len(GOOD)
    assert verdict.head == verify(ledger, head_key=KEY).head
    assert "an export has no sealed head" in verdict.notes[0]


def swap(lines: list[bytes]) -> Iterable[bytes]:
    return [*lines[:9], lines[10], lines[9], *lines[11:]]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda lines: [*lines[:8], *lines[9:]], {(9, "gap")}),
        (swap, {(10, "gap"), (11, "gap")}),
        (lambda lines: [*lines[:9], lines[8], *lines[9:]], {(9, "gap")}),
        (lambda lines: [*lines[:-1], lines[-1][:-1]], {(len(GOOD), "form")}),
        (lambda lines: [*lines[:-1], lines[-1][:40]], {(len(GOOD), "form")}),
        (lambda lines: [*lines[:8], b"\n", *lines[8:]], {(9, "form")}),
        (lambda lines: [*lines[:8], b"{}\n", *lines[9:]], {(9, "form")}),
        (lambda lines: [*lines[:8], b"\xff\n", *lines[9:]], {(9, "form")}),
        (
            lambda lines: [*lines[:9], lines[9].replace(b"policy_denied", b"x"), *lines[10:]],
            {(10, "hash")},
        ),
        (lambda lines: [line.replace(b'"call":null', b'"call":""') for line in lines], None),
    ],
)
def test_a_spoilt_export_shows_where(
    ledger: Path,
    tmp_path: Path,
    spoil: Callable[[list[bytes]], Iterable[bytes]],
    expected: set[tuple[int, str]] | None,
) -> None:
    path = jsonl(ledger, tmp_path / "out.jsonl")
    with path.open("rb") as file:
        lines = file.readlines()
    path.write_bytes(b"".join(spoil(lines)))
    faults = found(verify_jsonl(path))
    assert faults
    if expected is not None:
        assert expected <= faults


def test_what_is_no_export_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="cannot be read"):
        verify_jsonl(tmp_path / "nothing")
    (tmp_path / "text").write_text("seq,time,type\n")
    with pytest.raises(Unreadable, match="does not begin like an export"):
        verify_jsonl(tmp_path / "text")
    (tmp_path / "empty").write_text("")
    assert found(verify_jsonl(tmp_path / "empty")) == {(0, "origin")}
