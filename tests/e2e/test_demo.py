"""The demo holds, without a person and without a network."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.program import environment

pytestmark = pytest.mark.e2e

DEAD = "http://127.0.0.1:9"


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
