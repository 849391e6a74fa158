"""What operators see, put together: each check fails for its own reason, observers as set."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import InvalidInput
from broker.telemetry.board import Board
from broker.telemetry.meters import Meters
from keybroker import compose_telemetry
from keybroker.cli import cli
from keybroker.cli.frame import guarded
from keybroker.compose import open_workspace
from keybroker.compose_telemetry import log_style, observers, readiness
from keybroker.errors import Unusable
from keybroker.logs import Style
from keybroker.settings import Settings, load_settings
from keybroker.workspace import Workspace


def settings(text: str = "", base: Path = Path()) -> Settings:
    return load_settings(text, file="keybroker.yaml", base=base)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    assert guarded(cli, ["init", str(tmp_path / "ws"), "--solo"]) == 0
    return Workspace(tmp_path / "ws")


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create(1)
    yield made
    made.close()


def faults(workspace: Workspace, board: Board, policy: str = "") -> Mapping[str, str | None]:
    with closing(open_workspace(workspace)) as services:
        if policy:
            services.policies.publish(policy, "cli:test")

        async def look() -> Mapping[str, str | None]:
            with closing(readiness(workspace, workspace.settings(), services, board)) as ready:
                return await ready.look()

        return asyncio.run(look())


def test_each_check_fails_for_its_own_reason(workspace: Workspace, board: Board) -> None:
    found = faults(workspace, board)
    assert found["policy"] == "no policy is in force"
    assert found["workers"] == "no worker takes calls"
    assert found["vault"] is not None  # it never ran
    assert found["store"] is found["disk"] is None
    board.row("worker-0").accept(True)
    found = faults(workspace, board, "version: 1\n")
    assert [name for name, fault in found.items() if fault is not None] == ["vault"]


def test_looking_changes_nothing(workspace: Workspace, board: Board) -> None:
    faults(workspace, board, "version: 1\n")
    with closing(sqlite3.connect(workspace.database)) as db:
        before = db.execute("SELECT * FROM ledger_head").fetchall()
        counters = db.execute("SELECT * FROM counters").fetchall()
    faults(workspace, board)
    with closing(sqlite3.connect(workspace.database)) as db:
        assert db.execute("SELECT * FROM ledger_head").fetchall() == before
        assert db.execute("SELECT * FROM counters").fetchall() == counters


def test_a_disk_without_room_is_noticed_before_it_is_full(
    workspace: Workspace, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose_telemetry, "LEAST_FREE", 1 << 62)
    found = faults(workspace, board)["disk"]
    assert found is not None and found.startswith("the store's disk has ")


def test_a_ledger_whose_end_was_cut_takes_no_writes(workspace: Workspace, board: Board) -> None:
    with closing(sqlite3.connect(workspace.database)) as db:
        db.execute("DROP TRIGGER ledger_delete")
        db.execute("DELETE FROM ledger WHERE seq = (SELECT max(seq) FROM ledger)")
        db.commit()
    found = faults(workspace, board)["store"]
    assert found is not None and "head" in found


def test_the_environment_has_the_last_word_on_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYBROKER_LOG", raising=False)
    chosen = settings("log: {format: json, level: warning}")
    assert log_style(chosen) == Style("json", "warning")
    monkeypatch.setenv("KEYBROKER_LOG", "text")
    assert log_style(chosen) == Style("text", "warning")
    monkeypatch.setenv("KEYBROKER_LOG", "shout")
    with pytest.raises(Unusable):
        log_style(chosen)


def test_observers_are_those_that_the_settings_ask_for(tmp_path: Path) -> None:
    def count(text: str) -> int:
        made = observers(settings(text, tmp_path), "worker-0", Meters())
        made.close()
        return len(made.listeners)

    assert count("") == 1
    assert count("log: {calls: true}") == 2
    assert count("log: {calls: true}\ntelemetry: {otlp: 'http://127.0.0.1:1', sample: 0}") == 3
    with pytest.raises(InvalidInput, match="headers cannot be read"):
        count("telemetry: {otlp: 'http://127.0.0.1:1', headers_file: headers}")
