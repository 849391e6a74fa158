"""`keybroker run`: a command as an agent. It gets the proxy, the CA and a token for this run only.

What would lead it past the proxy or make it an administrator is taken out of its environment. That
guides a willing program; it does not contain an unwilling one (see docs/threat-model.md).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from certs.environment import led_through
from keybroker.cli.frame import warn
from keybroker.compose import authority, client_environment, open_workspace
from keybroker.errors import Unusable
from keybroker.runstate import proxy_address, proxy_url
from keybroker.workspace import Workspace

TOKEN_TTL = 12 * 3600
"""Seconds after which a run's token ends even if nobody ended it (the run was killed)."""

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1,
             signal.SIGUSR2)  # fmt: skip
_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})

_WITHHELD = frozenset({"VAULT_TOKEN", "BAO_TOKEN", "VAULT_SECRET_ID", "BAO_SECRET_ID"})
"""Keys to the vault. Our own variables are withheld too: a reviewer's token, the workspace."""


def child_environment(present: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """What the command sees: `present` without keys to us or to the vault and without what leads
    past the proxy, `ours` on top."""
    kept = {
        name: value
        for name, value in present.items()
        if not name.startswith("KEYBROKER_") and name not in _WITHHELD
    }
    return led_through(kept, ours)


def run_as(
    workspace: Workspace,
    agent: str,
    command: Sequence[str],
    *,
    reason: str | None,
    by: str,
) -> int:
    """Runs `command` as `agent` and returns its exit status; 128 + N if signal N ended it.

    Raises Unusable if the proxy does not run or the command cannot be started, NotFound and
    Conflict for an agent that is unknown or revoked. The token ends with the run.
    """
    _require_proxy(workspace)
    if shutil.which(command[0]) is None:
        raise Unusable(f"there is no command {command[0]}")
    with ExitStack() as stack:
        services = open_workspace(workspace)
        stack.callback(services.close)
        token = services.agents.run_token(agent, ttl=TOKEN_TTL, by=by, note=reason)
        stack.callback(services.agents.end_token, agent, token, by)
        folder = Path(stack.enter_context(_public_folder()))
        ours = client_environment(folder, authority(workspace), proxy_url(workspace, agent, token))
        warn(
            f"{command[0]} runs as the user who can read this workspace, so nothing keeps it from"
            " acting as an administrator; run agents as another user to contain them"
        )
        return _wait(command, child_environment(os.environ, ours))


def _require_proxy(workspace: Workspace) -> None:
    place = proxy_address(workspace)
    try:
        socket.create_connection((place.host, place.port), 5).close()
    except OSError as error:
        raise Unusable(
            f"the proxy does not answer at {place}: start it with `keybroker up`"
        ) from error


@contextmanager
def _public_folder() -> Iterator[str]:
    """A folder for the certificates, outside the workspace, which the command need not know of."""
    with tempfile.TemporaryDirectory(prefix="keybroker-run-") as folder:
        # The command may change its user; certificates are no secret.
        Path(folder).chmod(0o755)
        yield folder


def _wait(command: Sequence[str], environment: Mapping[str, str]) -> int:
    waiting: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: FrameType | None) -> None:
        if child is None:
            waiting.append(number)
        elif not (number in _FROM_TERMINAL and _shares_terminal()):
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        try:
            child = subprocess.Popen(list(command), env=dict(environment))
        except OSError as error:
            raise Unusable(f"{command[0]} cannot be started ({error.strerror})") from error
        for number in waiting:
            child.send_signal(number)
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _shares_terminal() -> bool:
    # On a terminal its Ctrl-C reaches the whole foreground group, the command included.
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
