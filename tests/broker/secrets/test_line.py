"""A line and its wires over TLS, through a proxy that breaks what it is told to break."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from broker.secrets.access import VaultAccess
from broker.secrets.line import Line
from broker.secrets.login import Ask
from broker.secrets.trouble import Kind, VaultUnavailable
from tests.support.faults import FaultProxy
from tests.support.throwaway_ca import ThrowawayCA

BODY = b'{"data": {"k": "' + b"x" * 40_000 + b'"}}'


class Server(ThreadingHTTPServer):
    """Says BODY to whatever it is asked, and how often it was."""

    daemon_threads = True
    asked = 0
    chunked = False

    def handle_error(self, request: object, address: object) -> None:
        """Silent: connections are broken on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(BODY), 999):
                piece = BODY[start : start + 999]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *args: object) -> None:
        """Silent."""


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[tuple[Server, FaultProxy]]:
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with FaultProxy(server.server_port) as way:
            yield server, way
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def ca() -> ThrowawayCA:
    return ThrowawayCA()


@pytest.fixture
def dialers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def roots(tmp_path: Path, ca: ThrowawayCA) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(ca.pem)
    return file


@pytest.fixture
def vault(ca: ThrowawayCA) -> Iterator[tuple[Server, FaultProxy]]:
    with serving(ca.server_context(["127.0.0.1"])) as both:
        yield both


@pytest.fixture
def line(
    vault: tuple[Server, FaultProxy], roots: Path, dialers: ThreadPoolExecutor
) -> Iterator[Line]:
    line = Line(VaultAccess(f"https://127.0.0.1:{vault[1].port}", None, ca_bundle=roots), dialers)
    yield line
    line.close()


async def failure(line: Line) -> VaultUnavailable:
    with pytest.raises(VaultUnavailable) as caught:
        await line.get("/v1/x", "c4nary-token")
    assert "c4nary" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


@pytest.mark.parametrize("chunked", [False, True])
async def test_one_connection_carries_one_answer_after_the_other(
    line: Line, vault: tuple[Server, FaultProxy], chunked: bool
) -> None:
    server, way = vault
    server.chunked = chunked
    for _ in range(20):
        response = await line.get("/v1/x", "t")
        assert (response.status, response.body) == (200, BODY)
    assert (server.asked, way.accepted) == (20, 1)


async def test_at_once_they_take_as_many_connections_as_they_are(
    line: Line, vault: tuple[Server, FaultProxy]
) -> None:
    answers = await asyncio.gather(*(line.get("/v1/x", "t") for _ in range(5)))
    assert {answer.body for answer in answers} == {BODY}
    assert vault[1].accepted == 5
    await line.get("/v1/x", "t")
    assert vault[1].accepted == 5


async def test_a_kept_connection_that_died_is_replaced_unseen(
    line: Line, vault: tuple[Server, FaultProxy]
) -> None:
    for _ in range(3):
        assert (await line.get("/v1/x", "t")).status == 200
        vault[1].drop()


async def test_what_is_no_read_goes_by_a_new_connection(
    line: Line, vault: tuple[Server, FaultProxy]
) -> None:
    """If it failed half way it must not be sent again by itself: a SecretID may count its uses."""
    await line.get("/v1/x", "t")
    reply = await line.ask(Ask("POST", "auth/approle/login", {"a": "b"}))
    assert reply.status == 200 and reply.date
    assert vault[1].accepted == 2
    vault[1].cut_after(0)
    before = vault[0].asked
    with pytest.raises(VaultUnavailable):
        await line.ask(Ask("POST", "auth/approle/login", {"a": "b"}))
    assert vault[0].asked == before  # cut in the handshake


@pytest.mark.parametrize("size", [1, 700, 2000, 20_000])
async def test_an_answer_cut_anywhere_is_no_answer(
    line: Line, vault: tuple[Server, FaultProxy], size: int
) -> None:
    vault[1].cut_after(size)
    assert (await failure(line)).kind in {"cut", "tls", "unreachable"}
    vault[1].heal()
    assert (await line.get("/v1/x", "t")).body == BODY


async def test_an_answer_cut_on_a_kept_connection_is_no_answer(
    line: Line, vault: tuple[Server, FaultProxy]
) -> None:
    await line.get("/v1/x", "t")
    vault[1].cut_after(9000)
    assert (await failure(line)).kind == "cut"


@pytest.mark.parametrize("fault", ["silent", "slow"])
async def test_who_gives_up_leaves_no_connection_that_answers_late(
    line: Line, vault: tuple[Server, FaultProxy], fault: str
) -> None:
    await line.get("/v1/x", "t")
    way = vault[1]
    way.silent() if fault == "silent" else way.slow(0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await line.get("/v1/x", "t")
    way.heal()
    before = way.accepted
    assert (await line.get("/v1/x", "t")).body == BODY
    assert way.accepted == before + 1


async def test_a_dial_that_is_given_up_leaves_no_socket(
    line: Line, vault: tuple[Server, FaultProxy]
) -> None:
    """Warnings are errors: a socket that nobody closes fails the run."""
    for _ in range(5):
        task = asyncio.create_task(line.get("/v1/x", "t"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_nobody_at_home_is_said(line: Line, vault: tuple[Server, FaultProxy]) -> None:
    vault[1].refuse()
    error = await failure(line)
    assert error.kind == "unreachable"
    assert "check that it runs" in str(error)


@pytest.mark.parametrize(
    ("names", "how", "why"),
    [
        (["other.example"], {}, "for another name"),
        (["127.0.0.1"], {"expired": True}, "it has expired"),
        (["127.0.0.1"], {"own": True}, "no CA known here"),
    ],
)
async def test_a_certificate_that_is_not_good_is_told_and_gets_no_token(
    ca: ThrowawayCA,
    roots: Path,
    dialers: ThreadPoolExecutor,
    names: list[str],
    how: dict[str, bool],
    why: str,
) -> None:
    with serving(ca.server_context(names, **how)) as (server, way):
        url = f"https://127.0.0.1:{way.port}"
        error = await failure(Line(VaultAccess(url, None, ca_bundle=roots), dialers))
        assert error.kind == "tls"
        assert why in str(error)
        assert server.asked == 0


async def test_a_client_certificate_is_shown_where_it_is_asked_for(
    ca: ThrowawayCA, roots: Path, tmp_path: Path, dialers: ThreadPoolExecutor
) -> None:
    own = tmp_path / "client.pem"
    own.write_bytes(ca.issue(["keybroker"], client=True))
    context = ca.server_context(["127.0.0.1"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(roots)
    with serving(context) as (_, way):
        url = f"https://127.0.0.1:{way.port}"
        shown = Line(VaultAccess(url, None, ca_bundle=roots, client_certificate=own), dialers)
        assert (await shown.get("/v1/x", "t")).status == 200
        shown.close()
        error = await failure(Line(VaultAccess(url, None, ca_bundle=roots), dialers))
        assert error.kind in {"tls", "cut"}


@pytest.mark.parametrize("which", ["ca_bundle", "client_certificate"])
async def test_a_file_that_is_no_pem_is_named(
    dialers: ThreadPoolExecutor, tmp_path: Path, which: str
) -> None:
    file = tmp_path / "x.pem"
    file.write_text("no PEM")
    access = VaultAccess("https://127.0.0.1:1", None, **{which: file})  # type: ignore[arg-type]
    error = await failure(Line(access, dialers))
    assert (error.kind, str(file) in str(error)) == ("tls", True)


async def test_a_renewed_bundle_is_taken_up(
    vault: tuple[Server, FaultProxy], line: Line, roots: Path, ca: ThrowawayCA
) -> None:
    roots.write_bytes(ThrowawayCA().pem)
    kinds: list[Kind] = [(await failure(line)).kind]
    roots.write_bytes(ca.pem + b"\n")
    assert (await line.get("/v1/x", "t")).status == 200
    assert kinds == ["tls"]


@pytest.mark.parametrize("namespace", ["a\r\nX-Vault-Token: root", "two words", "\u00e4"])
async def test_a_namespace_smuggles_in_nothing(
    vault: tuple[Server, FaultProxy], roots: Path, dialers: ThreadPoolExecutor, namespace: str
) -> None:
    url = f"https://127.0.0.1:{vault[1].port}"
    line = Line(VaultAccess(url, None, namespace=namespace, ca_bundle=roots), dialers)
    assert "visible ASCII" in str(await failure(line))
    assert vault[1].accepted == 0
