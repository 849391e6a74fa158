"""Special-purpose addresses are named; public ones have nothing against them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.addresses import embedded, objection, parse

REFUSED = {
    "0.0.0.0": "this host",
    "0.1.2.3": "this host",
    "10.0.0.1": "private",
    "100.64.0.1": "carrier-grade",
    "100.127.255.255": "carrier-grade",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "cloud",
    "169.254.169.254": "metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.192": "protocol",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarks",
    "198.19.255.255": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "this host",
    "::1": "loopback",
    "fd00:ec2::254": "private",
    "fc00::1": "private",
    "fe80::1": "link-local",
    "febf::1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "100::1": "discard",
    "2001:db8::1": "documentation",
    "3fff::1": "documentation",
    "2001:2::1": "protocol",
    "2001:10::1": "protocol",
    "5f00::1": "reserved",
    "4000::1": "reserved",
    "64:ff9b:1::808:808": "translation",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:169.254.169.254": "metadata",
    "::ffff:10.0.0.1": "private",
    "::ffff:0:127.0.0.1": "reserved",
    "::127.0.0.1": "loopback",
    "::10.1.2.3": "private",
    "64:ff9b::127.0.0.1": "loopback",
    "64:ff9b::a9fe:a9fe": "metadata",
    "2002:7f00:1::": "loopback",
    "2002:a00:1::1": "private",
    "2001:0:7f00:1::": "loopback",
    "2001:0:808:808:0:0:80ff:fffe": "loopback",  # the client, its bits turned over
}
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]


@pytest.mark.parametrize(("text", "kind"), REFUSED.items())
def test_special_purpose(text: str, kind: str) -> None:
    assert kind in (objection(parse(text)) or "")


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert objection(parse(text)) is None


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("2002:a01:203::1", "10.0.0.0/8"),
        ("fd00::1", "fd00::/16"),
        ("127.0.0.1", "127.0.0.1/32"),
    ],
)
def test_allowed_by_settings(text: str, network: str) -> None:
    assert objection(parse(text), [ipaddress.ip_network(network)]) is None


def test_allowing_one_network_allows_no_other() -> None:
    allowed = [ipaddress.ip_network("10.0.0.0/8")]
    assert objection(parse("192.168.0.1"), allowed)
    assert objection(parse("::1"), allowed)
    # Teredo carries two addresses; each must be fine.
    assert objection(parse("2001:0:a00:1:0:0:80ff:fffe"), allowed)


def test_zone_is_dropped() -> None:
    assert parse("fe80::1%eth0") == ipaddress.ip_address("fe80::1")


@given(st.ip_addresses(v=4))
def test_no_dress_makes_a_bad_address_good(inner: ipaddress.IPv4Address) -> None:
    """Property: mapped, compatible, NAT64 and 6to4 forms are judged as what they carry."""
    number = int(inner)
    for dressed in (
        0xFFFF << 32 | number,
        int(ipaddress.IPv6Address("64:ff9b::")) | number,
        0x2002 << 112 | number << 80,
    ):
        address = ipaddress.IPv6Address(dressed)
        assert embedded(address) == (inner,)
        assert (objection(address) is None) == (objection(inner) is None)


@given(st.ip_addresses(v=4))
def test_nothing_is_public_here_that_python_calls_private(address: ipaddress.IPv4Address) -> None:
    if objection(address) is None:
        assert address.is_global or address in ipaddress.ip_network("192.0.0.0/24")


@given(st.ip_addresses(v=6))
def test_only_global_unicast_is_public(address: ipaddress.IPv6Address) -> None:
    if objection(address) is None and not embedded(address):
        assert address.is_global
