"""The command line. Lists every command without importing any; each lives in a module of its own.

Whatever goes wrong ends as one clear line on stderr and exit status 1 (2 for usage, 130 for an
interrupt): never a traceback, unless KEYBROKER_DEBUG asks for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import click

from keybroker.cli.frame import EXIT_INTERRUPTED, App, LazyGroup, guarded

COMMANDS = {
    "init": ("keybroker.cli.setup:init", "Make a new workspace."),
    "up": ("keybroker.cli.operate:up", "Run the proxy, the admin page and the embedded vault."),
    "demo": ("keybroker.cli.operate:demo", "Show the whole story in a minute, on real parts."),
    "run": ("keybroker.cli.operate:run", "Run a command as an agent, through the proxy."),
    "agent": ("keybroker.cli.agents:agent", "Add, list, rotate and revoke agents."),
    "user": ("keybroker.cli.users:user", "People: accounts, roles, sessions, API tokens."),
    "secret": ("keybroker.cli.secrets:secret", "Write secrets to the vault and list their names."),
    "policy": (
        "keybroker.cli.policies:policy",
        "Check the policy; explain what it says of a call.",
    ),
    "approvals": ("keybroker.cli.approvals:approvals", "List, show, approve and deny held calls."),
    "audit": ("keybroker.cli.audits:audit", "Read, verify and export the audit log."),
    "backup": ("keybroker.cli.backups:backup", "Take, check and restore backups."),
    "ca": ("keybroker.cli.setup:ca", "Show the certificate that clients must trust."),
    "doctor": ("keybroker.cli.setup:doctor", "Check everything and say how to mend it."),
    "completion": ("keybroker.cli.setup:completion", "Print shell completion for your profile."),
    "worker": ("keybroker.cli.operate:worker", ""),
    "admin": ("keybroker.cli.operate:admin", ""),
}
"""Name: where it is, and its line in the help. Without a line it is hidden: `up` starts those."""


@click.group(
    cls=LazyGroup,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="keybroker", prog_name="keybroker")
@click.pass_context
def cli(context: click.Context) -> None:
    """A credential-brokering proxy for the HTTP calls of AI agents.

    Agents send their calls through it; every call is matched against rules, held for people where
    the rules say so, given its credential only then, and recorded.
    """
    context.ensure_object(App)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits with its status."""
    try:
        status = guarded(cli, arguments)
    except KeyboardInterrupt:  # before or after the command itself
        status = EXIT_INTERRUPTED
    raise SystemExit(status)
