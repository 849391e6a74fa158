"""What can go wrong between Keybroker and a Vault: kinds for machines, sentences for operators.

Foreign errors are named in words of our own and never quoted: their text and their objects can
hold what was sent, tokens and values included.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Literal

import requests
import urllib3

from broker.errors import SecretUnavailable
from broker.secrets.access import VaultAccess

Kind = Literal[
    "unreachable",
    "timeout",
    "tls",
    "cut",
    "garbled",
    "redirected",
    "sealed",
    "server_error",
    "rate_limited",
    "refused",
    "log_in",
    "busy",
]
"""`refused` is 403 or another answer that says no, `log_in` is no good way in, `busy` is a read
whose turn did not come."""

ILL: frozenset[Kind] = frozenset(
    {"unreachable", "timeout", "tls", "cut", "garbled", "redirected", "sealed", "server_error"}
)
"""The kinds that say something about Vault as a whole, whatever was asked of it."""


class VaultUnavailable(SecretUnavailable):
    """Vault as a whole, or the log-in to it, fails; `status` is the HTTP status if it answered."""

    def __init__(
        self, sentence: str, status: int | None = None, *, kind: Kind | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.kind: Kind = kind or ("unreachable" if status is None else kind_of(status))


def kind_of(status: int) -> Kind:
    """What an answer that is no success means for the Vault that gave it."""
    if 300 <= status < 400:
        return "redirected"
    if status == 429:
        return "rate_limited"
    if status == 503:
        return "sealed"
    # 472 and 473 are a standby's that does not serve.
    return "server_error" if status >= 500 or status in {472, 473} else "refused"


_MEANING = {
    400: "it does not accept the request",
    403: "the log-in or its policy does not allow that",
    404: "there is nothing under that path",
    429: "too many requests",
    472: "it is a standby that serves nothing; point `vault.url` at the active node",
    473: "it is a standby that serves nothing; point `vault.url` at the active node",
    500: "it failed inside; look into its log",
    502: "what stands before it cannot reach it",
    503: "it is sealed or down; unseal it",
    504: "what stands before it cannot reach it",
}


def meaning_of(status: int) -> str:
    """A status in words: `403, the log-in or its policy does not allow that`."""
    words = _MEANING.get(status)
    return str(status) if words is None else f"{status}, {words}"


def check_files(access: VaultAccess) -> None:
    """Raises VaultUnavailable where the CA bundle or the client certificate is no readable file;
    OpenSSL would not say which."""
    files = (
        ("CA bundle", access.ca_bundle),
        ("client certificate", access.client_certificate),
        ("client key", access.client_key),
    )
    for what, path in files:
        try:
            if path is not None:
                with path.open("rb"):
                    pass
        except OSError as error:
            raise VaultUnavailable(
                f"The {what} {path} for Vault cannot be read: {error.strerror}.", kind="tls"
            ) from error


def unreachable(url: str, cause: str) -> str:
    """The sentence for a Vault that gave no answer."""
    return f"Vault at {url} cannot be used: {cause}."


NO_ANSWER = "it does not answer in time"
NO_CONNECTION = "no connection; check that it runs and that `vault.url` is right"
CUT = "it closed the connection in the middle of its answer"
GARBLED = "its answer is not one that Vault gives; check what stands before it"
TOO_LONG = "its answer is too long"
REDIRECTS = (
    "it redirects, which is not followed because the token would travel along; point "
    "`vault.url` at the server that answers itself"
)


def cause_of(error: Exception) -> tuple[Kind, str]:
    """A foreign error as a kind, and in words of our own."""
    if isinstance(error, ssl.SSLError | requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return "tls", _tls_cause(error)
    # urllib3 counts a refused connection among its timeouts.
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)
    timeouts = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
    if isinstance(error, timeouts) and not refused:
        return "timeout", NO_ANSWER
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | OSError):
        return "unreachable", NO_CONNECTION
    return "garbled", f"the exchange failed ({type(error).__name__})"


# X509_V_ERR_* of https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64


def _tls_cause(error: BaseException) -> str:
    for found in _chain(error):
        if isinstance(found, ssl.SSLCertVerificationError):
            if found.verify_code == _EXPIRED:
                return "its certificate is not trusted: it has expired; renew it"
            if found.verify_code == _NOT_YET:
                return "its certificate is not trusted: it is not valid yet; check both clocks"
            if found.verify_code in {_OTHER_NAME, _OTHER_ADDRESS}:
                return (
                    "its certificate is not trusted: it is for another name; use that name in "
                    "`vault.url`"
                )
            return (
                "its certificate is not trusted: no CA known here signed it; check `vault.url` "
                "and name its CA in `vault.ca_bundle`"
            )
    for found in _chain(error):
        # Its reason is a constant of OpenSSL's, such as TLSV13_ALERT_CERTIFICATE_REQUIRED.
        if isinstance(found, ssl.SSLError) and "CERTIFICATE" in str(found.reason):
            return (
                "it does not accept the client certificate, or wants one; check "
                "`vault.client_certificate`"
            )
    return "no TLS connection to it comes about; check that `vault.url` is right"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those below it: libraries wrap them as arguments, reasons and causes."""
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo and len(seen) < 20:
        found = todo.pop()
        if isinstance(found, BaseException) and found not in seen:
            seen.append(found)
            yield found
            todo += [*found.args, getattr(found, "reason", None)]
            todo += [found.__cause__, found.__context__]
