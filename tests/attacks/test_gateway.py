"""The gateway: a path must not name one place and lead to another, nor a token stand for somebody
else or travel on."""

from __future__ import annotations

import pytest

from tests.attacks.stage import Got, Stage
from tests.support.program import AgentKey, basic

pytestmark = pytest.mark.e2e


def ask(
    stage: Stage,
    path: str,
    *headers: str,
    agent: AgentKey | None = None,
    host: str | None = None,
    target: str = "",
    method: str = "GET",
) -> Got:
    """A request to the gateway; `path` is what follows the agent's name."""
    agent = agent or stage.bot
    lines = [
        f"{method} {target or f'/agents/{agent.name}{path}'} HTTP/1.1",
        f"Host: {f'127.0.0.1:{stage.kb.proxy_port}' if host is None else host}",
        *(headers or (f"Keybroker-Token: {agent.token}",)),
        "",
        "",
    ]
    return stage.raw("\r\n".join(lines).encode("latin-1"), patience=3)


def test_control(stage: Stage) -> None:
    """The tools of these attacks get through when nothing is wrong."""
    token = stage.bot.token
    for number, field in enumerate(
        (f"Keybroker-Token: {token}", f"Authorization: Bearer {token}", f"X-Api-Key: {token}")
    ):
        assert ask(stage, f"/{stage.at()}/open/{number}", field).status == 404
    assert [r.path for r in stage.arrived] == ["/open/0", "/open/1", "/open/2"]


PLACES = {
    "no-host": "//open/x",
    "userinfo": "/me@localhost:P/open/x",
    "userinfo-with-colon": "/me:pw@localhost:P/open/x",
    "userinfo-behind": "/localhost:P@evil.example/open/x",
    "percent-letter": "/local%68ost:P/open/x",
    "percent-slash": "/evil.example%2flocalhost:P/open/x",
    "percent-colon": "/localhost%3aP/open/x",
    "percent-at": "/evil.example%40localhost:P/open/x",
    "port-zero": "/localhost:0/open/x",
    "port-empty": "/localhost:/open/x",
    "port-zeros": "/localhost:0P/open/x",
    "port-plus": "/localhost:+P/open/x",
    "port-twice": "/localhost:P:P/open/x",
    "port-too-large": "/localhost:99999/open/x",
    "trailing-dot": "/localhost.:P/open/x",
    "leading-dot": "/.localhost:P/open/x",
    "decimal-address": "/2130706433:P/open/x",
    "hex-address": "/0x7f000001:P/open/x",
    "octal-address": "/0177.0.0.1:P/open/x",
    "short-address": "/127.1:P/open/x",
    "mapped-address": "/[::ffff:127.0.0.1]:P/open/x",
    "bare-ipv6": "/::1:P/open/x",
    "long-ipv6": "/[0:0:0:0:0:0:0:1]:P/open/x",
    "zone": "/[fe80::1%25lo]:P/open/x",
    "bracketed-name": "/[localhost]:P/open/x",
    "backslash": "/localhost:P\\.evil.example/open/x",
    "scheme-in-host": "/https:localhost:P/open/x",
    "scheme": "/https://localhost:P/open/x",
    "plain-scheme": "/http://localhost:P/open/x",
    "semicolon": "/localhost:P;x/open/x",
    "comma": "/localhost:P,evil.example/open/x",
    "tab": "/localhost\t:P/open/x",
    "non-ascii": "/loc\xe4lhost:P/open/x",
    "dots-for-a-host": "/../localhost:P/open/x",
    "query-for-a-path": "/localhost:P?/open/x",
    "nothing-after": "/localhost:P",
    "dot-segments": "/localhost:P/open/../open/x",
    "dot-segments-out-of-the-host": "/localhost:P/../free.localhost:P/x",
    "encoded-dot-segments": "/localhost:P/%2e%2e/free.localhost:P/x",
    "double-slash-behind": "/localhost:P//open/x",
    "encoded-slash-behind": "/localhost:P/open%2fx",
}


@pytest.mark.parametrize("name", PLACES)
def test_odd_places(stage: Stage, name: str) -> None:
    got = ask(stage, PLACES[name].replace("P", str(stage.upstream.port)))
    stage.held(got)
    assert got.status == 400, got.data


@pytest.mark.parametrize(
    "path",
    ["/open/private/x", "/open/Private/x", "/open/PRIVATE/x", "/open/held/x", "/nowhere"],
)
def test_the_rules_are_the_same(stage: Stage, path: str) -> None:
    got = ask(stage, f"/{stage.at()}{path}", f"X-Api-Key: {stage.bot.token}")
    stage.held(got)
    assert got.codes[0] in ("policy_denied", "approval_pending")


def test_a_host_of_another_case_is_the_same_host(stage: Stage) -> None:
    got = ask(stage, f"/LOCALHOST:{stage.upstream.port}/open/private/x")
    stage.held(got, "policy_denied")


@pytest.mark.parametrize(
    "path",
    ["/127.0.0.1:PROXY/", "/localhost:PROXY/agents/bot/localhost:UP/open/x", "/127.0.0.1:ADMIN/",
     "/localhost:ADMIN/healthz", "/[::1]:ADMIN/", "/169.254.169.254/latest/meta-data/"],
)  # fmt: skip
def test_the_inside_is_not_reached(stage: Stage, path: str) -> None:
    """Not the gateway itself, not the admin page, not the cloud's metadata, by whatever rule."""
    path = path.replace("PROXY", str(stage.kb.proxy_port)).replace("UP", str(stage.upstream.port))
    got = ask(stage, path.replace("ADMIN", str(stage.kb.admin_port)), agent=stage.agents["roamer"])
    stage.held(got, "egress_refused")


def test_the_internal_host_shows_the_agent_itself(stage: Stage) -> None:
    got = ask(stage, "/keybroker.internal/v1/whoami")
    assert got.json["agent"] == "bot"
    stage.held(ask(stage, "/keybroker.internal.evil.example/v1/whoami"), "policy_denied")
    stage.held(ask(stage, "/keybroker.internal/agents/other/x"), "not_found")


def strangers(stage: Stage) -> dict[str, list[str]]:
    token, other = stage.bot.token, stage.agents["other"].token
    return {
        "none": ["A: b"],
        "wrong": ["Keybroker-Token: kb_agent_wrong"],
        "of-another-agent": [f"Keybroker-Token: {other}"],
        "bearer-of-another-agent": [f"Authorization: Bearer {other}"],
        "two-keys": [f"Authorization: Bearer {token}", f"X-Api-Key: {token}"],
        "two-keys-one-wrong": [f"Authorization: Bearer {token}", "X-Api-Key: x"],
        "twice": [f"Keybroker-Token: {token}", f"Keybroker-Token: {token}"],
        "twice-other-first": [f"Keybroker-Token: {other}", f"Keybroker-Token: {token}"],
        "joined": [f"Keybroker-Token: {token}, {other}"],
        "own-header-wrong-key-right": ["Keybroker-Token: x", f"X-Api-Key: {token}"],
        "basic": [f"Authorization: {basic(stage.bot)}"],
        "as-to-a-proxy": [f"Proxy-Authorization: {basic(stage.bot)}"],
        "as-to-a-proxy-too": [
            f"Proxy-Authorization: {basic(stage.agents['other'])}",
            f"Keybroker-Token: {token}",
        ],
        "underscore": [f"Keybroker_Token: {token}"],
        "space-before-colon": [f"Keybroker-Token : {token}"],
        "bearer-twice": [f"Authorization: Bearer Bearer {token}"],
        "empty": ["Keybroker-Token:"],
        "padded": [f"Keybroker-Token: {token}="],
        "nul": [f"Keybroker-Token: {token}\0"],
    }


@pytest.mark.parametrize("name", [
    "none", "wrong", "of-another-agent", "bearer-of-another-agent", "two-keys",
    "two-keys-one-wrong", "twice", "twice-other-first", "joined", "own-header-wrong-key-right",
    "basic", "as-to-a-proxy", "as-to-a-proxy-too", "underscore", "space-before-colon",
    "bearer-twice", "empty", "padded", "nul",
])  # fmt: skip
def test_strangers(stage: Stage, name: str) -> None:
    got = ask(stage, f"/{stage.at()}/open/x", *strangers(stage)[name])
    stage.held(got)
    assert got.status in (400, 401), got.data
    assert stage.bot.token.encode() not in got.data


@pytest.mark.parametrize(
    "where", ["X-Other: TOKEN", "Cookie: a=TOKEN", "User-Agent: x TOKEN y", "Referer: /?k=TOKEN"]
)
def test_the_token_does_not_travel_on_in_a_header(stage: Stage, where: str) -> None:
    token = stage.bot.token
    field = where.replace("TOKEN", token)
    got = ask(stage, f"/{stage.at()}/open/x", f"Keybroker-Token: {token}", field)
    stage.held(got, "request_ambiguous")


@pytest.mark.parametrize("path", ["/open/TOKEN", "/open/x?api_key=TOKEN"])
def test_the_token_does_not_travel_on_in_the_path(stage: Stage, path: str) -> None:
    path = path.replace("TOKEN", stage.bot.token)
    stage.held(ask(stage, f"/{stage.at()}{path}"), "request_ambiguous")


@pytest.mark.parametrize(
    "name", ["../bot", "bot/..", "b%6ft", "bot%2f", "bot\\", "", "Bot", "bot "]
)
def test_odd_names(stage: Stage, name: str) -> None:
    target = f"/agents/{name}/{stage.at()}/open/x"
    got = ask(stage, "", target=target)
    stage.held(got)
    assert got.status in (400, 401), got.data


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost", "127.0.0.1", "localhost:1", "x@localhost:PROXY",
             "localhost:PROXY.evil.example", "localhost:UP", "", "localhost:PROXY, evil.example"],
)  # fmt: skip
def test_rebinding(stage: Stage, host: str) -> None:
    """Whoever was led here under another name is not served."""
    host = host.replace("PROXY", str(stage.kb.proxy_port)).replace("UP", str(stage.upstream.port))
    got = ask(stage, f"/{stage.at()}/open/x", host=host)
    stage.held(got)
    assert got.status == 400, got.data


def test_two_hosts(stage: Stage) -> None:
    second = f"Host: {stage.at()}"
    key = f"Keybroker-Token: {stage.bot.token}"
    stage.held(ask(stage, f"/{stage.at()}/open/x", key, second), "request_ambiguous")
    got = ask(stage, f"/{stage.at()}/open/x", key, "X-Forwarded-Host: evil.example", "X-A: b")
    assert got.status == 404


@pytest.mark.parametrize(
    "field", ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"]
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_web_pages(stage: Stage, method: str, field: str) -> None:
    key = f"Keybroker-Token: {stage.bot.token}"
    got = ask(stage, f"/{stage.at()}/open/x", key, field, method=method)
    stage.held(got, "gateway_refused")
    assert b"access-control-" not in got.data.lower()


def test_an_absolute_target_is_the_proxy_s(stage: Stage) -> None:
    """Which then refuses to call itself, or somebody who did not say who they are."""
    own = f"127.0.0.1:{stage.kb.proxy_port}"
    target = f"http://{own}/agents/bot/{stage.at()}/open/x"
    stage.held(ask(stage, "", target=target), "agent_unauthenticated")
    as_proxy = f"Proxy-Authorization: {basic(stage.bot)}"
    stage.held(ask(stage, "", as_proxy, target=target), "policy_denied")
    roamer = f"Proxy-Authorization: {basic(stage.agents['roamer'])}"
    stage.held(ask(stage, "", roamer, target=target), "egress_refused")
    elsewhere = f"http://evil.example/agents/bot/{stage.at()}/open/x"
    stage.held(ask(stage, "", target=elsewhere), "agent_unauthenticated")


def test_not_inside_a_tunnel(stage: Stage) -> None:
    """A tunnel leads to its own host, whatever the path in it looks like."""
    got = stage.ask(stage.get(f"/agents/bot/{stage.at('free.localhost')}/x"))
    stage.held(got, "policy_denied")


def test_connect_to_the_gateway(stage: Stage) -> None:
    """CONNECT to the own listener, with a gateway path inside."""
    own = f"localhost:{stage.kb.proxy_port}"
    inner = f"GET /agents/bot/{stage.at()}/open/x HTTP/1.1\r\nHost: {own}\r\n\r\n".encode()
    with stage.connect(own, agent=stage.agents["roamer"]) as sock:
        sock.sendall(inner)
        got = Got(sock.recv(65536))
    stage.held(got)
    got = stage.ask(inner, authority=own, agent=stage.agents["roamer"])
    stage.held(got, "egress_refused")


def test_a_smuggled_second_request_is_judged_by_itself(stage: Stage) -> None:
    key = f"Keybroker-Token: {stage.bot.token}"
    own = f"127.0.0.1:{stage.kb.proxy_port}"
    first = f"GET /agents/bot/{stage.at()}/open/a HTTP/1.1\r\nHost: {own}\r\n{key}\r\n\r\n"
    second = f"GET /agents/bot/{stage.at()}/open/b HTTP/1.1\r\nHost: {own}\r\n\r\n"
    got = stage.raw((first + second).encode(), answers=2)
    assert got.statuses == [404, 401]
    stage.held(got, "agent_unauthenticated", arrived=1)


def test_the_key_is_masked_and_lands_in_its_slot_only(stage: Stage) -> None:
    got = ask(stage, f"/{stage.at()}/echo", f"X-Api-Key: {stage.bot.token}", "X-A: b")
    stage.held(got, arrived=1)
    assert stage.bot.token.encode() not in got.data
    got = ask(stage, f"/{stage.at('keyed.localhost')}/echo", f"X-Api-Key: {stage.bot.token}")
    stage.held(got, arrived=2)
