"""Who calls: an agent's own token, once, where it belongs; nothing else is identity."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from tests.attacks.stage import Stage, say, wait_for
from tests.support.program import basic

pytestmark = pytest.mark.e2e

UNKNOWN = "agent_unauthenticated"


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def header(value: str) -> str:
    return f"Proxy-Authorization: {value}"


Lines = Callable[[Stage], list[str]]

CLAIMS: list[tuple[str, Lines]] = [
    ("nothing", lambda s: []),
    ("empty", lambda s: [header("")]),
    ("scheme-only", lambda s: [header("Basic")]),
    ("no-scheme", lambda s: [header(encoded(f"bot:{s.bot.token}"))]),
    ("bearer", lambda s: [header(f"Bearer {s.bot.token}")]),
    ("bearer-pair", lambda s: [header("Bearer " + encoded(f"bot:{s.bot.token}"))]),
    ("digest", lambda s: [header('Digest username="bot", response="x"')]),
    ("negotiate", lambda s: [header("Negotiate TlRMTVNTUAABAAAA")]),
    ("wrong-token", lambda s: [header("Basic " + encoded("bot:wrong"))]),
    ("token-cut", lambda s: [header("Basic " + encoded(f"bot:{s.bot.token[:-1]}"))]),
    ("token-longer", lambda s: [header("Basic " + encoded(f"bot:{s.bot.token}x"))]),
    ("token-other-case", lambda s: [header("Basic " + encoded(f"bot:{s.bot.token.swapcase()}"))]),
    ("token-with-nul", lambda s: [header("Basic " + encoded(f"bot:{s.bot.token}\0"))]),
    ("token-with-space", lambda s: [header("Basic " + encoded(f"bot:{s.bot.token} "))]),
    ("token-as-name", lambda s: [header("Basic " + encoded(f"{s.bot.token}:"))]),
    ("token-as-name-too", lambda s: [header("Basic " + encoded(f"{s.bot.token}:{s.bot.token}"))]),
    ("no-colon", lambda s: [header("Basic " + encoded("bot"))]),
    ("no-name", lambda s: [header("Basic " + encoded(f":{s.bot.token}"))]),
    ("no-token", lambda s: [header("Basic " + encoded("bot:"))]),
    ("another-agents-name", lambda s: [header("Basic " + encoded(f"other:{s.bot.token}"))]),
    (
        "another-agents-token",
        lambda s: [header("Basic " + encoded(f"bot:{s.agents['other'].token}"))],
    ),
    ("name-other-case", lambda s: [header("Basic " + encoded(f"BOT:{s.bot.token}"))]),
    ("name-with-space", lambda s: [header("Basic " + encoded(f"bot :{s.bot.token}"))]),
    ("name-with-nul", lambda s: [header("Basic " + encoded(f"bot\0:{s.bot.token}"))]),
    ("name-of-nobody", lambda s: [header("Basic " + encoded(f"nobody:{s.bot.token}"))]),
    ("name-like", lambda s: [header("Basic " + encoded(f"%:{s.bot.token}"))]),
    ("name-injected", lambda s: [header("Basic " + encoded("bot' OR '1'='1:x"))]),
    ("persons-token", lambda s: [header("Basic " + encoded(f"boss:{s.boss}"))]),
    ("persons-token-as-agent", lambda s: [header("Basic " + encoded(f"bot:{s.boss}"))]),
    ("two-right", lambda s: [header(basic(s.bot))] * 2),
    ("two-agents", lambda s: [header(basic(s.bot)), header(basic(s.agents["other"]))]),
    ("wrong-then-right", lambda s: [header("Basic eDp5"), header(basic(s.bot))]),
    ("right-then-wrong", lambda s: [header(basic(s.bot)), header("Basic eDp5")]),
    ("two-in-one", lambda s: [header(f"{basic(s.bot)}, {basic(s.bot)}")]),
    ("not-base64", lambda s: [header("Basic !!!")]),
    ("base64-with-junk", lambda s: [header(f"{basic(s.bot)}!")]),
    (
        "base64-of-latin-1",
        lambda s: [header("Basic " + encoded(f"b\u00f6t:{s.bot.token}".encode("latin-1")))],
    ),
    ("parameters", lambda s: [header(f'{basic(s.bot)}; realm="x"')]),
    ("in-authorization", lambda s: [f"Authorization: {basic(s.bot)}"]),
    ("in-www-name", lambda s: [f"Proxy-Authenticate: {basic(s.bot)}"]),
    ("in-cookie", lambda s: [f"Cookie: token={s.bot.token}"]),
    ("in-x-header", lambda s: [f"X-Proxy-Authorization: {basic(s.bot)}"]),
    ("in-proxy-connection", lambda s: [f"Proxy-Connection: {basic(s.bot)}"]),
    ("underscore", lambda s: [f"Proxy_Authorization: {basic(s.bot)}"]),
    ("forwarded-for", lambda s: ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-User: bot"]),
    ("agent-header", lambda s: ["Keybroker-Agent: bot"]),
]


@pytest.mark.parametrize(("name", "lines"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_at_connect(stage: Stage, name: str, lines: Lines) -> None:
    head = [f"CONNECT {stage.at()} HTTP/1.1", f"Host: {stage.at()}", *lines(stage), "", ""]
    got = stage.raw("\r\n".join(head).encode("latin-1"))
    stage.held(got, UNKNOWN)
    assert got.status == 407
    assert b'proxy-authenticate: basic realm="keybroker"' in got.data.lower()


@pytest.mark.parametrize(("name", "lines"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_on_plain_requests(stage: Stage, name: str, lines: Lines) -> None:
    host = f"localhost:{stage.plain.port}"
    head = [f"GET http://{host}/open/x HTTP/1.1", f"Host: {host}", *lines(stage), "", ""]
    got = stage.raw("\r\n".join(head).encode("latin-1"))
    stage.held(got, UNKNOWN)
    assert got.status == 407


@pytest.mark.parametrize("way", ["connect", "plain", "internal"])
def test_token_in_the_url(stage: Stage, way: str) -> None:
    pair = f"bot:{stage.bot.token}@"
    lines = {
        "connect": [f"CONNECT {pair}{stage.at()} HTTP/1.1", f"Host: {stage.at()}"],
        "plain": [
            f"GET http://{pair}localhost:{stage.plain.port}/open/x HTTP/1.1",
            f"Host: localhost:{stage.plain.port}",
        ],
        "internal": [
            f"GET http://keybroker.internal/v1/whoami?token={stage.bot.token} HTTP/1.1",
            "Host: keybroker.internal",
        ],
    }[way]
    code = UNKNOWN if way == "internal" else "request_ambiguous"
    stage.held(stage.raw("\r\n".join([*lines, "", ""]).encode()), code)


def test_control(stage: Stage) -> None:
    """The right token opens the way, after a 407 on the same connection too; scheme in any case."""
    head = f"CONNECT {stage.at()} HTTP/1.1\r\nHost: {stage.at()}\r\n"
    with stage.dial() as sock:
        assert say(sock, f"{head}\r\n".encode()).status == 407
        auth = basic(stage.bot).replace("Basic", "basic")
        sock.sendall(f"{head}Proxy-Authorization: {auth}\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert stage.dialled == 0


def test_a_claim_inside_the_tunnel_counts_for_nothing(stage: Stage) -> None:
    """Whoever opened the tunnel is who calls; the header inside is neither read nor forwarded."""
    other = stage.agents["other"]
    claim = f"Proxy-Authorization: {basic(stage.bot)}"
    stage.held(stage.ask(stage.get("/read/x", claim), agent=other), "policy_denied")
    assert stage.ask(stage.get("/open/x", claim), agent=other).status == 404
    assert len(stage.arrived) == 1


def test_each_plain_request_shows_its_own(stage: Stage) -> None:
    """A connection carries no identity from one plain request to the next."""
    host = f"localhost:{stage.plain.port}"
    start = f"GET http://{host}/open/x HTTP/1.1\r\nHost: {host}\r\n"
    with stage.dial() as sock:
        assert say(sock, f"{start}{header(basic(stage.bot))}\r\n\r\n".encode()).status == 404
        assert say(sock, f"{start}\r\n".encode()).codes == [UNKNOWN]
        other = header(basic(stage.agents["other"]))
        assert say(sock, f"{start}{other}\r\n\r\n".encode()).codes == ["policy_denied"]
    assert len(stage.arrived) == 1


def test_a_tunnel_does_not_outlive_its_connection(stage: Stage) -> None:
    """A plain request on a connection that was used for a refused CONNECT is judged by itself."""
    with stage.dial() as sock:
        auth = header(basic(stage.bot))
        bad = f"CONNECT localhost.:1 HTTP/1.1\r\nHost: localhost.:1\r\n{auth}\r\n\r\n"
        assert say(sock, bad.encode()).codes == ["request_ambiguous"]
        host = f"localhost:{stage.plain.port}"
        plain = f"GET http://{host}/open/x HTTP/1.1\r\nHost: {host}\r\n\r\n"
        assert say(sock, plain.encode()).codes in ([UNKNOWN], [])
    assert stage.arrived == []


def test_a_revoked_agent_on_an_open_connection(stage: Stage) -> None:
    agent = stage.kb.agent("gone")
    with stage.tls(agent=agent) as sock:
        assert say(sock, stage.get("/open/x")).status == 404
        stage.kb.cli("agent", "revoke", "gone")
        stage.begin()
        stage.held(say(sock, stage.get("/open/x")), UNKNOWN)
    got = stage.raw(f"CONNECT {stage.at()} HTTP/1.1\r\n{header(basic(agent))}\r\n\r\n".encode())
    stage.held(got, UNKNOWN)


def test_a_rotated_token_on_an_open_connection(stage: Stage) -> None:
    agent = stage.kb.agent("turned")
    with stage.tls(agent=agent) as sock:
        assert say(sock, stage.get("/open/x")).status == 404
        stage.kb.cli("agent", "rotate", "turned")
        stage.begin()
        stage.held(say(sock, stage.get("/open/x")), UNKNOWN)


def test_an_expired_agent_on_an_open_connection(stage: Stage) -> None:
    agent = stage.kb.agent("brief", "--expires", "1s")
    head = f"CONNECT {stage.at()} HTTP/1.1\r\nHost: {stage.at()}\r\n{header(basic(agent))}\r\n\r\n"
    with stage.dial() as sock:
        opened = say(sock, head.encode(), patience=2)
        assert opened.status in (200, 407)  # it may have expired already
        wait_for(lambda: UNKNOWN in stage.raw(head.encode()).codes, "the agent expires")
    stage.held(stage.raw(head.encode()), UNKNOWN)


def test_an_agent_sees_itself_only(stage: Stage) -> None:
    said = stage.internal("/v1/whoami", agent=stage.agents["other"])
    assert said.json["agent"] == "other"
    assert "read-only" not in said.data.decode()
    assert stage.bot.token.encode() not in said.data
    for path in ("/v1/agents", "/v1/approvals", "/v1/whoami/../../x", "/api/v1/approvals", "/v1"):
        assert stage.internal(path).status in (400, 404), path
    assert stage.dialled == 0
