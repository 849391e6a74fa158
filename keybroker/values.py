"""One value of keybroker.yaml: what is written becomes it, or a sentence that says what to write.

No value is looked at beside another; that is for `keybroker.settings`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo

from rules.yamlfile import parse_duration, parse_size

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- recognised here, not bound


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def reach(self) -> str:
        """The host at which a client on this machine reaches it."""
        return _WILDCARDS.get(self.host, self.host)

    @property
    def wildcard(self) -> bool:
        """Whether it is every address of this machine."""
        return self.host in _WILDCARDS

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK or self.host.startswith("127.")


def bracketed(host: str) -> str:
    """`host` as it stands in a URL: an IPv6 address in brackets (RFC 3986 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def parse_listen(value: object) -> Listen:
    """`HOST:PORT`, an IPv6 host in brackets. Raises ValueError with a sentence."""
    if isinstance(value, Listen):
        return value
    if not isinstance(value, str):
        raise ValueError("write HOST:PORT, for example 127.0.0.1:8080")
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{value!r} has no port between 0 and 65535; write HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Listen(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError(f"{host} is not an IPv6 address") from None
    if not _NAME.fullmatch(host):
        raise ValueError(f"{host!r} is no host; write an address (IPv6 in brackets) or a name")
    return Listen(host, int(port))


def _path(value: object, info: ValidationInfo) -> object:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("write the path of a file")
    base: Path = (info.context or {}).get("base", Path())
    try:
        return base / Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"{value!r}: there is no such user") from None


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _bytes(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _workers(value: object) -> object:
    if value == "auto":
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("write `auto` (one for each core) or a whole number")
    return value


def _network(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("write a network as CIDR, for example 10.1.0.0/16")
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"{error}; write a network as CIDR, for example 10.1.0.0/16") from None


def _bundle(value: object, info: ValidationInfo) -> object:
    return None if value == "system" else _path(value, info)


def in_clear_text(url: str) -> bool:
    """Whether what is sent to `url` could be read on a network."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def _web_url(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("write a URL")
    if "@" in value or "?" in value:  # not quoted: it may hold a password or a key
        raise ValueError("leave user name, password and query out of the URL: https://HOST[:PORT]")
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port != 0)
    except ValueError:
        sound = False
        parts = urlsplit("")
    if not sound or parts.path not in ("", "/") or parts.fragment:
        raise ValueError(f"{value!r} is no URL of the form https://HOST[:PORT]")
    # In one spelling: whether it is https is asked of the text, too.
    return parts._replace(netloc=parts.netloc.lower(), path="").geturl()


def _username(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x39\x3b-\x7e]+", value):
        raise ValueError("write a user name in visible ASCII without a colon")
    return value


def _vault_url(value: object) -> str:
    url = _web_url(value)
    if in_clear_text(url):
        raise ValueError("plain http would carry secrets in the clear; use an https:// URL")
    return url


def _collector(value: object) -> str:
    """An http(s) URL; without a path the one that OTLP gives to traces."""
    if isinstance(value, str) and ("@" in value or "?" in value):  # not quoted: as above
        raise ValueError(
            "leave user name, password and query out of the URL; what the collector asks for"
            " goes into `headers_file`"
        )
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
        parts = urlsplit("")
    if not sound or parts.fragment:
        raise ValueError(f"{value!r} is no URL of the form https://HOST[:PORT][/PATH]")
    path = parts.path if parts.path not in ("", "/") else "/v1/traces"
    return parts._replace(netloc=parts.netloc.lower(), path=path).geturl()


def _auth_mount(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", value, re.ASCII):
        raise ValueError("write where the auth method is mounted, without auth/ and slashes around")
    if any(step in {".", ".."} for step in value.split("/")):
        raise ValueError("a mount has no dot segments")
    return value


def _namespace(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("write a namespace in visible ASCII, for example team/payments")
    return value


PathIn = Annotated[Path, BeforeValidator(_path)]
"""Of a file; relative to the workspace."""
Seconds = Annotated[int, BeforeValidator(_seconds)]
Size = Annotated[int, BeforeValidator(_bytes)]
Address = Annotated[Listen, BeforeValidator(parse_listen)]
Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_network)]
WebUrl = Annotated[str, BeforeValidator(_web_url)]
VaultUrl = Annotated[str, BeforeValidator(_vault_url)]
Username = Annotated[str, BeforeValidator(_username)]
AuthMount = Annotated[str, BeforeValidator(_auth_mount)]

# None stands for an absent one, and for the word in the comment; an empty one is refused.
Workers = Annotated[Annotated[int, Field(ge=1, le=256)] | None, BeforeValidator(_workers)]  # auto
Bundle = Annotated[Path | None, BeforeValidator(_bundle)]  # system
OwnUrl = Annotated[str | None, BeforeValidator(_web_url)]
CollectorUrl = Annotated[str | None, BeforeValidator(_collector)]
Namespace = Annotated[str | None, BeforeValidator(_namespace)]
