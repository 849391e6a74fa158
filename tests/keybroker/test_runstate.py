"""One `up` a workspace, and what it tells the other commands."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from keybroker import runstate
from keybroker.errors import Unusable
from keybroker.runstate import Running, UpLock, admin_url, gateway_url, proxy_url, running
from keybroker.workspace import STARTER_SETTINGS, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.state.mkdir(mode=0o700)
    workspace.settings_file.write_text(STARTER_SETTINGS)
    return workspace


def test_a_second_up_is_told_which_process_runs(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runstate, "PATIENCE", 0.0)
    lock = UpLock(workspace)
    with pytest.raises(Unusable, match=rf"already runs in .* \(pid {os.getpid()}\)"):
        UpLock(workspace)
    lock.release()
    UpLock(workspace).release()
    assert stat.S_IMODE(workspace.lock_file.stat().st_mode) == 0o600


def test_others_learn_where_it_listens_while_it_runs(workspace: Workspace) -> None:
    assert running(workspace) is None
    lock = UpLock(workspace)
    assert running(workspace) is None, "not ready yet"
    there = Running(
        os.getpid(),
        "127.0.0.1",
        9,
        "http://localhost:10",
        "https://127.0.0.1:9",
        "https://gw.example",
    )
    lock.publish(there)
    assert running(workspace) == there
    assert proxy_url(workspace, "bot", "kb_x") == "https://bot:kb_x@127.0.0.1:9"
    assert gateway_url(workspace, "bot") == "https://gw.example/agents/bot"
    lock.release()
    assert running(workspace) is None
    assert proxy_url(workspace, "a@b", "t") == "http://a%40b:t@127.0.0.1:8080"
    assert gateway_url(workspace, "a@b") == "http://127.0.0.1:8080/agents/a@b"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ("", "http://localhost:8081"),
        ("admin: {listen: 127.0.0.1:1, url: 'https://kb.example/'}", "https://kb.example"),
        ("admin: {listen: 127.0.0.1:1, tls: {certificate: c, key: k}}", "https://localhost:1"),
    ],
)
def test_a_link_to_the_page_is_right_while_nothing_runs(
    workspace: Workspace, settings: str, url: str
) -> None:
    workspace.settings_file.write_text(settings)
    assert admin_url(workspace) == url
    lock = UpLock(workspace)
    lock.publish(Running(1, "h", 2, "https://elsewhere", "http://h:2", "http://h:2"))
    assert admin_url(workspace) == "https://elsewhere"
    lock.release()
