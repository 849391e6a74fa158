"""Foreign errors get kinds and words of our own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import requests
import urllib3

from broker.secrets.access import VaultAccess
from broker.secrets.trouble import ILL, Kind, VaultUnavailable, cause_of, check_files, kind_of
from broker.secrets.trouble import meaning_of as meaning


def unverified(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("certificate of c4nary")
    error.verify_code = code
    return error


def alerted(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "c4nary")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind", "why"),
    [
        (unverified(10), "tls", "it has expired"),
        (unverified(9), "tls", "not valid yet; check both clocks"),
        (unverified(62), "tls", "for another name"),
        (unverified(64), "tls", "for another name"),
        (unverified(20), "tls", "no CA known here signed it"),
        (requests.exceptions.SSLError(urllib3.exceptions.SSLError(unverified(10))), "tls",
         "expired"),
        (alerted("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "tls", "client certificate"),
        (requests.exceptions.SSLError("c4nary"), "tls", "no TLS connection"),
        (urllib3.exceptions.SSLError("c4nary"), "tls", "no TLS connection"),
        (requests.ConnectTimeout("c4nary"), "timeout", "in time"),
        (TimeoutError("c4nary"), "timeout", "in time"),
        (
            urllib3.exceptions.ReadTimeoutError(urllib3.HTTPConnectionPool("h"), "/", "c4nary"),
            "timeout",
            "in time",
        ),
        (requests.ConnectionError("c4nary"), "unreachable", "no connection"),
        (urllib3.exceptions.ProtocolError("c4nary"), "unreachable", "no connection"),
        (ConnectionRefusedError("c4nary"), "unreachable", "no connection"),
        (ValueError("c4nary"), "garbled", "ValueError"),
    ],
)  # fmt: skip
def test_a_foreign_error_is_told_and_never_quoted(error: Exception, kind: Kind, why: str) -> None:
    found, words = cause_of(error)
    assert found == kind
    assert why in words
    assert "c4nary" not in words


@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, "redirected"), (400, "refused"), (403, "refused"), (404, "refused"),
     (429, "rate_limited"), (472, "server_error"), (473, "server_error"), (500, "server_error"),
     (502, "server_error"), (503, "sealed")],
)  # fmt: skip
def test_a_status_tells_whether_vault_is_ill(status: int, kind: Kind) -> None:
    assert kind_of(status) == kind
    assert (kind in ILL) == (status not in {400, 403, 404, 429})
    assert VaultUnavailable("x", status).kind == kind


def test_an_unknown_status_speaks_for_itself() -> None:
    assert meaning(418) == "418"
    assert meaning(473).startswith("473, it is a standby")


@pytest.mark.parametrize("what", ["ca_bundle", "client_certificate", "client_key"])
def test_a_missing_file_is_named(tmp_path: Path, what: str) -> None:
    access = VaultAccess("https://127.0.0.1:1", None, **{what: tmp_path / "no.pem"})  # type: ignore[arg-type]
    with pytest.raises(VaultUnavailable, match=r"no\.pem for Vault cannot be read: No such file"):
        check_files(access)
