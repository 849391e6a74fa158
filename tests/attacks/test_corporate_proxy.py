"""A corporate proxy that is hostile, or an agent that plays with it: it gets neither a call nor a
secret, and nothing that it says is believed or passed on."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.connect_proxy import ConnectProxy
from tests.support.program import AgentKey, Program, basic, read_all
from tests.support.throwaway_ca import ThrowawayCA
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

PASSWORD = "c0rp/Starling+29=Vq"
SECRET = "sk_live/Heron+51Rt&8zP"
FORGED = "forged-by-the-proxy"
POLICY = """\
version: 1
credentials:
  pay: {secret: "kv/pay#key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: open, agents: [bot], match: {host: "$HOST", path: /**}, effect: allow, use: [pay]}
  - {id: clear, agents: [bot], match: {scheme: http, host: "$HOST", path: /**}, effect: allow}
"""


@dataclass(frozen=True)
class Branch:
    """An office whose calls leave through somebody else's proxy."""

    kb: Program
    corp: ConnectProxy
    bot: AgentKey
    stranger: ThrowawayCA
    """An authority that Keybroker does not trust."""

    def refused(self) -> str:
        """Makes a call, which must fail with nothing sent or believed; the sentence."""
        upstream = self.kb.upstream
        upstream.clear()
        reply = self.kb.curl(self.bot, upstream.url + "/echo", "-d", "amount=1")
        assert (reply.status, reply.code) == (502, "upstream_unreachable"), reply
        assert upstream.requests == []
        shown = reply.body.decode() + json.dumps(dict(reply.headers))
        record = self.kb.records(type="call.failed", call=reply.json["request_id"])[-1]
        assert record["data"]["sent"] is False
        for text in (shown, json.dumps(record), self.kb.log.read_text()):
            for secret in (FORGED, PASSWORD, SECRET, basic64("kb", PASSWORD)):
                assert secret not in text
        sentence: str = reply.json["detail"]
        return sentence


def basic64(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def branch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Branch]:
    folder = tmp_path_factory.mktemp("corporate")
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    with Upstream() as upstream, ConnectProxy("kb", PASSWORD) as corp:
        way_out = f"proxy: {{url: '{corp.url}', username: kb, password_file: {password}}}"
        program = Program(
            folder,
            upstream,
            policy=POLICY,
            egress_settings=way_out,
            proxy_settings="timeouts: {connect: 1s, tls: 2s}",
        )
        with program as kb:
            kb.secret("kv/pay", "key", SECRET)
            yield Branch(kb, corp, kb.agent("bot"), ThrowawayCA("A stranger's CA"))


@pytest.fixture(autouse=True)
def honest(branch: Branch) -> Iterator[None]:
    yield
    branch.corp.talk = None
    branch.kb.upstream.clear()
    assert branch.kb.curl(branch.bot, branch.kb.upstream.url + "/echo").status == 200, (
        "and what it did does not last"
    )


def says(data: bytes) -> Callable[[socket.socket, str], None]:
    return lambda connection, _: connection.sendall(data)


ANSWERS = {
    "nothing": b"",
    "garbage": bytes(range(256)) * 8,
    "half a head": b"HTTP/1.1 200 Connection established\r\nX: y\r\n",
    "no version": b"200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "a preface of HTTP/2": b"\0\0\0\x04\0\0\0\0\0" * 3 + b"\r\n\r\n",
    "a status with letters": b"HTTP/1.1 2OO OK\r\n\r\n",
    "a status of four figures": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a blank before it": b" HTTP/1.1 200 OK\r\n\r\n",
    "NUL in the line": b"HTTP/1.1 200\x00OK\r\n\r\n",
    "an interim answer first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    "a redirect": f"HTTP/1.1 302 Found\r\nLocation: https://{FORGED}.example/\r\n\r\n".encode(),
    "a page that asks for a password": (
        f"HTTP/1.1 407 {FORGED}\r\nProxy-Authenticate: Basic realm={FORGED}\r\n"
        f"Content-Length: 19\r\n\r\n{FORGED}"
    ).encode(),
    "other schemes of authentication": (
        b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n"
    ),
    "the agent's login asked for": b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n\r\n",
    "an error with a body": f"HTTP/1.1 503 {FORGED}\r\n\r\n{FORGED}".encode(),
    "bytes behind its answer": f"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{FORGED}".encode(),
    "one byte behind its answer": b"HTTP/1.1 200 OK\r\n\r\n\x16",
    "a body although it agrees": f"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{FORGED}".encode(),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(branch: Branch, name: str) -> None:
    branch.corp.talk = says(ANSWERS[name])
    branch.refused()


def endless(line: bytes, pause: float = 0.0) -> Callable[[socket.socket, str], None]:
    def talk(connection: socket.socket, _: str) -> None:
        while True:  # until it is hung up on
            connection.sendall(line)
            time.sleep(pause)

    return talk


@pytest.mark.parametrize(
    ("name", "talk", "said"),
    [
        ("a head without end", endless(b"X-Filler: " + b"x" * 1000 + b"\r\n"), "at length"),
        ("a line without end", endless(b"x" * 4096), "at length"),
        ("a byte now and then", endless(b"x", 0.1), "did not answer in time"),
    ],
)
def test_answers_without_end(
    branch: Branch, name: str, talk: Callable[[socket.socket, str], None], said: str
) -> None:
    def status_first(connection: socket.socket, head: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        talk(connection, head)

    branch.corp.talk = status_first
    assert said in branch.refused()


@pytest.mark.parametrize("who", ["a stranger", "another host"])
def test_it_ends_tls_itself(branch: Branch, who: str) -> None:
    """It agrees, and plays the upstream: with a certificate of its own, or for another name."""
    seen = bytearray()
    authority = branch.stranger if who == "a stranger" else branch.kb.upstream.ca
    context = authority.server_context(["localhost" if who == "a stranger" else "other.example"])

    def talk(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as tls:
            seen.extend(tls.recv(65536))
            tls.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{FORGED}".encode())

    branch.corp.talk = talk
    branch.refused()
    assert seen == b""


def test_it_strips_tls(branch: Branch) -> None:
    """What it reads of a call without TLS is a greeting of TLS."""
    seen = bytearray()

    def talk(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        seen.extend(connection.recv(65536))
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{FORGED}".encode())

    branch.corp.talk = talk
    branch.refused()
    assert seen.startswith(b"\x16\x03") and SECRET.encode() not in seen


def test_its_name_and_password_cannot_be_chosen_by_the_agent(branch: Branch) -> None:
    """Inside the tunnel the header is an odd one; on a plain request it is the agent's own."""
    branch.corp.heads.clear()
    mine = "Proxy-Authorization: Basic " + basic64("agent", "own")
    reply = branch.kb.curl(branch.bot, branch.kb.upstream.url + "/echo", "-H", mine)
    for head in branch.corp.heads:
        assert basic64("kb", PASSWORD) in head
    for text in (*branch.corp.heads, *(str(r.headers) for r in branch.kb.upstream.requests)):
        assert basic64("agent", "own") not in text
    assert PASSWORD not in reply.body.decode()


@pytest.mark.parametrize("form", ["tunnel", "plain"])
def test_the_agent_asks_for_the_proxy_itself(branch: Branch, form: str) -> None:
    """With its password Keybroker would be an open door to whatever the proxy reaches."""
    branch.corp.heads.clear()
    port = branch.corp.port
    for host in ("localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "x.localhost"):
        scheme = "https" if form == "tunnel" else "http"
        reply = branch.kb.curl(branch.bot, f"{scheme}://{host}:{port}/", "-H", "X: y")
        assert reply.status in (400, 403) or "response 400" in reply.stderr, reply
    answer = branch.kb.raw(
        f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Proxy-Authorization: {basic(branch.bot)}\r\n\r\nCONNECT elsewhere.example:443 "
        f"HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n".encode(),
        timeout=2,
    )
    assert FORGED.encode() not in answer
    assert branch.corp.heads == []


def test_the_password_file_is_changed_to_something_odd(branch: Branch) -> None:
    """Lines of a header of its own, say; the file is read for each connection."""
    file = Path(branch.kb.directory) / "password"
    try:
        for odd in (f"{PASSWORD}\r\nX-Evil: 1", "", "\n", "p\0q"):
            branch.corp.heads.clear()
            file.write_bytes(odd.encode())
            reply = branch.kb.curl(branch.bot, branch.kb.upstream.url + "/echo")
            assert "X-Evil" not in "".join(branch.corp.heads)
            if odd.startswith(PASSWORD):
                assert reply.status == 200, "its first line is the password"
            else:
                assert (reply.status, reply.code) == (502, "upstream_unreachable")
                assert branch.corp.heads == []
    finally:
        file.write_text(PASSWORD + "\n")


def test_a_socket_kept_open_by_it_is_no_way_back(branch: Branch) -> None:
    """After a whole call it goes on talking on the connection: nobody takes that for an answer."""
    upstream = branch.kb.upstream

    def talk(connection: socket.socket, head: str) -> None:
        host, _, port = head.split(" ")[1].rpartition(":")
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with socket.create_connection((host, int(port)), 20) as through:
            connection.settimeout(0.2)
            through.settimeout(0.2)
            ended = time.monotonic() + 3
            while time.monotonic() < ended:
                for a, b in ((connection, through), (through, connection)):
                    try:
                        data = a.recv(65536)
                    except TimeoutError:
                        continue
                    if not data:
                        return
                    b.sendall(data)
                if upstream.requests:  # the answer has passed, or passes now
                    connection.sendall(f"HTTP/1.1 200 OK\r\n\r\n{FORGED}".encode())

    branch.corp.talk = talk
    tunnel = branch.kb.tunnel(branch.bot, upstream.url)
    assert tunnel.sock is not None
    got, head = b"", f"GET /echo HTTP/1.1\r\nHost: localhost:{upstream.port}\r\n\r\n"
    try:
        for _ in range(2):
            tunnel.sock.sendall(head.encode())
            tunnel.sock.settimeout(2)
            got += tunnel.sock.recv(65536)
        got += read_all(tunnel.sock)
    except (OSError, ssl.SSLError):
        pass
    finally:
        tunnel.sock.close()
    assert FORGED.encode() not in got and SECRET.encode() not in got
