"""The sandbox of `keybroker run`: a hostile agent inside (inmate.py) tries all it can think of.

All its attempts are made by each back-end in one run; each is a case here. Those that are no use
where nothing holds them would prove nothing: `test_outside_the_attempts_succeed` makes them without
the sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import inmate
from tests.attacks.stage import Stage
from tests.support.program import environment

pytestmark = pytest.mark.e2e

BACKENDS = ("bubblewrap", "unshare")
TERMINAL = (
    "characters-for-the-terminal",
    "characters-for-the-terminal-with-upper-bits",
    "line-discipline",
)
ALIAS = "workspace-by-another-mount"
INSIDE = [name for name in inmate.ATTEMPTS if name not in (*TERMINAL, ALIAS)]
OUTSIDE = [
    "tcp-loopback", "tcp-loopback-ipv6", "tcp-loopback-mapped", "tcp-this-host", "tcp-upstream",
    "tcp-admin-page", "tcp-embedded-vault", "tcp-fast-open", "every-port-but-the-proxys", "udp",
    "dns", "abstract-socket", "socket-in-tmp", "socket-in-var-tmp", "socket-in-run",
    "socket-by-another-name-of-run", "socket-in-the-home", "socket-in-the-current-directory",
    "datagram-to-a-socket", "workspace-by-path", "workspace-listed", "workspace-policy",
    "workspace-database", "workspace-by-a-link", "workspace-by-a-new-link",
    "workspace-by-the-parents-root", "workspace-by-a-directory-of-others",
    "workspace-by-descriptors-of-others", "workspace-by-dots", "workspace-of-the-data-folder",
    "home-.ssh-id_ed25519", "home-.netrc", "home-.config-gcloud-key.json", "file-in-tmp",
    "file-in-shared-memory", "write-to-the-home", "write-beside", "write-to-keybrokers-code",
    "write-through-a-link", "plant-a-workspace", "processes-listed", "environment-of-the-parents",
    "words-of-others", "kill-a-process", "kill-a-group", "pidfd-of-a-process",
    "memory-of-a-process", "limits-of-a-process", "shared-memory-of-system-v",
    "program-with-the-set-user-bit", "core-dump",
]  # fmt: skip
"""Those that must succeed where nothing holds them, whoever runs the tests, and do no harm."""

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Prison:
    """The surroundings of the inmate: things to want, and a place to work in."""

    stage: Stage
    base: Path
    facts: dict[str, Any]
    env: dict[str, str]

    @property
    def desk(self) -> Path:
        return self.base / "desk"

    def command(
        self, backend: str | None, *command: str, readable: Sequence[Path] = ()
    ) -> list[str]:
        shown = (self.base, self.stage.kb.directory, *readable)
        box = ["--sandbox", "--backend", str(backend)]
        box += [word for path in shown for word in ("--readable", str(path))]
        options = [] if backend is None else box
        return self.stage.kb.command("run", "--agent", "bot", *options, "--", *command)

    def inmate(self, backend: str | None, names: Sequence[str]) -> list[str]:
        facts = self.facts | {"only": list(names), "outside": backend is None}
        script = str(self.desk / "inmate.py")
        return self.command(backend, sys.executable, script, json.dumps(facts))

    def tell(self, words: Sequence[str], **how: Any) -> dict[str, Any]:
        """Runs the inmate; what it got."""
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            cwd=self.desk,
            env=self.env,
            **how,
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@contextlib.contextmanager
def ringing(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> Iterator[Any]:
    """Somebody who answers at `address`; its bound address."""
    with socket.socket(family, kind) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(address)
        stopped = threading.Event()

        def answer() -> None:
            while not stopped.is_set():
                if not select.select([server], [], [], 0.2)[0]:
                    continue
                if kind == socket.SOCK_DGRAM:
                    _, peer = server.recvfrom(512)
                    if peer:
                        server.sendto(b"ringing", peer)
                else:
                    server.accept()[0].close()

        if kind == socket.SOCK_STREAM:
            server.listen(64)
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()
        stopped.set()
        thread.join()


@pytest.fixture(scope="module")
def prison(whole_stage: Stage) -> Iterator[Prison]:
    kb = whole_stage.kb
    mark = f"mark-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        base = Path(os.path.realpath(tempfile.mkdtemp(prefix="kb-")))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        home = _furnish(base, kb.workspace)
        names = {
            "tmp": f"/tmp/{base.name}.sock",
            "var_tmp": f"/var/tmp/{base.name}.sock",
            "run": f"/run/{base.name}.sock",
            "home": str(home / "app.sock"),
            "desk": str(base / "desk" / "db.sock"),
        }
        for path in names.values():
            stack.enter_context(ringing(socket.AF_UNIX, path))
            stack.callback(Path(path).unlink)
        names["datagram"] = str(home / "log.sock")
        stack.enter_context(ringing(socket.AF_UNIX, names["datagram"], socket.SOCK_DGRAM))
        stack.enter_context(ringing(socket.AF_UNIX, f"\0{base.name}"))
        port = stack.enter_context(ringing(socket.AF_INET6, ("::", 0)))[1]
        udp = stack.enter_context(ringing(socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_DGRAM))[1]
        files = {"tmp": f"/tmp/{base.name}.txt", "shm": f"/dev/shm/{base.name}"}
        for path in files.values():
            Path(path).write_text("of another program")
            stack.callback(Path(path).unlink)
        victim = subprocess.Popen(["sleep", "600"], start_new_session=True)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        memory = libc.shmget(0x6B623031, 4096, 0o1000 | 0o600)
        stack.callback(libc.shmctl, memory, 0, None)
        vault = [p for pid in kb.processes("server") for p in _listening(pid)]
        assert kb.process is not None
        facts = {
            "port": port,
            "udp": udp,
            "upstream": whole_stage.upstream.port,
            "admin": kb.admin_port,
            "vault": vault[0],
            "proxy": kb.proxy_port,
            "ports": [port, kb.admin_port, kb.proxy_port, *vault, whole_stage.upstream.port],
            "abstract": base.name,
            "sockets": names,
            "files": files,
            "workspace": str(kb.workspace),
            "key": str(kb.workspace / "state" / "workspace.key"),
            "link": str(base / "link"),
            "alias": str(base / "again" / "state" / "workspace.key"),
            "beside": "beside",
            "descriptor": 200,
            "handle": _handle(kb.workspace / "state").hex(),
            "home": str(home),
            "named": str(kb.workspace / "state" / "vault"),
            "code": str(Path(__file__).parents[2] / "keybroker" / "__main__.py"),
            "disk": [254, 0],
            "pids": [os.getpid(), kb.process.pid, *kb.processes("worker"), victim.pid],
            "victim": victim.pid,
            "mark": mark,
            "shm": 0x6B623031,
            "serial": _secret_key(stack),
        }
        env = environment({"HOME": str(home), "KEYBROKER_MARK": mark})
        env.pop("XDG_DATA_HOME", None)
        yield Prison(whole_stage, base, facts, env)


def _furnish(base: Path, workspace: Path) -> Path:
    """A home with keys in it, a desk to work at, a folder beside them."""
    home = base / "home"
    for name in ("desk", "beside", "again", "home"):
        (base / name).mkdir()
    (base / "link").symlink_to(workspace)
    shutil.copy(inmate.__file__, base / "desk" / "inmate.py")
    for name in (".ssh/id_ed25519", ".aws/credentials", ".kube/config", ".netrc", ".vault-token",
                 ".config/gcloud/key.json", ".docker/config.json", ".gnupg/key", ".npmrc",
                 ".bash_history", ".git-credentials",
                 ".local/share/keybroker/state/workspace.key"):  # fmt: skip
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("a key of another program")
    return home


def _listening(pid: int) -> Iterator[int]:
    """The TCP ports at which a process listens."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(fd.readlink()).removeprefix("socket:[").rstrip("]"))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            yield int(fields[1].partition(":")[2], 16)


def _handle(path: Path) -> bytes:
    """What name_to_handle_at says of a path, as open_by_handle_at wants it; empty if nothing."""
    handle = ctypes.create_string_buffer((128).to_bytes(4, sys.byteorder), 136)
    mount = ctypes.c_int()
    libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(mount), 0)
    return handle.raw


def _secret_key(stack: contextlib.ExitStack) -> int:
    """A key in the kernel's keyring of this user; 0 where the kernel has or gives none."""
    add, control = (248, 250) if inmate.X86 else (217, 219)
    ring = ctypes.c_ulong(-4 & (2**64 - 1))
    serial = libc.syscall(add, b"user", b"keybroker-test", b"key in the kernel", 17, ring)
    if serial < 0:
        return 0
    stack.callback(libc.syscall, control, 9, ctypes.c_ulong(serial), ring)  # KEYCTL_UNLINK
    return int(serial)


@pytest.fixture(scope="module")
def told(prison: Prison) -> dict[str, dict[str, Any]]:
    """What the inmate got in each sandbox."""
    number = prison.facts["descriptor"]
    results = {}
    for backend in BACKENDS:
        # A careless starter leaves descriptors open, one of them the workspace's.
        fd = os.open(prison.stage.kb.workspace, os.O_RDONLY)
        os.dup2(fd, number)
        os.close(fd)
        try:
            results[backend] = prison.tell(prison.inmate(backend, INSIDE), pass_fds=(number,))
        finally:
            os.close(number)
        for name in ("new-link", "hard-link", "out", "disk", "mount-point"):
            left = prison.desk / name
            if left.is_dir() and not left.is_symlink():
                left.rmdir()
            left.unlink(missing_ok=True)
    return results


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", INSIDE)
def test_inside(told: dict[str, dict[str, Any]], backend: str, name: str) -> None:
    assert told[backend][name] is None


def test_outside_the_attempts_succeed(prison: Prison) -> None:
    got = prison.tell(prison.inmate(None, OUTSIDE))
    failed = {name: found for name, found in got.items() if found is None or "error" in str(found)}
    assert failed == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_workspace_under_another_mount(prison: Prison, backend: str) -> None:
    """Bound to a second place, by somebody before the run, in a mount namespace of its own."""
    again = prison.base / "again"
    script = 'mount --bind "$0" "$1" && shift && test -r "$1" && shift && exec "$@"'
    words = prison.inmate(backend, [ALIAS])
    enter = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
    place = [str(prison.stage.kb.workspace), str(again), prison.facts["alias"]]
    got = prison.tell([*enter, "sh", "-c", script, *place, *words])
    assert got == {ALIAS: None}


# The terminal


def on_a_terminal(words: Sequence[str], cwd: Path, env: dict[str, str]) -> tuple[str, int]:
    """Runs a command on a terminal of its own; what it showed, and its exit status."""
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvpe(words[0], list(words), env)
    data = b""
    until = time.monotonic() + 60
    with contextlib.suppress(OSError):  # EIO: nobody has it open any more
        while time.monotonic() < until and select.select([screen], [], [], 60)[0]:
            data += os.read(screen, 65536)
    os.close(screen)
    _, status = os.waitpid(pid, 0)
    return data.decode(errors="replace"), os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_terminal(prison: Prison, backend: str) -> None:
    shown, status = on_a_terminal(prison.inmate(backend, TERMINAL), prison.desk, prison.env)
    assert status == 0, shown
    found = re.search(r"\{.*\}", shown)
    assert found is not None, shown
    assert json.loads(found[0]) == dict.fromkeys(TERMINAL)


# Signals that reach everybody


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("target", "status"), [(0, 128 + signal.SIGKILL), (-1, 5)])
def test_a_signal_to_all_ends_only_those_inside(
    prison: Prison, backend: str, target: int, status: int
) -> None:
    """A shell starts `run` among others of its process group; the inmate kills "its group"."""
    kill = f"import os, time; os.fork() or time.sleep(60); os.kill({target}, 9); os._exit(5)"
    run = prison.command(backend, sys.executable, "-c", kill)
    script = 'sleep 300 & "$@"; echo "run ended: $?"; kill -0 $! && echo "neighbour lives"; kill $!'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *run],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=prison.desk,
        env=prison.env,
        start_new_session=True,
    )
    assert done.stdout.splitlines() == [f"run ended: {status}", "neighbour lives"]


# Streams


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_folder_as_standard_output(prison: Prison, backend: str) -> None:
    """From a folder outside, paths lead everywhere outside."""
    fd = os.open("/", os.O_RDONLY)
    try:
        done = subprocess.run(
            prison.command(backend, "touch", "ran"), stdout=fd, stderr=subprocess.PIPE,
            timeout=60, check=False, cwd=prison.desk, env=prison.env,
        )  # fmt: skip
    finally:
        os.close(fd)
    assert done.returncode != 0 and not (prison.desk / "ran").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_socket_as_standard_input(prison: Prison, backend: str) -> None:
    """It belongs to the network outside, and could be connected anew from inside."""
    with socket.create_connection(("127.0.0.1", prison.facts["port"])) as sock:
        done = subprocess.run(
            prison.command(backend, "true"), stdin=sock.fileno(), capture_output=True, text=True,
            timeout=60, check=False, cwd=prison.desk, env=prison.env,
        )  # fmt: skip
    assert done.returncode != 0 and "network socket" in done.stderr


# Wishes that would open it


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--readable", "WORKSPACE"), "stays hidden"),
        (("--readable", "WORKSPACE/state"), "stays hidden"),
        (("--readable", "LINK"), "stays hidden"),
        (("--writable", "WORKSPACE"), "the workspace"),
        (("--writable", "ABOVE"), "the workspace"),
        (("--writable", "/"), "the workspace"),
        (("--writable", "HOME"), "the workspace"),
        (("--writable", "/usr"), "the system"),
        (("--writable", "/proc"), "cannot be chosen"),
        (("--readable", "/dev"), "cannot be chosen"),
        (("--writable", "/tmp"), "the workspace"),
    ],
)
def test_no_option_opens_it(prison: Prison, options: tuple[str, str], said: str) -> None:
    kb = prison.stage.kb
    names = {
        "WORKSPACE": str(kb.workspace), "ABOVE": str(kb.directory), "LINK": prison.facts["link"],
        "HOME": prison.facts["home"],
    }  # fmt: skip
    path = re.sub("^[A-Z]+", lambda found: names[found[0]], options[1])
    words = ["run", "--sandbox", "--agent", "bot", options[0], path, "--", "true"]
    done = subprocess.run(
        kb.command(*words), capture_output=True, text=True, timeout=60, check=False,
        cwd=prison.desk, env=prison.env,
    )  # fmt: skip
    assert done.returncode == 1 and said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("where", ["WORKSPACE", "ABOVE", "HOME"])
def test_no_current_directory_opens_it(prison: Prison, where: str) -> None:
    kb = prison.stage.kb
    cwd = {"WORKSPACE": kb.workspace, "ABOVE": kb.directory, "HOME": prison.base / "home"}[where]
    done = subprocess.run(
        kb.command("run", "--sandbox", "--agent", "bot", "--", "true"), capture_output=True,
        text=True, timeout=60, check=False, cwd=cwd, env=prison.env,
    )  # fmt: skip
    assert done.returncode == 1 and "current directory" in done.stderr
