"""`keybroker run --sandbox`: what works in it as it does outside, by each back-end.

What does not get out of it is in tests/attacks/test_containment.py.
"""

from __future__ import annotations

import json
import os
import pty
import pwd
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keybroker.sandbox.launch import Backend
from keybroker.sandbox.probe import ORDER
from tests.support.program import Program, environment, wait_until
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


def test_its_output_and_input_are_the_commands_own(box: Box) -> None:
    done = box.run("sh", "-c", "cat; echo aside >&2", stdin="through")
    assert (done.stdout, done.stderr) == ("through", "aside\n")


def test_a_command_that_cannot_start_is_said_in_one_line(box: Box, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    for command, said in (
        ("no-such-command-here", "no-such-command-here"),
        (str(broken), "cannot be started in the sandbox"),
    ):
        done = box.run(command)
        assert done.returncode == 1 and said in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_the_current_directory_is_writable_and_the_rest_is_not(box: Box) -> None:
    beside = box.desk / "beside"
    beside.mkdir()
    desk = box.desk / "desk"
    desk.mkdir()
    name = f"made-{os.getpid()}"
    script = f'echo made > made; echo x > /tmp/{name} && cat /tmp/{name}; echo x > "{beside}/x"'
    done = box.run("sh", "-c", script, options=("--readable", str(beside)), cwd=desk)
    assert done.stdout == "x\n" and "Read-only file system" in done.stderr
    assert (desk / "made").read_text() == "made\n"
    assert (desk / "made").stat().st_uid == os.geteuid()
    assert not (beside / "x").exists() and not Path("/tmp", name).exists()


def test_named_folders_are_writable_instead(box: Box) -> None:
    out = box.desk / "out"
    out.mkdir()
    script = f'echo x > "{out}/x"; echo x > here'
    done = box.run("sh", "-c", script, options=("--writable", str(out)))
    assert (out / "x").exists() and not (box.desk / "here").exists()
    assert "Read-only file system" in done.stderr


def test_a_hidden_home_with_what_is_shown(box: Box, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("tools", "other", "work"):
        (home / name).mkdir(parents=True)
        (home / name / "file").write_text(name)
    options = ["--readable", str(home), "--hide", str(home / "other")]
    done = box.run(
        "sh", "-c", 'cat "$HOME"/tools/file "$HOME"/other/file',
        options=(*options, "--writable", str(home / "work")), env={"HOME": str(home)},
        cwd=home / "work",
    )  # fmt: skip
    assert done.stdout == "tools" and "No such file" in done.stderr


def test_the_token_ends_with_the_run(box: Box) -> None:
    done = box.run("sh", "-c", 'echo "$HTTPS_PROXY"')
    proxy = done.stdout.strip()
    assert proxy.endswith(f"@127.0.0.1:{box.kb.proxy_port}")
    left = subprocess.run(
        ["curl", "-s", "--proxy", proxy, "--cacert", str(box.kb.ca_file), "-o", os.devnull,
         "-w", "%{http_connect}", box.kb.upstream.url + "/echo"],
        capture_output=True, text=True, timeout=60, check=False, env=environment(),
    )  # fmt: skip
    assert left.stdout == "407"


def test_variables_that_lead_nowhere_are_taken_away(box: Box) -> None:
    env = {"SSH_AUTH_SOCK": "/tmp/agent", "DOCKER_HOST": "unix:///x", "TMPDIR": "/x", "KEPT": "yes"}
    done = box.python("import os, json; print(json.dumps(dict(os.environ)))", env=env)
    seen = json.loads(done.stdout)
    assert seen["KEPT"] == "yes" and seen["PWD"] == str(box.desk)
    assert not {"SSH_AUTH_SOCK", "DOCKER_HOST", "TMPDIR", "KEYBROKER_WORKSPACE"} & set(seen)


MANY = """
import concurrent.futures, hashlib, json, os, requests, sys
url = sys.argv[1]
def call(number):
    return requests.get(f"{url}/echo?n={number}").json()["target"] == f"/echo?n={number}"
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    assert all(pool.map(call, range(60)))
body = os.urandom(3_000_000).hex()
assert requests.post(f"{url}/echo", data=body).json()["body"] == body
print("done")
"""


def test_many_connections_and_large_bodies(box: Box) -> None:
    done = box.python(MANY, box.kb.upstream.url)
    assert done.stdout == "done\n", done.stderr


def test_programs_may_use_processes_pools_and_sockets_of_their_own(box: Box) -> None:
    source = """
import multiprocessing, socket, subprocess, tempfile
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    with tempfile.NamedTemporaryFile() as file, socket.socket(socket.AF_UNIX) as server:
        server.bind(file.name + ".sock")
        server.listen()
        socket.socket(socket.AF_UNIX).connect(file.name + ".sock")
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    print(subprocess.run(["id", "-u"], capture_output=True, text=True).stdout)
"""
    done = box.python(source)
    assert done.stdout.strip() == str(os.geteuid()), done.stderr


# Signals


def test_a_signal_reaches_the_command_itself(box: Box) -> None:
    process = box.open(
        "sh", "-c", "trap 'echo told; exit 42' TERM; echo up; while :; do sleep 0.1; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "told\n"
    assert process.wait(timeout=30) == 42
    process.stdout.close()


def inside(mark: str) -> list[int]:
    """The processes outside's view has of a sandbox: those with `mark` in their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def test_everything_ends_when_run_is_killed(box: Box) -> None:
    mark = f"mark-{os.getpid()}-{box.backend}"
    process = box.open("sh", "-c", "sh -c 'sleep 300; :' $0 & echo up; sleep 300; :", mark)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert inside(mark)
    process.kill()
    process.wait(timeout=30)
    process.stdout.close()
    wait_until(lambda: not inside(mark), what="the sandbox is gone")


def test_what_the_command_left_behind_ends_with_it(box: Box) -> None:
    mark = f"left-{os.getpid()}-{box.backend}"
    done = box.run("sh", "-c", "sh -c 'sleep 300; :' $0 >/dev/null 2>&1 & exit 3", mark)
    assert done.returncode == 3
    wait_until(lambda: not inside(mark), what="the rest of the sandbox is gone")


# The terminal


class Terminal:
    """A shell with job control on a terminal, as a person has it."""

    def __init__(self, cwd: Path) -> None:
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            env = environment({"PS1": "shell> ", "TERM": "dumb"})
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], env)
        self.shown = ""
        self.expect("shell> ")  # what is typed before it is ready may get lost

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def expect(self, text: str) -> None:
        """Waits until `text` is shown, and forgets what came before it."""
        until = time.monotonic() + 40
        while text not in self.shown:
            left = until - time.monotonic()
            assert left > 0 and select.select([self.screen], [], [], left)[0], self.shown
            self.shown += os.read(self.screen, 65536).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.screen)


@pytest.fixture
def terminal(box: Box) -> Iterator[Terminal]:
    terminal = Terminal(box.desk)
    yield terminal
    terminal.close()


def test_keys_of_the_terminal_reach_the_command(box: Box, terminal: Terminal) -> None:
    """Ctrl-C is the command's to handle; Ctrl-Z gives the shell back, and `fg` goes on."""
    script = box.desk / "agent"
    script.write_text(
        "trap 'echo caught-$((40 + 2))' INT\n"
        "[ -t 0 ] && [ -t 1 ] && echo on-terminal-$((40 + 2))\n"
        'while read line; do [ "$line" = end ] && exit 7; echo "got-$line"; done\n'
        'while read line; do [ "$line" = end ] && exit 7; echo "got-$line"; done\n'
    )
    terminal.type(shlex.join(box.command("bash", "agent")) + "; echo status-$?\n")
    terminal.expect("on-terminal-42")
    terminal.type("first\n")
    terminal.expect("got-first")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("shell> ")
    terminal.type("echo shell-$((40 + 2))\n")
    terminal.expect("shell-42")
    terminal.expect("shell> ")
    terminal.type("fg\n")
    terminal.type("second\n")
    terminal.expect("got-second")
    terminal.type("\x03")
    terminal.expect("caught-42")
    terminal.type("end\n")
    terminal.expect("shell> ")
    terminal.type("echo last-$?\n")
    terminal.expect("last-7")


def test_a_shell_in_the_sandbox_has_the_terminal(box: Box, terminal: Terminal) -> None:
    """It makes itself the terminal's group; afterwards the terminal comes back."""
    terminal.type(shlex.join(box.command("bash", "--norc", "-i")) + "\n")
    terminal.expect("shell> ")
    terminal.type("echo inside-$((40 + 2)) $$\n")
    terminal.expect("inside-42")
    terminal.expect("shell> ")
    terminal.type("exit 9\n")
    terminal.expect("shell> ")
    terminal.type("echo outside-$?\n")
    terminal.expect("outside-9")


# Where there is none


def test_doctor_says_that_there_is_a_sandbox(kb: Program) -> None:
    done = kb.run("doctor", "--json")
    findings = {found["check"]: found for found in json.loads(done.stdout)}
    assert findings["sandbox"]["state"] == "ok"
    assert "bubblewrap" in findings["sandbox"]["says"]


def test_without_a_sandbox_nothing_runs(box: Box) -> None:
    """No back-end: one clear error, and no run without it instead."""
    fake = box.desk / "bin"
    fake.mkdir()
    (fake / "bwrap").write_text("#!/bin/sh\necho 'bwrap: not today' >&2; exit 1\n")
    (fake / "bwrap").chmod(0o755)
    touch = shutil.which("touch")
    assert touch is not None
    words = box.kb.command("run", "--agent", "bot", "--sandbox", "--backend", "bubblewrap", "--")
    done = subprocess.run(
        [*words, touch, "ran"], capture_output=True, text=True, timeout=60, check=False,
        cwd=box.desk, env=environment({"PATH": str(fake)}),
    )  # fmt: skip
    assert done.returncode == 1 and "not today" in done.stderr and not (box.desk / "ran").exists()
    assert len(done.stderr.splitlines()) == 1


def test_options_of_the_sandbox_alone_are_a_mistake(kb: Program) -> None:
    done = kb.run("run", "--agent", "bot", "--hide", "/opt", "--", "true")
    assert done.returncode == 2 and "need --sandbox" in done.stderr


# As another user


def test_the_warning_is_for_who_can_read_the_workspace(kb: Program) -> None:
    """As oneself: warned. As another who cannot: not; and only root can do that."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    own = kb.run("run", "--agent", "bot", "--user", me, "--", "true")
    assert own.returncode == 0 and f"runs as {me}" in own.stderr
    assert str(kb.workspace) in own.stderr
    script = f'id -un; echo "$HOME"; cat "{kb.workspace}/policy.yaml" || echo unreadable'
    done = kb.run("run", "--agent", "bot", "--user", "nobody", "--", "sh", "-c", script)
    if os.geteuid() == 0:
        home = pwd.getpwnam("nobody").pw_dir
        assert done.stdout.splitlines() == ["nobody", home, "unreadable"]
        assert "warning" not in done.stderr
    else:
        assert done.returncode == 1 and "only root" in done.stderr
    both = kb.run("run", "--agent", "bot", "--user", me, "--sandbox", "--", "true")
    assert both.returncode == 2 and "leave --user out" in both.stderr
