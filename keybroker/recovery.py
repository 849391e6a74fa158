"""Hands the recovery keys of a new embedded vault to the operator: on stderr, once, not kept.

Whichever command starts the vault first does it (`up`, or `secret set` before the first `up`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keybroker.cli.frame import paint

if TYPE_CHECKING:
    from broker.secrets.embedded import RecoveryKeys


def print_recovery_keys(keys: RecoveryKeys) -> None:
    """Shows the recovery keys of a new vault, the only time that they are to be had."""
    click.echo(
        f"{paint('Recovery keys of the new vault', err=True, bold=True)}, shown this once. Any"
        f" {keys.threshold} of them make a new root token, should the vault ever have to be"
        " administered by hand. Keep them apart, and not on this machine:",
        err=True,
    )
    for key in keys.keys:
        click.echo(f"  {key}", err=True)
