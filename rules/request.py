"""The request: as it came (`RawRequest`) and in its one canonical form (`Request`).

Whatever is matched, shown to a reviewer, committed to in the ledger and sent upstream is the same
`Request` value. Nothing here does I/O.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Scheme = Literal["http", "https"]
Via = Literal["proxy", "gateway"]
"""How a request came: through the proxy, or to its base URL (`proxy.gateway`)."""
Headers = tuple[tuple[str, str], ...]

DEFAULT_PORTS: dict[str, int] = {"http": 80, "https": 443}


def authority(scheme: str, host: str, port: int | None) -> str:
    """`host`, or `host:port` where the port is not the scheme's default (RFC 9110 7.2)."""
    name = f"[{host}]" if ":" in host else host
    return name if port in (None, DEFAULT_PORTS.get(scheme)) else f"{name}:{port}"


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request as the engine read it off the wire; nothing in it has been repaired or trusted."""

    scheme: Scheme
    """`https` when the bytes arrived inside TLS, whatever the request claims; for the gateway too,
    which calls nothing else."""
    connect: tuple[str, int] | None
    """The authority of the CONNECT that opened the tunnel; None for a plain proxied request."""
    sni: str | None
    """The server name in the client's TLS hello, if there was one."""
    authority: str | None
    """`:authority` (HTTP/2) or the authority of an absolute-form target; None for origin form."""
    method: str
    """As on the wire, case kept."""
    target: str
    """Path and query as on the wire: `/a/b?c=d`, or `*`."""
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    """In order, as on the wire, Host included."""
    body: bytes = field(repr=False)
    http_version: str = "HTTP/1.1"
    has_trailers: bool = False
    gateway: str | None = None
    """The authority in the path of a request to the gateway, which alone says where it goes. Then
    `headers` hold no Host, and there is no `connect`, `sni` or `authority`."""
    unread: bool = False
    """The body is still to come, and `body` is empty."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request in canonical form (see `rules.canonical.canonicalise`).

    Header names are lower case, in their order of arrival, without Host, Content-Length,
    hop-by-hop headers and those that the proxy consumes. `path` and `query` are forwarded to the
    letter.
    """

    method: str
    scheme: Scheme
    host: str
    port: int
    path: str
    query: str | None
    headers: Headers = field(repr=False)
    """After injection a credential's value is among them."""
    body: bytes = field(repr=False)
    upgrade: str | None = None
    """`websocket` when the agent asked to switch protocols."""
    claim: str | None = None
    """The agent's own reason (Keybroker-Reason); shown as a claim, never forwarded."""
    respond_async: bool = False
    """The agent sent `Prefer: respond-async`."""
    via: Via = "proxy"
    """Not part of what goes upstream."""
    unread: bool = False
    """The body is passed on as it comes, and `body` is empty; such a request is never stored."""
    length: int | None = None
    """Of an unread body: its bytes, if the agent announced them."""
    moment: datetime | None = field(default=None, compare=False)
    """When it came, aware; None: not known. Like `run` no part of what goes upstream."""
    run: str | None = field(default=None, compare=False)
    """Id of the run that it came from, if `keybroker run` started it."""

    @property
    def authority(self) -> str:
        return authority(self.scheme, self.host, self.port)

    @property
    def target(self) -> str:
        """Path and query as they go upstream."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def values(self, name: str) -> tuple[str, ...]:
        """All values of the header `name` (lower case), in order."""
        return tuple([v for n, v in self.headers if n == name])

    def header(self, name: str) -> str | None:
        """The value of the header `name` (lower case), its lines joined by ", "; None if absent."""
        values = self.values(name)
        return ", ".join(values) if values else None

    def encode(self, *, without: frozenset[str] = frozenset()) -> bytes:
        """The canonical bytes a digest is taken over: all that goes upstream, each piece with its
        length before it.

        `without` names headers (lower case) to leave out. `claim`, `respond_async`, `via`, `moment`
        and `run` are always left out, since they are between the agent and Keybroker. The encoding
        is injective but for these: two requests encode alike only if they go out alike. An unread
        body counts by its announced length.
        """
        parts = [self.method, self.scheme, self.host, str(self.port), self.path]
        parts.append("" if self.query is None else "?" + self.query)
        parts.append(self.upgrade or "")
        kept = [(n, v) for n, v in self.headers if n not in without]
        parts.append(str(len(kept)))
        for name, value in kept:
            parts += [name, value]
        body = self.body
        if self.unread:
            body = b"" if self.length is None else b"%d" % self.length
        label = b"keybroker/request/v1/unread\n" if self.unread else b"keybroker/request/v1\n"
        pieces = [label]
        for piece in (*[part.encode() for part in parts], body):
            pieces += (len(piece).to_bytes(8, "big"), piece)
        return b"".join(pieces)

    def to_json(self) -> str:
        """A text form for the sealed store. `respond_async` is left out: it is about the waiting of
        one call, not about what is held. Nothing else is lost.

        Raises ValueError for an unread body, which there is nothing to store of.
        """
        if self.unread:
            raise ValueError("the body of this request was never read")
        return json.dumps(
            {
                "method": self.method,
                "scheme": self.scheme,
                "host": self.host,
                "port": self.port,
                "path": self.path,
                "query": self.query,
                "headers": [list(pair) for pair in self.headers],
                "body": base64.b64encode(self.body).decode(),
                "upgrade": self.upgrade,
                "claim": self.claim,
                "via": self.via,
                "moment": None if self.moment is None else self.moment.isoformat(),
                "run": self.run,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Request:
        """The inverse of `to_json`; `respond_async` is False."""
        fields: dict[str, Any] = json.loads(text)
        fields["headers"] = tuple((n, v) for n, v in fields["headers"])
        fields["body"] = base64.b64decode(fields["body"])
        moment = fields.get("moment")  # not in what was held before an upgrade
        fields["moment"] = None if moment is None else datetime.fromisoformat(moment)
        return cls(**fields)
