"""The workspace: made once, found where one was told to look, and closed to others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from keybroker import workspace
from keybroker.errors import Unreadable, Unusable
from keybroker.settings import Settings
from keybroker.workspace import Workspace, choose, create, find
from rules.load import load_policy


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("solo", [True, False])
def test_a_new_workspace_is_whole_valid_and_private(tmp_path: Path, solo: bool) -> None:
    old = os.umask(0)
    try:
        made = create(tmp_path / "ws", solo=solo)
    finally:
        os.umask(old)
    assert made.settings() == Settings()
    policy, _ = load_policy(made.policy_file.read_text())
    high = policy.tiers["high"]
    assert sum(quorum.count for quorum in high.quorum) == (1 if solo else 2)
    assert mode(made.directory) == 0o755
    assert mode(made.state) == 0o700
    assert mode(made.key_file) == 0o600
    assert len(made.key_file.read_bytes()) == 32
    assert not mode(made.policy_file) & 0o022
    assert find(made.directory) == made


@pytest.mark.parametrize("name", ["keybroker.yaml", "policy.yaml", "state"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(Unusable, match="is already there and is not overwritten"):
        create(tmp_path, solo=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_it_is_never_looked_for_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted"
    create(planted, solo=True)
    monkeypatch.chdir(planted)
    monkeypatch.delenv("KEYBROKER_WORKSPACE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", ".")  # relative: to be ignored
    assert choose(None) == workspace.default_directory()
    assert str(choose(None)).startswith(str(tmp_path / "home"))
    with pytest.raises(Unusable, match="there is no workspace at"):
        find(None)


def test_the_option_goes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYBROKER_WORKSPACE", str(tmp_path / "env"))
    assert choose(None) == tmp_path / "env"
    assert choose(tmp_path / "option") == tmp_path / "option"


def test_the_home_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Path("~nobody-by-that-name/ws")
    with pytest.raises(Unusable, match="there is no such user"):
        choose(nowhere)
    with pytest.raises(Unusable, match="there is no such user"):
        create(nowhere, solo=True)
    monkeypatch.setenv("KEYBROKER_WORKSPACE", str(nowhere))
    with pytest.raises(Unusable, match="there is no such user"):
        choose(None)


@pytest.mark.parametrize("loose", [0o750, 0o705, 0o777])
def test_a_state_that_others_can_read_is_refused_with_the_cure(tmp_path: Path, loose: int) -> None:
    made = create(tmp_path / "ws", solo=True)
    made.state.chmod(loose)
    with pytest.raises(Unusable, match=r"chmod -R go= .*state"):
        made.check()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    made = create(tmp_path / "ws", solo=True)
    made.key_file.chmod(0o644)
    with pytest.raises(Unusable, match="others can read"):
        made.check()


def test_a_lost_key_is_not_replaced_silently(tmp_path: Path) -> None:
    made = create(tmp_path / "ws", solo=True)
    made.key_file.unlink()
    with pytest.raises(Unusable, match=r"workspace\.key is missing"):
        made.check()


def test_settings_that_cannot_be_read_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="there is no file"):
        Workspace(tmp_path).settings()
    (tmp_path / "keybroker.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(Unreadable, match="is not UTF-8"):
        Workspace(tmp_path).settings()
