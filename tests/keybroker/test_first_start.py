"""What is shown once goes to a terminal, or into a file of the owner's alone: never into a log."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path

import pytest

from broker.secrets.embedded import RecoveryKeys
from keybroker.first_start import keep_link, keys_to_operator
from keybroker.workspace import Workspace

KEYS = RecoveryKeys(("k-1", "k-2", "k-3"), 2)
LINK = "http://localhost:8081/setup?token=kb_setup_1"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "w")
    made.state.mkdir(parents=True)
    return made


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_at_a_terminal_every_key_is_shown_with_what_it_is_for(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    keys_to_operator(workspace, told.append)(KEYS)
    for word in ("k-1", "k-2", "k-3", "shown this once", "Any 2 of them"):
        assert word in terminal.getvalue()
    assert (capsys.readouterr().out, told, list(workspace.state.iterdir())) == ("", [], [])


@pytest.mark.parametrize("stderr", ["pipe", "closed", "none"])
def test_anywhere_else_the_keys_lie_in_a_file_of_the_owners(
    workspace: Workspace, stderr: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    stream = io.StringIO()
    if stderr == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", None if stderr == "none" else stream)
    keys_to_operator(workspace, told.append)(KEYS)
    file = workspace.recovery_keys_file
    use, *keys = file.read_text().splitlines()
    assert keys == ["  k-1", "  k-2", "  k-3"] and mode(file) == 0o600
    assert "Any 2 of them" in use and "delete this file" in use
    assert told == [f"the recovery keys of the new vault are in {file}: read it, then delete it"]
    assert stream.closed or stream.getvalue() == ""


def test_keys_of_a_first_start_that_failed_do_not_outlive_the_next(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    hand_over = keys_to_operator(workspace, lambda _: None)
    hand_over(RecoveryKeys(("old",), 1))
    hand_over(KEYS)
    assert "old" not in workspace.recovery_keys_file.read_text()
    monkeypatch.setattr(sys, "stderr", Terminal())
    hand_over(KEYS)
    assert not workspace.recovery_keys_file.exists()


def test_what_lies_in_the_place_of_the_file_is_neither_followed_nor_kept_open(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = workspace.directory / "elsewhere"
    elsewhere.touch(0o644)
    workspace.recovery_keys_file.symlink_to(elsewhere)
    workspace.setup_link_file.symlink_to(elsewhere)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    keys_to_operator(workspace, lambda _: None)(KEYS)
    assert keep_link(workspace, LINK) is not None
    assert elsewhere.read_text() == ""
    assert {mode(file) for file in workspace.state.iterdir()} == {0o600}


def test_keys_that_cannot_be_kept_stop_the_first_start(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.recovery_keys_file.mkdir()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(OSError, match=r"recovery-keys\.txt"):
        keys_to_operator(workspace, lambda _: None)(KEYS)


def test_a_link_is_for_the_terminal_or_for_a_file(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    file = keep_link(workspace, LINK)
    assert file == workspace.setup_link_file and mode(file) == 0o600
    assert file.read_text().splitlines()[-1] == LINK
    later = LINK + "2"
    assert keep_link(workspace, later) == file
    assert file.read_text().splitlines()[-1] == later
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert keep_link(workspace, LINK) is None
    assert not file.exists()


def test_once_there_is_a_user_the_void_link_goes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    keep_link(workspace, LINK)
    assert keep_link(workspace, None) is None
    assert list(workspace.state.iterdir()) == []
