"""The workspace that the demo runs in: made, filled and started by the commands that users have."""

from __future__ import annotations

import json
import secrets
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from keybroker.cli.frame import paint
from keybroker.errors import Unusable
from keybroker.sample import HOST, SamplePayments

AGENT = "billing-bot"
REVIEWER = "alice"
SETTINGS = """\
# The demo's settings: everything on loopback, the sample service trusted.
proxy: {{listen: 127.0.0.1:{proxy}, workers: 2, hold_wait: 25s}}
admin: {{listen: 127.0.0.1:{admin}}}
store: sqlite
vault: embedded
egress:
  ca_bundle: {ca_file}
  allow_networks: [127.0.0.0/8, "::1/128"]
"""

POLICY = """\
# What the demo's agent may do. Whatever no rule names is denied.
version: 1
credentials:
  payments:
    secret: kv/payments#api_key
    hosts: ["{host}"]
    inject: bearer
tiers:
  money:                              # one person, who retypes the amount
    quorum: [{{group: any, count: 1}}]
    confirm: retype
rules:
  - id: payments-read
    agents: [{agent}]
    match: {{method: GET, host: "{host}", path: /v1/**}}
    effect: allow
    use: [payments]
  - id: payments-refund
    agents: [{agent}]
    match: {{method: POST, host: "{host}", path: /v1/refunds}}
    effect: hold
    risk: money
    summary: "Refund {{form:amount}} on charge {{form:charge}}"
    confirm: form:amount
    impact: Money leaves the account and cannot be called back.
    use: [payments]
"""


def new_key() -> str:
    """A key as the sample service might issue them."""
    return "sk_sample_" + secrets.token_hex(16)


class DemoWorkspace:
    """One workspace with one agent, and the sample service's key in its vault."""

    def __init__(self, directory: Path, sample: SamplePayments) -> None:
        self._directory = directory
        self._sample = sample
        self.keys: list[str] = []
        """Every version of the service's key, newest last."""
        self.token = ""
        """The agent's."""
        self.reviewer_token = ""
        self.proxy = ""
        """HOST:PORT."""
        self.admin_url = ""
        self._setup_file: Path | None = None

    @property
    def key(self) -> str:
        """The service's key of the moment."""
        return self.keys[-1]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything is up, the agent and a reviewer have their tokens."""
        with self._up(log=self._directory.with_name("up.log")):
            self._fill()
            self.keybroker("user", "add", REVIEWER, "--role", "approver")
            self.reviewer_token = self._json("user", "token", REVIEWER)["token"]
            yield

    def serve(self) -> int:
        """Starts everything, says what to try, and stays until Ctrl-C."""
        with self._up(log=None) as up:
            self._fill()
            self._invite()
            with suppress(KeyboardInterrupt):
                return up.wait()
        return 0

    def curl(self, path: str, *arguments: str) -> list[str]:
        """The command by which the agent calls the sample service."""
        authority = str(self._directory / "state" / "ca" / "ca.pem")
        proxy = f"http://{AGENT}:{self.token}@{self.proxy}"
        url = self._sample.url + path
        return ["curl", "--proxy", proxy, "--cacert", authority, *arguments, url]

    def shorten(self, argument: str) -> str:
        """An argument of `curl` as the story shows it: no token, no long path."""
        return argument.replace(self.token, "TOKEN").replace(f"{self._directory}/", "")

    def rotate_key(self) -> int:
        """Writes a new key to the vault; returns its version."""
        self.keys.append(new_key())
        answer = self._json("secret", "set", "kv/payments", "api_key", "--stdin", stdin=self.key)
        version: int = answer["version"]
        return version

    def copy_ledger(self) -> Path:
        """A whole copy of the store, made while it is in use."""
        target = self._directory / "copy.db"
        source = sqlite3.connect(self._directory / "state" / "keybroker.db")
        copy = sqlite3.connect(target)
        try:
            source.backup(copy)
        finally:
            source.close()
            copy.close()
        return target

    def keybroker(
        self, *arguments: str, stdin: str | None = None, accept: Sequence[int] = (0,)
    ) -> tuple[int, str, str]:
        """Runs one command on this workspace; returns exit status, stdout and stderr.

        Raises Unusable with what the command said if it exits otherwise.
        """
        done = subprocess.run(
            self._command(*arguments),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in accept:
            raise Unusable(f"`keybroker {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.returncode, done.stdout, done.stderr

    def _json(self, *arguments: str, stdin: str | None = None) -> Any:
        return json.loads(self.keybroker(*arguments, "--json", stdin=stdin)[1])

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "keybroker", "--workspace", str(self._directory), *arguments]

    def _make(self) -> None:
        if not (self._directory / "keybroker.yaml").exists():
            self.keybroker("init", str(self._directory), "--solo")
        host = f"{HOST}:{self._sample.port}"
        settings = SETTINGS.format(
            proxy=_free_port(8080), admin=_free_port(8081), ca_file=self._sample.ca_file
        )
        (self._directory / "keybroker.yaml").write_text(settings)
        (self._directory / "policy.yaml").write_text(POLICY.format(host=host, agent=AGENT))

    @contextmanager
    def _up(self, *, log: Path | None) -> Iterator[subprocess.Popen[str]]:
        """`keybroker up`; what it says goes to `log`, or to this process's stderr."""
        self._make()
        with ExitStack() as stack:
            up = subprocess.Popen(
                self._command("up", "--json"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if log is None else stack.enter_context(log.open("w")),
                text=True,
            )
        try:
            facts = _first_line(up, log)
            self.proxy, self.admin_url = facts["proxy"], facts["admin"]
            self._setup_file = facts["setup_file"] and Path(facts["setup_file"])
            yield up
        finally:
            if up.poll() is None:
                up.terminate()
            with suppress(subprocess.TimeoutExpired):
                up.wait(timeout=40)
            if up.poll() is None:
                up.kill()

    def _fill(self) -> None:
        self.rotate_key()
        agents = {agent["agent"] for agent in self._json("agent", "list")}
        verb = "rotate" if AGENT in agents else "add"
        self.token = self._json("agent", verb, AGENT)["token"]

    def _invite(self) -> None:
        def show(arguments: list[str]) -> str:
            return " ".join(f"'{a}'" if "&" in a else a for a in arguments)

        click.echo(paint("Keybroker runs. Try, from another terminal:", bold=True))
        click.echo("\n  an allowed read (the agent holds no key, the service gets one):")
        click.echo(f"    {show(self.curl('/v1/charges'))}")
        click.echo("\n  a denied call:")
        click.echo(f"    {show(self.curl('/v1/customers/7', '-X', 'DELETE'))}")
        click.echo("\n  a refund, held until you approve it on the admin page:")
        click.echo(f"    {show(self.curl('/v1/refunds', '-d', 'charge=ch_81&amount=4200'))}")
        click.echo("\n  what happened, and the proof of it:")
        click.echo(f"    {_program()} --workspace {self._directory} audit tail")
        click.echo(f"    {_program()} --workspace {self._directory} audit verify")
        if self._setup_file is None:
            click.echo(f"\n  the admin page: {self.admin_url}")
        elif sys.stdout.isatty():
            click.echo("\n  the admin page: make your account with this one-time link")
            click.echo(f"    {self._setup_file.read_text().splitlines()[-1]}")
            self._setup_file.unlink()
        else:
            click.echo("\n  the admin page: make your account with the one-time link in")
            click.echo(f"    {self._setup_file}")
        click.echo("\nCtrl-C stops it.")


def _program() -> str:
    """How a person calls this very program."""
    return str(Path(sys.executable).with_name("keybroker"))


def _first_line(up: subprocess.Popen[str], log: Path | None) -> dict[str, Any]:
    assert up.stdout is not None
    line = up.stdout.readline()
    if not line.startswith("{"):
        said = "see above" if log is None else log.read_text().strip().rpartition("\n")[2]
        raise Unusable(f"`keybroker up` did not start: {said}")
    facts: dict[str, Any] = json.loads(line)
    return facts


def _free_port(wanted: int) -> int:
    """`wanted`, or any free port where that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free: int = probe.getsockname()[1]
            return free
    raise Unusable("no port of this machine is free")
