"""The demo holds, without a person and without a network."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import environment

pytestmark = pytest.mark.e2e

DEAD = "http://127.0.0.1:9"
ROOT = Path(__file__).parents[2]


def test_every_step_of_the_demo_holds() -> None:
    # Whatever would go out through a proxy, or look a name up, fails.
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), DEAD)
    done = subprocess.run(
        [*_without_network(), sys.executable, "-m", "keybroker", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=environment(proxies),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["held"] is True
    assert len(told["steps"]) >= 8
    assert all(check["held"] for step in told["steps"] for check in step["checks"])
    assert all(step["checks"] for step in told["steps"])
    assert "Traceback" not in done.stderr


def test_make_run_starts_everything_and_what_it_prints_works(tmp_path: Path) -> None:
    """`make run` is this command: its curl lines and its log-in link are tried as printed."""
    recipe = (ROOT / "Makefile").read_text()
    assert "keybroker demo --serve --directory .demo" in recipe
    # A shell's background jobs, as which tests may run, inherit that Ctrl-C is nothing to them.
    listening = ["env", "--default-signal=INT", sys.executable, "-m", "keybroker"]
    with subprocess.Popen(
        [*listening, "demo", "--serve", "--directory", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as demo:
        try:
            assert demo.stdout is not None
            lines: list[str] = []
            while not lines or "Ctrl-C stops it" not in lines[-1]:
                lines.append(demo.stdout.readline())
                assert lines[-1], "".join(lines)
            curls = [line.strip() for line in lines if line.strip().startswith("curl ")]
            assert len(curls) == 3
            read, denied = (json.loads(_shell(line)) for line in curls[:2])
            assert read["charges"]
            assert denied["code"] == "policy_denied"
            # No terminal, so the link is not shown but left in a file.
            (file,) = [line.strip() for line in lines if "setup-link.txt" in line]
            link = Path(file).read_text().splitlines()[-1]
            assert link not in "".join(lines)
            assert "<form" in _shell(f"curl -sS '{link}'")
            audits = [line.strip() for line in lines if " audit " in line]
            assert [_shell(line) for line in audits][1].startswith("whole")
        finally:
            demo.send_signal(signal.SIGINT)
            try:
                demo.wait(timeout=60)
            finally:
                demo.kill()


def _shell(line: str) -> str:
    done = subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(),
    )
    return done.stdout


def _without_network() -> list[str]:
    """A prefix that leaves a command nothing but loopback, where the kernel lets us have it."""
    prefix = [
        "unshare",
        "--net",
        "--map-root-user",
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "sh",
    ]
    try:
        works = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        works = False
    return prefix if works else []
