"""The whole engine with real clients: streaming, memory, tunnels, draining, two on one port."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from broker.model import Client
from certs.authority import Authority
from proxy.dialing import PinningLoop
from proxy.egress import EgressGuard
from proxy.engine import Engine
from proxy.tls import TlsFiles
from tests.proxy.harness import (
    CREDENTIALS,
    FakePassage,
    FakePipeline,
    RawH2,
    Worker,
    connect_head,
    exchange,
    read_all,
    read_head,
    read_response,
    wait_until,
)
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e


def curl(worker: Worker, url: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    """curl through the proxy, with nothing but its own variables."""
    return subprocess.run(
        ["curl", "-sS", "-m", "20", "--cacert", str(worker.ca_file), *more, url],
        env={"PATH": os.environ["PATH"], "https_proxy": worker.proxy, "http_proxy": worker.proxy},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(worker: Worker, upstream: Upstream, version: str) -> None:
    done = curl(worker, upstream.url + "/echo", version, "-d", "a=b", "-w", "%{http_version}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith({"--http1.1": b"1.1", "--http2": b"2"}[version])
    assert b'"body": "a=b"' in done.stdout
    told = worker.pipeline.passages[0].told
    wait_until(lambda: told == ["head 200", "finish", "completed"])  # curl has left before
    assert upstream.requests[0].sni == "localhost"


def test_curl_without_credentials(worker: Worker, upstream: Upstream) -> None:
    proxy = f"http://127.0.0.1:{worker.port}"
    done = curl(worker, upstream.url, "-x", proxy)
    assert b"response 407" in done.stderr
    done = curl(worker, f"http://localhost:{upstream.port}/", "-x", proxy, "-i")
    assert b"407" in done.stdout
    assert b"agent_unauthenticated" in done.stdout


def test_a_name_under_localhost_is_its_own_place(worker: Worker, upstream: Upstream) -> None:
    done = curl(worker, upstream.url_for("api.localhost") + "/echo")
    assert done.returncode == 0, done.stderr
    assert upstream.requests[0].sni == "api.localhost"


def test_the_first_event_arrives_before_the_second_is_made(
    worker: Worker, upstream: Upstream
) -> None:
    """Streaming: stock would deliver the events when the last one has come, 3 s later."""
    with worker.h1_client() as client:
        started = time.monotonic()
        with client.stream("GET", upstream.url + "/sse?n=3&interval=1.5") as response:
            first = next(response.iter_bytes())
            assert b"event 0" in first
            assert b"event 1" not in first
            assert time.monotonic() - started < 1.5


def test_upload_and_download_are_byte_for_byte(tmp_path: Path, upstream: Upstream) -> None:
    body = os.urandom(3 << 20)
    with Worker(tmp_path, upstream.ca_file, body_limit=4 << 20) as worker:
        for client in (worker.h1_client(), worker.h2_client()):
            with client:
                told = client.post(upstream.url + "/upload", content=body).json()
                assert told["sha256"] == hashlib.sha256(body).hexdigest()
                chunks = (body[i : i + 100_000] for i in range(0, len(body), 100_000))
                told = client.post(upstream.url + "/upload", content=chunks).json()
                assert told["sha256"] == hashlib.sha256(body).hexdigest()
                assert len(client.get(upstream.url + "/download?mb=5").content) == 5 << 20


_MEMORY = """
import resource, sys, threading
from pathlib import Path
from typing import Self
from tests.proxy.harness import Worker
with Worker(Path(sys.argv[1]), Path(sys.argv[2])) as worker:
    print(worker.port, flush=True)
    for _ in sys.stdin:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""


class Apart:
    """A worker in a process of its own, whose memory can be measured; a context manager."""

    def __init__(self, directory: Path, upstream: Upstream) -> None:
        self.ca_file = directory / "proxy-ca.pem"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MEMORY, str(directory), str(upstream.ca_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        self._process.__enter__()
        self.port = int(self._line())
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.__exit__(None, None, None)

    def peak(self) -> int:
        """The most memory that was ever in use, in KiB."""
        print(file=self._process.stdin, flush=True)
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


@pytest.mark.parametrize("how", [["--http1.1"], ["--http2"], ["--http1.1", "--limit-rate", "10M"]])
def test_a_large_download_costs_little_memory(
    upstream: Upstream, tmp_path: Path, how: list[str]
) -> None:
    """100 MB: less than 40 MB more, also when the agent reads slowly."""
    with Apart(tmp_path, upstream) as worker:

        def fetch(size: int, *more: str) -> None:
            proxy = f"http://bot:token@127.0.0.1:{worker.port}"
            done = subprocess.run(
                [
                    *("curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "-x", proxy),
                    *("--cacert", str(worker.ca_file), *more),
                    f"{upstream.url}/download?mb={size}",
                ],
                capture_output=True,
                check=False,
            )
            assert "--limit-rate" in more or int(done.stdout) == size << 20

        fetch(1)
        before = worker.peak()
        fetch(100, *how, "-m", "3" if len(how) > 1 else "60")
        assert worker.peak() - before < 40 * 1024


def test_an_agent_that_opens_no_window_costs_little_memory(
    upstream: Upstream, tmp_path: Path
) -> None:
    """HTTP/2 flow control: stock reads on from the upstream and keeps all of it."""
    place = f"localhost:{upstream.port}"
    with Apart(tmp_path, upstream) as worker:
        context = ssl.create_default_context(cafile=str(worker.ca_file))
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(("127.0.0.1", worker.port), 10)
        raw.sendall(connect_head(place))
        read_head(raw)
        with context.wrap_socket(raw, server_hostname="localhost") as tls:
            agent = RawH2(tls, place)
            agent.wait(agent.request("/echo"))
            before = worker.peak()
            held = agent.request("/download?mb=100")
            time.sleep(1)
            assert worker.peak() - before < 40 * 1024
            # Once the agent reads, more comes.
            while len(agent.bodies.get(held, b"")) < 5 << 20:
                agent.read()


def test_a_tunnel_ends_with_its_agent(worker: Worker, upstream: Upstream) -> None:
    worker.pipeline.tunnel_hosts = {"localhost"}
    context = ssl.create_default_context(cafile=str(upstream.ca_file))
    connection = http.client.HTTPSConnection("127.0.0.1", worker.port, context=context, timeout=20)
    connection.set_tunnel("localhost", upstream.port, {"Proxy-Authorization": CREDENTIALS})
    connection.request("GET", "/echo")
    assert connection.getresponse().read()
    worker.pipeline.forgotten.add(Client("bot", "t1"))
    assert connection.sock is not None
    assert connection.sock.recv(1) == b""  # cut by the proxy, with nothing asked
    connection.close()
    wait_until(lambda: bool(worker.pipeline.tunnels[0].ended))


def test_a_tunnel_is_opaque_and_counted(worker: Worker, upstream: Upstream) -> None:
    worker.pipeline.tunnel_hosts = {"localhost"}
    done = curl(worker, upstream.url + "/echo", "--cacert", str(upstream.ca_file))
    assert done.returncode == 0, done.stderr  # the upstream's own certificate was seen
    assert worker.pipeline.raw == []
    wait_until(lambda: bool(worker.pipeline.tunnels[0].ended))
    ((sent, received),) = worker.pipeline.tunnels[0].ended
    assert 200 < sent < received
    assert len(upstream.requests) == 1


def test_no_tunnel_for_another_sni(worker: Worker, upstream: Upstream) -> None:
    worker.pipeline.tunnel_hosts = {"localhost", "other.localhost"}
    context = ssl.create_default_context(cafile=str(worker.ca_file))
    context.check_hostname = False
    for name in ("other.localhost", None):
        raw = worker.connect(f"localhost:{upstream.port}")
        with context.wrap_socket(raw, server_hostname=name) as tls:
            exchange(tls, f"GET /echo HTTP/1.1\nHost: localhost:{upstream.port}")
    assert worker.pipeline.tunnels == []
    assert len(worker.pipeline.raw) == 2


def test_the_guard_keeps_the_engine_from_itself(worker: Worker) -> None:
    with worker.tls(f"localhost:{worker.port}") as tls:
        status, _, body = exchange(tls, f"GET / HTTP/1.1\nHost: localhost:{worker.port}")
    # localhost also means ::1, where nobody listens.
    assert (status, b"certificate" in body) == (502, False)
    with worker.tls(f"127.0.0.1:{worker.port}") as tls:
        status, _, body = exchange(tls, f"GET / HTTP/1.1\nHost: 127.0.0.1:{worker.port}")
    assert (status, b"own listeners" in body) == (403, True)


def test_a_passage_without_a_check_dials_nothing(worker: Worker, upstream: Upstream) -> None:
    """Even if the pipeline forgot the guard: the loop knows pins only."""
    from rules.canonical import canonicalise

    async def script(client: object, raw: object, gone: object) -> object:
        worker.pipeline.passages.append(FakePassage(canonicalise(raw)))  # type: ignore[arg-type]
        return worker.pipeline.passages[-1]

    worker.pipeline.script = script
    connections = upstream.connections
    for host in ("localhost", "127.0.0.1"):
        with worker.tls(f"{host}:{upstream.port}") as tls:
            status, _, _ = exchange(tls, f"GET / HTTP/1.1\nHost: {host}:{upstream.port}")
        assert status == 502
    assert upstream.connections == connections
    assert worker.pipeline.passages[0].told[0].startswith("failed sent=False")


def test_drain_answers_held_calls_and_takes_no_new_ones(worker: Worker, upstream: Upstream) -> None:
    release = threading.Event()

    async def script(client: object, raw: object, gone: asyncio.Event) -> object:
        while not release.is_set():
            await asyncio.sleep(0.01)
        return await worker.pipeline.let_through(client, raw, gone)  # type: ignore[arg-type]

    place = f"localhost:{upstream.port}"
    idle = worker.tls(place)
    held = worker.tls(place)
    held2 = worker.tls(place, alpn=["h2"])
    with idle, held, held2:
        assert exchange(idle, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200
        worker.pipeline.script = script
        held.sendall(f"GET /echo HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        agent = RawH2(held2, place)
        stream = agent.request("/echo")
        wait_until(lambda: len(worker.pipeline.raw) == 3)
        drained = worker.submit(worker.engine.drain(10))
        assert read_all(idle) == b""  # idle connections are closed at once
        with pytest.raises(ConnectionRefusedError):
            worker.dial().close()
        assert not drained.done()
        release.set()
        status, head, body = read_response(held)
        assert status == 200
        assert b"connection: close" in head.lower()
        assert b'"method": "GET"' in body
        assert agent.wait(stream) == 200
        assert drained.result(5) is True
        assert read_all(held) == b""


def test_drain_gives_up_in_the_end_and_nothing_is_sent(worker: Worker, upstream: Upstream) -> None:
    async def script(client: object, raw: object, gone: asyncio.Event) -> object:
        await gone.wait()
        return await worker.pipeline.let_through(client, raw, gone)  # type: ignore[arg-type]

    worker.pipeline.script = script
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as held:
        held.sendall(f"GET /echo HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        wait_until(lambda: bool(worker.pipeline.raw))
        assert worker.run(worker.engine.drain(0.1)) is False
        assert read_all(held) == b""
    wait_until(lambda: bool(worker.pipeline.passages and worker.pipeline.passages[0].told))
    assert worker.pipeline.passages[0].told[0].startswith("failed sent=False")
    assert upstream.requests == []


def test_two_workers_share_a_port(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with (
        Worker(tmp_path / "1", upstream.ca_file, reuse_port=True) as one,
        Worker(tmp_path / "2", upstream.ca_file, reuse_port=True, port=one.port) as two,
    ):
        assert one.port == two.port
        for _ in range(60):
            with one.dial() as raw:
                raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_head(raw).startswith(b"HTTP/1.1 407")
            if one.engine.accepted and two.engine.accepted:
                break
        assert one.engine.accepted
        assert two.engine.accepted


def test_a_port_in_use_is_an_os_error(worker: Worker, tmp_path: Path) -> None:
    other = Worker(tmp_path, port=worker.port)
    with pytest.raises(OSError, match="in use"):
        other.__enter__()
    other._loop.call_soon_threadsafe(other._loop.stop)
    other._thread.join()
    other._loop.close()


def test_a_useless_ca_bundle_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(TlsFiles, match=name):
            Worker(tmp_path, tmp_path / name)


def test_the_engine_insists_on_the_guarded_loop(tmp_path: Path) -> None:
    egress = EgressGuard()
    engine = Engine(
        FakePipeline(egress),
        Authority.load_or_create(tmp_path),
        egress,
        ("127.0.0.1", 0),
        body_limit=1,
    )
    for factory in (None, lambda: PinningLoop(EgressGuard().pins)):
        with (
            asyncio.Runner(loop_factory=factory) as runner,
            pytest.raises(RuntimeError, match="PinningLoop"),
        ):
            runner.run(engine.start())
