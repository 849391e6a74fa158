"""A line to one Vault: kept-alive connections, one exchange at a time on each."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from broker.secrets import kv
from broker.secrets.access import VaultAccess
from broker.secrets.http1 import Response, head
from broker.secrets.login import Ask, Reply
from broker.secrets.trouble import VaultUnavailable, check_files, unreachable
from broker.secrets.wire import Broken, Place, Wire

CONNECT_TIMEOUT = 2.0
"""Seconds until a connection to one address must stand."""
_READS = 1000
"""Requests that are kept."""


class Line:
    """For one event loop. The caller bounds the time; what is cancelled is closed."""

    def __init__(self, access: VaultAccess, dialers: ThreadPoolExecutor) -> None:
        self.access = access
        self._place = Place.of(access.url)
        self._dialers = dialers
        self._idle: list[Wire] = []
        self._context: tuple[object, ssl.SSLContext] | None = None
        self._token = ""
        self._reads: dict[str, bytes] = {}
        """What asks for each path with this token; the same few are asked for again and again."""
        self._fields = {
            "Host": self._place.authority,
            "Accept": "application/json",
            "X-Vault-Request": "true",
        }
        if access.namespace:
            self._fields["X-Vault-Namespace"] = access.namespace

    async def get(self, path: str, token: str) -> Response:
        """The answer to GET `path` (from `/v1/` on), whatever its status. Raises VaultUnavailable.

        A kept connection may have died unnoticed: then once more, on a new one.
        """
        request = self._read(path, token)
        wire = self._kept()
        if wire is not None:
            try:
                return await self._exchange(wire, request)
            except Broken as broken:
                if not broken.unanswered:
                    raise self._failed(broken) from None
        return await self._on_new_wire(request)

    async def ask(self, question: Ask) -> Reply:
        """For conversations. On a new connection: what is no read must not be sent twice."""
        payload = question.payload
        request = self._request(question.method, f"/v1/{question.path}", question.token, payload)
        response = await self._on_new_wire(request)
        date = response.headers.get(b"date", b"").decode("latin-1")
        return Reply(response.status, kv.parse(response.body), date)

    def close(self) -> None:
        """Closes the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    async def _on_new_wire(self, request: bytes) -> Response:
        try:
            wire = await Wire.open(self._place, self._tls(), self._dialers, timeout=CONNECT_TIMEOUT)
            return await self._exchange(wire, request)
        except Broken as broken:
            raise self._failed(broken) from None

    async def _exchange(self, wire: Wire, request: bytes) -> Response:
        response = await wire.exchange(request)
        if response.keep:
            self._idle.append(wire)
        return response

    def _kept(self) -> Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if wire.usable:
                return wire
        return None

    def _read(self, path: str, token: str) -> bytes:
        if token != self._token or len(self._reads) >= _READS:
            self._token, self._reads = token, {}
        request = self._reads.get(path)
        if request is None:
            request = self._reads[path] = self._request("GET", path, token, None)
        return request

    def _failed(self, broken: Broken) -> VaultUnavailable:
        return VaultUnavailable(unreachable(self.access.url, broken.cause), kind=broken.kind)

    def _request(self, method: str, path: str, token: str, payload: bytes | None) -> bytes:
        fields = self._fields
        if token:
            fields = {**fields, "X-Vault-Token": token}
        if payload:
            fields = {
                **fields,
                "Content-Type": "application/json",
                "Content-Length": str(len(payload)),
            }
        try:
            return head(method, path, fields) + b"\r\n" + (payload or b"")
        except ValueError:
            raise VaultUnavailable(
                f"Nothing is asked of Vault at {self.access.url}: path, token and namespace must "
                "be visible ASCII; check `vault.namespace` and the token.",
                kind="log_in",
            ) from None

    def _tls(self) -> ssl.SSLContext | None:
        """The context for new connections, made anew when a file of it was replaced."""
        if not self._place.tls:
            return None
        access = self.access
        roots = Path(access.roots())
        mark = [_mark(path) for path in (roots, access.client_certificate, access.client_key)]
        if self._context is not None and self._context[0] == mark:
            return self._context[1]
        context = tls_context(access)
        self._context = mark, context
        return context


def tls_context(access: VaultAccess) -> ssl.SSLContext:
    """What verifies that Vault, and shows our certificate to it. Raises VaultUnavailable."""
    check_files(access)
    what, path = "CA bundle", access.ca_bundle
    try:
        context = ssl.create_default_context(cafile=access.roots())
        # In the middle of which writing would wait for reading; see Wire.
        context.options |= ssl.OP_NO_RENEGOTIATION
        if access.client_certificate is not None:
            what, path = "client certificate", access.client_certificate
            # A password for the key would be asked for on the terminal: there is none.
            context.load_cert_chain(path, access.client_key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise VaultUnavailable(
            f"The {what} {path or access.roots()} for Vault is no PEM that can be used"
            f" ({type(error).__name__}).",
            kind="tls",
        ) from None
    return context


def _mark(path: Path | None) -> object:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_ino, found.st_size)
