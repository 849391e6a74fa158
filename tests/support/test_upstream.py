"""The test upstream itself: what it records and answers must be beyond doubt."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.upstream import Reply, Upstream

AUTH = {"Authorization": "Bearer sk_test_4eC39Hq"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(names=["api.example.test"], http2=True) as server:
        yield server


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def client(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(upstream.ca_file))
    with httpx.Client(
        base_url=upstream.url, verify=context, http2=request.param == "HTTP/2", trust_env=False
    ) as session:
        yield session


def test_records_and_echoes(upstream: Upstream, client: httpx.Client) -> None:
    upstream.clear()
    answer = client.post("/echo?a=b", content=b"body", headers={"X-One": "1"})
    shown = answer.json()
    assert (shown["method"], shown["target"], shown["body"]) == ("POST", "/echo?a=b", "body")
    (got,) = upstream.requests
    assert (got.path, got.query, got.body, got.sni) == ("/echo", {"a": "b"}, b"body", "localhost")
    assert got.header("x-one") == "1"
    assert got.version == answer.http_version


def test_keeps_connections_open(upstream: Upstream, client: httpx.Client) -> None:
    upstream.clear()
    for _ in range(3):
        client.get("/status/204")
    assert len({got.connection for got in upstream.requests}) == 1


@pytest.mark.parametrize("form", ["raw", "json-upper", "gzip", "deflate", "split"])
def test_reflects(client: httpx.Client, form: str) -> None:
    text = client.get(f"/reflect?as={form}", headers=AUTH).text
    assert ("sk_test_4eC39Hq" in text) == (form != "json-upper")


def test_reflects_beside_the_body(client: httpx.Client) -> None:
    assert (
        client.get("/reflect?as=header", headers=AUTH).headers["x-reflected"]
        in AUTH["Authorization"]
    )
    cookie = client.get("/reflect?as=cookie", headers=AUTH).headers["set-cookie"]
    assert cookie.startswith("session=sk_test_4eC39Hq")
    assert client.get("/reflect", auth=("user", "pass-word")).text.count("<pass-word>") == 1


def test_streams(client: httpx.Client) -> None:
    assert client.get("/sse?n=3&interval=0").text.count("data: event") == 3
    assert len(client.get("/download?mb=3").content) == 3 << 20
    body = bytes(range(256)) * 4096
    assert client.post("/upload", content=body).json()["size"] == len(body)


def test_breaks_off(client: httpx.Client) -> None:
    with pytest.raises(httpx.TransportError):
        client.get("/reset")


def test_answers_as_programmed(upstream: Upstream, client: httpx.Client) -> None:
    upstream.answer("/mine", Reply(418, "Teapot", body=b"short"))
    answer = client.get("/mine?x=1")
    assert (answer.status_code, answer.text) == (418, "short")


def test_early_hints_and_trailers(upstream: Upstream) -> None:
    def curl(path: str) -> str:
        command = ["curl", "-si", "--http1.1", "--raw", "--noproxy", "*", "--cacert"]
        command += [str(upstream.ca_file), "-H", "Authorization: Bearer tok", upstream.url + path]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert curl("/early").startswith("HTTP/1.1 103 Early Hints\nLink: </style.css?t=tok>")
    assert curl("/trailers").rstrip().endswith("0\nX-Checksum: 0\nX-Token: tok")


def test_raw_bytes_in_clear_text() -> None:
    with Upstream(tls=False) as plain:
        plain.answer(
            "/raw",
            Reply(raw=b"HTTP/1.1 200 Fine\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"),
        )
        with httpx.Client(trust_env=False) as session:
            assert session.get(plain.url + "/raw").text == "hi"
            chunks = session.post(plain.url + "/echo", content=iter([b"ab", b"cd"]))
    assert json.loads(chunks.text)["body"] == "abcd"
    assert plain.requests[0].head.startswith(b"GET /raw HTTP/1.1\r\n")


@pytest.mark.parametrize("certificate", ["expired", "self-signed", "wrong-name"])
def test_bad_certificates_are_bad(certificate: str) -> None:
    with Upstream(certificate=certificate) as bad:  # type: ignore[arg-type]
        context = ssl.create_default_context(cafile=str(bad.ca_file))
        with (
            httpx.Client(verify=context, trust_env=False) as session,
            pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            session.get(bad.url)
        assert bad.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "some.deep.localhost", "api.example.test"])
def test_has_a_certificate_for(upstream: Upstream, host: str, tmp_path: Path) -> None:
    command = ["curl", "-s", "--noproxy", "*", "--cacert", str(upstream.ca_file)]
    command += ["--resolve", f"{host}:{upstream.port}:127.0.0.1", upstream.url_for(host) + "/echo"]
    assert subprocess.run(command, check=True, capture_output=True).stdout.startswith(b"{")
