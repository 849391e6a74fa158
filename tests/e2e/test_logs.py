"""The log of the running program as JSON, while everybody tries to write into it."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

CANARY = "sk_live_CANARY_4cXb81Wq"
PATH_SECRET, BODY_SECRET = "pathsecret7781", "bodysecret5542"
FORGED = '\n{"level":"info","event":"forged","process":"up"}\n\x1b[2J\u202e'
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: "$HOST", path: /**}, effect: allow,
     use: [pay]}
  - {id: write, agents: [bot], match: {method: POST, host: "$HOST", path: /**}, effect: hold,
     summary: "Write {form:note} at {path}", use: [pay]}
"""


class Recorded:
    def __init__(self, kb: Program, bot: AgentKey) -> None:
        self.kb, self.bot = kb, bot

    def lines(self) -> list[dict[str, Any]]:
        """All of the log; whatever is no JSON fails here."""
        found = []
        for line in self.kb.log.read_text().splitlines():
            assert line.isascii() and line.isprintable(), line
            found.append(json.loads(line))
        return found

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == event]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with (
        Upstream() as upstream,
        Program(
            tmp_path_factory.mktemp("logs"),
            upstream,
            policy=POLICY,
            hold_wait="0s",
            extra_settings="log: {format: json, calls: true}\n",
        ) as kb,
    ):
        kb.secret("kv/pay", "api_key", CANARY)
        kb.user("alice")
        yield Recorded(kb, kb.agent("bot"))


def test_a_call_can_be_found_by_its_id(at: Recorded) -> None:
    reply = at.kb.curl(at.bot, f"{at.kb.upstream.url}/echo/{PATH_SECRET}?q={PATH_SECRET}")
    call = reply.headers["keybroker-request-id"]
    wait_until(lambda: any(x["call"] == call for x in at.of("call.ended")), what="the line")
    [line] = [x for x in at.of("call.ended") if x["call"] == call]
    assert line | {"message": "", "time": "", "duration_ms": 0} == {
        "time": "", "level": "info", "process": "worker-0", "event": "call.ended", "message": "",
        "call": call, "agent": "bot", "method": "GET", "outcome": "completed", "code": "none",
        "host": f"localhost:{at.kb.upstream.port}", "status": 200, "duration_ms": 0,
        "rules": "read", "policy": 1,
    }  # fmt: skip


def test_what_up_says_is_in_the_same_form(at: Recorded) -> None:
    at.kb.publish(at.kb.policy + "# changed\n")
    at.kb.write_policy("version: 1\nrules: [{")
    wait_until(
        lambda: any("was not changed" in x["message"] for x in at.lines()), what="the complaint"
    )
    at.kb.write_policy(at.kb.policy + "# changed\n")
    says = {(x["process"], x["level"], x["message"]) for x in at.lines()}
    assert ("up", "info", "policy version 2 is in force") in says
    assert any(process == "up" and level == "error" for process, level, _ in says)


def test_nobody_writes_lines_of_their_own(at: Recorded) -> None:
    """Through every field that an agent, a stranger or an upstream fills."""
    kb, url = at.kb, at.kb.upstream.url
    kb.curl(at.bot, f"{url}/echo", "--data-urlencode", f"note={FORGED}",
            "-H", f"Keybroker-Reason: {FORGED.encode('unicode_escape').decode()}")  # fmt: skip
    kb.curl(at.bot, f"{url}/echo/%0A%7B%22event%22:%22forged%22%7D?x=%0A%1b", "-X", "POST")
    kb.curl(at.bot, f"{url}/echo", "-d", f"note={BODY_SECRET}", "-A", "\x1b[31mred")
    kb.curl(at.bot, f"{url}/echo", "-X", "FORGED")
    name = base64.b64encode(f"evil{FORGED}:token".encode()).decode()
    for wire in (
        f"GET http://x.example/ HTTP/1.1\r\nHost: x.example\r\nProxy-Authorization: Basic {name}",
        f"CONNECT evil\x1b[2J:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic {name}",
        "G\x1bT http://\x00\x7f/ HTTP/1.1\r\nHost: \x0b\x0c",
        "\x16\x03\x01\n{}\n",
    ):
        kb.raw(wire.encode() + b"\r\n\r\n", timeout=1)
    wait_until(lambda: bool(at.of("approval.opened")), what="the held call")
    lines = at.lines()
    assert not [line for line in lines if line["event"] == "forged"]
    assert {line["process"] for line in lines} == {"up", "worker-0"}
    assert any("forged" in line["message"] for line in at.of("approval.opened"))  # but inside


def test_an_upstream_writes_none_either(at: Recorded) -> None:
    """One that answers with what it likes where a response belongs."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 \x1b[2J" + FORGED.encode() + b"\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        policy = at.kb.policy + (
            f"  - {{id: plain, agents: [bot], match: {{host: 'localhost:{port}', scheme: http,"
            " path: /**}, effect: allow}\n"
        )
        at.kb.publish(policy)
        before = len(at.of("call.ended"))
        at.kb.curl(at.bot, f"http://localhost:{port}/")
        wait_until(lambda: len(at.of("call.ended")) > before, what="the line")
    assert not [line for line in at.lines() if line["event"] == "forged"]


def test_no_secret_is_anywhere_in_it(at: Recorded) -> None:
    at.kb.curl(at.bot, f"{at.kb.upstream.url}/reflect?as=raw")
    text = at.kb.log.read_text()
    assert len(at.of("call.ended")) > 4
    for secret in (CANARY, at.bot.token, PATH_SECRET, base64.b64encode(CANARY.encode()).decode()):
        assert secret not in text
