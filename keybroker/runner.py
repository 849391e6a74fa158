"""`keybroker run`: a command as an agent. It gets the proxy, the CA and a token for this run only.

What would lead it past the proxy or make it an administrator is taken out of its environment. That
guides a willing program; an unwilling one is contained by the sandbox (keybroker/sandbox/), or not.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from certs.environment import led_through
from keybroker.account import Account, named, present
from keybroker.cli.frame import warn
from keybroker.compose import authority, client_environment, open_workspace
from keybroker.errors import Unusable
from keybroker.runstate import proxy_address, proxy_url
from keybroker.workspace import Workspace

if TYPE_CHECKING:
    from broker.services import Services
    from keybroker.sandbox.confine import Confinement

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
    user: str | None = None,
    confinement: Confinement | None = None,
) -> int:
    """Runs `command` as `agent` and returns its exit status; 128 + N if signal N ended it.

    `user` is the system's user that it runs as; else the present one.

    Raises Unusable if the proxy does not run, the command cannot be started or the sandbox that
    `confinement` asks for cannot be had, NotFound and Conflict for an agent that is unknown or
    revoked. The token ends with the run.
    """
    _require_proxy(workspace)
    if shutil.which(command[0]) is None:
        raise Unusable(f"there is no command {command[0]}")
    account = present() if user is None else named(user)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(_public_folder()))
        cell = None if confinement is None else confinement.prepare(workspace, folder)
        services = open_workspace(workspace)
        stack.callback(services.close)
        token = services.agents.run_token(agent, ttl=TOKEN_TTL, by=by, note=reason)
        stack.callback(services.agents.end_token, agent, token, by)
        place = None if cell is None else cell.place
        url = proxy_url(workspace, agent, token, place)
        ours = client_environment(folder, authority(workspace), url)
        environment = child_environment(os.environ, ours | _placeholders(services, agent))
        if cell is not None:
            # It has a process group of its own, and the terminal signals that one.
            return _wait(command, cell.environment(environment), cell.start, together=False)
        if account.can_read(workspace.key_file):
            warn(
                f"{command[0]} runs as {account}, who can read the workspace"
                f" {workspace.directory}, so nothing keeps it from acting as an administrator;"
                " contain it with --sandbox, or run it as another user"
            )
        if account.present:
            return _wait(command, environment)
        open_apart = partial(_open_apart, account=account)
        return _wait(command, environment | account.environment(), open_apart, together=False)


def _placeholders(services: Services, agent: str) -> dict[str, str]:
    """The variables that stand for the credentials of the agent's rules; a real key that the
    command would have had from its parent is replaced."""
    published = services.policies.refresh()
    if published is None:
        return {}
    known = services.agents.get(agent)
    subject = known.subject
    standing = services.placeholders.of(subject, published.rulebook)
    return {placeholder.variable: placeholder.value for placeholder in standing}


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


class Child(Protocol):
    """The command, once it was started."""

    def send_signal(self, number: int, /) -> None:
        """Passes a signal on; one that ended already is left alone."""

    def wait(self) -> int:
        """The exit status; -N for a command that signal N ended, or 128 + N from its keeper."""


Start = Callable[[Sequence[str], Mapping[str, str]], Child]


def _open(command: Sequence[str], environment: Mapping[str, str]) -> Child:
    try:
        return subprocess.Popen(list(command), env=dict(environment))
    except OSError as error:
        raise Unusable(f"{command[0]} cannot be started ({error.strerror})") from error


class _Apart(subprocess.Popen[bytes]):
    """A command in a session of its own, all of which gets the signals."""

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, sig)


def _open_apart(command: Sequence[str], environment: Mapping[str, str], account: Account) -> Child:
    """As another user, and without the terminal: whose controlling terminal it is can type into it
    (TIOCSTI), and so do as its owner what the user of the command may not."""
    try:
        return _Apart(
            list(command),
            env=dict(environment),
            user=account.uid,
            group=account.gid,
            extra_groups=account.groups,
            start_new_session=True,
        )
    except OSError as error:
        raise Unusable(f"{command[0]} cannot be started ({error.strerror})") from error


def _wait(
    command: Sequence[str],
    environment: Mapping[str, str],
    start: Start = _open,
    *,
    together: bool = True,
) -> int:
    """`together`: whether the terminal signals the command along with this process."""
    waiting: list[int] = []
    child: Child | None = None

    def forward(number: int, _: FrameType | None) -> None:
        if child is None:
            waiting.append(number)
        elif not (together and number in _FROM_TERMINAL and _shares_terminal()):
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        child = start(command, environment)
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
