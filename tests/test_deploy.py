"""The files in `deploy/` name what is there, and give no more rights than are needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.e2e.test_install import OURS

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "deploy" / "keybroker.service"
CONTAINER = (ROOT / "deploy" / "Containerfile").read_text().replace("\\\n", " ")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    keys = re.findall(r"^(\w+)=", text, re.MULTILINE)
    assert {"ExecStart", "User", "NoNewPrivileges", "ProtectSystem", "WatchdogSec"} <= set(keys)
    if shutil.which("systemd-analyze") is None:
        return
    copy = tmp_path / "keybroker.service"
    # The program of the example is not installed here.
    copy.write_text(text.replace("/opt/keybroker/bin/keybroker", "/bin/true"))
    verify = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(verify, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "keybroker.service" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_unit_waits_longer_than_calls_are_held() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    from keybroker.settings import Settings
    from keybroker.worker import DRAIN_MARGIN

    assert int(seconds) > Settings().proxy.hold_wait + DRAIN_MARGIN + 20


def copied() -> set[str]:
    """What the container file takes from the project."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", CONTAINER, re.MULTILINE)
    return {word for line in lines for word in line.split()[:-1]}


def test_the_container_file_copies_what_is_there_and_no_more() -> None:
    assert copied() == {*OURS, "runtime.lock", "pyproject.toml", "README.md"}
    assert all((ROOT / name).exists() for name in copied())
    admitted = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(admitted) == copied()


def test_the_container_runs_as_a_user_without_rights() -> None:
    last = CONTAINER.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["keybroker"]' in last
    assert "--require-hashes" in CONTAINER
