"""Where a call's CPU goes: its path by itself, with the running program's store and vault, in this
process and with no HTTP engine around it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from functools import partial

from broker.model import Client
from broker.passage import Passage
from broker.pipeline import Pipeline
from broker.secrets.vault import VaultSource
from broker.telemetry.meters import Meters
from keybroker import compose
from keybroker.compose_vault import secret_source
from keybroker.values import Listen
from keybroker.workspace import Workspace
from rules.model import SecretRef
from rules.request import RawRequest
from tests.bench.measure import Report, row
from tests.support.program import Program

AGENTS = {"keybroker": "bot", "keybroker+key": "keyed"}
"""By column: without and with a credential, as in the rows about calls."""
BODY = json.dumps({"id": "ch_1", "object": "charge", "note": "n" * 960}).encode()
HEADERS = (
    ("Date", "Sun, 22 Nov 2026 16:00:00 GMT"),
    ("Server", "bench"),
    ("Cache-Control", "no-store"),
    ("X-Request-Id", "0190d0c0-0000-7000-8000-000000000000"),
    ("Content-Type", "application/json"),
    ("Content-Length", str(len(BODY))),
)


def breakdown(report: Report, program: Program, rounds: int, calls: int) -> None:
    """CPU of one call, one at a time, in each thread that works for it."""
    workspace = Workspace(program.workspace)
    settings, meters = workspace.settings(), Meters()
    with closing(compose.open_workspace(workspace, settings, meters)) as services:
        services.policies.refresh()
        parts = compose.worker_parts(
            workspace,
            settings,
            services,
            name="bench",
            listen=Listen("127.0.0.1", 0),
            own=[],
            admin_url=program.admin_url,
            meters=meters,
        )
        source, _ = secret_source(workspace, settings, services)
        clients = {
            column: parts.pipeline.identify(
                agent, services.agents.run_token(agent, ttl=3600, by="bench")
            )
            for column, agent in AGENTS.items()
        }
        bench = _Path(parts.pipeline, source, program.upstream.port)
        with closing(parts), closing(source), asyncio.Runner(loop_factory=parts.new_loop) as runner:
            found = runner.run(bench.measure(clients, rounds, calls))
    report.head("a call's path without the HTTP engine", tuple(AGENTS))
    for what, blocks in found.items():
        report.add(row(f"CPU per call: {what}", "ms", blocks), tuple(AGENTS))


class _Path:
    """One pipeline under measurement. Its ledger's thread is the only one of this process."""

    def __init__(self, pipeline: Pipeline, source: VaultSource, port: int) -> None:
        self._pipeline = pipeline
        self._source = source
        self._port = port
        (writer,) = [thread for thread in threading.enumerate() if thread.name == "ledger"]
        assert writer.ident is not None
        self._writer = time.pthread_getcpuclockid(writer.ident)

    async def measure(
        self, clients: dict[str, Client], rounds: int, calls: int
    ) -> dict[str, dict[str, list[float]]]:
        """What -> column -> a figure for each round."""
        found: dict[str, dict[str, list[float]]] = {}
        for turn in range(-1, rounds):  # the first warms up
            for column, client in clients.items():
                loop, ledger = await self._cost(calls, partial(self._call, client))
                vault = 0.0
                if AGENTS[column] == "keyed":
                    vault, _ = await self._cost(calls, self._read)
                parts = {
                    "deciding, committing, injecting, scrubbing": loop - vault,
                    "reading the secret": vault,
                    "writing the ledger, in a thread of its own": ledger,
                }
                for what, figure in parts.items():
                    if turn >= 0:
                        found.setdefault(what, {}).setdefault(column, []).append(figure)
        return found

    async def _cost(
        self, count: int, do: Callable[[], Coroutine[None, None, None]]
    ) -> tuple[float, float]:
        """Milliseconds of CPU in the loop's thread and in the ledger's, for each of `count`."""
        loop, ledger = time.thread_time(), time.clock_gettime(self._writer)
        for _ in range(count):
            await do()
        return (
            (time.thread_time() - loop) / count * 1e3,
            (time.clock_gettime(self._writer) - ledger) / count * 1e3,
        )

    async def _call(self, client: Client) -> None:
        passage = await self._pipeline.handle(client, self._raw(), asyncio.Event())
        assert isinstance(passage, Passage), passage
        passage.head(200, "OK", HEADERS)
        assert passage.feed(BODY) + passage.finish() == BODY
        await passage.completed()

    async def _read(self) -> None:
        await self._source.read(SecretRef("kv", "pay", "key"))

    def _raw(self) -> RawRequest:
        host = f"localhost:{self._port}".encode()
        fields = (b"Host", host), (b"User-Agent", b"bench"), (b"Accept", b"*/*")
        place = "localhost", self._port
        return RawRequest("https", place, "localhost", None, "GET", "/small", fields, b"")
