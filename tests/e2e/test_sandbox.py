"""`keybroker run --sandbox`: what works in it as it does outside, by each back-end.

What does not get out of it is in tests/attacks/test_containment.py.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keybroker.sandbox.launch import Backend
from keybroker.sandbox.probe import ORDER
from tests.support.program import Program, environment
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

SECRET = "sk_live_box_8Kq2"
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: "$HOST", path: /**}, effect: allow,
     use: [pay]}
  - {id: write, agents: [bot], match: {method: POST, host: "$HOST", path: /echo}, effect: allow}
  - {id: ask, agents: [bot], match: {method: PUT, host: "$HOST", path: /**}, effect: hold}
"""


@dataclass(frozen=True)
class Box:
    """A running Keybroker and a folder to work in."""

    kb: Program
    backend: Backend
    desk: Path

    def command(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        words = ("--sandbox", "--backend", self.backend, *options, "--", *command)
        return self.kb.command("run", "--agent", "bot", *words)

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*command, options=options),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(env),
            cwd=cwd or self.desk,
        )

    def python(self, source: str, *words: str, **how: object) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-c", source, *words, **how)  # type: ignore[arg-type]

    def open(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
            cwd=self.desk,
        )


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with (
        Upstream() as upstream,
        Program(tmp_path_factory.mktemp("sandbox"), upstream, policy=POLICY) as kb,
    ):
        kb.secret("kv/pay", "api_key", SECRET)
        kb.agent("bot", "--owner", "owen")
        yield kb


@pytest.fixture(params=ORDER)
def box(kb: Program, request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    return Box(kb, request.param, tmp_path)


CLIENTS = {
    "curl": ["curl", "--silent", "--show-error", "URL"],
    "requests": [
        sys.executable,
        "-c",
        "import sys, requests; print(requests.get(sys.argv[1]).text)",
        "URL",
    ],
}


@pytest.mark.parametrize("client", CLIENTS)
def test_an_unmodified_client_gets_through(box: Box, client: str) -> None:
    count = len(box.kb.upstream.requests)
    url = f"{box.kb.upstream.url}/echo?client=1"
    done = box.run(*(url if word == "URL" else word for word in CLIENTS[client]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target"] == "/echo?client=1"
    (arrived,) = box.kb.upstream.requests[count:]
    assert arrived.header("authorization") == f"Bearer {SECRET}"
    assert SECRET not in done.stdout + done.stderr
    assert done.stderr == ""  # no warning: it is contained


def test_a_denied_call_is_told_why(box: Box) -> None:
    done = box.run("curl", "-sS", "-X", "DELETE", box.kb.upstream.url + "/echo")
    assert json.loads(done.stdout)["code"] == "policy_denied"


@pytest.mark.parametrize("status", [0, 7, 255])
def test_it_exits_as_the_command_does(box: Box, status: int) -> None:
    assert box.run("sh", "-c", f"exit {status}").returncode == status


def test_a_command_that_a_signal_ended(box: Box) -> None:
    done = box.run("sh", "-c", "kill -TERM $$")
    assert done.returncode == 128 + signal.SIGTERM
