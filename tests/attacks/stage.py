"""The stage of the attacks: one running Keybroker, an upstream behind it, a hostile agent's hands.

Whatever an attack does, two things must hold. Nothing reached the upstream that the policy did not
let through (`Stage.lawful`, after every test), and no spelling of a credential is in anything that
the agent got (`leak`). Both are checked with means of their own: nothing here is imported from the
program.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import socket
import ssl
import time
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from tests.support.program import AgentKey, Program, basic
from tests.support.upstream import Received, Upstream

CANARIES = {
    "api_key": "sk_live/Canary+7Qz&9vK~Xw4Tp",
    "password": "pw?Lark/3Rd+Hm8=Yc2Wn",
    "header_key": "hk:Finch-5Bt/Zg6+Jx1Ks",
}
"""With the letters that make spellings differ."""
FORBIDDEN = ("private", "held", "smuggled")
"""Paths that hold one of these, in any reading, must never arrive."""
HEAD_ONLY = frozenset({"host", "content-length", "transfer-encoding", "authorization", "x-api-key"})
OVERRIDE = re.compile(r"(?i)^x-(http-)?method|^x-original-|^x-rewrite-|^x-forwarded|^forwarded$|_")

POLICY = """\
version: 1
credentials:
  bearer: {{secret: "kv/pay#api_key", hosts: ["localhost:{port}"], inject: bearer, env: PAY_KEY}}
  basic:
    secret: "kv/pay#password"
    hosts: ["basic.localhost:{port}"]
    inject: {{basic: {{username: svc}}}}
    env: {{name: SVC_PASSWORD, shape: "pw.{{alnum:24}}"}}
  keyed:
    secret: "kv/pay#header_key"
    hosts: ["keyed.localhost:{port}"]
    inject: {{header: X-Api-Key, format: "{{secret}}"}}
tiers:
  medium: {{exclude: []}}
rules:
  - id: open
    agents: [bot, other, patient, brief, gone, turned]
    match: {{host: "localhost:{port}", path: "/open/**"}}
    effect: allow
    use: [bearer]
  - id: upstream-tricks
    agents: [bot]
    match:
      method: [GET, POST]
      host: "localhost:{port}"
      path: ["/echo", "/reflect", "/early", "/trailers", "/sse", "/status/*", "/made/**", "/ws"]
    effect: allow
    use: [bearer]
  - id: stream
    agents: [bot, "tag:streamer"]
    match: {{host: "localhost:{port}", path: "/stream/**"}}
    except: {{path: "/stream/private/**"}}
    effect: allow
    body: stream
    body_limit: 1MiB
    use: [bearer]
  - id: stream-held
    agents: [bot]
    match: {{host: "localhost:{port}", path: "/stream/held/**"}}
    effect: hold
  - id: private
    agents: [bot, other]
    match: {{host: "localhost:{port}", path: "/open/private/**"}}
    effect: deny
  - id: held
    agents: [bot]
    match: {{host: "localhost:{port}", path: "/open/held/**"}}
    effect: hold
  - id: named
    agents: [bot]
    match: {{host: "localhost:{port}", path: "/named/{{+name}}/**"}}
    effect: allow
    use: [bearer]
  - id: named-private
    agents: [bot]
    match: {{host: "localhost:{port}", path: ["/named/private/**", "/named/{{name}}/private"]}}
    effect: deny
  - id: named-held
    agents: [bot]
    match: {{host: "localhost:{port}", path: "/named/held/{{name}}"}}
    effect: hold
  - id: read-only
    agents: [bot]
    match: {{method: [GET, HEAD], host: "localhost:{port}", path: "/read/**"}}
    effect: allow
    use: [bearer]
  - id: ask
    agents: [bot, other, patient, glutton, "tag:short"]
    match: {{method: [GET, POST, PUT, HEAD], host: "localhost:{port}", path: "/ask/**"}}
    effect: hold
    summary: "Ask {{form:amount}}"
    use: [bearer]
  - id: basic
    agents: [bot]
    match: {{host: "basic.localhost:{port}", path: "/**"}}
    effect: allow
    use: [basic]
  - id: keyed
    agents: [bot]
    match: {{host: "keyed.localhost:{port}", path: "/**"}}
    effect: allow
    use: [keyed]
  - id: free
    agents: [bot]
    match: {{host: "free.localhost:{port}", path: "/**"}}
    effect: allow
  - id: plain
    agents: [bot]
    match: {{scheme: http, host: "localhost:{plain}", path: "/open/**"}}
    effect: allow
  - id: plain-private
    agents: [bot]
    match: {{scheme: http, host: "localhost:{plain}", path: "/open/private/**"}}
    effect: deny
  - id: opaque
    agents: [bot]
    match: {{host: "opaque.localhost:{port}"}}
    effect: tunnel
  - id: counted
    agents: ["tag:metered"]
    match: {{method: GET, host: "localhost:{port}", path: "/counted/**"}}
    effect: allow
    use: [bearer]
    limit: {{calls: 5, per: 1d}}
  - id: metered
    agents: ["tag:metered"]
    match: {{method: POST, host: "localhost:{port}", path: "/metered/form"}}
    effect: allow
    use: [bearer]
    limit: {{sum: "form:amount", max: 100, per: 1d}}
  - id: metered-json
    agents: ["tag:metered"]
    match: {{method: POST, host: "localhost:{port}", path: "/metered/json"}}
    effect: allow
    use: [bearer]
    limit: {{sum: "json:/order/amount", max: 100, per: 1d}}
  - id: metered-ask
    agents: ["tag:metered"]
    match: {{method: POST, host: "localhost:{port}", path: "/metered/ask"}}
    effect: hold
    use: [bearer]
    limit: {{calls: 3, per: 1d}}
  - id: meaning
    agents: [bot]
    match: {{method: [GET, POST], host: "localhost:{port}", path: "/meaning/**"}}
    effect: allow
    use: [bearer]
  - id: large
    agents: [bot]
    match:
      - {{host: "localhost:{port}", path: "/meaning/json", json: {{/amount: {{gt: 1000}}}}}}
      - {{host: "localhost:{port}", path: "/meaning/form", form: {{amount: {{gt: 1000}}}}}}
      - {{host: "localhost:{port}", path: "/meaning/cel", when: call.json.amount > 1000}}
      - host: "localhost:{port}"
        path: "/meaning/upload"
        form: {{upload: {{length: {{gt: 10}}}}}}
    effect: deny
  - id: deleting
    agents: [bot]
    match:
      - host: "localhost:{port}"
        path: "/meaning/graphql"
        graphql: {{kind: mutation, fields: "delete*"}}
      - {{host: "localhost:{port}", path: "/meaning/mcp", mcp: {{tool: "delete_*"}}}}
      - host: "localhost:{port}"
        path: "/meaning/etc"
        mcp: {{arguments: {{/path: {{prefix: /etc}}}}}}
    effect: deny
  - id: small
    agents: [bot]
    match:
      - {{host: "localhost:{port}", path: "/small/json", json: {{/amount: {{lte: 1000}}}}}}
      - {{host: "localhost:{port}", path: "/small/form", form: {{amount: {{lte: 1000}}}}}}
      - {{host: "localhost:{port}", path: "/small/cel", when: call.json.amount <= 1000}}
      - host: "localhost:{port}"
        path: "/small/upload"
        form: {{upload: {{exists: true, length: {{lte: 10}}}}, note: {{exists: false}}}}
      - {{host: "localhost:{port}", path: "/small/without", when: "!has(call.form.upload)"}}
      - {{host: "localhost:{port}", path: "/small/graphql", graphql: {{kind: query}}}}
      - {{host: "localhost:{port}", path: "/small/mcp", mcp: {{tool: "read_*"}}}}
    effect: allow
    use: [bearer]
  - id: anywhere
    agents: [roamer]
    match: {{path: "/**"}}
    effect: allow
  - id: anywhere-plain
    agents: [roamer]
    match: {{scheme: http, path: "/**"}}
    effect: allow
"""
CREDENTIALS = {
    "localhost": ("authorization", f"Bearer {CANARIES['api_key']}"),
    "basic.localhost": (
        "authorization",
        "Basic " + base64.b64encode(f"svc:{CANARIES['password']}".encode()).decode(),
    ),
    "keyed.localhost": ("x-api-key", CANARIES["header_key"]),
}
"""The slot and the value that belong to a host; to other hosts belongs none."""


# --- what an agent got -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Got:
    """Everything that came back on a connection, in one piece; HTTP/2 written as HTTP/1 would."""

    data: bytes

    @property
    def statuses(self) -> list[int]:
        return [int(found) for found in re.findall(rb"HTTP/[0-9.]+ ([0-9]{3})", self.data)]

    @property
    def status(self) -> int:
        """Of the first answer; 0 if there was none."""
        return self.statuses[0] if self.statuses else 0

    @property
    def codes(self) -> list[str]:
        """Keybroker's own codes, in order."""
        return [m.decode() for m in re.findall(rb"(?i)keybroker-code: ([a-z_]+)", self.data)]

    @property
    def body(self) -> bytes:
        """Of the first answer, chunks still in it."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def content(self) -> bytes:
        """The first answer's body without its framing."""
        head, _, body = self.data.partition(b"\r\n\r\n")
        if b"\r\ntransfer-encoding: chunked" not in head.lower():
            return body
        out = b""
        while (size := int(body.partition(b"\r\n")[0] or b"0", 16)) > 0:
            rest = body.partition(b"\r\n")[2]
            out, body = out + rest[:size], rest[size + 2 :]
        return out

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def leak(data: bytes, secrets: Sequence[str] = tuple(CANARIES.values())) -> str | None:
    """How `data` gives one of the secrets away; None if it does not."""
    for name, view in _views(data):
        lowered = view.lower()
        for secret in secrets:
            for form, needle in _needles(secret):
                if needle in (lowered if form == "hex" else view):
                    return f"{form} in {name}"
    return None


def _needles(secret: str) -> Iterator[tuple[str, bytes]]:
    data = secret.encode()
    yield from (("part", data[at : at + 10]) for at in range(len(data) - 9))
    yield "hex", data.hex().encode()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data)
        core = whole[(0, 2, 3)[before] :].rstrip(b"=")[:-1]
        yield "base64", core
        yield "base64url", core.translate(bytes.maketrans(b"+/", b"-_"))


def _views(data: bytes, depth: int = 2) -> Iterator[tuple[str, bytes]]:
    """`data` as it is, and in every reading that a client might give it."""
    yield "raw", data
    if not depth or len(data) > 1 << 20:
        return
    text = data.decode("latin-1")
    readings = {
        "percent": lambda: unquote(text, "latin-1").encode("latin-1", "replace"),
        "html": lambda: html.unescape(text).encode("latin-1", "replace"),
        "escapes": lambda: re.sub(
            r"\\u00([0-9a-fA-F]{2})|\\(/)", lambda m: chr(int(m[1], 16)) if m[1] else "/", text
        ).encode("latin-1"),
        "utf-16": lambda: data.replace(b"\0", b""),
        "chunks": lambda: re.sub(rb"\r\n[0-9a-fA-F]+[^\r\n]*\r\n", b"", data),
        "gzip": lambda: _inflated(data, 31),
        "zlib": lambda: _inflated(data, 15),
        "bare deflate": lambda: _inflated(data, -15),
    }
    for name, read in readings.items():
        view = read()
        if view not in (data, b""):
            yield from ((f"{name}, {rest}", deeper) for rest, deeper in _views(view, depth - 1))


_BEGINNINGS = {31: b"\x1f\x8b\x08", 15: b"\x78[\x01\x5e\x9c\xda]", -15: b"\r\n\r\n"}


def _inflated(data: bytes, wbits: int) -> bytes:
    """Whatever in `data` decompresses, the beginning of it at least."""
    out = b""
    for found in re.finditer(_BEGINNINGS[wbits], data):
        start = found.end() if wbits < 0 else found.start()
        with contextlib.suppress(zlib.error):
            out += zlib.decompressobj(wbits).decompress(data[start:])
    return out


# --- the stage -------------------------------------------------------------------------------


@dataclass(slots=True)
class Stage:
    """What every attack has: the program, the upstreams, the agents and somebody who may vote."""

    kb: Program
    upstream: Upstream
    plain: Upstream
    agents: dict[str, AgentKey] = field(default_factory=dict)
    boss: str = ""
    arrived_before: int = 0
    """Requests that reached an upstream before `begin` was last called."""
    _dials: int = 0

    @property
    def bot(self) -> AgentKey:
        return self.agents["bot"]

    def at(self, host: str = "localhost") -> str:
        """`HOST:PORT` of the upstream under one of its names."""
        return f"{host}:{self.upstream.port}"

    # What arrived

    def begin(self) -> None:
        """From now on `arrived` and `dialled` count anew."""
        self.arrived_before += len(self.arrived)
        self.upstream.clear()
        self.plain.clear()
        self._dials = self.upstream.connections + self.plain.connections

    @property
    def arrived(self) -> list[Received]:
        """The requests that reached an upstream since `begin`."""
        return [*self.upstream.requests, *self.plain.requests]

    @property
    def dialled(self) -> int:
        """The connections that an upstream saw since `begin`."""
        return self.upstream.connections + self.plain.connections - self._dials

    def lawful(self) -> None:
        """Every request that arrived is one that the policy lets through, and says so itself."""
        for request in self.arrived:
            host = (request.header("host") or request.header(":authority") or "").rpartition(":")[0]
            assert len(request.values("host")) + len(request.values(":authority")) == 1, request
            assert request.sni in (None, host), f"{host} was asked of {request.sni}"
            assert host.endswith("localhost"), f"arrived for {host}"
            for reading in _lenient(request.path):
                mark = next((m for m in FORBIDDEN if m in reading), None)
                assert mark is None, f"{request.method} {request.target} arrived ({mark})"
            assert not [n for n, _ in request.headers if OVERRIDE.search(n)], request.headers
            if not request.path.startswith("/stream/"):
                assert request.trailers == (), "trailers arrived"
            assert not {n.lower() for n, _ in request.trailers} & HEAD_ONLY, request.trailers
            self._well_placed(request, host)

    def _well_placed(self, request: Received, host: str) -> None:
        """The host's own credential in its own slot, once; nothing else that is secret."""
        slot, value = CREDENTIALS.get(host, ("", ""))
        if self.upstream.tls and request.sni is not None and slot:
            assert request.values(slot) == [value], f"{slot} of {host}: {request.values(slot)}"
        rest = [f"{n}: {v}" for n, v in request.headers if n.lower() != slot]
        everything = "\n".join((request.target, *rest)).encode("latin-1") + request.body
        assert leak(everything) is None, f"a credential stands elsewhere: {everything!r}"
        for agent in self.agents.values():
            pair = base64.b64encode(f"{agent.name}:{agent.token}".encode())
            assert pair not in everything, "the agent's own token was forwarded"
        names = [n.lower() for n, _ in request.headers]
        assert not [n for n in names if n.startswith(("proxy-", "keybroker-"))], names

    def held(self, got: Got | bytes, code: str | None = None, *, arrived: int = 0) -> None:
        """The attack was repelled: the answer, what reached the upstream, what was dialled."""
        got = got if isinstance(got, Got) else Got(got)
        assert leak(got.data) is None, f"leaked: {leak(got.data)}\n{got.data[:2000]!r}"
        assert len(self.arrived) == arrived, f"arrived: {self.arrived}\ngot: {got.data[:2000]!r}"
        if not arrived:
            assert self.dialled == 0, f"an upstream was dialled; got: {got.data[:2000]!r}"
        if code is not None:
            assert code in got.codes, f"{code} was expected, got: {got.data[:2000]!r}"

    # Raw connections

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.kb.proxy_port), timeout=15)

    def raw(self, data: bytes, **listening: Any) -> Got:
        """Bytes to the proxy's port, and what came back."""
        with self.dial() as sock:
            return say(sock, data, **listening)

    def connect(self, authority: str, *, agent: AgentKey | None = None) -> socket.socket:
        """A raw socket behind a CONNECT that must be granted."""
        return self.kb.connect(agent or self.bot, authority)

    def tls(
        self,
        authority: str | None = None,
        *,
        sni: str | None = "",
        alpn: Sequence[str] = ("http/1.1",),
        agent: AgentKey | None = None,
    ) -> ssl.SSLSocket:
        """TLS inside CONNECT; `sni` "" is the authority's host, None leaves it out."""
        authority = authority or self.at()
        context = ssl.create_default_context(cafile=str(self.kb.ca_file))
        context.set_alpn_protocols(list(alpn))
        host = authority.rpartition(":")[0].strip("[]")
        name = host if sni == "" else sni
        context.check_hostname = name is not None and not name.endswith(".")
        return context.wrap_socket(self.connect(authority, agent=agent), server_hostname=name)

    def ask(
        self,
        request: bytes,
        *,
        authority: str | None = None,
        sni: str | None = "",
        agent: AgentKey | None = None,
        **listening: Any,
    ) -> Got:
        """Bytes inside TLS inside CONNECT, and what came back."""
        with self.tls(authority, sni=sni, agent=agent) as sock:
            return say(sock, request, **listening)

    def get(self, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
        """A well-formed request for `localhost`, to be sent or to be spoilt."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.at()}", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def ask_h2(self, headers: Sequence[tuple[str, str]], body: bytes = b"", **how: Any) -> Got:
        """One HTTP/2 request, its fields exactly as given."""
        with self.tls(alpn=("h2",)) as sock:
            return speak_h2(sock, headers, body, **how)

    def internal(self, path: str, method: str = "GET", agent: AgentKey | None = None) -> Got:
        """Keybroker's own host, by way of the proxy."""
        auth = f"Proxy-Authorization: {basic(agent or self.bot)}"
        host = "keybroker.internal"
        lines = [f"{method} http://{host}{path} HTTP/1.1", f"Host: {host}", auth, "", ""]
        return self.raw("\r\n".join(lines).encode())

    # Approvals

    def hold(self, request: bytes, agent: AgentKey | None = None) -> str:
        """Sends a request that is held and asks for 202; its approval's id."""
        got = self.ask(request, agent=agent)
        assert got.codes == ["approval_pending"], got.data
        found: str = got.json["approval"]["id"]
        return found

    def approve(self, approval: str) -> None:
        status, said = self.kb.vote(self.boss, approval, "approve")
        assert status == 200, said


def _lenient(path: str) -> set[str]:
    """The readings that different servers may give a path."""
    once = unquote(path, errors="replace")
    return {
        unicodedata.normalize("NFKC", text).lower()
        for text in (path, once, unquote(once, errors="replace"))
    }


# --- talking ---------------------------------------------------------------------------------


def say(
    sock: socket.socket,
    data: bytes,
    *,
    answers: int = 1,
    patience: float = 10.0,
    linger: float = 0.0,
    first: float = 0.0,
) -> Got:
    """Sends, and reads until `answers` answers are whole, the peer closes or falls silent.

    `patience`: seconds of silence before these answers are there, `linger`: thereafter; `first`: at
    least so many before the first byte of them, which is sure to come.
    """
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
        sock.sendall(data)
    got = b""
    try:
        while True:
            whole = count_answers(got) >= answers
            if whole and not linger:
                break
            sock.settimeout(linger if whole else patience if got else max(patience, first))
            chunk = sock.recv(65536)
            if not chunk:
                break
            got += chunk
    except (TimeoutError, ConnectionResetError, ssl.SSLError):
        pass
    return Got(got)


def count_answers(data: bytes) -> int:
    """How many whole responses `data` begins with; one that ends at the close is none yet."""
    count = at = 0
    while (end := data.find(b"\r\n\r\n", at)) >= 0:
        head, body = data[at:end].lower(), end + 4
        status = int(head.split(b" ", 2)[1])
        if length := re.search(rb"\r\ncontent-length: *([0-9]+)", head):
            at = body + int(length[1])
        elif b"\r\ntransfer-encoding: chunked" in head:
            last = re.compile(rb"\r\n0\r\n(?:[^\r\n]+\r\n)*\r\n").search(data, body - 2)
            if last is None:
                return count
            at = last.end()
        elif status in (204, 304) or status < 200:
            at = body
        else:
            return count
        if at > len(data):
            return count
        count += status >= 200
    return count


def speak_h2(
    sock: ssl.SSLSocket,
    headers: Sequence[tuple[str, str]],
    body: bytes = b"",
    *,
    trailers: Sequence[tuple[str, str]] = (),
    patience: float = 10.0,
) -> Got:
    """One HTTP/2 exchange without any of the library's niceties on the way out."""
    assert sock.selected_alpn_protocol() == "h2"
    conn = h2.connection.H2Connection(
        h2.config.H2Configuration(
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
            header_encoding="latin-1",
        )
    )
    conn.initiate_connection()
    conn.send_headers(1, list(headers), end_stream=not body and not trailers)
    if body:
        conn.send_data(1, body, end_stream=not trailers)
    if trailers:
        conn.send_headers(1, list(trailers), end_stream=True)
    sock.settimeout(patience)
    out = b""
    with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
        sock.sendall(conn.data_to_send())
        while data := sock.recv(65536):
            for event in conn.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    out += _as_h1(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    out += event.data
                    conn.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.StreamReset):
                    return Got(out + b"[reset]")
                elif isinstance(event, h2.events.ConnectionTerminated):
                    return Got(out + b"[goaway]" + (event.additional_data or b""))
                elif isinstance(event, h2.events.StreamEnded):
                    return Got(out)
            sock.sendall(conn.data_to_send())
    return Got(out)


def _as_h1(headers: Any) -> bytes:
    lines = [f"{n}: {v}" for n, v in headers if n != ":status"]
    status = dict(headers).get(":status")
    first = [f"HTTP/2 {status}"] if status else [""]
    return "\r\n".join([*first, *lines, "", ""]).encode("latin-1")


# --- setting up ------------------------------------------------------------------------------


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Stage]:
    """The whole stage; when it ends, the ledger and what was written to disk is looked through."""
    with Upstream(http2=True) as upstream, Upstream(tls=False, ca=upstream.ca) as plain:
        policy = POLICY.format(port=upstream.port, plain=plain.port)
        kb = Program(directory, upstream, policy=policy, hold_wait="1s", networks=["127.0.0.1/32"])
        with kb:
            for name, value in CANARIES.items():
                kb.secret("kv/pay", name, value)
            stage = Stage(kb, upstream, plain)
            stage.boss = kb.user("boss")
            for name in ("bot", "other", "roamer"):
                stage.agents[name] = kb.agent(name)
            stage.agents["patient"] = kb.agent("patient", "--hold-wait", "20s")
            stage.agents["glutton"] = kb.agent("glutton", "--hold-wait", "20s")
            yield stage
            afterwards(stage)


def afterwards(stage: Stage) -> None:
    """The ledger is whole and knows of every request that arrived; no file holds a credential."""
    stage.begin()
    stage.kb.verify()
    sent = stage.kb.records(type="call.sent")
    assert stage.arrived_before <= len(sent), f"{stage.arrived_before} arrived, {len(sent)} sent"
    state = stage.kb.workspace / "state"
    files = [f for f in state.rglob("*") if f.is_file() and not f.is_relative_to(state / "vault")]
    for file in (stage.kb.log, *files):
        data = file.read_bytes()
        found = next((n for n in map(str.encode, CANARIES.values()) if n in data), None)
        assert found is None, f"a credential stands in {file.name}"
    faults = [line for line in stage.kb.log.read_text().splitlines() if "Traceback" in line]
    assert not faults, stage.kb.log.read_text()[-5000:]


def wait_for(holds: Any, what: str, timeout: float = 10.0) -> None:
    until = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < until, f"waited in vain: {what}"
        time.sleep(0.02)
