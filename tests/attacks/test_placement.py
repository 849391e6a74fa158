"""Placement: the credential goes into its one slot, once, whatever the agent put there or
elsewhere; `lawful` looks for it in all the rest."""

from __future__ import annotations

import pytest

from tests.attacks.stage import CREDENTIALS, Stage

pytestmark = pytest.mark.e2e

ODD = "request_ambiguous"

REPLACED = [
    ("own-bearer", "localhost", "Authorization: Bearer mine"),
    ("own-basic", "localhost", "Authorization: Basic bWluZTptaW5l"),
    ("own-lower", "localhost", "authorization: bearer mine"),
    ("own-upper", "localhost", "AUTHORIZATION: BEARER MINE"),
    ("own-empty", "localhost", "Authorization:"),
    ("own-for-basic", "basic.localhost", "Authorization: Bearer mine"),
    ("own-key", "keyed.localhost", "X-Api-Key: mine"),
    ("own-key-lower", "keyed.localhost", "x-api-key: mine"),
    ("other-slot", "keyed.localhost", "Authorization: Bearer mine"),
]


@pytest.mark.parametrize(("name", "host", "line"), REPLACED, ids=[row[0] for row in REPLACED])
def test_what_the_agent_put_into_the_slot_is_replaced(
    stage: Stage, name: str, host: str, line: str
) -> None:
    request = f"GET /open/x HTTP/1.1\r\nHost: {stage.at(host)}\r\n{line}\r\n\r\n"
    assert stage.ask(request.encode(), authority=stage.at(host)).status == 404
    slot, value = CREDENTIALS[host]
    assert stage.arrived[0].values(slot) == [value]


DOUBLE = [
    ("twice", "localhost", "Authorization: a\r\nAuthorization: b"),
    ("twice-by-case", "localhost", "Authorization: a\r\naUTHORIZATION: b"),
    ("key-twice", "keyed.localhost", "X-Api-Key: a\r\nX-API-KEY: b"),
    ("key-underscore", "keyed.localhost", "X_Api_Key: mine"),
    ("key-mixed", "keyed.localhost", "X-Api_Key: mine"),
    ("key-dotted", "keyed.localhost", "X.Api.Key: mine"),
    ("key-with-space", "keyed.localhost", "X-Api-Key : mine"),
    ("key-folded", "keyed.localhost", "X-A: b\r\n X-Api-Key: mine"),
    ("dropped-by-connection", "localhost", "Connection: authorization"),
    ("key-dropped-by-connection", "keyed.localhost", "Connection: x-api-key"),
]


@pytest.mark.parametrize(("name", "host", "lines"), DOUBLE, ids=[row[0] for row in DOUBLE])
def test_there_is_no_second_slot(stage: Stage, name: str, host: str, lines: str) -> None:
    request = f"GET /open/x HTTP/1.1\r\nHost: {stage.at(host)}\r\n{lines}\r\n\r\n"
    stage.held(stage.ask(request.encode(), authority=stage.at(host)), ODD)


PLACEHOLDERS = [
    "{secret}",
    "{bearer}",
    "{{secret}}",
    "${secret}",
    "$secret",
    "%(secret)s",
    "kv/pay#api_key",
    "Bearer {secret}",
    "keybroker:bearer",
    "[keybroker:masked]",
]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_nothing_is_expanded(stage: Stage, text: str) -> None:
    """A placeholder in a header, in the query, in the body: it stays what it is."""
    body = f'{{"to": "me@evil.example", "text": "{text}"}}'.encode()
    quoted = text.replace("%", "%25").replace("#", "%23").replace(" ", "%20")
    lines = ["Content-Type: application/json", f"X-Note: {text}", f"Cookie: a={text}"]
    data = stage.get(f"/open/x?note={quoted}", *lines, method="POST", body=body)
    assert stage.ask(data).status == 404
    (request,) = stage.arrived
    assert request.body == body
    assert request.values("x-note") == [text]


FIELDS = [(":method", "GET"), (":scheme", "https")]
HTTP2 = [
    ("own", [("authorization", "Bearer mine")], True),
    ("twice", [("authorization", "a"), ("authorization", "b")], False),
    ("upper", [("Authorization", "a")], False),
    ("space", [("authorization ", "a")], False),
    ("never-indexed-cookie", [("cookie", "authorization=a")], True),
]


@pytest.mark.parametrize(("name", "extra", "arrives"), HTTP2, ids=[row[0] for row in HTTP2])
def test_in_http2(stage: Stage, name: str, extra: list[tuple[str, str]], arrives: bool) -> None:
    got = stage.ask_h2([*FIELDS, (":authority", stage.at()), (":path", "/open/x"), *extra])
    if arrives:
        assert got.status == 404
        assert stage.arrived[0].values("authorization") == [CREDENTIALS["localhost"][1]]
    else:
        stage.held(got)


def test_hosts_beside_the_credentials_host(stage: Stage) -> None:
    """Allowed hosts of the same upstream, on the same port: no credential goes there."""
    host = stage.at("free.localhost")
    request = f"GET /echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer mine\r\n\r\n"
    assert stage.ask(request.encode(), authority=host).status == 200
    assert stage.arrived[0].values("authorization") == ["Bearer mine"]


def test_a_url_with_userinfo_from_curl(stage: Stage) -> None:
    """curl turns it into an Authorization header, which is replaced."""
    url = f"https://me:mine@{stage.at()}/open/x"
    assert stage.kb.curl(stage.bot, url).status == 404
    assert stage.arrived[0].values("authorization") == [CREDENTIALS["localhost"][1]]
