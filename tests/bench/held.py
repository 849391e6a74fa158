"""Calls held at once: what they cost in memory and CPU while they wait, and that all are answered.

Half of them come over HTTP/1.1, a connection each, half over HTTP/2, a hundred on a connection.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

from tests.bench.measure import Report, cpu_of, memory_of, row
from tests.bench.rivals import BenchUpstream, Rival, rival_of
from tests.support.program import Program

COLUMNS = ("keybroker",)
EACH = 200
"""Calls of one agent; as many as one may have held by default."""
STREAMS = 100
REST = 5.0
"""Seconds for which the CPU of waiting is measured."""
VOTERS = 4


@dataclass(frozen=True, slots=True)
class Caller:
    """One agent and the numbers of the calls that it makes."""

    proxy: Rival
    numbers: range


def held(report: Report, program: Program, upstream: BenchUpstream, count: int) -> None:
    """The rows about `count` calls held at once, in one worker."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    voter = program.user("alice")
    callers = [
        Caller(
            rival_of(program, upstream, f"held-{at}", "--tag", "held"),
            range(at, min(at + EACH, count)),
        )
        for at in range(0, count, EACH)
    ]
    worker, helpers = callers[0].proxy.process, callers[0].proxy.helpers
    before = memory_of(worker)
    answers: Counter[object] = Counter()
    began, cpu = time.monotonic(), cpu_of([worker])
    crowd = threading.Thread(
        target=lambda: asyncio.run(_all(callers, upstream.port, answers)), daemon=True
    )
    crowd.start()
    while (pending := _pending(program)) < count:
        assert crowd.is_alive(), answers
        assert time.monotonic() < began + 180, f"{pending} of {count} calls are held: {answers}"
        time.sleep(0.2)
    seconds, setup = time.monotonic() - began, cpu_of([worker]) - cpu
    time.sleep(1)
    memory = (memory_of(worker) - before) / count * 1024
    own, others = cpu_of([worker]), cpu_of(helpers)
    time.sleep(REST)
    resting = (cpu_of([worker]) - own) / REST * 100
    around = (cpu_of(helpers) - others) / REST * 100
    cpu, began = cpu_of([worker]), time.monotonic()
    _approve(program, voter)
    crowd.join(180)
    answered = time.monotonic() - began
    assert answers == {200: count}, answers
    report.head(f"{count} calls held at once, one worker", COLUMNS)
    for what, unit, value in (
        ("held after", "s", seconds),
        ("CPU to connect, check and hold one", "ms", setup / count * 1e3),
        ("memory per held call", "KiB", memory),
        ("CPU of the worker while they wait", "% of a core", resting),
        ("CPU of supervisor, admin, vault meanwhile", "% of a core", around),
        ("all approved one by one and answered after", "s", answered),
        ("CPU to claim, send and answer one", "ms", (cpu_of([worker]) - cpu) / count * 1e3),
    ):
        report.add(row(what, unit, {"keybroker": [value]}), COLUMNS)


def _pending(program: Program) -> int:
    return len(_ids(program))


def _ids(program: Program) -> list[str]:
    import contextlib
    import sqlite3

    with contextlib.closing(sqlite3.connect(program.database, timeout=10)) as db:
        return [row[0] for row in db.execute("SELECT id FROM approvals WHERE state = 'pending'")]


def _approve(program: Program, token: str) -> None:
    """Every vote is a call of the API of its own."""
    ids = _ids(program)
    place = urlsplit(program.admin_url)
    faults: list[object] = []

    def vote(share: Sequence[str]) -> None:
        line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        for id in share:
            body = json.dumps({"decision": "approve", "reason": "bench"})
            line.request("POST", f"/api/v1/approvals/{id}/votes", body, headers)
            response = line.getresponse()
            answer = response.read()
            if response.status != 200:
                faults.append(answer)
        line.close()

    threads = [threading.Thread(target=vote, args=(ids[n::VOTERS],)) for n in range(VOTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults[:3]


async def _all(callers: Sequence[Caller], port: int, answers: Counter[object]) -> None:
    gate = asyncio.Semaphore(16)  # so many connections are being opened at a time
    calls = []
    for caller in callers:
        half = len(caller.numbers) // 2
        single, shared = caller.numbers[:half], caller.numbers[half:]
        calls += [_one(caller.proxy, port, number, gate, answers) for number in single]
        for at in range(0, len(shared), STREAMS):
            calls.append(_many(caller.proxy, port, shared[at : at + STREAMS], gate, answers))
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            answers[repr(outcome)] += 1


async def _open(
    proxy: Rival, port: int, protocol: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.door.proxy)
    place = f"localhost:{port}"
    writer.write(
        f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n"
        f"Proxy-Authorization: {proxy.door.authorization}\r\n\r\n".encode()
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in answer, answer
    context = proxy.door.context
    context.set_alpn_protocols([protocol])
    await writer.start_tls(context, server_hostname="localhost")
    return reader, writer


async def _one(
    proxy: Rival, port: int, number: int, gate: asyncio.Semaphore, answers: Counter[object]
) -> None:
    async with gate:
        reader, writer = await _open(proxy, port, "http/1.1")
        writer.write(f"GET /held/{number} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    answers[int(head.split(b" ", 2)[1])] += 1
    writer.close()


async def _many(
    proxy: Rival, port: int, numbers: range, gate: asyncio.Semaphore, answers: Counter[object]
) -> None:
    async with gate:
        reader, writer = await _open(proxy, port, "h2")
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    for number in numbers:
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", f"localhost:{port}")]
        fields.append((":path", f"/held/{number}"))
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, fields, end_stream=True)
    left = len(numbers)
    while left:
        writer.write(connection.data_to_send())
        data = await reader.read(65536)
        assert data, "the connection was closed"
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                answers[int(dict(event.headers or ())[b":status"])] += 1
            elif isinstance(event, h2.events.DataReceived):
                connection.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id or 0
                )
            elif isinstance(event, h2.events.StreamEnded):
                left -= 1
            elif isinstance(event, h2.events.StreamReset):
                answers["reset"] += 1
                left -= 1
    writer.close()
