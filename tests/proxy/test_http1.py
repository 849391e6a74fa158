"""HTTP/1 trailers are bounded like heads (the rest of `proxy.http1` is in test_compat.py)."""

from __future__ import annotations

from proxy import pages
from proxy.http1 import MAX_HEAD, MAX_RESPONSE_HEAD, assembled
from tests.proxy.harness import Worker, read_all
from tests.support.upstream import Reply, Upstream


def test_trailers_of_a_request_have_an_end(worker: Worker, upstream: Upstream) -> None:
    worker.pipeline.streaming = True
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 100) for n in range(MAX_HEAD // 100))
    with worker.tls(f"localhost:{upstream.port}") as tls:
        head = f"PUT /upload HTTP/1.1\r\nHost: localhost:{upstream.port}\r\n"
        tls.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + lines)
        assert b"200 OK" not in read_all(tls)
    assert upstream.requests == []


def test_trailers_of_a_response_have_an_end(worker: Worker, upstream: Upstream) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 100) for n in range(MAX_RESPONSE_HEAD // 100))
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + lines
    upstream.answer("/t", Reply(raw=body + b"\r\n"))
    with worker.tls(f"localhost:{upstream.port}") as tls:
        head = f"GET /t HTTP/1.1\r\nHost: localhost:{upstream.port}\r\nTE: trailers\r\n"
        tls.sendall(f"{head}Connection: TE, close\r\n\r\n".encode())
        got = read_all(tls)
    assert b"X-1" not in got


def test_a_page_of_ours_is_a_whole_response() -> None:
    data = assembled(pages.page("policy_denied", "no"))
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403")
    assert b"content-length: %d" % len(body) in head
