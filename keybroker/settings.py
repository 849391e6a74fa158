"""The settings of keybroker.yaml as one frozen value. Strict: what is unknown or odd is refused.

All problems are reported at once, with file and line (rules.yamlfile). Relative paths are relative
to the workspace. Nothing here opens a connection or reads a secret.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from broker.secrets.access import SERVICE_ACCOUNT_TOKEN
from keybroker.values import (
    Address,
    AuthMount,
    Bundle,
    CollectorUrl,
    Listen,
    Namespace,
    Network,
    OwnUrl,
    PathIn,
    Seconds,
    Size,
    Username,
    VaultUrl,
    WebUrl,
    Workers,
    in_clear_text,
)
from rules.errors import InvalidFile, Problem
from rules.request import DEFAULT_PORTS
from rules.yamlfile import parse_yaml, problems_of


def _store(value: object) -> object:
    if isinstance(value, str) and value.startswith(("postgres:", "postgresql:")):
        raise ValueError("a store in PostgreSQL is not there yet; write `store: sqlite`")
    if value != "sqlite":
        raise ValueError("the only store there is so far is `sqlite`")
    return value


def _tls(value: object) -> object:
    if value is None or value == "auto" or isinstance(value, dict):
        return value
    raise ValueError("write `auto`, or a mapping with `certificate:` and `key:`")


def _vault(value: object) -> object:
    if value == "embedded":
        return None
    if not isinstance(value, dict):
        raise ValueError("write `embedded`, or a mapping with `url:` and `auth:`")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class TlsFiles(_Strict):
    """The certificate of a listener, with its chain, and its key; both in PEM."""

    certificate: PathIn
    key: PathIn


_Patience = Annotated[Seconds, Field(ge=1, le=86400)]


class TimeoutSettings(_Strict):
    """How long each stage of a call may take, in seconds; the wait for people is `hold_wait`."""

    head: _Patience = 30
    """A request's head, once it has begun, and an agent's TLS handshake."""
    idle: _Patience = 600
    """A connection, or a body, on which nothing moves."""
    stage: _Patience = 10
    """Any one stage of Keybroker's own: the address, the secret, the ledger."""
    resolve: _Patience = 5
    """The look-up of a name."""
    connect: _Patience = 10
    """A TCP connection to one address of an upstream."""
    tls: _Patience = 10
    """The TLS handshake with an upstream."""
    first_byte: _Patience = 600
    """From the end of the request to the head of the response."""

    @model_validator(mode="after")
    def _ordered(self) -> TimeoutSettings:
        if self.resolve > self.stage:
            raise ValueError("`resolve` is longer than `stage`, of which it is a part")
        return self


class ProxySettings(_Strict):
    """The data plane."""

    listen: Address = Listen("127.0.0.1", 8080)
    tls: Annotated[TlsFiles | Literal["auto"] | None, BeforeValidator(_tls)] = None
    """None: clear text. `auto`: a certificate of the workspace's own authority."""
    workers: Workers = None
    """None: one for each core."""
    hold_wait: Annotated[Seconds, Field(ge=0, le=3600)] = 25
    """Seconds that a held call waits before it is answered `approval_pending`."""
    body_limit: Annotated[Size, Field(ge=1, le=1 << 30)] = 10 * 1024 * 1024
    """Bytes; a larger request body is refused."""
    gateway: OwnUrl = None
    """As clients in base-URL mode reach the proxy; None: its own address."""
    held_calls: Annotated[int, Field(ge=1, le=100_000)] = 200
    """How many calls of one agent may be held at a time."""
    held_bytes: Annotated[Size, Field(ge=1, le=1 << 40)] = 64 * 1024 * 1024
    """Bytes that may be stored for one agent's held calls."""
    timeouts: TimeoutSettings = TimeoutSettings()

    @model_validator(mode="after")
    def _no_mixture(self) -> ProxySettings:
        if self.tls is not None and (self.gateway or "").startswith("http:"):
            raise ValueError("with `tls` the `gateway` is an https:// URL")
        return self

    def url(self, place: Listen) -> str:
        """Of the proxy that listens at `place`, as agents reach it; without their names."""
        if self.tls is None:
            return f"http://{place}"
        return self.gateway or f"https://{place}"

    def gateway_url(self, place: Listen) -> str:
        """What base-URL mode begins with."""
        return self.gateway or self.url(place)

    @property
    def worker_count(self) -> int:
        """How many worker processes to run."""
        return self.workers or len(os.sched_getaffinity(0))


class SessionSettings(_Strict):
    """How long a page session lasts; for those that begin from now on."""

    idle: Annotated[Seconds, Field(ge=60, le=30 * 86400)] = 3600
    """Seconds without a request after which it ends."""
    longest: Annotated[Seconds, Field(ge=60, le=30 * 86400)] = 12 * 3600
    """Seconds after which it ends in any case."""

    @model_validator(mode="after")
    def _ordered(self) -> SessionSettings:
        if self.idle > self.longest:
            raise ValueError("`idle` is longer than `longest`, so it would never matter")
        return self


class AdminSettings(_Strict):
    """The admin page and its API."""

    listen: Address = Listen("127.0.0.1", 8081)
    url: OwnUrl = None
    """As people open it; None: localhost, at the port."""
    tls: TlsFiles | None = None
    """None: clear text."""
    session: SessionSettings = SessionSettings()

    @model_validator(mode="after")
    def _no_mixture(self) -> AdminSettings:
        if self.tls is not None and (self.url or "").startswith("http:"):
            raise ValueError("with `tls` the `url` is an https:// URL")
        return self

    def page(self, port: int) -> str:
        """The page that listens on `port`, as people open it."""
        return self.url or f"{'http' if self.tls is None else 'https'}://localhost:{port}"


class AppRoleSettings(_Strict):
    """A RoleID, and a file with the SecretID or with a wrapping token for one."""

    role_id: Annotated[str, Field(min_length=1)]
    secret_id_file: PathIn
    wrapped: bool = False
    """Whether the file holds a wrapping token, which can be used once, instead of the SecretID."""
    mount: AuthMount = "approle"


class KubernetesSettings(_Strict):
    """The pod's service account."""

    role: Annotated[str, Field(min_length=1)]
    jwt_file: PathIn = SERVICE_ACCOUNT_TOKEN
    mount: AuthMount = "kubernetes"


class JwtSettings(_Strict):
    """A JWT that something else keeps fresh in a file."""

    role: Annotated[str, Field(min_length=1)]
    jwt_file: PathIn
    mount: AuthMount = "jwt"


class VaultAuth(_Strict):
    """Exactly one way to log in."""

    token_file: PathIn | None = None
    approle: AppRoleSettings | None = None
    kubernetes: KubernetesSettings | None = None
    jwt: JwtSettings | None = None

    @model_validator(mode="after")
    def _one(self) -> VaultAuth:
        ways = (self.token_file, self.approle, self.kubernetes, self.jwt)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("give exactly one of `token_file`, `approle`, `kubernetes` and `jwt`")
        return self


class VaultSettings(_Strict):
    """A Vault or OpenBao that somebody else runs."""

    url: VaultUrl
    namespace: Namespace = None
    mount: Annotated[str, Field(min_length=1)] = "kv"
    """The KV engine that `secret list` and `doctor` look at."""
    ca_bundle: Bundle = None
    client_certificate: PathIn | None = None
    client_key: PathIn | None = None
    """None: in the file of the certificate."""
    timeout: Annotated[Seconds, Field(ge=1, le=9)] = 5
    """Seconds that one read may take, log-in and second try included; a stage of a call has ten."""
    auth: VaultAuth

    @model_validator(mode="after")
    def _pair(self) -> VaultSettings:
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError("`client_key` needs a `client_certificate`")
        return self


class EgressProxySettings(_Strict):
    """A proxy of somebody else, through which every call leaves by CONNECT."""

    url: WebUrl
    username: Username | None = None
    password_file: PathIn | None = None
    """Its first line; read anew for every connection."""
    resolve: Literal["here", "proxy"] = "here"
    """Who looks names up. `proxy`: addresses cannot be checked here."""
    ca_bundle: Bundle = None
    """What a proxy with an https URL is verified against; None: as upstreams are."""

    @model_validator(mode="after")
    def _whole(self) -> EgressProxySettings:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("give `username` and `password_file` together")
        return self

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]

    def password(self) -> str:
        """Raises OSError, ValueError."""
        assert self.password_file is not None
        password = self.password_file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
        if not password:
            raise ValueError("the file is empty")
        if not password.isprintable():
            # RFC 7617 section 2: no control characters.
            raise ValueError("the password holds control characters")
        return password


class EgressSettings(_Strict):
    """Where calls may go and whose certificates are believed."""

    ca_bundle: Bundle = None
    """None: the system's."""
    allow_networks: tuple[Network, ...] = Field(default=(), strict=False)
    """Networks allowed besides public addresses."""
    proxy: EgressProxySettings | None = None
    """None: calls leave directly."""


class LogSettings(_Strict):
    """What `up` and its children write to stderr."""

    format: Literal["text", "json"] = "text"
    level: Literal["error", "warning", "info", "debug"] = "info"
    calls: bool = False
    """One line at the end of each call (the ledger has them all anyway)."""


class TelemetrySettings(_Strict):
    """What operators see of the running program."""

    metrics: Literal["open", "token"] = "open"
    """Who may read /metrics: everyone who reaches the admin port, or holders of an API token."""
    otlp: CollectorUrl = None
    """Where traces go, by OTLP over HTTP in JSON; None: there are none."""
    ca_bundle: Bundle = None
    """Roots that the collector is verified against; None: the system's."""
    headers_file: PathIn | None = None
    """`Name: value` lines that the collector asks for."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Which part of the traces is told of."""

    @model_validator(mode="after")
    def _private(self) -> TelemetrySettings:
        if self.headers_file is not None and self.otlp is not None and in_clear_text(self.otlp):
            raise ValueError(
                "plain http would carry `headers_file` in the clear; use an https:// URL"
            )
        return self


class Settings(_Strict):
    """All of keybroker.yaml; an absent part has its defaults."""

    proxy: ProxySettings = ProxySettings()
    admin: AdminSettings = AdminSettings()
    store: Annotated[Literal["sqlite"], BeforeValidator(_store)] = "sqlite"
    vault: Annotated[VaultSettings | None, BeforeValidator(_vault)] = None
    """None: the embedded OpenBao in state/vault."""
    egress: EgressSettings = EgressSettings()
    log: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()


def load_settings(text: str, *, file: str, base: Path) -> Settings:
    """The settings in `text`; `base` anchors relative paths. Raises InvalidFile."""
    data, lines = parse_yaml(text, file)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise InvalidFile([Problem(file, 1, "the file must be a mapping: proxy, admin, vault ..")])
    try:
        return Settings.model_validate(data, context={"base": base})
    except ValidationError as error:
        raise InvalidFile(problems_of(error, lines, file, Settings)) from None
