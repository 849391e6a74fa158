"""Vault's HTTP API and the log-in to it. The only file that imports hvac.

Every exchange is bounded in time and follows no redirect (the token would travel along), nothing is
taken from the environment (no proxy, no token), and errors from below never travel on: their
objects can hold a token or a value.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hvac.adapters
import requests
import urllib3

from broker.errors import SecretUnavailable
from broker.secrets import kv
from broker.secrets.access import AppRole, TokenFile, VaultAccess

CONNECT_TIMEOUT = 2.0
"""Seconds until a connection must stand, and for each exchange of a log-in."""
LIMIT = 5.0
"""Seconds that one read may take in all, log-in and second try included."""


class VaultUnavailable(SecretUnavailable):
    """Vault as a whole, or the log-in to it, fails; `status` is the HTTP status if it answered."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply:
    """What Vault answered. It may hold secrets, so it shows only its status."""

    status: int
    body: Mapping[str, Any] = field(repr=False)

    @property
    def data(self) -> Mapping[str, Any]:
        """The member `data`, empty if there is none."""
        data = self.body.get("data")
        return data if isinstance(data, dict) else {}


@dataclass(frozen=True, slots=True)
class Health:
    """`sys/health` in short (https://openbao.org/api-docs/system/health/)."""

    reachable: bool
    initialized: bool = False
    sealed: bool = True
    active: bool = False
    """Unsealed and no standby: reads and writes are served here."""
    version: str = ""

    @property
    def sentence(self) -> str:
        if not self.reachable:
            return "Vault cannot be reached."
        if not self.initialized:
            return "Vault is not initialised."
        if self.sealed:
            return "Vault is sealed."
        return f"Vault {self.version} is unsealed{'' if self.active else ' (standby)'}."


class Api:
    """Vault's HTTP API for log-ins and administration, by hvac's adapter."""

    def __init__(self, access: VaultAccess, token: str = "", timeout: float = LIMIT) -> None:
        check_roots(access)
        self.url = access.url
        session = requests.Session()
        # Neither the environment's proxies nor netrc may see what goes to Vault.
        session.trust_env = False
        session.verify = access.roots()
        self._adapter = hvac.adapters.RawAdapter(
            base_uri=access.url,
            token=token,
            namespace=access.namespace,
            session=session,
            verify=session.verify,
            timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
            allow_redirects=False,
        )

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """One exchange under `/v1/`, whatever its status. Raises VaultUnavailable if none came."""
        try:
            response = self._adapter.request(
                method, f"/v1/{path}", raise_exception=False, json=body
            )
        except (requests.RequestException, OSError, ValueError) as error:
            cause = cause_of(error)
        else:
            if 300 <= response.status_code < 400:
                raise VaultUnavailable(_redirected(self.url), response.status_code)
            return Reply(response.status_code, kv.parse(response.content))
        # Outside the handler, so that the foreign error (with token and body) is not its context.
        raise VaultUnavailable(unreachable(self.url, cause))

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """As `ask`, but any answer that is not 2xx is VaultUnavailable."""
        reply = self.ask(method, path, body)
        if not 200 <= reply.status < 300:
            raise VaultUnavailable(
                f"Vault at {self.url} refused {method} {path}: {meaning_of(reply.status)}.",
                reply.status,
            )
        return reply

    def health(self) -> Health:
        """How the server is; never raises."""
        try:
            reply = self.ask("GET", "sys/health")
        except VaultUnavailable:
            return Health(reachable=False)
        body = reply.body
        if "initialized" not in body:
            return Health(reachable=False)
        sealed = body.get("sealed") is not False
        return Health(
            reachable=True,
            initialized=body["initialized"] is True,
            sealed=sealed,
            active=not sealed and body.get("standby") is False,
            version=str(body.get("version", "")),
        )

    def close(self) -> None:
        self._adapter.close()


class Login:
    """One token for many threads: taken at first use, renewed in time, replaced when refused.

    The clock counts seconds and never goes back.
    """

    def __init__(self, access: VaultAccess, clock: Callable[[], float] = time.monotonic) -> None:
        self._access = access
        self._clock = clock
        self._lock = threading.Lock()
        self._token: str | None = None
        self._lease = 0
        self._renew_at: float | None = None
        self._expires_at: float | None = None

    def token(self) -> str:
        """A token that has not run out. Raises VaultUnavailable."""
        with self._locked():
            now = self._clock()
            if self._token is None or (self._expires_at is not None and now >= self._expires_at):
                return self._enter()
            if self._renew_at is not None and now >= self._renew_at:
                return self._renew(self._token)
            return self._token

    def after_refusal(self, refused: str) -> str:
        """A token other than `refused`: another thread's newer one, else a new log-in's."""
        with self._locked():
            if self._token is not None and self._token != refused:
                return self._token
            self._leave()
            return self._enter()

    def close(self) -> None:
        """Gives an AppRole's token back; a token from a file belongs to others and stays."""
        with self._locked():
            self._leave()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # No longer than a read may take: behind a log-in that hangs, threads must not pile up.
        if not self._lock.acquire(timeout=LIMIT):
            raise VaultUnavailable(unreachable(self._access.url, "its log-in does not answer"))
        try:
            yield
        finally:
            self._lock.release()

    def _enter(self) -> str:
        auth = self._access.auth
        if isinstance(auth, TokenFile):
            token = _read_line(auth.path, "token")
            lease = self._lease_of(token)
        elif isinstance(auth, AppRole):
            token, lease = self._approle(auth)
        else:
            raise VaultUnavailable(f"No log-in is set for Vault at {self._access.url}.")
        self._token = token
        self._schedule(lease)
        return token

    def _approle(self, auth: AppRole) -> tuple[str, int]:
        secret_id = auth.secret_id
        if secret_id is None:
            if auth.secret_id_file is None:
                raise VaultUnavailable(
                    "The AppRole has neither a SecretID nor a file for it; set one of them."
                )
            secret_id = _read_line(auth.secret_id_file, "SecretID")
        reply = self._use(
            "",
            "POST",
            f"auth/{auth.mount}/login",
            {"role_id": auth.role_id, "secret_id": secret_id},
        )
        granted = reply.body.get("auth")
        if reply.status == 200 and isinstance(granted, dict):
            token, lease = granted.get("client_token"), granted.get("lease_duration")
            if isinstance(token, str) and token and isinstance(lease, int):
                return token, lease
        if reply.status == 503:
            sentence = f"Vault at {self._access.url} is sealed or down; unseal it."
        else:
            sentence = (
                f"Vault at {self._access.url} refuses the AppRole log-in ({reply.status}); check "
                "the RoleID and the SecretID."
            )
        raise VaultUnavailable(sentence, reply.status)

    def _lease_of(self, token: str) -> int:
        """Seconds a renewable token has left; 0 if it does not end, cannot be renewed or asked."""
        data = self._use(token, "GET", "auth/token/lookup-self").data
        ttl = data.get("ttl")
        return ttl if data.get("renewable") is True and isinstance(ttl, int) else 0

    def _renew(self, token: str) -> str:
        granted = self._use(token, "POST", "auth/token/renew-self", {}).body.get("auth")
        lease = granted.get("lease_duration") if isinstance(granted, dict) else None
        # Near its maximal TTL a token is renewed for less than it was worth: take a new one.
        if not isinstance(lease, int) or lease * 2 < self._lease:
            self._leave()
            return self._enter()
        self._schedule(lease)
        return token

    def _schedule(self, lease: int) -> None:
        now = self._clock()
        self._lease = lease
        self._renew_at = now + lease * 2 / 3 if lease else None
        self._expires_at = now + lease if lease else None

    def _leave(self) -> None:
        token, self._token = self._token, None
        if token is None or isinstance(self._access.auth, TokenFile):
            return
        try:
            self._use(token, "POST", "auth/token/revoke-self", {})
        except VaultUnavailable:
            return  # the token ends by itself when its lease does

    def _use(
        self, token: str, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Reply:
        api = Api(self._access, token, timeout=CONNECT_TIMEOUT)
        try:
            return api.ask(method, path, body)
        finally:
            api.close()


_MEANING = {
    400: "it does not accept the request",
    403: "the log-in or its policy does not allow that",
    404: "there is nothing under that path",
    429: "too many requests",
    500: "it failed inside; look into its log",
    503: "it is sealed or down; unseal it",
}


def meaning_of(status: int) -> str:
    """A status in words: `403, the log-in or its policy does not allow that`."""
    words = _MEANING.get(status)
    return str(status) if words is None else f"{status}, {words}"


def check_roots(access: VaultAccess) -> None:
    """Raises VaultUnavailable where the CA bundle is no readable file; OpenSSL would not say."""
    try:
        if access.ca_bundle is not None:
            with access.ca_bundle.open("rb"):
                pass
    except OSError as error:
        raise VaultUnavailable(
            f"The CA bundle {access.ca_bundle} for Vault cannot be read: {error.strerror}."
        ) from error


def unreachable(url: str, cause: str) -> str:
    """The sentence for a Vault that gave no answer."""
    return f"Vault at {url} cannot be used: {cause}."


def cause_of(error: Exception) -> str:
    """A foreign error in words of our own; its text is not used, it could quote what was sent."""
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return "its certificate is not trusted; check `vault.url` and `vault.ca_bundle`"
    # urllib3 counts a refused connection among its timeouts.
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError) and not refused:
        return "it does not answer in time"
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError | ConnectionError):
        return "no connection; check that it runs and that `vault.url` is right"
    return f"the exchange failed ({type(error).__name__})"


def _redirected(url: str) -> str:
    return unreachable(
        url,
        "it redirects, which is not followed because the token would travel along; point "
        "`vault.url` at the server that answers itself",
    )


def _read_line(path: Path, what: str) -> str:
    """The one line in a file that holds a token or a SecretID."""
    try:
        line = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        line = ""
    if not line or not line.isprintable():
        raise VaultUnavailable(
            f"The {what} file {path} cannot be used: it is missing, unreadable, empty or not one "
            "line of ASCII."
        )
    return line
