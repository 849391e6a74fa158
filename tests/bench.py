"""`make bench`: what a call costs. Real program, real TLS, bounded in count; figures of one run.

CPU is the worker's own, from /proc: it does not count the client, the upstream or waiting. Machines
are noisy: compare figures of one run with each other, not with another day's.
"""

from __future__ import annotations

import http.client
import os
import resource
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from audit.journal import Journal
from audit.record import Draft
from broker.services import create_state, open_services
from rules.canonical import canonicalise
from rules.decide import Rulebook
from rules.load import load_policy
from rules.model import Subject
from rules.request import RawRequest
from tests.support.program import AgentKey, Program, basic
from tests.support.upstream import Reply, Upstream

CALLS = 1500
CONNECTIONS = 150
ROWS = 20_000
POLICY = """\
version: 1
credentials:
  pay: {secret: "kv/pay#key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: plain, agents: [bot], match: {method: GET, host: "$HOST", path: /plain}, effect: allow}
  - id: keyed
    agents: [bot]
    match: {method: GET, host: "$HOST", path: /keyed}
    effect: allow
    use: [pay]
"""


def main() -> None:
    """Prints one table."""
    print(f"{'what':<48}{'p50':>10}{'p99':>10}{'CPU/call':>12}{'per s':>10}")
    with tempfile.TemporaryDirectory() as directory, Upstream() as upstream:
        for path in ("/plain", "/keyed"):
            upstream.answer(path, Reply(200, body=b"ok"))
        with Program(Path(directory), upstream, policy=POLICY) as program:
            program.secret("kv/pay", "key", "sk_live_benchmark")
            _calls(program, upstream, program.agent("bot"))
    _ledger()
    _decisions()


def _calls(program: Program, upstream: Upstream, bot: AgentKey) -> None:
    worker = _worker(program)
    direct = _Direct(upstream)
    _row("direct to the upstream, keep-alive", CALLS, lambda: direct.get("/plain"), None)
    proxied = _Proxied(program, upstream, bot)
    _row("HTTPS keep-alive, no credential", CALLS, lambda: proxied.get("/plain"), worker)
    _row("HTTPS keep-alive, credential and scrubbing", CALLS, lambda: proxied.get("/keyed"), worker)

    def fresh() -> None:
        connection = _Proxied(program, upstream, bot)
        connection.get("/keyed")
        connection.close()

    _row("HTTPS, a new connection each, credential", CONNECTIONS, fresh, worker)


def _row(what: str, count: int, call: Callable[[], None], worker: int | None) -> None:
    for _ in range(20):
        call()
    before, began, times = _cpu(worker), time.perf_counter(), []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    elapsed = time.perf_counter() - began
    cpu = "" if worker is None else f"{(_cpu(worker) - before) / count * 1e3:.2f} ms"
    quantiles = statistics.quantiles(times, n=100)
    print(
        f"{what:<48}{quantiles[49] * 1e3:>7.2f} ms{quantiles[98] * 1e3:>7.2f} ms"
        f"{cpu:>12}{count / elapsed:>10.0f}"
    )


class _Direct:
    def __init__(self, upstream: Upstream) -> None:
        context = ssl.create_default_context(cafile=str(upstream.ca_file))
        self._connection = http.client.HTTPSConnection(
            "localhost", upstream.port, context=context, timeout=20
        )

    def get(self, path: str) -> None:
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == 200, body

    def close(self) -> None:
        self._connection.close()


class _Proxied(_Direct):
    def __init__(self, program: Program, upstream: Upstream, bot: AgentKey) -> None:
        context = ssl.create_default_context(cafile=str(program.ca_file))
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", program.proxy_port, context=context, timeout=20
        )
        self._connection.set_tunnel("localhost", upstream.port, {"Proxy-Authorization": basic(bot)})


def _worker(program: Program) -> int:
    """The pid of the only worker: a child of `up` that has `worker` in its arguments."""
    assert program.process is not None
    parent = program.process.pid
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            parent_of = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent_of == parent and b"worker" in arguments:
            return int(entry.name)
    raise AssertionError("no worker found")


def _cpu(pid: int | None) -> float:
    """Seconds of CPU that the process has used."""
    if pid is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_utime
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ledger() -> None:
    with tempfile.TemporaryDirectory() as directory:
        workspace = Path(directory)
        (workspace / "state").mkdir()
        create_state(workspace)
        services = open_services(workspace)
        services.close()
        journal = Journal(
            workspace / "state" / "keybroker.db",
            clock=lambda: datetime.now(UTC),
            head_key=services.keys.ledger_head,
        )
        draft = Draft("call.completed", {"status": 200, "received": "0" * 64}, "c-1", "bot")
        began = time.perf_counter()
        done = [journal.commit(lambda tx: tx.append(draft)) for _ in range(ROWS)]
        for future in done:
            future.result()
        elapsed = time.perf_counter() - began
        journal.close()
    print(f"{'durable ledger rows, one process':<48}{'':>32}{ROWS / elapsed:>10.0f}")


def _decisions() -> None:
    subject = Subject("bot")
    for count in (10, 100, 1_000, 10_000):
        hosts = max(1, count // 20)
        rules = "\n".join(
            f"  - {{id: r{n}, agents: [bot], match: {{method: GET, host: h{n % hosts}.example,"
            f" path: /a/{n}/*}}, effect: allow}}"
            for n in range(count)
        )
        book = Rulebook(load_policy(f"version: 1\nrules:\n{rules}\n")[0])
        host = f"h{hosts // 2}.example"
        raw = RawRequest(
            "https",
            (host, 443),
            host,
            None,
            "GET",
            f"/a/{hosts // 2}/x",
            ((b"Host", host.encode()), (b"Accept", b"*/*"), (b"User-Agent", b"bench")),
            b"",
        )
        request = canonicalise(raw)
        assert book.decide(subject, request).effect == "allow"
        times = []
        for _ in range(2000):
            start = time.perf_counter()
            book.decide(subject, request)
            times.append(time.perf_counter() - start)
        quantiles = statistics.quantiles(times, n=100)
        print(
            f"{f'decide(), {count} rules over {hosts} hosts':<48}"
            f"{quantiles[49] * 1e6:>7.1f} us{quantiles[98] * 1e6:>7.1f} us"
        )


if __name__ == "__main__":
    main()
