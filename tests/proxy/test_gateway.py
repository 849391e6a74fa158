"""Base-URL mode: what a path at the gateway means, who may ask, and what comes back changed."""

from __future__ import annotations

import json

import pytest

from broker.errors import Refusal
from proxy import gateway
from proxy.exchange import Wire
from proxy.gateway import Door
from rules.errors import Ambiguous
from rules.request import Request
from tests.proxy.harness import FakeHead, Worker, exchange, read_all, wait_until
from tests.support.upstream import Reply, Upstream

TOKEN = "kb_agent_t0ken-en_ough-not-to-be-met-by-chance"
OPEN = Door.of(("127.0.0.1", 8080), tls=False, names=[("gw.example", 443)])
HOST = (b"Host", b"127.0.0.1:8080")
KEY = (b"Authorization", b"Bearer " + TOKEN.encode())


def wire(path: str, authority: str = "", version: str = "HTTP/1.1", scheme: str = "") -> Wire:
    parts = (part.encode("latin-1") for part in ("GET", scheme, authority, path, version))
    return Wire(*parts)


def read(
    path: str = "/agents/bot/api.example/v1/x?q=1",
    *fields: tuple[bytes, bytes],
    door: Door = OPEN,
    host: tuple[bytes, bytes] = HOST,
) -> gateway.Claim:
    return gateway.read(wire(path), (host, *(fields or (KEY,))), door)


def test_only_its_own_form_is_for_the_gateway() -> None:
    assert gateway.asked(wire("/agents/bot/a.example/"))
    assert gateway.asked(wire("/agents/bot/a.example/", "gw.example", "HTTP/2.0", "https"))
    assert not gateway.asked(wire("/agents/bot/a.example/", "gw.example"))
    assert not gateway.asked(wire("/Agents/bot/a.example/"))
    assert not gateway.asked(wire("/agent"))


def test_a_path_is_taken_apart_and_nothing_in_it_is_changed() -> None:
    claim = read("/agents/b.o@t/API.Example:8443/v1/%2e/../x;y//z?q=/agents/a#f", KEY, (b"A", b"b"))
    assert (claim.agent, claim.token) == ("b.o@t", TOKEN)
    assert claim.authority == "API.Example:8443"
    assert claim.target == "/v1/%2e/../x;y//z?q=/agents/a#f"
    assert claim.headers == ((b"A", b"b"),)
    assert TOKEN not in repr(claim)


@pytest.mark.parametrize(
    "path",
    [
        "/agents/",
        "/agents/bot",
        "/agents/bot/",
        "/agents/bot/a.example",
        "/agents/bot/a.example?q",
        "/agents//a.example/x",
        "/agents/bot//a.example/x",
        "/agents/../bot/a.example/x",
        "/agents/b%6ft/a.example/x",
        "/agents/bot:x/a.example/x",
    ],
)
def test_what_is_no_gateway_path_is_refused(path: str) -> None:
    with pytest.raises(Ambiguous, match="/agents/NAME/HOST/PATH"):
        read(path)


@pytest.mark.parametrize(
    "field",
    [
        (b"Keybroker-Token", TOKEN.encode()),
        (b"authorization", b"bearer " + TOKEN.encode()),
        (b"X-API-Key", TOKEN.encode()),
        (b"api-key", TOKEN.encode()),
        (b"x-goog-api-key", TOKEN.encode()),
    ],
)
def test_the_header_that_carries_the_token_stays_here(field: tuple[bytes, bytes]) -> None:
    claim = read("/agents/bot/a.example/x", (b"A", b"b"), field)
    assert (claim.token, claim.headers) == (TOKEN, ((b"A", b"b"),))


def test_beside_its_own_header_the_others_are_the_upstream_s() -> None:
    fields = ((b"Keybroker-Token", TOKEN.encode()), (b"Authorization", b"Bearer theirs"))
    claim = read("/agents/bot/a.example/x", *fields)
    assert claim.headers == fields[1:]
    gateway.refuse_strays(claim)


@pytest.mark.parametrize(
    ("fields", "because"),
    [
        ([(b"A", b"b")], "Give the agent's token"),
        ([KEY, KEY], "send it once"),
        ([KEY, (b"X-Api-Key", b"x")], "send the agent's token in Keybroker-Token"),
        ([(b"Api-Key", TOKEN.encode()), (b"X-Goog-Api-Key", b"x")], "more than one key"),
        ([KEY, (b"Proxy-Authorization", b"Basic eDp5")], "in one place"),
        ([(b"Authorization", b"Basic eDp5")], "holds no token"),
        ([(b"Authorization", b"Bearer a b")], "holds no token"),
        ([(b"Keybroker-Token", b"")], "holds no token"),
        ([(b"Keybroker-Token", b"t"), (b"keybroker-token", b"t")], "send it once"),
    ],
)
def test_the_token_comes_from_exactly_one_place(
    fields: list[tuple[bytes, bytes]], because: str
) -> None:
    with pytest.raises(Refusal, match=because) as caught:
        read("/agents/bot/a.example/x", *fields)
    assert (caught.value.code, caught.value.status) == ("agent_unauthenticated", 401)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"/agents/bot/a.example/x?key={TOKEN}", KEY),
        (f"/agents/bot/a.example/{TOKEN}", KEY),
        ("/agents/bot/a.example/x", (b"X-Other", b"is " + TOKEN.encode())),
    ],
)
def test_a_token_that_would_go_upstream_is_refused(path: str, field: tuple[bytes, bytes]) -> None:
    claim = read(path, (b"Keybroker-Token", TOKEN.encode()), field)
    with pytest.raises(Ambiguous, match="second place"):
        gateway.refuse_strays(claim)


@pytest.mark.parametrize(
    "host",
    [b"127.0.0.1:8080", b"LOCALHOST:8080", b"gw.example:443"],
)
def test_it_answers_to_its_own_names(host: bytes) -> None:
    assert read(host=(b"Host", host)).agent == "bot"


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"127.0.0.1",
        b"127.0.0.1:8081",
        b"localhost:8080.evil.example",
        b"gw.example:8080",
        b"x@localhost:8080",
        b"",
    ],
)
def test_a_name_that_is_not_its_own_is_refused(host: bytes) -> None:
    """DNS rebinding: a page at evil.example whose name suddenly leads here."""
    with pytest.raises(Ambiguous):
        read(host=(b"Host", host))


def test_all_that_names_a_host_must_name_it() -> None:
    door = Door.of(("10.0.0.1", 443), tls=True, names=[("gw.example", 443)])
    path = "/agents/bot/a.example/x"

    def h2(authority: str, *fields: tuple[bytes, bytes], scheme: str = "https") -> gateway.Claim:
        return gateway.read(wire(path, authority, "HTTP/2.0", scheme), (*fields, KEY), door)

    assert h2("gw.example").agent == "bot"
    assert h2("gw.example", (b"host", b"gw.example")).headers == ()
    for authority, fields in (
        ("evil.example", ()),
        ("gw.example", ((b"host", b"a.example"),)),
        ("a.example", ((b"host", b"gw.example"),)),
    ):
        with pytest.raises(Ambiguous, match="does not name this gateway"):
            h2(authority, *fields)
    with pytest.raises(Ambiguous, match=":scheme"):
        h2("gw.example", scheme="http")
    with pytest.raises(Ambiguous, match="does not name this gateway"):
        gateway.read(wire(path), (KEY,), door)


@pytest.mark.parametrize(
    "field", [(b"Origin", b"null"), (b"origin", b"http://x"), (b"Sec-Fetch-Site", b"none")]
)
def test_web_pages_are_refused(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(Refusal, match="web page") as caught:
        read("/agents/bot/a.example/x", KEY, field)
    assert caught.value.code == "gateway_refused"


def test_plain_http_is_for_loopback_only() -> None:
    local = ("10.0.0.1", 8080)
    host = (b"Host", b"10.0.0.1:8080")
    with pytest.raises(Refusal, match="use https"):
        read(door=Door.of(local, tls=False, names=()), host=host)
    assert read(door=Door.of(local, tls=True, names=()), host=host).agent == "bot"
    assert not Door.of(("::ffff:10.0.0.1", 1), tls=False, names=()).private
    with pytest.raises(Ambiguous):
        read(door=Door.of(local, tls=True, names=()), host=(b"Host", b"localhost:8080"))


def localised(*headers: tuple[str, str], scheme: str = "https") -> list[tuple[str, str]]:
    request = Request("GET", scheme, "api.example", 8443, "/x", None, (), b"")  # type: ignore[arg-type]
    head = gateway.localise(FakeHead(302, "Found", headers), "bot", request)
    assert (head.status, head.reason, head.answer) == (302, "Found", None)
    return list(head.headers)


BASE = "/agents/bot/api.example:8443"


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("/v2?q=1#f", BASE + "/v2?q=1#f"),
        ("https://api.example:8443/v2", BASE + "/v2"),
        ("https://Other.example/v2?q", "/agents/bot/other.example/v2?q"),
        ("https://other.example", "/agents/bot/other.example/"),
        ("https://other.example?q", "/agents/bot/other.example/?q"),
        ("//other.example/v2", "/agents/bot/other.example/v2"),
        # Without a name here: relative ones lead below the request's own path as they are.
        ("v2", "v2"),
        ("?page=2", "?page=2"),
        ("./a:b@c", "./a:b@c"),
        ("v 2", "v 2"),
        ("", ""),
    ],
)
def test_redirects_stay_at_the_gateway(value: str, becomes: str) -> None:
    assert localised(("Location", value), ("Content-Location", value)) == [
        ("Location", becomes),
        ("Content-Location", becomes),
    ]


@pytest.mark.parametrize(
    "value",
    [
        "http://other.example/",
        "HTTP://other.example/",
        "https://user@other.example/",
        "https://0x7f.1/",
        "https:other.example/",
        "https:\\\\other.example/",
        "/\\other.example",
        "\\\\other.example",
        " //0x7f.1/",
        "//user@other.example/",
        "ht\ttp://other.example/",
        "\t/\\other.example",
        "///other.example/",
        "ftp://other.example/",
        "urn:x",
    ],
)
def test_a_redirect_that_would_take_the_token_away_is_left_out(value: str) -> None:
    """Clients drop Authorization on the way to another host, but not the other two headers."""
    assert localised(("Location", value), ("Content-Location", value), ("A", "b")) == [("A", "b")]


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        (
            '<https://api.example:8443/v1?page=2>; rel="next", </v1?page=9>; rel=last',
            f'<{BASE}/v1?page=2>; rel="next", <{BASE}/v1?page=9>; rel=last',
        ),
        ('<https://Other.example/x>; rel="next"', '</agents/bot/other.example/x>; rel="next"'),
        # A comma, a semicolon and a bracket in a parameter or a target.
        (
            '<?a=1,2;b>; title="a, b; <c> \\" d"; rel=x,<y>',
            '<?a=1,2;b>; title="a, b; <c> \\" d"; rel=x, <y>',
        ),
        ("<a> ; rel = next ;, ,<b>,", "<a> ; rel = next ;, <b>"),
        ("<a>;hreflang=de;x", "<a>;hreflang=de;x"),
    ],
)
def test_links_stay_at_the_gateway(value: str, becomes: str) -> None:
    assert localised(("Link", value)) == [("Link", becomes)]


@pytest.mark.parametrize(
    "value",
    [
        "<http://other.example/>; rel=next",
        "<https://user@other.example/>; rel=next",
        "<//0x7f.1/>; rel=next",
        "<ht\ttp://other.example/>",
        "< https:\\\\other.example>",
        # Not to be read for certain.
        "https://other.example/; rel=next",
        '<a>; title="open, <https://other.example/>; rel=next',
        "<a> <https://other.example/>; rel=next",
        "<a<https://other.example/>>; rel=next",
        "<a",
        " ",
        "",
    ],
)
def test_a_link_that_would_lead_away_is_left_out(value: str) -> None:
    assert localised(("Link", value), ("A", "b")) == [("A", "b")]


def test_of_several_links_the_others_stay() -> None:
    value = "<http://a.example/>; rel=prev, </2>; rel=next, <ftp://b.example/>; rel=last"
    assert localised(("Link", value)) == [("Link", f"<{BASE}/2>; rel=next")]


def test_a_long_link_is_read_in_time() -> None:
    for part in ("a ", ";", ' ="', "<", "\\", '"a'):
        localised(("Link", "<x>; r=" + part * 20_000))


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("a=1", "a=1"),
        ("a=1; Path=/v1; Secure", f"a=1; Path={BASE}/v1; Secure"),
        ("a=b=c; domain=.example; PATH=/; HttpOnly", f"a=b=c; Path={BASE}/; HttpOnly"),
        ("a=1; Path=v1; Domain", "a=1"),
    ],
)
def test_cookies_stay_with_their_upstream(value: str, becomes: str) -> None:
    assert localised(("Set-Cookie", value)) == [("Set-Cookie", becomes)]


def test_what_speaks_for_the_whole_origin_is_left_out() -> None:
    kept = ("Content-Type", "text/plain")
    assert localised(
        ("Set-Cookie", "__Host-a=1; Path=/; Secure"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Alt-Svc", 'h2="evil.example:443"'),
        ("Clear-Site-Data", "*"),
        ("Access-Control-Allow-Origin", "*"),
        kept,
    ) == [kept]


def test_a_stored_request_of_another_scheme_has_no_place_here() -> None:
    assert localised(("Location", "/x"), scheme="http") == [("Location", "/x")]


# --- through the engine --------------------------------------------------------------------------


def ask(
    worker: Worker, path: str, *headers: str, host: str = "", body: bytes = b"", method: str = "GET"
) -> tuple[int, bytes, bytes]:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{worker.port}'}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with worker.dial() as sock:
        return exchange(sock, "\n".join(lines), body)


@pytest.mark.e2e
def test_a_call_goes_to_the_host_in_its_path(worker: Worker, upstream: Upstream) -> None:
    at = f"localhost:{upstream.port}"
    status, _, body = ask(
        worker, f"/agents/bot/{at}/echo?a=/b", "Keybroker-Token: token", "X-A: 1", body=b"hello",
        method="POST",
    )  # fmt: skip
    shown = json.loads(body)
    assert (status, shown["method"], shown["target"]) == (200, "POST", "/echo?a=/b")
    assert shown["body"] == "hello"
    (request,) = upstream.requests
    assert request.values("host") == [at]
    assert request.header("x-a") == "1"
    assert request.header("keybroker-token") is None
    assert request.sni == "localhost"
    assert worker.pipeline.raw[0].gateway == at
    assert worker.pipeline.passages[0].request.via == "gateway"


@pytest.mark.e2e
def test_one_connection_carries_calls_to_several_hosts(worker: Worker, upstream: Upstream) -> None:
    with worker.dial() as sock:
        for host in ("localhost", "a.localhost", "localhost"):
            head = f"GET /agents/bot/{host}:{upstream.port}/echo HTTP/1.1\nHost: localhost:"
            status, _, _ = exchange(sock, f"{head}{worker.port}\nX-Api-Key: token")
            assert status == 200
    assert [r.sni for r in upstream.requests] == ["localhost", "a.localhost", "localhost"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("headers", "challenge"), [(["Authorization: Bearer wrong"], True), ([], True)]
)
def test_a_stranger_is_answered_as_by_an_origin(
    worker: Worker, upstream: Upstream, headers: list[str], challenge: bool
) -> None:
    status, head, body = ask(
        worker, f"/agents/bot/localhost:{upstream.port}/echo", *headers, body=b"x" * 200_000
    )
    assert status == 401
    assert b"proxy-authenticate" not in head.lower()
    assert json.loads(body)["code"] == "agent_unauthenticated"
    assert worker.pipeline.raw == []


@pytest.mark.e2e
def test_another_name_with_this_token_is_nobody(worker: Worker, upstream: Upstream) -> None:
    path = f"/agents/other/localhost:{upstream.port}/echo"
    assert ask(worker, path, "Keybroker-Token: token")[0] == 401


@pytest.mark.e2e
def test_refusals_before_the_rules_reach_nobody(worker: Worker, upstream: Upstream) -> None:
    path, key = f"/agents/bot/localhost:{upstream.port}/echo", "Keybroker-Token: token"
    assert ask(worker, path, key, host="evil.example")[0] == 400
    assert ask(worker, path, key, "Origin: https://evil.example")[0] == 403
    assert ask(worker, path, key, "X-Api-Key: token")[0] == 400
    assert ask(worker, "/agents/bot", key)[0] == 400
    assert worker.pipeline.raw == []
    for host in ("localhost%3a1", "a@localhost:1", "localhost.", "127.1", "localhost:0", "[::1"):
        assert ask(worker, f"/agents/bot/{host}/echo", key)[0] == 400
    assert upstream.requests == []


@pytest.mark.e2e
def test_elsewhere_on_the_listener_nothing_changed(worker: Worker) -> None:
    assert ask(worker, "/", "Keybroker-Token: token")[0] == 407
    assert ask(worker, "/agents", "Keybroker-Token: token")[0] == 407


@pytest.mark.e2e
def test_redirects_and_cookies_of_a_real_answer(worker: Worker, upstream: Upstream) -> None:
    upstream.answer(
        "/moved",
        Reply(307, "Moved", [("Location", "/echo"), ("Set-Cookie", "a=1; Path=/; Domain=x")]),
    )
    base = f"/agents/bot/localhost:{upstream.port}"
    status, head, _ = ask(worker, base + "/moved", "Keybroker-Token: token")
    lines = head.decode().lower().split("\r\n")
    assert status == 307
    assert f"location: {base}/echo" in lines
    assert f"set-cookie: a=1; path={base}/" in lines


@pytest.mark.e2e
def test_a_websocket_is_opened_through_the_gateway(worker: Worker, upstream: Upstream) -> None:
    with worker.dial() as sock:
        head = (
            f"GET /agents/bot/localhost:{upstream.port}/ws HTTP/1.1\nHost: localhost:"
            f"{worker.port}\nKeybroker-Token: token\nConnection: Upgrade\nUpgrade: websocket\n"
            "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        )
        status, _, _ = exchange(sock, head)
        assert status == 101
        sock.sendall(b"\x81\x82\0\0\0\0hi")
        assert sock.recv(100).endswith(b"hi")
        sock.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        read_all(sock)
    wait_until(lambda: worker.pipeline.passages[0].told[-1] == "completed")
