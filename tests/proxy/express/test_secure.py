"""TLS in memory: what is taken, what is given, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
from OpenSSL import SSL

from proxy.express.secure import Secure
from tests.proxy.harness import Worker, read_response
from tests.support.throwaway_ca import ThrowawayCA
from tests.support.tls13 import KEY_UPDATE_SIZE, by_hand
from tests.support.upstream import Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        data, self.written = b"".join(self.written), []
        return data


class Pair:
    """`Secure` on one side, Python's own TLS in memory on the other."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        ca = ThrowawayCA()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        connection = SSL.Connection(context)
        connection.set_connect_state()
        self.wire = Wire()
        self.ours = Secure(connection, self.wire)
        server = ca.server_context(["localhost"])
        server.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.theirs = server.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def shake(self, step: int = 1 << 20) -> None:
        """Both to the end, what they send cut into pieces."""
        done = self.ours.shake()
        theirs = False
        for _ in range(10):
            for piece in cut(self.wire.take(), step):
                self.incoming.write(piece)
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.theirs.do_handshake()
                    theirs = True
            for piece in cut(self.outgoing.read(), step):
                if not done:
                    done = self.ours.shake(piece)
                else:
                    assert self.ours.receive(piece) == b""
            if done and theirs:
                return
        raise AssertionError("no end of the handshake")

    def said(self, data: bytes) -> bytes:
        """What the other side sends to say `data`."""
        self.theirs.write(data)
        return self.outgoing.read()

    def heard(self) -> bytes:
        self.incoming.write(self.wire.take())
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self.theirs.read(1 << 16):
                parts.append(part)
        return b"".join(parts)


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def pair(request: pytest.FixtureRequest) -> Pair:
    made = Pair(request.param)
    made.shake()
    return made


def test_a_handshake_may_come_byte_by_byte() -> None:
    made = Pair()
    made.shake(step=1)
    made.ours.send(b"hello")
    assert made.heard() == b"hello"


def test_a_record_counts_once_it_is_whole(pair: Pair) -> None:
    data = pair.said(b"one") + pair.said(b"two")
    got = [pair.ours.receive(piece) for piece in cut(data, 1)]
    assert [part for part in got if part] == [b"one", b"two"]
    assert pair.ours.receive(pair.said(b"a") + pair.said(b"b") + pair.said(b"c")) == b"abc"


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 1 << 20, (1 << 20) + 7])
def test_what_is_sent_arrives_whatever_its_size(pair: Pair, size: int) -> None:
    pair.ours.send(b"x" * size)
    assert pair.heard() == b"x" * size
    pair.ours.send(b"and on")
    assert pair.heard() == b"and on", "nothing of it was kept back"


def test_the_end_is_told(pair: Pair) -> None:
    data = pair.said(b"last")
    with contextlib.suppress(ssl.SSLWantReadError):
        pair.theirs.unwrap()
    assert pair.ours.receive(data + pair.outgoing.read()) == b"last"
    assert pair.ours.ended and pair.ours.finished


def test_and_said(pair: Pair) -> None:
    pair.ours.send(b"last")
    pair.ours.close()
    assert pair.heard() == b"last"
    assert pair.theirs.read(1) == b"", "the end, and not more to come"
    assert pair.wire.closed


def test_and_said_on_one_side_first(pair: Pair) -> None:
    pair.ours.send(b"last")
    pair.ours.end()
    pair.ours.end()
    assert pair.heard() == b"last"
    assert pair.theirs.read(1) == b""
    assert (pair.wire.ended, pair.wire.closed) == (True, False)
    assert pair.ours.receive(pair.said(b"mine")) == b"mine", "the other side may go on"
    with pytest.raises(SSL.Error):
        pair.ours.send(b"more")


GARBAGE = b"\x17\x03\x03\x00\x20" + b"g" * 32


def test_garbage_is_an_error(pair: Pair) -> None:
    with pytest.raises(SSL.Error):
        pair.ours.receive(GARBAGE)


def test_but_what_came_whole_before_it_counts(pair: Pair) -> None:
    assert pair.ours.receive(pair.said(b"whole") + GARBAGE) == b"whole"
    assert pair.ours.ended and not pair.ours.finished
    assert pair.wire.take(), "and it is told that it broke"


def test_tls_is_no_more_of_use_then(pair: Pair) -> None:
    with pytest.raises(SSL.Error):
        pair.ours.receive(GARBAGE)
    with pytest.raises(SSL.Error):
        pair.ours.receive(pair.said(b"more"))


# -- keys that change in mid-connection (RFC 8446 4.6.3)


@pytest.mark.e2e
@pytest.mark.parametrize("both", [False, True], ids=["its own", "ours as well"])
def test_an_agent_changes_keys(
    worker: Worker, upstream: Upstream, tmp_path: Path, both: bool
) -> None:
    place = f"localhost:{upstream.port}"
    request = f"GET /echo HTTP/1.1\r\nHost: {place}\r\n\r\n".encode()
    raw, keys = worker.connect(place), tmp_path / "keys"
    with by_hand(raw, "localhost", ca_file=worker.ca_file, key_log=keys) as agent:
        agent.send(request)
        assert read_response(agent.tls)[0] == 200
        for _ in range(2):
            agent.change_keys(both=both)
            agent.send(request)
            # Ours change before the answer, and not unless that was asked for.
            assert (agent.coming() == KEY_UPDATE_SIZE) == both
            assert read_response(agent.tls)[0] == 200
    assert len(upstream.requests) == 3
