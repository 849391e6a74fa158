"""`init`, `ca`, `doctor`, `completion`: making a workspace and looking it over."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from keybroker.cli.frame import (
    App,
    Command,
    Group,
    complain,
    emit,
    json_option,
    note,
    paint,
    pass_app,
)

EXIT_UNWELL = 1


@click.command(cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--solo", "solo", flag_value=True, help="Tiers that one person can satisfy.")
@click.option(
    "--team", "solo", flag_value=False, default=False, help="Tiers for several people (default)."
)
@json_option
@pass_app
def init(app: App, directory: Path | None, solo: bool, as_json: bool) -> None:
    """Make a new workspace in DIR: keybroker.yaml, policy.yaml and state/.

    Without DIR it is made where commands look for it by default. Nothing is overwritten.
    """
    from keybroker import workspace
    from keybroker.compose import authority

    made = workspace.create(directory or workspace.choose(app.option), solo=solo)
    authority(made)
    if as_json:
        emit({"workspace": str(made.directory)})
        return
    click.echo(f"made a workspace in {made.directory}")
    if made.directory != workspace.choose(None):
        note(f"other commands find it by: export KEYBROKER_WORKSPACE={made.directory}")
    note(f"next: edit {made.policy_file}, then `keybroker up`")


@click.group(cls=Group)
def ca() -> None:
    """The certificate authority that clients behind the proxy must trust."""


@ca.command("show")
@pass_app
def ca_show(app: App) -> None:
    """Print the certificate in PEM."""
    from keybroker.compose import authority

    pem = authority(app.workspace()).pem
    click.echo(pem.decode() if isinstance(pem, bytes) else pem, nl=False)


@click.command(cls=Command)
@click.option(
    "--as-agent",
    is_flag=True,
    help="Check this environment as an agent's instead: its proxy, token, certificates.",
)
@json_option
@click.pass_context
@pass_app
def doctor(app: App, context: click.Context, as_agent: bool, as_json: bool) -> None:
    """Check everything, and say how to mend what is wrong. Exits with 1 if something is.

    With --as-agent no workspace is needed: run it where the agent runs, with what it has.
    """
    from keybroker.doctor import examine, examine_client

    findings = examine_client(os.environ, app.option) if as_agent else examine(app.option)
    if as_json:
        emit([{"check": f.check, "state": f.state, "says": f.says, "fix": f.fix} for f in findings])
    else:
        colours = {"ok": "green", "warning": "yellow", "wrong": "red"}
        for finding in findings:
            mark = paint(finding.state.ljust(8), fg=colours[finding.state])
            click.echo(f"{mark}{finding.check}: {finding.says}")
            if finding.fix:
                click.echo(f"        fix: {finding.fix}")
    if any(finding.state == "wrong" for finding in findings):
        context.exit(EXIT_UNWELL)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL, to be sourced in its profile."""
    found = get_completion_class(shell)
    if found is None:
        complain(f"there is no completion for {shell}")
        context.exit(1)
    root = context.find_root()
    click.echo(found(root.command, {}, "keybroker", "_KEYBROKER_COMPLETE").source())
