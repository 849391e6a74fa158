"""Host names and authorities: one spelling each, or refused.

Only the case of names is folded. Nothing here resolves a name: what an address may be is for the
egress guard, what a host may do is for the policy.
"""

from __future__ import annotations

import ipaddress
import re

from rules.errors import Ambiguous
from rules.model import HostPattern

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# Underscores are no LDH letters, yet containers and old buckets have them, and nobody reads them
# in two ways.
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
# A last label that a URL parser (WHATWG URL 3.5, "ends in a number") takes for part of an IPv4
# address.
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_MAX_NAME = 253
_MAX_SHOWN = 80


def shown(text: str) -> str:
    """`text` for a sentence: quoted, escaped to printable ASCII, and cut."""
    return ascii(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")


def parse_host(text: str) -> str:
    """The host in canonical form: a lower-case name, a dotted IPv4 or a bare IPv6 address.

    IPv6 is taken with or without brackets and only as RFC 5952 spells it. Raises Ambiguous.
    """
    if len(text) > _MAX_NAME:
        raise Ambiguous(f"The host name is longer than {_MAX_NAME} characters.")
    host = text.lower() if text.isascii() else text
    if ":" in host or "[" in host or "]" in host:
        return _ipv6(host)
    if not _NAME.fullmatch(host):
        raise Ambiguous(_odd_name(text))
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return _ipv4(host)
    return host


def parse_authority(text: str, default_port: int) -> tuple[str, int]:
    """`host` or `host:port` taken apart (RFC 3986 3.2 without userinfo). Raises Ambiguous.

    IPv6 needs its brackets here, and a port is 1 to 65535 without leading zeros.
    """
    if "@" in text:
        raise Ambiguous(
            "The authority holds user information (`user@host`); leave it out: Keybroker adds the "
            "credential."
        )
    if text.startswith("["):
        inner, bracket, after = text.partition("]")
        host, port_text = inner + bracket, after
        if port_text and not port_text.startswith(":"):
            raise Ambiguous(
                f"The authority {shown(text)} is odd; write [ADDRESS] or [ADDRESS]:PORT."
            )
    else:
        host, colon, after = text.partition(":")
        port_text = colon + after
        if ":" in after:
            raise Ambiguous(
                f"The authority {shown(text)} has several colons; write host:port, and an IPv6 "
                "address in brackets."
            )
    return parse_host(host), _port(port_text[1:]) if port_text else default_port


def parse_pattern(text: str) -> HostPattern:
    """A host of the policy: `host`, `*.suffix`, each with an optional `:port`.

    Raises ValueError with a sentence.
    """
    if "/" in text:
        raise ValueError(f"{shown(text)} is not a host: leave out the scheme and the path")
    wildcard = text.startswith("*.")
    rest = text[2:] if wildcard else text
    if "*" in rest:
        raise ValueError(
            f"{shown(text)}: a wildcard stands only at the front, as in `*.example.com`"
        )
    try:
        host, port = parse_authority(rest, 0)
    except Ambiguous as error:
        raise ValueError(f"{shown(text)} is not a host: {error.sentence}") from error
    if wildcard and is_address(host):
        raise ValueError(f"{shown(text)}: a wildcard cannot stand before an IP address")
    return HostPattern(host=host, wildcard=wildcard, port=port or None)


def pattern_matches(pattern: HostPattern, host: str, port: int, default_port: int) -> bool:
    """Whether a canonical host and port fall under the pattern.

    A pattern without a port means `default_port`, that of the scheme. The suffix of a wildcard is
    not itself a match, and an address never matches a wildcard.
    """
    if port != (default_port if pattern.port is None else pattern.port):
        return False
    if pattern.wildcard:
        return host.endswith(pattern.host) and host[: -len(pattern.host)][-1:] == "."
    return host == pattern.host


def is_address(host: str) -> bool:
    """Whether a canonical host is an IP address."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def _port(digits: str) -> int:
    if not _PORT.fullmatch(digits) or int(digits) > 65535:
        raise Ambiguous(
            f"The port {shown(digits)} is odd; write 1 to 65535 in digits, without leading zeros."
        )
    return int(digits)


def _ipv4(host: str) -> str:
    try:
        # Strict: four decimal numbers, no leading zeros, hence one spelling.
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise Ambiguous(
            f"The host {shown(host)} looks like an IPv4 address in an odd spelling; write four "
            "decimal numbers with dots, without leading zeros."
        ) from None


def _ipv6(host: str) -> str:
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not inner.isascii() or "%" in inner or "[" in inner or "]" in inner:
        raise Ambiguous(
            f"The host {shown(host)} is odd; write an IPv6 address in one pair of brackets, "
            "without a zone, and a port as host:port."
        )
    try:
        address = ipaddress.IPv6Address(inner)
    except ValueError:
        raise Ambiguous(
            f"The host {shown(host)} is neither a name nor an IPv6 address; write host:port."
        ) from None
    if address.ipv4_mapped is not None:
        raise Ambiguous(f"Write {address.ipv4_mapped} instead of the IPv4-mapped {shown(inner)}.")
    if str(address) != inner:
        raise Ambiguous(f"Write [{address}] instead of {shown(inner)} (RFC 5952).")
    return inner


def _odd_name(text: str) -> str:
    name = shown(text)
    if not text:
        return "The host is empty; write the name of the host."
    if not text.isascii():
        return f"The host {name} is not ASCII; write its xn-- form."
    if any(c <= " " or c == "\x7f" for c in text):
        return f"The host {name} holds a space or control byte; leave it out."
    if "%" in text:
        return f"The host {name} is percent-encoded; write the plain name."
    if text.endswith("."):
        return f"The host {name} ends in a dot; leave it out."
    if ".." in text or text.startswith("."):
        return f"The host {name} has an empty label; write the plain name."
    return (
        f"The host {name} is no host name: labels of at most 63 letters, digits, hyphens and "
        "underscores, with no hyphen at either end."
    )
