"""The whole program for tests: a workspace of its own, `keybroker up`, and hands to use it with.

    with Program(tmp_path, upstream, policy=POLICY) as kb:
        kb.secret("kv/pay", "api_key", "sk_live_canary")
        bot = kb.agent("bot")
        done = kb.curl(bot, upstream.url + "/echo")
        assert done.status == 200

Everything goes through the commands and the REST API that users have; commands that only set the
scene run in the tests' own process. `policy` may hold `$HOST`, which stands for the upstream's host
and port.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from click.testing import CliRunner

from audit.query import export, export_jsonl
from audit.reading import open_ledger
from keybroker.cli import cli
from tests.support.bao import free_port
from tests.support.upstream import Upstream

SETTINGS = """\
proxy: {{listen: 127.0.0.1:{proxy}, workers: {workers}, hold_wait: {hold_wait}{more_of_proxy}}}
admin: {{listen: 127.0.0.1:{admin}{more_of_admin}}}
store: sqlite
vault: {vault}
egress: {{ca_bundle: {ca_file}, allow_networks: [{networks}]{more_of_egress}}}
"""
LOOPBACK = ("127.0.0.0/8", '"::1/128"')
START_WITHIN = 40.0


@dataclass(frozen=True, slots=True)
class AgentKey:
    """An agent as its own process knows itself."""

    name: str
    token: str
    proxy_url: str
    gateway_url: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What curl got."""

    exit: int
    status: int
    headers: Mapping[str, str]
    body: bytes
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """Keybroker's code, for its own answers."""
        return self.headers.get("keybroker-code")


@dataclass(slots=True)
class Pending:
    """A curl that is still running."""

    process: subprocess.Popen[bytes]
    head: Path
    body: Path

    def wait(self, timeout: float = 60) -> Reply:
        _, stderr = self.process.communicate(timeout=timeout)
        return _reply(self.process.returncode, self.head, self.body, stderr)


@dataclass(slots=True)
class Program:
    """One running Keybroker. `start` and `stop` may be called any number of times."""

    directory: Path
    upstream: Upstream
    policy: str = "version: 1\nrules: []\n"
    workers: int = 1
    hold_wait: str = "20s"
    vault: str = "embedded"
    networks: Sequence[str] = LOOPBACK
    team: bool = False
    extra_settings: str = ""
    proxy_settings: str = ""
    """More of `proxy:`, as in `body_limit: 1MiB`."""
    admin_settings: str = ""
    egress_settings: str = ""
    proxy_port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    _curls: int = 0

    def __enter__(self) -> Self:
        self.init()
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def workspace(self) -> Path:
        return self.directory / "workspace"

    @property
    def database(self) -> Path:
        return self.workspace / "state" / "keybroker.db"

    @property
    def ca_file(self) -> Path:
        return self.workspace / "state" / "ca" / "ca.pem"

    @property
    def log(self) -> Path:
        """What `up` wrote to stderr."""
        return self.directory / "up.log"

    @property
    def admin_url(self) -> str:
        return f"http://localhost:{self.admin_port}"

    def setup_link(self) -> str:
        """The one that makes the first account: stdout is no terminal, so it lies in a file."""
        assert self.facts["setup_url"] is None
        return Path(self.facts["setup_file"]).read_text().splitlines()[-1]

    def init(self) -> None:
        """Makes the workspace with this program's settings and policy."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._here("init", str(self.workspace), "--team" if self.team else "--solo")
        self.write_settings()
        self.write_policy(self.policy)

    def write_settings(self) -> None:
        """Replaces the settings with this program's own."""
        settings = SETTINGS.format(
            proxy=self.proxy_port,
            admin=self.admin_port,
            workers=self.workers,
            hold_wait=self.hold_wait,
            more_of_proxy=self.proxy_settings and f", {self.proxy_settings}",
            more_of_admin=self.admin_settings and f", {self.admin_settings}",
            more_of_egress=self.egress_settings and f", {self.egress_settings}",
            vault=self.vault,
            ca_file=self.upstream.ca_file,
            networks=", ".join(self.networks),
        )
        (self.workspace / "keybroker.yaml").write_text(settings + self.extra_settings)

    def write_policy(self, policy: str) -> None:
        """Replaces the policy file; a running `up` takes it up within two seconds."""
        host = f"localhost:{self.upstream.port}"
        (self.workspace / "policy.yaml").write_text(policy.replace("$HOST", host))

    def publish(self, policy: str) -> None:
        """`write_policy`, and waits until it is in force."""
        before = self._policy_version()
        self.write_policy(policy)
        wait_until(lambda: self._policy_version() > before, what="the new policy is published")
        time.sleep(0.5)  # workers follow within a second at most; they look several times in one

    def start(self) -> None:
        """`keybroker up`; returns once it serves."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command("up", "--json"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(),
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("{"):
            self.stop()
            raise AssertionError(f"up did not start: {line!r}\n{self.log.read_text()}")
        self.facts = json.loads(line)

    def stop(self) -> None:
        """SIGTERM, and waits; kills whatever is left after that."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """kill -9 of `up` and everything that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)
            self._close()

    def processes(self, word: str) -> list[int]:
        """Process ids of what `up` runs: "worker", "admin", or "server" (the embedded vault)."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = entry.read_bytes().decode(errors="replace").split("\0")
                if word in words and str(self.workspace) in "".join(words):
                    found.append(int(entry.parent.name))
        return found

    def _close(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    # The command line

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "keybroker", "--workspace", str(self.workspace), *arguments]

    def run(
        self, *arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One command, whatever its exit status."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(env),
        )

    def cli(self, *arguments: str, stdin: str | None = None) -> str:
        """One command that must succeed; its stdout."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        """One command with --json."""
        return json.loads(self.cli(*arguments, "--json", stdin=stdin))

    def agent(self, name: str, *options: str) -> AgentKey:
        made = self._arrange("agent", "add", name, *options)
        return AgentKey(made["agent"], made["token"], made["proxy_url"], made["gateway_url"])

    def user(self, name: str, role: str = "approver", password: str | None = None) -> str:
        """Adds a person; returns their API token."""
        options = [] if password is None else ["--password-stdin"]
        self._arrange("user", "add", name, "--role", role, *options, stdin=password)
        token: str = self._arrange("user", "token", name)["token"]
        return token

    def secret(self, path: str, field: str, value: str) -> None:
        self._arrange("secret", "set", path, field, "--stdin", stdin=value)

    def _arrange(self, *arguments: str, stdin: str | None = None) -> Any:
        command = ["--workspace", str(self.workspace), *arguments, "--json"]
        return json.loads(self._here(*command, stdin=stdin))

    def _here(self, *arguments: str, stdin: str | None = None) -> str:
        """One command in this process: one of its own takes half a second to start, and there are
        many hundreds of these."""
        astray = {name: None for name in os.environ if name not in environment()}
        done = CliRunner(env=astray).invoke(cli, arguments, input=stdin)
        assert done.exit_code == 0, f"{arguments}: {done.output}{done.exception!r}"
        return done.stdout

    # The API

    def api(
        self, token: str | None, path: str, document: object = None, method: str | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of one API call."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(
            self.admin_url + path,
            data=None if document is None else json.dumps(document).encode(),
            headers=headers,
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def pending(self, token: str, count: int = 1) -> list[dict[str, Any]]:
        """Waits until `count` calls are held; their cards."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = self.api(token, "/api/v1/approvals?state=pending")[1]["approvals"]
            return len(found) >= count

        wait_until(look, what=f"{count} held calls")
        return found

    def vote(
        self, token: str, approval: str, decision: str, reason: str = "", confirm: str | None = None
    ) -> tuple[int, Any]:
        document = {"decision": decision, "reason": reason}
        if confirm is not None:
            document["confirm"] = confirm
        return self.api(token, f"/api/v1/approvals/{approval}/votes", document)

    # The agent's side

    def start_curl(self, agent: AgentKey | None, url: str, *options: str) -> Pending:
        """curl through the proxy, in the background."""
        self._curls += 1
        head = self.directory / f"curl-{self._curls}.head"
        body = self.directory / f"curl-{self._curls}.body"
        proxy = f"http://127.0.0.1:{self.proxy_port}" if agent is None else agent.proxy_url
        command = ["curl", "--silent", "--show-error", "--proxy", proxy, "--max-time", "60"]
        command += ["--cacert", str(self.ca_file), "--dump-header", str(head)]
        command += ["--suppress-connect-headers", "--output", str(body), *options, url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment())
        return Pending(process, head, body)

    def curl(self, agent: AgentKey | None, url: str, *options: str) -> Reply:
        """curl through the proxy."""
        return self.start_curl(agent, url, *options).wait()

    def connect(self, agent: AgentKey | None, authority: str) -> socket.socket:
        """A raw socket after CONNECT was answered with 200; see `raw` for before."""
        sock = socket.create_connection(("127.0.0.1", self.proxy_port), timeout=20)
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if agent is not None:
            lines.append(f"Proxy-Authorization: {basic(agent)}")
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            chunk = sock.recv(65536)
            assert chunk, f"CONNECT was cut: {answer!r}"
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return sock

    def tunnel(self, agent: AgentKey, url: str) -> http.client.HTTPSConnection:
        """One HTTP/1.1 connection to the URL's host, for any number of calls; never reopened."""
        place = urlsplit(url)
        client = http.client.HTTPSConnection(
            "127.0.0.1",
            self.proxy_port,
            timeout=60,
            context=ssl.create_default_context(cafile=str(self.ca_file)),
        )
        client.set_tunnel(
            place.hostname or "", place.port, headers={"Proxy-Authorization": basic(agent)}
        )
        client.connect()
        client.auto_open = 0
        return client

    def raw(self, data: bytes, timeout: float = 20) -> bytes:
        """Sends bytes to the proxy's port and reads until it closes or `timeout` passes."""
        with socket.create_connection(("127.0.0.1", self.proxy_port), timeout=timeout) as sock:
            sock.sendall(data)
            return read_all(sock)

    # The ledger

    def records(self, **filters: str) -> list[dict[str, Any]]:
        """The ledger as `audit export` prints it, filtered by equal top-level fields.

        Read here: tests ask often, and a command takes a third of a second to start. What was
        delivered a moment ago is waited for (see `Passage.completed`).
        """
        time.sleep(0.05)
        with contextlib.closing(open_ledger(self.database)) as db:
            records = [json.loads(line) for line in export_jsonl(export(db))]
        return [r for r in records if all(r.get(k) == v for k, v in filters.items())]

    def verify(self) -> None:
        """The ledger must be whole."""
        done = self.run("audit", "verify")
        assert done.returncode == 0, done.stdout + done.stderr

    def _policy_version(self) -> int:
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as db:
            row = db.execute("SELECT coalesce(max(version), 0) FROM policies").fetchone()
            return int(row[0])


def basic(agent: AgentKey) -> str:
    """The value of Proxy-Authorization."""
    return "Basic " + base64.b64encode(f"{agent.name}:{agent.token}".encode()).decode()


def read_all(sock: socket.socket) -> bytes:
    """Until the peer closes or the socket's time-out passes."""
    data = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without proxies and workspaces that would lead a command astray."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("KEYBROKER")
    }
    return {**kept, **(extra or {})}


def wait_until(holds: Callable[[], bool], *, what: str, timeout: float = 20) -> None:
    """Polls; fails loudly when `timeout` seconds pass first."""
    until = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < until, f"waited {timeout} s in vain: {what}"
        time.sleep(0.02)


def _reply(exit_status: int, head: Path, body: Path, stderr: bytes) -> Reply:
    text = head.read_text() if head.exists() else ""
    # The last head counts: a 100 Continue may come before it.
    block = [part for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
    lines = block[-1].splitlines() if block else ["HTTP/1.1 0"]
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
    }
    return Reply(
        exit_status,
        int(lines[0].split()[1]),
        headers,
        body.read_bytes() if body.exists() else b"",
        stderr.decode(errors="replace"),
    )
