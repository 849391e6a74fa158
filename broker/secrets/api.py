"""Vault's HTTP API for set-up and administration. The only file that imports hvac.

Every exchange is bounded in time and size and follows no redirect (the token would travel along),
nothing is taken from the environment (no proxy, no token), and errors from below never travel on:
their objects can hold a token or a value. Reads on a call's path go by `line` instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import hvac.adapters
import requests
import urllib3

from broker.secrets import kv
from broker.secrets.access import VaultAccess
from broker.secrets.login import Ask, Reply
from broker.secrets.trouble import (
    NO_ANSWER,
    REDIRECTS,
    TOO_LONG,
    Kind,
    VaultUnavailable,
    cause_of,
    check_files,
    meaning_of,
    unreachable,
)

CONNECT_TIMEOUT = 2.0
"""Seconds until a connection must stand."""
LIMIT = 5.0
"""Seconds that an exchange may take."""
MAX_ANSWER = 8 << 20
"""Bytes; a listing of many thousand names is that long."""


@dataclass(frozen=True, slots=True)
class Health:
    """`sys/health` in short (https://openbao.org/api-docs/system/health/)."""

    reachable: bool
    initialized: bool = False
    sealed: bool = True
    active: bool = False
    """Unsealed and no standby: reads and writes are served here."""
    version: str = ""
    date: str = ""
    """The Date field of the answer."""
    cause: str = ""
    """Why it cannot be reached, with its URL: for operators."""

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
    """One client of Vault's HTTP API, by hvac's adapter. Close it."""

    def __init__(self, access: VaultAccess, token: str = "", timeout: float = LIMIT) -> None:
        check_files(access)
        self.url = access.url
        self._token = token
        self._timeout = timeout
        session = requests.Session()
        # Neither the environment's proxies nor netrc may see what goes to Vault.
        session.trust_env = False
        session.verify = access.roots()
        if access.client_certificate is not None:
            pair = (access.client_certificate, access.client_key or access.client_certificate)
            session.cert = (str(pair[0]), str(pair[1]))
        self._adapter = hvac.adapters.RawAdapter(
            base_uri=access.url,
            token=token,
            namespace=access.namespace,
            session=session,
            verify=session.verify,
            cert=session.cert,
            timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
            allow_redirects=False,
        )

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """One exchange under `/v1/`, whatever its status. Raises VaultUnavailable if none came."""
        return self.answer(Ask(method, path, body, self._token))

    def answer(self, question: Ask) -> Reply:
        """The same for a conversation, whose questions bring their token."""
        failed: tuple[Kind, str] | None = None
        try:
            self._adapter.token = question.token
            response = self._adapter.request(
                question.method,
                f"/v1/{question.path}",
                raise_exception=False,
                json=question.body,
                stream=True,
            )
            content = self._content(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            failed = cause_of(error)
        except ValueError as error:
            failed = "garbled", f"the exchange failed ({type(error).__name__})"
        else:
            if content is None:
                failed = "garbled", TOO_LONG
        # Outside the handler, so that the foreign error (with token and body) is not its context.
        if failed is not None:
            raise VaultUnavailable(unreachable(self.url, failed[1]), kind=failed[0])
        if 300 <= response.status_code < 400:
            raise VaultUnavailable(unreachable(self.url, REDIRECTS), response.status_code)
        date = str(response.headers.get("Date", ""))
        return Reply(response.status_code, kv.parse(content or b""), date)

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
        namespace, self._adapter.namespace = self._adapter.namespace, None
        try:
            reply = self.ask("GET", "sys/health")  # answered outside of namespaces only
        except VaultUnavailable as error:
            return Health(reachable=False, cause=str(error))
        finally:
            self._adapter.namespace = namespace
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
            date=reply.date,
        )

    def close(self) -> None:
        self._adapter.close()

    def _content(self, response: requests.Response) -> bytes | None:
        """The whole body; None if it is too long. Raises TimeoutError for one that drips."""
        deadline = time.monotonic() + self._timeout
        body = bytearray()
        for chunk in response.iter_content(1 << 16):
            body += chunk
            if len(body) > MAX_ANSWER:
                response.close()
                return None
            if time.monotonic() > deadline:
                response.close()
                raise TimeoutError(NO_ANSWER)
        return bytes(body)
