"""Composition of what makes our own listeners speak TLS; see keybroker.compose."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keybroker.errors import Unusable

if TYPE_CHECKING:
    from certs.authority import Authority
    from certs.serving import Serving, Source
    from keybroker.settings import ProxySettings, Settings, TlsFiles
    from keybroker.workspace import Workspace

PROXY_PROTOCOLS = ("http/1.1", "h2")
"""HTTP/1.1 first: some clients offer h2 to any TLS server and then send CONNECT as HTTP/1.1 (Go).
Who speaks HTTP/2 only, as gRPC does, gets it."""
ADMIN_PROTOCOLS = ("http/1.1",)


def proxy_serving(
    workspace: Workspace, settings: Settings, authority: Authority | None = None
) -> Serving | None:
    """The proxy's certificate; None if it listens in clear text. Raises Unusable."""
    from certs.serving import OwnLeaf
    from keybroker.compose import authority as load_authority

    tls = settings.proxy.tls
    if tls is None:
        return None
    source: Source
    if tls == "auto":
        source = OwnLeaf(authority or load_authority(workspace), own_hosts(settings.proxy))
    else:
        source = _files(tls)
    return _serving(source, PROXY_PROTOCOLS, "proxy.tls")


def admin_serving(settings: Settings) -> Serving | None:
    """The admin page's certificate; None if it listens in clear text. Raises Unusable."""
    tls = settings.admin.tls
    return None if tls is None else _serving(_files(tls), ADMIN_PROTOCOLS, "admin.tls")


def _files(tls: TlsFiles) -> Source:
    from certs.serving import PairOfFiles

    return PairOfFiles(tls.certificate, tls.key)


def _serving(source: Source, protocols: tuple[str, ...], setting: str) -> Serving:
    from certs.errors import CertsError
    from certs.serving import Serving

    try:
        return Serving(source, protocols)
    except CertsError as error:
        raise Unusable(f"{error} (`{setting}` in keybroker.yaml)") from error


def own_hosts(proxy: ProxySettings) -> list[str]:
    """The names and addresses by which clients may reach the proxy."""
    from certs.authority import subject_name
    from certs.errors import BadName

    hosts = [proxy.listen.host]
    if proxy.gateway is not None:
        hosts.insert(0, urlsplit(proxy.gateway).hostname or "")
    if proxy.listen.wildcard:
        hosts.remove(proxy.listen.host)
        hosts += ["localhost", "127.0.0.1", "::1", *_of_this_machine()]
    elif proxy.listen.loopback:
        hosts.append("localhost")
    good = []
    for host in dict.fromkeys(hosts):
        with suppress(BadName):  # a machine's name may be none of DNS's
            subject_name(host)
            good.append(host)
    return good


def _of_this_machine() -> list[str]:
    name = socket.gethostname()
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    return [name, *(str(place[4][0]) for place in found)]
