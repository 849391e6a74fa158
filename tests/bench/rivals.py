"""What is measured: Keybroker as it is shipped, and stock mitmdump with a one-line addon."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.line import Door
from tests.support.bao import free_port
from tests.support.program import Program, basic, environment, wait_until

SECRET = "sk_live_benchmark_0123456789abcdef"
ADDON = f"""\
def request(flow): flow.request.headers["authorization"] = "Bearer {SECRET}"
"""
RULES = 50
"""Rules beside those that the calls match."""


@dataclass(frozen=True, slots=True)
class BenchUpstream:
    """As `tests.support.program` wants an upstream."""

    port: int
    ca_file: Path

    def door(self) -> Door:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return Door(self.port, context)


@contextlib.contextmanager
def running_upstream(directory: Path) -> Iterator[BenchUpstream]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.upstream", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield BenchUpstream(int(process.stdout.readline()), directory / "ca.pem")
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Rival:
    """A proxy under measurement."""

    door: Door
    process: int
    """The one process that carries calls."""
    helpers: tuple[int, ...] = ()
    """Others that work for it: vault, supervisor, admin."""


@contextlib.contextmanager
def running_mitmdump(directory: Path, upstream: BenchUpstream) -> Iterator[Rival]:
    """mitmdump as it comes, without a line printed for each call (which would cost it more)."""
    addon, confdir, port = directory / "addon.py", directory / "confdir", free_port()
    addon.write_text(ADDON)
    command = [str(Path(sys.executable).with_name("mitmdump")), "--quiet"]
    command += ["--listen-host", "127.0.0.1", "--listen-port", str(port), "--scripts", str(addon)]
    command += ["--set", f"confdir={confdir}"]
    command += ["--set", f"ssl_verify_upstream_trusted_ca={upstream.ca_file}"]
    with subprocess.Popen(command, env=environment()) as process:
        try:

            def listens() -> bool:
                assert process.poll() is None
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    return True
                return False

            wait_until(listens, what="mitmdump listens")
            context = ssl.create_default_context(cafile=str(confdir / "mitmproxy-ca-cert.pem"))
            yield Rival(Door(upstream.port, context, port), process.pid)
        finally:
            process.kill()


POLICY = """\
version: 1
credentials:
  pay: {secret: "kv/pay#key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: plain, agents: [bot], match: {method: GET, host: "$HOST", path: /small}, effect: allow}
  - id: keyed
    agents: [keyed]
    match: {host: "$HOST", path: "/{name}"}
    effect: allow
    use: [pay]
  - id: held
    agents: ["tag:held"]
    match: {host: "$HOST", path: "/held/*"}
    effect: hold
    risk: medium
    use: [pay]
"""
OTHER = """\
  - id: other-{number}
    agents: [bot, keyed]
    match: {{method: DELETE, host: "$HOST", path: "/v1/things-{number}/*"}}
    effect: deny
"""


def policy() -> str:
    """A rule without a credential, one with, and around them as many as people have."""
    return POLICY + "".join(OTHER.format(number=number) for number in range(RULES))


@contextlib.contextmanager
def running_keybroker(directory: Path, upstream: BenchUpstream) -> Iterator[Program]:
    with Program(
        directory,
        upstream,  # type: ignore[arg-type]  # it uses the port and the CA
        policy=policy(),
        hold_wait="10m",
        proxy_settings="body_limit: 128MiB",
    ) as program:
        program.secret("kv/pay", "key", SECRET)
        yield program


def rival_of(program: Program, upstream: BenchUpstream, agent: str, *options: str) -> Rival:
    """Keybroker as this agent, which is added with `options`, meets it."""
    assert program.process is not None
    (worker,) = program.processes("worker")
    helpers = [program.process.pid, *program.processes("admin"), *program.processes("server")]
    key = program.agent(agent, *options)
    context = ssl.create_default_context(cafile=str(program.ca_file))
    door = Door(upstream.port, context, program.proxy_port, basic(key))
    return Rival(door, worker, tuple(dict.fromkeys(helpers)))
