"""`keybroker audit`: exit statuses of verify on the log, a copy and an export; the read side."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from keybroker.compose import open_workspace
from keybroker.workspace import Workspace
from tests.keybroker.cli.conftest import Run


def _copy(workspace: Path, to: Path) -> Path:
    source = sqlite3.connect(workspace / "state" / "keybroker.db")
    copy = sqlite3.connect(to)
    source.backup(copy)
    for db in (source, copy):
        db.close()
    return to


def test_a_whole_log_verifies_and_says_how_much(run: Run) -> None:
    run("agent", "add", "bot")
    done = run("audit", "verify", "--json")
    assert done.status == 0
    assert done.json["ok"] is True
    assert done.json["records"] == 2
    assert run("audit", "verify").out.startswith("whole: 2 records")


def test_a_changed_copy_is_broken_and_named(run: Run, workspace: Path, tmp_path: Path) -> None:
    run("agent", "add", "bot")
    copy = _copy(workspace, tmp_path / "copy.db")
    assert run("audit", "verify", "--file", copy).status == 0
    db = sqlite3.connect(copy)
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f'DROP TRIGGER "{name}"')
    db.execute("UPDATE ledger SET data = replace(data, 'bot', 'bad') WHERE seq = 2")
    db.commit()
    db.close()
    done = run("audit", "verify", "--file", copy)
    assert done.status == 1
    assert "BROKEN" in done.out
    assert "record 2:" in done.err


def test_what_cannot_be_read_is_neither_whole_nor_broken(
    run: Run, workspace: Path, tmp_path: Path
) -> None:
    assert run("audit", "verify", "--file", tmp_path / "none").status == 2
    noise = tmp_path / "noise"
    noise.write_bytes(b"SQLite format 3\0" + bytes(5000))
    assert run("audit", "verify", "--file", noise).status == 2
    shutil.rmtree(workspace / "state")
    assert run("audit", "verify").status == 2


def test_digests_are_cut_for_people_and_whole_for_machines(run: Run, workspace: Path) -> None:
    with closing(open_workspace(Workspace(workspace))) as services:
        services.policies.publish("version: 1", "test")
    (record,) = run("audit", "search", "--type", "policy", "--json").out.splitlines()
    digest = json.loads(record)["data"]["sha256"]
    assert len(digest) == 64
    shown = run("audit", "tail").out
    assert f"sha256={digest[:12]}..., " in shown
    assert digest not in shown


def test_an_export_verifies_and_has_the_promised_fields(run: Run, tmp_path: Path) -> None:
    run("agent", "add", "bot")
    file = tmp_path / "export.jsonl"
    assert run("audit", "export", "--format", "jsonl", "-o", file).status == 0
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["seq"] for record in records] == [1, 2]
    assert {"seq", "time", "type", "call", "agent", "data"} <= records[0].keys()
    assert records[0]["type"] == "ledger.created"
    assert run("audit", "verify", "--file", file).status == 0
    file.write_text(file.read_text().replace('"bot"', '"bad"'))
    assert run("audit", "verify", "--file", file).status == 1


def test_the_read_side(run: Run) -> None:
    for name in ("bot", "other"):
        run("agent", "add", name)
    assert "agent.added" in run("audit", "tail").out
    assert len(run("audit", "tail", "-n", "1", "--json").out.splitlines()) == 1
    found = run("audit", "search", "--agent", "bot", "--since", "2020-01-01", "--json")
    assert json.loads(found.out)["agent"] == "bot"
    assert "nothing matches" in run("audit", "search", "--host", "nowhere").err
    assert run("audit", "search", "--since", "yesterday").status == 2
    assert run("audit", "show", "c-none").status == 1
