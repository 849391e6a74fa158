"""Which addresses are the public Internet's, and what the others are.

From the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and its successors), with the
IPv4 address that sits inside a mapped, compatible, NAT64, 6to4 or Teredo address taken out and
judged as well. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL: tuple[tuple[str, str], ...] = (
    # IPv4
    ("0.0.0.0/8", "an address of this host"),
    ("10.0.0.0/8", "a private address"),
    ("100.64.0.0/10", "a carrier-grade NAT address"),
    ("127.0.0.0/8", "a loopback address"),
    ("168.63.129.16/32", "a cloud platform's address"),
    ("169.254.0.0/16", "a link-local or metadata address"),
    ("172.16.0.0/12", "a private address"),
    ("192.0.0.0/24", "an address for protocol assignments"),
    ("192.0.2.0/24", "an address for documentation"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "a private address"),
    ("198.18.0.0/15", "an address for benchmarks"),
    ("198.51.100.0/24", "an address for documentation"),
    ("203.0.113.0/24", "an address for documentation"),
    ("224.0.0.0/4", "a multicast address"),
    ("240.0.0.0/4", "a reserved address"),
    # IPv6; what is outside 2000::/3 and not named here is reserved
    ("::/128", "an address of this host"),
    ("::1/128", "a loopback address"),
    ("64:ff9b:1::/48", "an address for local translation"),
    ("100::/64", "a discard address"),
    ("2001::/23", "an address for protocol assignments"),
    ("2001:db8::/32", "an address for documentation"),
    ("3fff::/20", "an address for documentation"),
    ("fc00::/7", "a private address"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a site-local address"),
    ("ff00::/8", "a multicast address"),
)
_TABLE: tuple[tuple[Network, str], ...] = tuple((ip_network(n), what) for n, what in _SPECIAL)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_TEREDO = IPv6Network("2001::/32")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_LOW_32_BITS = (
    IPv6Network("::ffff:0:0/96"),  # mapped, RFC 4291 2.5.5.2
    IPv6Network("::/96"),  # compatible, RFC 4291 2.5.5.1
    IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052
)


def embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address carries and that packets to it may end up at."""
    if not isinstance(address, IPv6Address) or address in (IPv6Address("::"), IPv6Address("::1")):
        return ()
    number = int(address)
    if any(address in network for network in _LOW_32_BITS):
        return (IPv4Address(number & 0xFFFFFFFF),)
    if address in _SIX_TO_FOUR:
        return (IPv4Address(number >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO:
        # RFC 4380 4: the server, and the client with its bits turned over.
        return (IPv4Address(number >> 64 & 0xFFFFFFFF), IPv4Address(~number & 0xFFFFFFFF))
    return ()


def objection(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """What speaks against dialling `address`: its kind; None if it is public or `allowed`."""
    if any(_within(address, network) for network in allowed):
        return None
    inner = embedded(address)
    if inner:
        return next((o for a in inner if (o := objection(a, allowed))), None)
    for network, what in _TABLE:
        if _within(address, network):
            return what
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "a reserved address"
    return None


@lru_cache(4096)
def parse(text: str) -> Address:
    """An address without its zone (`fe80::1%eth0`). Raises ValueError."""
    return ip_address(text.partition("%")[0])


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
