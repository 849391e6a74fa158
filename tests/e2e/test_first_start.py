"""The first start of the whole program: its log holds no key and no link; a terminal shows both."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.program import Program, environment
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e


@pytest.fixture
def kb(tmp_path: Path) -> Iterator[Program]:
    with Upstream() as upstream:
        kb = Program(tmp_path, upstream)
        kb.init()
        try:
            yield kb
        finally:
            kb.stop()


def left_behind(kb: Program) -> list[str]:
    return [f["says"] for f in kb.json("doctor") if f["check"] == "first start"]


def test_a_log_gets_the_paths_of_two_files_and_doctor_asks_for_their_end(kb: Program) -> None:
    kb.start()
    files = [kb.workspace / "state" / name for name in ("recovery-keys.txt", "setup-link.txt")]
    keys = [line.strip() for line in files[0].read_text().splitlines()[1:]]
    link = kb.setup_link()
    assert len(keys) == 3
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    said = kb.log.read_text() + str(kb.facts)
    assert all(str(file) in said for file in files)
    assert not any(secret in said for secret in (*keys, link, link.partition("=")[2]))
    assert len(left_behind(kb)) == 2
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(link, timeout=20) as page:
        assert b"<form" in page.read()

    files[0].unlink()
    (left,) = left_behind(kb)
    assert str(files[1]) in left
    kb.user("alice")
    kb.stop()
    kb.start()
    assert kb.facts["setup_url"] is kb.facts["setup_file"] is None
    assert left_behind(kb) == [] and not any(file.exists() for file in files)


def test_a_terminal_shows_them_and_nothing_is_left_on_the_disk(kb: Program) -> None:
    ours, theirs = pty.openpty()
    up = subprocess.Popen(
        kb.command("up"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment({"NO_COLOR": "1"}),
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        end = time.monotonic() + 40
        while b"Ctrl-C stops it" not in shown:
            assert time.monotonic() < end and up.poll() is None, shown
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 65536)
        assert left_behind(kb) == []
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=40)
        os.close(ours)
    text = shown.decode()
    assert len(re.findall(r"^  [0-9a-f]{60,}\r$", text, re.M)) == 3
    assert re.search(r"^  http://localhost:\d+/setup\?token=kb_setup", text, re.M)
