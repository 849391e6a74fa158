"""What agents speak besides plain requests, with real clients through the running program."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from audit.commitment import commit
from tests.support import wss
from tests.support.program import AgentKey, environment, wait_until
from tests.support.two_upstreams import TwoUpstreams, running
from tests.support.upstream import Conversation, Received, Reply
from tests.support.upstream_routes import built_in

pytestmark = pytest.mark.e2e

SECRET = "sk_live_protocols_9mQ4"
MiB = 1 << 20
RULES = """
  - id: paid
    agents: [bot, talker]
    match: {host: [$BOTH], path: /**}
    except: {path: [/push/**, /held/**]}
    effect: allow
    use: [pay]
  - id: push
    agents: [bot]
    match: {host: [$BOTH], path: /push/**}
    effect: allow
    body: stream
    body_limit: 200MiB
    use: [pay]
  - id: held
    agents: [bot]
    match: {method: GET, host: "$HOST", path: /held/**}
    effect: hold
    use: [pay]
  - id: push-held
    agents: [bot]
    match: {host: [$BOTH], path: /push/held/**}
    effect: hold
"""


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoUpstreams]:
    directory = tmp_path_factory.mktemp("protocols")
    with running(directory, rules=RULES, secret=SECRET) as at:
        yield at


def salt_of(at: TwoUpstreams, call: str) -> bytes:
    """What the call's commitments can be recomputed with."""
    with closing(sqlite3.connect(at.kb.database)) as db:
        [(salt,)] = db.execute("SELECT salt FROM ledger_salts WHERE subject = ?", (call,))
    return bytes(salt)


def memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


# --- bodies that stream


def counting(size: list[int], digest: Any) -> Any:
    """An upstream that reads a body of known length and keeps none of it."""

    def read(request: Received, connection: Conversation) -> None:
        left = int(request.header("content-length") or 0)
        while left:
            chunk = connection.read(min(left, 1 << 18))
            if not chunk:
                return
            left -= len(chunk)
            size[0] += len(chunk)
            digest.update(chunk)
        connection.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")

    return read


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
def test_a_large_upload_streams_and_does_not_grow_the_worker(
    at: TwoUpstreams, option: str, tmp_path: Path
) -> None:
    """100 MB, ten times what is buffered, cost less than 40 MB of memory at any moment."""
    file = tmp_path / "large"
    with file.open("wb") as out:
        for number in range(100):
            out.write(hashlib.sha256(b"%d" % number).digest() * (MiB // 32))
    size, digest = [0], hashlib.sha256()
    at.h1.heads["/push/large"] = counting(size, digest)
    (worker,) = at.kb.processes("worker")
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # resets the peak (proc(5))
    before = memory(worker, "VmRSS")
    reply = at.kb.curl(at.bot, at.h1.url + "/push/large", option, "--upload-file", str(file))
    assert (reply.status, reply.body) == (201, b"ok"), reply.stderr
    assert size == [100 * MiB]
    assert digest.digest() == hashlib.sha256(file.read_bytes()).digest()
    grown = memory(worker, "VmHWM") - before
    assert grown < 40 * MiB, f"grew by {grown >> 20} MB"
    assert at.h1.requests[-1].values("authorization") == [f"Bearer {SECRET}"]
    call = reply.headers["keybroker-request-id"]
    assert at.about(call, "call.sent")["streamed"] is True
    done = at.about(call)
    assert (done["body_size"], done["body_whole"]) == (100 * MiB, True)
    assert done["body"] == commit(salt_of(at, call), "body", file.read_bytes())


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
@pytest.mark.parametrize("side", ["h1", "h2"])
def test_a_body_without_a_length_streams(
    at: TwoUpstreams, option: str, side: str, tmp_path: Path
) -> None:
    file = tmp_path / "piped"
    file.write_bytes(b"0123456789abcdef" * (MiB // 16) * 12)
    upstream = at.h1 if side == "h1" else at.h2
    # From standard input curl does not know the length.
    url = upstream.url + "/push/any"
    upstream.answer("/push/any", upload_of)
    with file.open("rb") as stdin:
        command = ["curl", "--silent", "--show-error", option, "--proxy", at.bot.proxy_url]
        command += ["--cacert", str(at.kb.ca_file), "--upload-file", "-", url]
        done = subprocess.run(
            command, stdin=stdin, capture_output=True, check=True, env=environment(), timeout=60
        )
    assert done.stdout.decode() == hashlib.sha256(file.read_bytes()).hexdigest()


def upload_of(request: Received) -> Reply:
    return Reply(body=hashlib.sha256(request.body).hexdigest().encode())


def test_what_is_held_beside_it_is_read_and_limited(at: TwoUpstreams, tmp_path: Path) -> None:
    file = tmp_path / "eleven"
    file.write_bytes(bytes(11 * MiB))
    reply = at.kb.curl(at.bot, at.h1.url + "/push/held/x", "--http1.1", "--upload-file", str(file))
    assert (reply.status, reply.code) == (413, "body_too_large")
    assert not [r for r in at.h1.requests if r.path == "/push/held/x"]


def test_the_rules_own_limit_counts(at: TwoUpstreams) -> None:
    sock = at.kb.tunnel(at.bot, at.h1.url).sock
    assert sock is not None
    lines = ["PUT /push/too-large HTTP/1.1", f"Host: localhost:{at.h1.port}"]
    lines += [f"Content-Length: {201 * MiB}", "Expect: 100-continue", "", ""]
    sock.sendall("\r\n".join(lines).encode())
    assert sock.recv(100).startswith(b"HTTP/1.1 413")
    sock.close()
    assert not [r for r in at.h1.requests if r.path == "/push/too-large"]


def test_an_agent_that_breaks_off_leaves_a_record_of_what_was_sent(at: TwoUpstreams) -> None:
    started, closed = threading.Event(), threading.Event()
    arrived = 0

    def read(_: Received, connection: Conversation) -> None:
        nonlocal arrived
        started.set()
        while chunk := connection.read(1 << 16):
            arrived += len(chunk)
        closed.set()

    at.h1.heads["/push/broken"] = read
    tunnel = at.kb.tunnel(at.bot, at.h1.url)
    assert tunnel.sock is not None
    lines = ["PUT /push/broken HTTP/1.1", f"Host: localhost:{at.h1.port}"]
    tunnel.sock.sendall("\r\n".join([*lines, "Content-Length: 5000", "", ""]).encode() + b"x" * 999)
    assert started.wait(10)
    [call] = {
        r["call"] for r in at.kb.records(type="call.sent")
        if r["data"]["what"]["path"] == "/push/broken"
    }  # fmt: skip
    wait_until(lambda: arrived == 999, what="what was written arrives")
    tunnel.sock.close()
    tunnel.close()
    failed = at.about(call, "call.failed")
    assert (failed["sent"], failed["body_size"], failed["body_whole"]) == (True, 999, False)
    assert closed.wait(10)


# --- WebSocket


def connect(
    at: TwoUpstreams, path: str, agent: AgentKey | None = None, **options: Any
) -> ClientConnection:
    proxy = (agent or at.bot).proxy_url
    url = f"wss://localhost:{at.h1.port}{path}"
    return wss.connect(url, proxy=proxy, ca_file=at.kb.ca_file, max_size=None, **options)


def socket_call(at: TwoUpstreams, path: str) -> str:
    sent = [r for r in at.kb.records(type="call.sent") if r["data"]["what"]["path"] == path]
    call: str = sent[-1]["call"]
    return call


def test_a_websocket_with_a_credential(at: TwoUpstreams) -> None:
    """A real client that offers compression: it is not agreed on, and what comes back is masked."""
    with connect(at, "/ws") as socket:
        socket.send("hello")
        assert socket.recv(10) == "hello"
        socket.send([f"your key is {SECRET[:6]}", f"{SECRET[6:]}, is it not"])
        assert socket.recv(10) == "your key is [keybroker:masked], is it not"
        socket.send(b"\0\1" + SECRET.encode() + b"\2")
        binary = socket.recv(10)
        assert len(binary) == len(SECRET) + 3 and SECRET.encode() not in binary
        assert socket.ping(b"there?").wait(10)
    request = next(r for r in reversed(at.h1.requests) if r.path == "/ws")
    assert request.values("authorization") == [f"Bearer {SECRET}"]
    assert request.values("sec-websocket-extensions") == []
    done = at.about(socket_call(at, "/ws"))
    assert (done["status"], done["masked"]) == (101, 2)
    frames = done["frames"]
    # hello, the fragments, bytes, ping, close; the upstream echoes each
    assert frames["sent_frames"] == frames["received_frames"] >= 6
    assert frames["sent_size"] == done["received_size"]
    assert done["delivered"] != done["received"]


def test_a_large_message_does_not_grow_the_worker(at: TwoUpstreams) -> None:
    (worker,) = at.kb.processes("worker")
    sock = at.kb.tunnel(at.bot, at.h1.url).sock
    assert sock is not None
    size = 60 * MiB

    def flood(conversation: Conversation) -> None:
        conversation.write(b"\x82\x7f" + size.to_bytes(8, "big"))
        for _ in range(60):
            conversation.write(bytes(MiB))
        conversation.write(b"\x88\x02\x03\xe8")
        conversation.read(100)

    at.h1.answer("/ws-flood", lambda r: replace(switching(r), takeover=flood))
    Path(f"/proc/{worker}/clear_refs").write_text("5")
    before = memory(worker, "VmRSS")
    with connect(at, "/ws-flood") as socket:
        got = sum(len(part) for part in socket.recv_streaming())
    assert got == size
    grown = memory(worker, "VmHWM") - before
    assert grown < 40 * MiB, f"grew by {grown >> 20} MB"
    sock.close()


def switching(request: Received) -> Reply:
    return built_in(replace(request, target="/ws"))


def test_a_held_websocket_opens_once_people_agree(at: TwoUpstreams) -> None:
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(connect, at, "/held/ws", open_timeout=30)
        [card] = at.kb.pending(at.boss)
        assert "WebSocket" in card["notes"][0] and "WebSocket" in card["sentence"]
        assert not [r for r in at.h1.requests if r.path == "/held/ws"]
        at.h1.answer("/held/ws", switching)
        assert at.kb.vote(at.boss, card["id"], "approve")[0] == 200
        with opening.result(30) as socket:
            socket.send("at last")
            assert socket.recv(10) == "at last"
    assert at.about(socket_call(at, "/held/ws"))["frames"]["sent_frames"] == 2


def test_an_approval_that_came_late_opens_the_next_attempt(at: TwoUpstreams) -> None:
    """Another attempt has another key; what is sent is the handshake as stored."""
    at.h1.answer("/held/late", switching)
    with pytest.raises(InvalidStatus) as pending:
        connect(at, "/held/late", additional_headers={"Prefer": "respond-async"})
    assert pending.value.response.status_code == 202
    [card] = at.kb.pending(at.boss)
    assert at.kb.vote(at.boss, card["id"], "approve")[0] == 200
    with connect(at, "/held/late") as socket:
        socket.send("still here")
        assert socket.recv(10) == "still here"


def test_a_revoked_agents_socket_ends_and_the_ledger_knows_what_was_said(at: TwoUpstreams) -> None:
    """On both sides, with nobody saying anything; and what was said is committed to."""
    over = threading.Event()

    def talk(conversation: Conversation) -> None:
        conversation.write(frame(0x81, b"welcome"))
        conversation.write(frame(0x82, f"key {SECRET}".encode()))
        while conversation.read(100):
            pass
        over.set()

    at.h1.answer("/ws-revoked", lambda r: replace(switching(r), takeover=talk))
    talker = at.kb.agent("talker")
    with connect(at, "/ws-revoked", talker) as socket:
        assert socket.recv(10) == "welcome"
        masked = socket.recv(10)
        assert isinstance(masked, bytes) and SECRET.encode() not in masked
        socket.send("question")
        socket.send(b"\0\1\2")
        at.kb.cli("agent", "revoke", "talker")
        with pytest.raises(ConnectionClosed):
            socket.recv(15)
    assert over.wait(10), "the upstream's side is closed too"
    call = socket_call(at, "/ws-revoked")
    done = at.about(call)
    salt = salt_of(at, call)
    received = said((0x81, b"welcome"), (0x82, f"key {SECRET}".encode()))
    assert done["received"] == commit(salt, "received", received)
    assert done["delivered"] == commit(salt, "delivered", said((0x81, b"welcome"), (0x82, masked)))
    sent = said((0x81, b"question"), (0x82, b"\0\1\2"))
    assert done["frames"] == {
        "sent": commit(salt, "sent", sent),
        "sent_size": len(b"question") + 3,
        "sent_frames": 2,
        "received_frames": 2,
    }
    assert done["masked"] == 1


def frame(first: int, payload: bytes) -> bytes:
    """A short one, as an upstream sends it."""
    return bytes([first, len(payload)]) + payload


def said(*frames: tuple[int, bytes]) -> bytes:
    """What a direction commits to, by docs/audit.md."""
    return b"".join(
        bytes([first]) + len(payload).to_bytes(8, "big") + payload for first, payload in frames
    )


def test_a_denied_websocket_is_an_answer(at: TwoUpstreams) -> None:
    with pytest.raises(InvalidStatus) as denied:
        connect(at, "/held/../ws")
    assert denied.value.response.status_code == 400


def test_the_ledger_is_whole_after_all_that(at: TwoUpstreams) -> None:
    at.kb.verify()
    assert SECRET not in at.kb.log.read_text()
