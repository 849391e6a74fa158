"""What a running `up` tells the other commands: state/up.lock holds a lock and a line of JSON.

The lock says whether it runs (the kernel drops it with the last process that holds it); the line
says where it listens. Nothing secret stands in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from keybroker.errors import Unusable
from keybroker.values import Listen, bracketed

if TYPE_CHECKING:
    from keybroker.settings import ProxySettings
    from keybroker.workspace import Workspace

_SIZE = 1024
PATIENCE = 3.0
"""Seconds in which the children of a killed `up` notice and leave, or another command looks in."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running `up`."""

    pid: int
    proxy_host: str
    proxy_port: int
    admin: str
    """The admin page's URL."""
    url: str
    """The proxy's, without an agent's name."""
    gateway: str
    """What base-URL mode begins with."""

    @property
    def proxy(self) -> str:
        """`HOST:PORT` at which agents on this machine reach the proxy."""
        return f"{bracketed(self.proxy_host)}:{self.proxy_port}"


class UpLock:
    """The right to be the one `up` of a workspace; `fd` is inherited by its children."""

    def __init__(self, workspace: Workspace) -> None:
        """Takes the lock. Raises Unusable with the pid of the holder."""
        self.fd = os.open(workspace.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + PATIENCE
        while not _locked(self.fd, fcntl.LOCK_EX):
            if time.monotonic() > until:
                pid = _holder(_read(self.fd))
                os.close(self.fd)
                raise Unusable(
                    f"keybroker up already runs in {workspace.directory} (pid {pid});"
                    " stop it first with SIGTERM"
                )
            time.sleep(0.05)
        self._write({"pid": os.getpid()})

    def publish(self, running: Running) -> None:
        """Lets the other commands know where it listens."""
        self._write(asdict(running))

    def release(self) -> None:
        """Gives the lock up."""
        os.close(self.fd)

    def _write(self, value: dict[str, object]) -> None:
        # One padded write: a reader sees the old line or the new one, never half of each.
        os.pwrite(self.fd, json.dumps(value).encode().ljust(_SIZE), 0)


def _locked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> bytes:
    return os.pread(fd, _SIZE, 0)


def _holder(data: bytes) -> str:
    try:
        return str(json.loads(data)["pid"])
    except (ValueError, KeyError, TypeError):
        return "unknown"


def running(workspace: Workspace) -> Running | None:
    """The running `up` of this workspace once it is ready; None if there is none."""
    try:
        fd = os.open(workspace.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _locked(fd, fcntl.LOCK_SH):
            return None
        return Running(**json.loads(_read(fd)))
    except (ValueError, TypeError):
        return None  # it has begun, and is not ready yet
    finally:
        os.close(fd)


def admin_url(workspace: Workspace) -> str:
    """Where people open the admin page: where `up` serves it, else where the settings say."""
    if (up := running(workspace)) is not None:
        return up.admin
    admin = workspace.settings().admin
    return admin.page(admin.listen.port)


def proxy_address(workspace: Workspace) -> Listen:
    """Where the proxy is: where `up` listens, else where the settings say."""
    if (up := running(workspace)) is not None:
        return Listen(up.proxy_host, up.proxy_port)
    return _configured(workspace.settings().proxy)


def _configured(proxy: ProxySettings) -> Listen:
    return Listen(proxy.listen.reach, proxy.listen.port)


def gateway_url(workspace: Workspace, agent: str) -> str:
    """What an agent in base-URL mode writes before `/HOST/PATH`."""
    if (up := running(workspace)) is not None:
        base = up.gateway
    else:
        proxy = workspace.settings().proxy
        base = proxy.gateway_url(_configured(proxy))
    return f"{base}/agents/{agent}"


def proxy_url(workspace: Workspace, agent: str, token: str, place: Listen | None = None) -> str:
    """What an agent sets as its proxy: `http://AGENT:TOKEN@HOST:PORT`, or https.

    `place` if it is elsewhere for this agent.
    """
    from urllib.parse import quote

    if (up := running(workspace)) is not None:
        url = up.url
    else:
        proxy = workspace.settings().proxy
        url = proxy.url(_configured(proxy))
    scheme, _, where = url.partition("://")
    return f"{scheme}://{quote(agent, safe='')}:{quote(token, safe='')}@{place or where}"
