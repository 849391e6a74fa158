"""Methods: what a rule allows for GET is not had by calling something else GET, or GET something
else."""

from __future__ import annotations

import pytest

from tests.attacks.stage import Stage

pytestmark = pytest.mark.e2e

ODD = "request_ambiguous"
DENIED = "policy_denied"


def test_control(stage: Stage) -> None:
    assert stage.ask(stage.get("/read/x")).status == 404
    assert stage.ask(stage.get("/read/x", method="HEAD"), patience=1).status == 404
    assert [r.method for r in stage.arrived] == ["GET", "HEAD"]


METHODS = [
    ("post", "POST", DENIED),
    ("delete", "DELETE", DENIED),
    ("patch", "PATCH", DENIED),
    ("options", "OPTIONS", DENIED),
    ("propfind", "PROPFIND", DENIED),
    ("made-up", "GETT", DENIED),
    ("lower", "get", ODD),
    ("mixed", "Get", ODD),
    ("lower-post", "post", ODD),
    ("trace", "TRACE", ODD),
    ("track", "TRACK", ODD),
    ("trace-lower", "trace", ODD),
    ("debug", "DEBUG", DENIED),
    ("connect", "CONNECT", ODD),
    ("pri", "PRI", ODD),
    ("with-nul", "GET\0", ODD),
    ("with-tab", "GET\t", ODD),
    ("with-space", " GET", ODD),
    ("with-colon", "GET:", ODD),
    ("with-percent", "%47ET", ODD),
    ("with-slash", "GET/", ODD),
    ("with-underscore", "GET_", ODD),
    ("with-digit", "GET1", ODD),
    ("quoted", '"GET"', ODD),
    ("non-ascii", "G\u00cbT", ODD),
    ("long", "G" * 100, ODD),
    ("empty", "", ODD),
]


@pytest.mark.parametrize(("name", "method", "code"), METHODS, ids=[m[0] for m in METHODS])
def test_methods(stage: Stage, name: str, method: str, code: str) -> None:
    stage.held(stage.ask(stage.get("/read/x", method=method), patience=2), code)


OVERRIDES = [
    "X-HTTP-Method-Override: DELETE",
    "X-Http-Method: DELETE",
    "X-Method-Override: DELETE",
    "X-Original-Method: DELETE",
    "x-http-method-override: delete",
    "X_HTTP_Method_Override: DELETE",
    "X.HTTP.Method.Override: DELETE",
    "X-HTTP_Method-Override: DELETE",
    "X-Original-URL: /open/private/x",
    "X-Rewrite-URL: /open/private/x",
    "X-Override-URL: /open/private/x",
    "X-Original-URI: /open/private/x",
]


@pytest.mark.parametrize("header", OVERRIDES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_override_headers(stage: Stage, header: str, method: str) -> None:
    path = "/read/x" if method == "GET" else "/open/x"
    body = b"" if method == "GET" else b"{}"
    stage.held(stage.ask(stage.get(path, header, method=method, body=body)), ODD)


@pytest.mark.parametrize(
    "query",
    [
        "_method=DELETE",
        "a=b&_method=delete",
        "a=b;_method=delete",
        "%5Fmethod=DELETE",
        "_%6Dethod=DELETE",
        "_METHOD=DELETE",
        "_method[]=DELETE",
        "+_method=DELETE",
        "%20_method=DELETE",
        ".method=DELETE",
        "x-http-method-override=DELETE",
        "X-HTTP-Method=DELETE",
        "$httpMethod=DELETE",
        "%24httpMethod=DELETE",
        "$httpHeaders=X-Http-Method-Override%3ADELETE",
    ],
)
def test_override_in_the_query(stage: Stage, query: str) -> None:
    stage.held(stage.ask(stage.get(f"/read/x?{query}")), ODD)


FORM = "Content-Type: application/x-www-form-urlencoded"
MULTIPART = "Content-Type: multipart/form-data; boundary=b"
BODIES = [
    ("form", FORM, b"a=b&_method=DELETE"),
    ("form-encoded", FORM, b"%5fmethod=DELETE"),
    ("form-charset", FORM + "; charset=utf-16", "_method=DELETE".encode("utf-16")),
    ("form-upper-type", FORM.upper(), b"_method=DELETE"),
    ("form-with-nul", FORM, b"_method%00x=DELETE"),
    ("form-compressed", FORM + "\r\nContent-Encoding: gzip", b"\x1f\x8b\x08"),
    (
        "multipart",
        MULTIPART,
        b'--b\r\nContent-Disposition: form-data; name="_method"\r\n\r\nDELETE\r\n--b--\r\n',
    ),
    (
        "multipart-unquoted",
        MULTIPART,
        b"--b\r\nContent-Disposition: form-data; name=_method\r\n\r\nDELETE\r\n--b--\r\n",
    ),
    (
        "multipart-folded",
        MULTIPART,
        b'--b\r\nContent-Disposition: form-data;\r\n name="_method"\r\n\r\nDELETE\r\n--b--\r\n',
    ),
    (
        "multipart-star",
        MULTIPART,
        b"--b\r\nContent-Disposition: form-data; name*=utf-8''_method\r\n\r\nDELETE\r\n--b--\r\n",
    ),
    (
        "multipart-single-quoted",
        MULTIPART,
        b"--b\r\nContent-Disposition: form-data; name='_method'\r\n\r\nDELETE\r\n--b--\r\n",
    ),
    (
        "multipart-escaped",
        MULTIPART,
        b'--b\r\nContent-Disposition: form-data; name="_\\method"\r\n\r\nDELETE\r\n--b--\r\n',
    ),
    (
        "multipart-in-pieces",
        MULTIPART,
        b'--b\r\nContent-Disposition: form-data; name*0="_met"; name*1="hod"\r\n\r\nD\r\n--b--\r\n',
    ),
    ("json", "Content-Type: application/json", b'{"_method": "DELETE"}'),
    ("json-escaped", "Content-Type: application/json", b'{"\\u005fmethod": "DELETE"}'),
    ("json-by-suffix", "Content-Type: application/vnd.api+json", b'{"_method": "DELETE"}'),
    ("two-content-types", "Content-Type: application/json\r\n" + FORM, b"_method=DELETE"),
]


@pytest.mark.parametrize(("name", "header", "body"), BODIES, ids=[b[0] for b in BODIES])
def test_override_in_the_body(stage: Stage, name: str, header: str, body: bytes) -> None:
    stage.held(stage.ask(stage.get("/open/x", header, method="POST", body=body)), ODD)


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "get", "CONNECT", "PRI"])
def test_in_http2(stage: Stage, method: str) -> None:
    fields = [(":method", method), (":scheme", "https"), (":authority", stage.at())]
    got = stage.ask_h2([*fields, (":path", "/read/x")])
    stage.held(got)
    assert got.status == 0 or got.codes == [ODD]


def test_curl_trace(stage: Stage) -> None:
    reply = stage.kb.curl(stage.bot, f"{stage.upstream.url}/open/x", "--request", "TRACE")
    assert reply.code == ODD
    assert stage.arrived == []


def test_a_body_on_get_is_no_other_method(stage: Stage) -> None:
    """A GET with a body arrives as that, with its length: nothing else can be read out of it."""
    smuggled = b"GET /open/private/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    assert stage.ask(stage.get("/read/x", body=smuggled)).status == 404
    (request,) = stage.arrived
    assert request.body == smuggled
    assert request.header("content-length") == str(len(smuggled))
