"""Places that no agent reaches, although `roamer`'s rules let it go anywhere: special-purpose
addresses, however they are written, and Keybroker's own listeners.

Settings allow 127.0.0.1 alone, since the upstream is there.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.attacks.stage import Got, Stage
from tests.support.program import basic

pytestmark = pytest.mark.e2e

EGRESS = "egress_refused"
ODD = "request_ambiguous"


@pytest.fixture
def knocks() -> Iterator[tuple[int, list[str]]]:
    """A listener on every local address, IPv6 too, that notes who gets through to it."""
    heard: list[str] = []
    server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)

    def serve() -> None:
        while True:
            try:
                connection, peer = server.accept()
            except OSError:
                return
            heard.append(peer[0])
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1], heard
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def plain(stage: Stage, authority: str, path: str = "/", method: str = "GET") -> Got:
    auth = f"Proxy-Authorization: {basic(stage.agents['roamer'])}"
    head = f"{method} http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n{auth}\r\n\r\n"
    return stage.raw(head.encode(), patience=15)


SPECIAL = [
    ("metadata", "169.254.169.254"),
    ("metadata-aws-ipv6", "[fd00:ec2::254]"),
    ("metadata-azure", "168.63.129.16"),
    ("metadata-alibaba", "100.100.100.200"),
    ("metadata-oracle", "192.0.0.192"),
    ("metadata-mapped", "[::ffff:169.254.169.254]"),
    ("metadata-mapped-hex", "[::ffff:a9fe:a9fe]"),
    ("metadata-compatible", "[::169.254.169.254]"),
    ("metadata-nat64", "[64:ff9b::169.254.169.254]"),
    ("metadata-6to4", "[2002:a9fe:a9fe::]"),
    ("metadata-local-nat64", "[64:ff9b:1::a9fe:a9fe]"),
    ("this-host", "0.0.0.0"),
    ("this-network", "0.1.2.3"),
    ("this-host-ipv6", "[::]"),
    ("loopback-ipv6", "[::1]"),
    ("loopback-ipv6-long", "[0:0:0:0:0:0:0:1]"),
    ("loopback-ipv6-zeros", "[0000::0001]"),
    ("loopback-other", "127.0.0.2"),
    ("loopback-last", "127.255.255.254"),
    ("loopback-other-mapped", "[::ffff:127.0.0.2]"),
    ("loopback-other-mapped-hex", "[::ffff:7f00:2]"),
    ("private-10", "10.0.0.1"),
    ("private-172", "172.16.0.1"),
    ("private-172-last", "172.31.255.255"),
    ("private-192", "192.168.1.1"),
    ("private-mapped", "[::ffff:10.0.0.1]"),
    ("unique-local", "[fc00::1]"),
    ("link-local-ipv6", "[fe80::1]"),
    ("site-local-ipv6", "[fec0::1]"),
    ("cgnat", "100.64.0.1"),
    ("benchmark", "198.18.0.1"),
    ("documentation", "192.0.2.1"),
    ("documentation-ipv6", "[2001:db8::1]"),
    ("multicast", "224.0.0.1"),
    ("multicast-ipv6", "[ff02::1]"),
    ("reserved", "240.0.0.1"),
    ("broadcast", "255.255.255.255"),
    ("teredo", "[2001:0:7f00:1::]"),
    ("discard", "[100::1]"),
]


SECOND = {
    "metadata-mapped-hex",
    "loopback-other-mapped-hex",
    "loopback-ipv6-long",
    "loopback-ipv6-zeros",
}


@pytest.mark.parametrize(("name", "host"), SPECIAL, ids=[name for name, _ in SPECIAL])
def test_special_addresses(
    stage: Stage, knocks: tuple[int, list[str]], name: str, host: str
) -> None:
    port, heard = knocks
    for authority in (f"{host}:{port}", f"{host}:80"):
        got = plain(stage, authority)
        stage.held(got)
        # A second spelling of an address is refused before anybody asks where it leads.
        assert got.codes == [ODD if ("." in host and "[" in host) or name in SECOND else EGRESS]
    assert heard == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[::1]", "127.0.0.2", "10.0.0.1", "0.0.0.0"])
def test_special_addresses_in_a_tunnel(
    stage: Stage, knocks: tuple[int, list[str]], host: str
) -> None:
    port, heard = knocks
    authority = f"{host}:{port}"
    request = f"GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    got = stage.ask(request, authority=authority, sni=None, agent=stage.agents["roamer"])
    stage.held(got, EGRESS)
    assert heard == []


SPELLINGS = [
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "127.0.0.01",
    "127.0.0.256",
    "127.0.0.1%00",
    "127%2e0%2e0%2e1",
    "\u2460\u2461\u2466.0.0.1",
    "\uff11\uff12\uff17.0.0.1",
    "127\u30020\u30020\u30021",
    "017700000001",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:127.0.0.1%25eth0]",
    "[fe80::1%25lo]",
    "[127.0.0.1]",
    "[::ffff:0177.0.0.1]",
    "[::1",
    "::1",
    "[[::1]]",
    "[::1].",
    "[:::1]",
    "[1::2::3]",
]


@pytest.mark.parametrize("host", SPELLINGS, ids=ascii)
def test_odd_spellings(stage: Stage, knocks: tuple[int, list[str]], host: str) -> None:
    port, heard = knocks
    auth = f"Proxy-Authorization: {basic(stage.agents['roamer'])}"
    authority = f"{host}:{port}"
    head = f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n{auth}\r\n\r\n"
    stage.held(stage.raw(head.encode()), ODD)
    assert heard == []


def test_names_that_lead_inside(stage: Stage, knocks: tuple[int, list[str]]) -> None:
    """Of a name's addresses only allowed ones are dialled: localhost is 127.0.0.1 here, not ::1."""
    port, heard = knocks
    got = plain(stage, f"localhost:{port}")
    assert got.codes == ["upstream_unreachable"], got.data
    assert set(heard) == {"::ffff:127.0.0.1"}
    heard.clear()
    for name in ("ip6-localhost", "metadata.google.internal", "no-such-name.invalid", "kubernetes"):
        got = plain(stage, f"{name}:{port}")
        assert got.codes in ([EGRESS], ["upstream_unreachable"]), (name, got.data)
    assert heard == []
    stage.begin()


# --- Keybroker's own listeners, on the very address that settings allow -----------------------


def port_of(stage: Stage, listener: str) -> int:
    if listener in ("proxy", "admin"):
        return {"proxy": stage.kb.proxy_port, "admin": stage.kb.admin_port}[listener]
    found = json.loads((stage.kb.workspace / "state" / "vault" / "bao.json").read_bytes())
    tcp = found["listener"][0]["tcp"]
    address = tcp["address" if listener == "vault" else "cluster_address"]
    return int(address.rpartition(":")[2])


LOCAL = ["127.0.0.1", "localhost", "anything.localhost", "0.0.0.0", "[::]", "[::1]", "127.0.0.2"]


@pytest.mark.parametrize("listener", ["proxy", "admin", "vault"])
@pytest.mark.parametrize("host", LOCAL)
def test_own_listeners(stage: Stage, listener: str, host: str) -> None:
    for path in ("/", "/api/v1/approvals", "/v1/sys/health"):
        stage.held(plain(stage, f"{host}:{port_of(stage, listener)}", path), EGRESS)


@pytest.mark.parametrize("listener", ["proxy", "admin", "vault"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_own_listeners_are_refused_as_such(stage: Stage, listener: str, host: str) -> None:
    """Not for the network that they are in: the settings allow it."""
    got = plain(stage, f"{host}:{port_of(stage, listener)}")
    stage.held(got, EGRESS)
    assert b"own listeners" in got.data


def test_the_admin_page_on_its_second_address(stage: Stage) -> None:
    """It listens on ::1 too, for browsers that take localhost for that."""
    got = plain(stage, f"[::1]:{stage.kb.admin_port}")
    stage.held(got, EGRESS)
    assert b"own listeners" in got.data


@pytest.mark.parametrize("listener", ["proxy", "admin", "vault"])
def test_own_listeners_in_a_tunnel(stage: Stage, listener: str) -> None:
    authority = f"localhost:{port_of(stage, listener)}"
    request = f"GET /v1/kv/data/pay HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    stage.held(stage.ask(request, authority=authority, agent=stage.agents["roamer"]), EGRESS)


def test_the_vaults_other_port(stage: Stage) -> None:
    """For its peers, which there are none of."""
    authority = f"localhost:{port_of(stage, 'cluster')}"
    request = f"GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    got = stage.ask(request, authority=authority, agent=stage.agents["roamer"])
    stage.held(got)
    assert got.codes == [EGRESS]
