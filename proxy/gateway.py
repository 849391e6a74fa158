"""Base-URL mode: `/agents/NAME/HOST[:PORT]/rest` asked of the proxy's own listener is the call
`https://HOST[:PORT]/rest` by the agent NAME, under the same rules, holds and records.

Pure. Here is what only an origin server must look at: whether the request was meant for it, who
asks, and what of a response would mean something else at the gateway's own origin. HOST and the
rest are for `rules.canonical`, as every authority and path is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.errors import Refusal
from broker.refusals import as_origin, unknown_agent
from rules.errors import Ambiguous
from rules.hosts import parse_authority
from rules.request import DEFAULT_PORTS, Headers, Request

if TYPE_CHECKING:
    from proxy.exchange import Wire
    from proxy.ports import Answer, Head

PREFIX = "/agents/"

_PATH = re.compile(r"/agents/([A-Za-z0-9][A-Za-z0-9._@-]{0,62})/([^/?#]+)(/.*)", re.DOTALL)
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9_-]+)")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
OWN_HEADER = "keybroker-token"
KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Where SDKs put the key that they are given (OpenAI, Anthropic, Azure, Google); read only if the
request has no Keybroker-Token."""
_BROWSER = ("origin", "sec-fetch-site")
"""Set by browsers, out of reach of a page's script. Node's fetch sends other Sec-Fetch headers."""
_OF_THE_ORIGIN = frozenset({"alt-svc", "clear-site-data", "strict-transport-security"})
"""Response headers that speak for a whole origin, which here would be the gateway's."""
_LINKS = frozenset({"location", "content-location"})
_RELATIVE = re.compile(r"(?![/\\]{2}|[A-Za-z][A-Za-z0-9+.-]*:)[^\x00-\x1f\x7f\\]*")
"""What stays at the origin for everybody who reads URLs: some drop control bytes, and take a
backslash for a slash (WHATWG URL 4.4)."""
_ABSOLUTE = re.compile(r"(?:https:)?//([^/?#\\]+)(.*)", re.IGNORECASE | re.DOTALL)
_PARAMETER = r'[^=;,"<> \t]++(?:[ \t]*+=[ \t]*+(?:"(?:[^"\\]|\\.)*+"|[^;,"<> \t]*+))?'
_LINK_VALUE = re.compile(
    rf"[ \t,]*+<([^<>]*+)>((?:[ \t]*+;[ \t]*+(?:{_PARAMETER})?)*+)[ \t]*+(?:,[ \t,]*+|\Z)"
)
"""One link of a Link header: its target, and its parameters (RFC 8288 section 3)."""


@dataclass(frozen=True, slots=True)
class Door:
    """How a connection came in: what it may call us by, and whether others could listen."""

    scheme: str
    names: frozenset[tuple[str, int]]
    private: bool
    """By TLS, or from this machine."""

    @classmethod
    def of(cls, local: tuple[str, int], *, tls: bool, names: Iterable[tuple[str, int]]) -> Door:
        """For a connection to the address `local`. `names` are those that the settings give us.

        The address that was dialled is a name of ours, since no DNS answer can change what it says
        (rebinding); so is `localhost` on loopback.
        """
        host, port = local[0], local[1]
        loopback = ipaddress.ip_address(host).is_loopback
        own = {(host, port), *names}
        if loopback:
            own.add(("localhost", port))
        return cls("https" if tls else "http", frozenset(own), tls or loopback)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who says to be calling whom. Nothing of it is believed yet."""

    agent: str
    token: str = field(repr=False)
    authority: str
    """Of the call, as it stands in the path."""
    target: str
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    """Those of the call: without the gateway's Host and the header that carried the token."""


def asked(wire: Wire) -> bool:
    """Whether a request outside any tunnel is for the gateway. An absolute target never is."""
    own_form = not wire.authority or wire.version == b"HTTP/2.0"
    return own_form and wire.path.startswith(PREFIX.encode())


def read(wire: Wire, fields: Sequence[tuple[bytes, bytes]], door: Door) -> Claim:
    """What the request claims. Raises Refusal, Ambiguous."""
    named: dict[str, list[str]] = {}
    for name, value in fields:
        named.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    _check_door(wire, named, door)
    found = _PATH.fullmatch(wire.path.decode("latin-1"))
    if found is None:
        raise Ambiguous(
            "The gateway's paths are /agents/NAME/HOST/PATH, each part written plainly."
        )
    agent, authority, target = found.groups()
    carrier, token = _token(named)
    left_out = {"host", carrier}
    rest = tuple(pair for pair in fields if pair[0].decode("latin-1").lower() not in left_out)
    return Claim(agent, token, authority, target, rest)


def refuse_strays(claim: Claim) -> None:
    """Raises Ambiguous if the token stands in a second place, from where it would go upstream.

    To be asked once the token is known to be the agent's.
    """
    if claim.token in claim.target or any(claim.token.encode() in v for _, v in claim.headers):
        raise Ambiguous(
            "The agent's token stands in a second place, from where it would go upstream; send it"
            " once."
        )


def _check_door(wire: Wire, named: dict[str, list[str]], door: Door) -> None:
    if any(name in named for name in _BROWSER):
        raise Refusal(
            "gateway_refused",
            "This request comes from a web page; the gateway serves programs only.",
        )
    if not door.private:
        raise Refusal(
            "gateway_refused",
            "The gateway takes plain http from its own machine only; use https"
            " (`proxy.tls` in keybroker.yaml), or the proxy.",
        )
    hosts = named.get("host", [])
    if wire.authority:
        hosts = [*hosts, wire.authority.decode("latin-1")]
    if wire.scheme and wire.scheme.decode("latin-1") != door.scheme:
        raise Ambiguous("The :scheme is not how the request came; use https.")
    default_port = DEFAULT_PORTS[door.scheme]
    if not hosts or any(parse_authority(host, default_port) not in door.names for host in hosts):
        raise Ambiguous(
            "The Host header does not name this gateway; use the gateway URL as it was given "
            "(`proxy.gateway` in keybroker.yaml names it)."
        )


def _token(named: dict[str, list[str]]) -> tuple[str, str]:
    """The header that carries the token, and the token. Raises Refusal."""
    if "proxy-authorization" in named:
        raise _unknown("Send the token in one place: there is a Proxy-Authorization as well.")
    if OWN_HEADER in named:
        carriers = [OWN_HEADER]
    else:
        carriers = [name for name in KEY_HEADERS if name in named]
    if len(carriers) > 1:
        raise _unknown(
            f"There is more than one key ({', '.join(carriers)}); send the agent's token in"
            " Keybroker-Token."
        )
    if not carriers:
        raise _unknown(
            "Give the agent's token as the API key (Authorization: Bearer TOKEN, or X-Api-Key,"
            " Api-Key or X-Goog-Api-Key: TOKEN), or in Keybroker-Token."
        )
    (carrier,) = carriers
    values = named[carrier]
    pattern = _BEARER if carrier == "authorization" else _TOKEN
    found = pattern.fullmatch(values[0].strip(" \t")) if len(values) == 1 else None
    if found is None:
        raise _unknown(
            f"The header {carrier} holds no token; send it once, and nothing else in it."
        )
    return carrier, found[found.re.groups]


def _unknown(detail: str) -> Refusal:
    return as_origin(unknown_agent(detail))


@dataclass(frozen=True, slots=True)
class LocalHead:
    """A response's head as the gateway tells it."""

    status: int
    reason: str
    headers: Headers
    answer: Answer | None


def localise(head: Head, agent: str, request: Request) -> Head:
    """An upstream's response head so that it means the same at the gateway.

    All upstreams share the gateway's origin. Redirects and links stay inside it (or the next call
    would go past Keybroker, and most clients would take the agent's token along), cookies stay with
    their upstream, and what speaks for an origin is left out.
    """
    if request.scheme != "https":
        return head  # a stored request that came by the proxy; the gateway has no name for it
    base = f"{PREFIX}{agent}/{request.authority}"
    kept = []
    for name, value in head.headers:
        lower = name.lower()
        if lower in _OF_THE_ORIGIN or lower.startswith("access-control-"):
            continue
        if lower in _LINKS:
            link = _link(value, agent, base)
            if link is not None:
                kept.append((name, link))
        elif lower == "link":
            links = _links(value, agent, base)
            if links is not None:
                kept.append((name, links))
        elif lower == "set-cookie":
            cookie = _cookie(value, base)
            if cookie is not None:
                kept.append((name, cookie))
        else:
            kept.append((name, value))
    return LocalHead(head.status, head.reason, tuple(kept), head.answer)


def _link(value: str, agent: str, base: str) -> str | None:
    """The link as it is called here; None for one that would lead away from the gateway."""
    value = value.strip(" \t")
    if value.startswith("/") and not value.startswith(("//", "/\\")):
        return base + value
    absolute = _ABSOLUTE.fullmatch(value)
    if absolute is None:
        return value if _RELATIVE.fullmatch(value) else None
    try:
        parse_authority(absolute[1], DEFAULT_PORTS["https"])
    except Ambiguous:
        return None
    rest = absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]
    return f"{PREFIX}{agent}/{absolute[1].lower()}{rest}"


def _links(value: str, agent: str, base: str) -> str | None:
    """A Link header with each target as it is called here, without those that would lead away; None
    if none is left, or if it cannot be read for certain."""
    kept = []
    at = 0
    while at < len(value):
        found = _LINK_VALUE.match(value, at)
        if found is None:
            return None
        at = found.end()
        target = _link(found[1], agent, base)
        if target is not None:
            kept.append(f"<{target}>{found[2]}")
    return ", ".join(kept) or None


def _cookie(value: str, base: str) -> str | None:
    """The cookie kept below its upstream's path; None for one that must have the path `/`."""
    if value.lstrip(" \t").lower().startswith("__host-"):
        return None
    pair, *attributes = value.split(";")
    kept = [pair]
    for attribute in attributes:
        name, _, setting = attribute.partition("=")
        name, setting = name.strip(" \t").lower(), setting.strip(" \t")
        if name == "path" and setting.startswith("/"):
            kept.append(f" Path={base}{setting}")
        elif name not in ("domain", "path"):
            kept.append(attribute)
    return ";".join(kept)
