"""TLS on our own listeners: curl with an https proxy, the gateway over HTTP/2, the admin page, and
certificates that are renewed under a running program."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.harness import RawH2
from tests.support.program import AgentKey, Program, basic, environment, read_all, wait_until
from tests.support.throwaway_ca import ThrowawayCA
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

POLICY = """
version: 1
rules:
  - {id: open, agents: [bot], match: {host: "$HOST", path: /**}, effect: allow}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(http2=True) as server:
        yield server


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture(scope="module")
def ca(pki: Path) -> ThrowawayCA:
    ca = ThrowawayCA("Listener test CA")
    (pki / "ca.pem").write_bytes(ca.pem)
    return ca


def renew(pki: Path, ca: ThrowawayCA, *names: str, expired: bool = False) -> None:
    key, mark, certificate = ca.issue(names, expired=expired).partition(b"-----BEGIN CERTIFICATE")
    for name, data in (("key.pem", key), ("cert.pem", mark + certificate)):
        (pki / f"{name}.new").write_bytes(data)
        (pki / f"{name}.new").replace(pki / name)


@pytest.fixture(scope="module")
def kb(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, pki: Path, ca: ThrowawayCA
) -> Iterator[Program]:
    renew(pki, ca, "localhost", "127.0.0.1")
    files = f"tls: {{certificate: {pki}/cert.pem, key: {pki}/key.pem}}"
    directory = tmp_path_factory.mktemp("tls")
    with Program(
        directory, upstream, policy=POLICY, proxy_settings="tls: auto", admin_settings=files
    ) as program:
        yield program


@pytest.fixture(scope="module")
def bot(kb: Program) -> AgentKey:
    return kb.agent("bot")


def trusted(kb: Program) -> tuple[str, str]:
    return ("--proxy-cacert", str(kb.ca_file))


# --- the proxy -----------------------------------------------------------------------------------


def test_urls_say_https(kb: Program, bot: AgentKey) -> None:
    assert bot.proxy_url == f"https://bot:{bot.token}@127.0.0.1:{kb.proxy_port}"
    assert bot.gateway_url == f"https://127.0.0.1:{kb.proxy_port}/agents/bot"
    assert kb.facts["admin"] == f"https://localhost:{kb.admin_port}"
    assert kb.facts["gateway"] == f"https://127.0.0.1:{kb.proxy_port}"


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_curl_has_an_https_proxy(
    kb: Program, bot: AgentKey, upstream: Upstream, version: str
) -> None:
    upstream.clear()
    reply = kb.curl(bot, upstream.url + "/echo", *trusted(kb), f"--http{version}", "-d", "a=b")
    assert reply.status == 200, reply.stderr
    assert reply.json["body"] == "a=b"
    (request,) = upstream.requests
    assert request.version == f"HTTP/{version}"


def test_a_proxy_that_is_not_trusted_is_not_told_the_token(kb: Program, bot: AgentKey) -> None:
    reply = kb.curl(bot, kb.upstream.url + "/echo")
    assert reply.exit == 60  # curl: the proxy's certificate could not be verified
    assert reply.status == 0


def test_who_does_not_authenticate_gets_407_inside_tls(kb: Program) -> None:
    reply = kb.curl(
        None, kb.upstream.url, *trusted(kb), "--proxy", f"https://127.0.0.1:{kb.proxy_port}"
    )
    assert "407" in reply.stderr


def test_clear_text_is_not_answered(kb: Program, bot: AgentKey) -> None:
    """No downgrade: what comes in clear text gets no answer, and reaches nobody."""
    kb.upstream.clear()
    host = f"localhost:{kb.upstream.port}"
    head = f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {basic(bot)}\r\n\r\n"
    assert not kb.raw(head.encode()).startswith(b"HTTP/")
    assert kb.upstream.requests == []


def test_run_gives_its_command_the_https_proxy(kb: Program, bot: AgentKey) -> None:
    script = (
        'echo "$https_proxy"; '
        'curl -sS --proxy-cacert "$CURL_CA_BUNDLE" http://keybroker.internal/v1/whoami'
    )
    done = kb.run("run", "--agent", "bot", "--", "sh", "-c", script)
    assert done.stdout.startswith("https://bot:kb_run_"), done.stdout + done.stderr
    assert '"agent": "bot"' in done.stdout, done.stdout + done.stderr


def context(kb: Program, *protocols: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(kb.ca_file))
    made.set_alpn_protocols(list(protocols))
    return made


def dial(kb: Program, *protocols: str) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", kb.proxy_port), 20)
    return context(kb, *protocols).wrap_socket(raw, server_hostname="localhost")


@pytest.mark.parametrize("more", [[], [(":scheme", "https"), (":path", "/")]])
def test_connect_is_http1_only(kb: Program, bot: AgentKey, more: list[tuple[str, str]]) -> None:
    """Who offers both gets HTTP/1.1; over HTTP/2 there is no tunnel, however it is asked for."""
    kb.upstream.clear()
    with dial(kb, "h2", "http/1.1") as tls:
        assert tls.selected_alpn_protocol() == "http/1.1"
    with dial(kb, "h2") as tls:
        authority = f"localhost:{kb.upstream.port}"
        h2 = RawH2(tls, authority)
        stream = h2.h2.get_next_available_stream_id()
        fields = [(":method", "CONNECT"), (":authority", authority), *more]
        h2.h2.send_headers(stream, [*fields, ("proxy-authorization", basic(bot))])
        h2.flush()
        assert h2.wait(stream) in (0, 400)
    assert kb.upstream.requests == []


def test_the_gateway_speaks_http2(kb: Program, bot: AgentKey, upstream: Upstream) -> None:
    upstream.clear()
    with dial(kb, "h2") as tls:
        h2 = RawH2(tls, f"localhost:{kb.proxy_port}")
        path = f"/agents/bot/localhost:{upstream.port}/echo"
        calls = [h2.request(path, ("x-api-key", bot.token)) for _ in range(8)]
        assert [h2.wait(call) for call in calls] == [200] * 8
        assert h2.wait(h2.request(path)) == 401
        assert h2.wait(h2.request(path, ("x-api-key", bot.token), ("origin", "null"))) == 403
        other = RawH2Authority(h2, "evil.example")
        assert h2.wait(other.request(path, ("x-api-key", bot.token))) == 400
        assert h2.wait(other.request("/", ("x-api-key", bot.token))) in (400, 407)
    assert {(r.version, r.sni) for r in upstream.requests} == {("HTTP/2", "localhost")}
    assert all(r.header("x-api-key") is None for r in upstream.requests)


class RawH2Authority:
    """The same connection, another `:authority`."""

    def __init__(self, h2: RawH2, authority: str) -> None:
        self.h2, self.authority = h2, authority

    def request(self, path: str, *extra: tuple[str, str]) -> int:
        before, self.h2.authority = self.h2.authority, self.authority
        try:
            return self.h2.request(path, *extra)
        finally:
            self.h2.authority = before


def test_the_gateway_over_https_with_curl(kb: Program, bot: AgentKey, upstream: Upstream) -> None:
    done = subprocess.run(
        ["curl", "-sS", "-m", "20", "--cacert", str(kb.ca_file),
         "-H", f"Authorization: Bearer {bot.token}",
         f"{bot.gateway_url}/localhost:{upstream.port}/echo"],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    assert '"method": "GET"' in done.stdout


# --- the admin page ------------------------------------------------------------------------------


@contextlib.contextmanager
def admin(kb: Program, pki: Path) -> Iterator[http.client.HTTPSConnection]:
    trust = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    page = http.client.HTTPSConnection("localhost", kb.admin_port, timeout=20, context=trust)
    with contextlib.closing(page):
        yield page


def test_the_page_is_https_and_its_cookies_are_bound_to_it(kb: Program, pki: Path) -> None:
    with admin(kb, pki) as page:
        page.request("GET", "/login")
        answer = page.getresponse()
        body = answer.read().decode()
    assert answer.status == 200
    cookies = answer.headers.get_all("set-cookie") or []
    assert cookies
    for cookie in cookies:
        assert cookie.startswith("__Host-keybroker")
        assert "secure" in cookie.lower()
        assert "path=/" in cookie.lower()
        assert "domain" not in cookie.lower()
    # localhost is every local program's; a name of one's own is told to stay with https.
    assert answer.headers["strict-transport-security"] is None
    assert 'name="csrf"' in body


def test_plain_http_does_not_get_the_page(kb: Program) -> None:
    with socket.create_connection(("127.0.0.1", kb.admin_port), 20) as sock:
        sock.settimeout(5)
        sock.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"csrf" not in read_all(sock)


def test_somebody_logs_in_and_votes_over_tls(kb: Program, pki: Path) -> None:
    token = kb.user("alice", "admin", password="a long enough password")
    with admin(kb, pki) as page:
        page.request(
            "GET", "/api/v1/approvals?state=pending", headers={"Authorization": f"Bearer {token}"}
        )
        assert page.getresponse().read().startswith(b'{"approvals"')
        page.request("GET", "/login")
        answer = page.getresponse()
        csrf = answer.read().decode().partition('name="csrf" value="')[2].partition('"')[0]
        visit = (answer.headers["set-cookie"] or "").partition(";")[0]
        form = {"csrf": csrf, "name": "alice", "password": "a long enough password"}
        page.request(
            "POST",
            "/login",
            urllib.parse.urlencode(form),
            {
                "Content-Type": "application/x-www-form-urlencoded",
                "Cookie": visit,
                "Origin": f"https://localhost:{kb.admin_port}",
            },
        )
        answer = page.getresponse()
        answer.read()
        assert answer.status == 303, answer.status
        assert any(
            c.startswith("__Host-keybroker=") for c in answer.headers.get_all("set-cookie") or []
        )


def test_certificates_are_renewed_without_a_restart(
    kb: Program, pki: Path, ca: ThrowawayCA
) -> None:
    def serial() -> str:
        with admin(kb, pki) as page:
            page.connect()
            shown = page.sock.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])

    first = serial()
    renew(pki, ca, "localhost")
    wait_until(lambda: serial() != first, what="the new certificate is shown")
    second = serial()
    wait_until(lambda: "`admin.tls`: a new certificate" in kb.log.read_text(), what="it is said")
    renew(pki, ca, "localhost", expired=True)
    wait_until(
        lambda: "the certificate before stays in use" in kb.log.read_text(), what="it is said"
    )
    assert serial() == second
    (pki / "key.pem").unlink()
    wait_until(lambda: "key.pem cannot be read" in kb.log.read_text(), what="it is said")
    assert serial() == second
    renew(pki, ca, "localhost")
    wait_until(lambda: serial() not in (first, second), what="a good one is taken again")


# --- starting ------------------------------------------------------------------------------------


def test_doctor_looks_at_the_certificates(kb: Program, pki: Path, ca: ThrowawayCA) -> None:
    renew(pki, ca, "localhost")
    findings = {f["check"]: f for f in kb_findings(kb)}
    assert findings["proxy.tls"]["state"] == "ok"
    assert findings["admin.tls"]["state"] == "warning"
    assert "ends in" in findings["admin.tls"]["says"]
    renew(pki, ca, "other.example")
    findings = {f["check"]: f for f in kb_findings(kb)}
    assert findings["admin.tls"]["state"] == "wrong"
    assert "does not name localhost" in findings["admin.tls"]["says"]
    renew(pki, ca, "localhost")


def kb_findings(kb: Program) -> list[dict[str, str]]:
    done = kb.run("doctor", "--json")
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_it_does_not_start_with_a_bad_certificate(
    tmp_path: Path, upstream: Upstream, ca: ThrowawayCA
) -> None:
    renew(tmp_path, ca, "localhost", expired=True)
    files = f"tls: {{certificate: {tmp_path}/cert.pem, key: {tmp_path}/key.pem}}"
    program = Program(tmp_path / "kb", upstream, proxy_settings=files)
    program.init()
    done = program.run("up")
    assert done.returncode == 1
    assert "which is not now (`proxy.tls` in keybroker.yaml)" in done.stderr
    assert "Traceback" not in done.stderr
