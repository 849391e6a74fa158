"""The environment of a run, and the command's life: its signals and its exit status."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from keybroker.errors import Unusable
from keybroker.runner import _wait, child_environment


def test_the_command_gets_no_key_to_us_or_to_the_vault_and_no_way_around() -> None:
    present = {
        "PATH": "/bin",
        "KEYBROKER_WORKSPACE": "/ws",
        "KEYBROKER_TOKEN": "kb_user_x",
        "VAULT_TOKEN": "hvs.x",
        "NO_PROXY": "localhost",
        "no_proxy": "*",
        "all_proxy": "socks5://elsewhere",
        "HTTPS_PROXY": "http://elsewhere",
    }
    ours = {"HTTPS_PROXY": "http://a:t@127.0.0.1:1", "NO_PROXY": ""}
    assert child_environment(present, ours) == {"PATH": "/bin", **ours}


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + 9)]
)
def test_the_exit_status_is_the_commands(script: str, status: int) -> None:
    assert _wait(["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}) == status


def test_a_command_that_cannot_start_is_said_to_be_so(tmp_path: Path) -> None:
    file = tmp_path / "nothing"
    file.write_text("no program")
    with pytest.raises(Unusable, match="cannot be started"):
        _wait([str(file)], {})


def test_signals_reach_the_command_and_handlers_come_back(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, sys
        from keybroker.runner import _wait
        child = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done"
        sys.exit(_wait(["/bin/sh", "-c", child], dict(os.environ)))
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == b"ready\n"
        outer.send_signal(signal.SIGTERM)
        assert outer.wait(20) == 42
