"""What settings tell before anything is started: a file that would fail every call, a listener that
anybody could read along with."""

from __future__ import annotations

import ssl
from pathlib import Path

from keybroker.errors import Unusable
from keybroker.logs import warn
from keybroker.settings import Settings


def check_egress(settings: Settings) -> None:
    """Raises Unusable if a file that calls need on their way out cannot be used."""
    egress = settings.egress
    _check_bundle(egress.ca_bundle, "egress.ca_bundle")
    if egress.proxy is None:
        return
    _check_bundle(egress.proxy.ca_bundle, "egress.proxy.ca_bundle")
    file = egress.proxy.password_file
    if file is None:
        return
    try:
        egress.proxy.password()
    except OSError as error:
        raise Unusable(
            f"{file} cannot be read: {error.strerror} (`egress.proxy.password_file`)"
        ) from error
    except ValueError as error:
        raise Unusable(
            f"{file} holds no usable password in its first line (`egress.proxy.password_file`)"
        ) from error


def _check_bundle(path: Path | None, setting: str) -> None:
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError as error:
        raise Unusable(f"{path} holds no certificates in PEM (`{setting}`)") from error
    except OSError as error:
        raise Unusable(
            f"{path} cannot be read: {error.strerror} (`{setting}` in keybroker.yaml)"
        ) from error


def warn_of_clear_text(settings: Settings) -> None:
    """Says what anybody on the network could read."""
    if not settings.proxy.listen.loopback and settings.proxy.tls is None:
        warn(
            f"agents on other machines send their tokens to {settings.proxy.listen} in clear text:"
            " set `proxy.tls`, or listen on 127.0.0.1"
        )
    if not settings.admin.listen.loopback and settings.admin.tls is None:
        warn(
            f"people on other machines send their passwords to {settings.admin.listen} in clear"
            " text unless TLS ends in front of it: set `admin.tls`, or listen on 127.0.0.1"
        )
