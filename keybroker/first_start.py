"""What a first start shows once: the new vault's recovery keys, and the link to the first account.

People read it at a terminal. What is written anywhere else may be kept as a log (by systemd, by a
container's engine, by a shell's `>`): then it goes into a file of the owner's alone, and only the
path is told. Whichever command starts the vault first hands the keys over (`up`, or `secret set`
before the first `up`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.secrets.files import sync_directory
from keybroker.cli.frame import paint
from keybroker.workspace import Workspace, write_new

if TYPE_CHECKING:
    from broker.secrets.embedded import RecoveryKeys

_USE = (
    "Any {} of them make a new root token, should the vault ever have to be administered by hand."
    " Keep them apart, and not on this machine"
)


def keys_to_operator(
    workspace: Workspace, tell: Callable[[str], None]
) -> Callable[[RecoveryKeys], None]:
    """What shows the recovery keys of a new vault, the only time that they are to be had.

    `tell` says where they lie if stderr is no terminal. Raises OSError if they cannot lie there.
    """

    def hand_over(keys: RecoveryKeys) -> None:
        use = _USE.format(keys.threshold)
        lines = [f"  {key}" for key in keys.keys]
        file = workspace.recovery_keys_file
        # What lies there is of a first start that did not come to its end: its vault is gone.
        file.unlink(missing_ok=True)
        if _is_terminal(sys.stderr):
            title = paint("Recovery keys of the new vault", err=True, bold=True)
            click.echo("\n".join([f"{title}, shown this once. {use}:", *lines]), err=True)
            return
        _leave(file, [f"Recovery keys of the new vault. {use}; then delete this file.", *lines])
        tell(f"the recovery keys of the new vault are in {file}: read it, then delete it")

    return hand_over


def keep_link(workspace: Workspace, link: str | None) -> Path | None:
    """The file with `link` in its last line if stdout is no terminal, else None: then show it.

    What an earlier start left there is void, since there is one link at a time and none once there
    is a user, and goes. Raises OSError.
    """
    file = workspace.setup_link_file
    file.unlink(missing_ok=True)
    if link is None or _is_terminal(sys.stdout):
        return None
    use = "Makes the first account, once and within 24 hours; delete this file after it."
    _leave(file, [use, link])
    return file


def _leave(file: Path, lines: list[str]) -> None:
    write_new(file, ("\n".join(lines) + "\n").encode(), 0o600)
    sync_directory(file.parent)


def _is_terminal(stream: object) -> bool:
    """Of a stream that may be closed, or None."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False
