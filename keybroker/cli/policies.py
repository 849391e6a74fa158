"""`keybroker policy`: the group, and checking the file. Sends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keybroker.cli.frame import App, Group, complain, emit, inert, json_option, pass_app
from keybroker.cli.imports import importing
from keybroker.cli.packs import packs
from keybroker.cli.trials import FILE, explain, test
from keybroker.cli.trying import replay
from keybroker.errors import Unreadable

if TYPE_CHECKING:
    from rules.errors import Problem

EXIT_VALID, EXIT_INVALID, EXIT_UNREADABLE = 0, 1, 2


@click.group(cls=Group)
def policy() -> None:
    """Check, test and explain the policy, try a change before it bites, look at packs."""


policy.add_command(packs)
policy.add_command(importing)
policy.add_command(replay)
policy.add_command(test)
policy.add_command(explain)


@policy.command()
@click.argument("file", type=FILE, required=False)
@json_option
@click.pass_context
@pass_app
def check(app: App, context: click.Context, file: Path | None, as_json: bool) -> None:
    """Check FILE, or the workspace's policy.

    Exits with 0 if it is valid (warnings may stand beside it), 1 if it is not, 2 if it could not be
    read.
    """
    from keybroker.policy import account_warnings
    from keybroker.policyfile import read_policy
    from rules.errors import InvalidFile

    try:
        services = None if file is not None else app.services()
        path = file if file is not None else app.workspace().policy_file
        found = read_policy(path)
    except Unreadable as error:
        if as_json:
            emit({"valid": False, "error": str(error), "problems": []})
        complain(str(error))
        context.exit(EXIT_UNREADABLE)
    try:
        loaded, problems = found.load()
    except InvalidFile as error:
        _report(str(path), error.problems, as_json, valid=False)
        context.exit(EXIT_INVALID)
    if services is not None:
        problems += account_warnings(
            loaded, services.agents.list(), services.people.list(), str(path)
        )
    _report(str(path), problems, as_json, valid=True)
    if not as_json:
        click.echo(f"{path}: valid, {len(loaded.rules)} rules")
    context.exit(EXIT_VALID)


def _report(path: str, problems: tuple[Problem, ...], as_json: bool, *, valid: bool) -> None:
    if as_json:
        fields = [
            {
                "code": p.code,
                "severity": p.severity,
                "rule": p.rule,
                "file": p.file,
                "line": p.line,
                "message": p.message,
            }
            for p in problems
        ]
        emit({"valid": valid, "file": path, "problems": fields})
        return
    for problem in problems:
        click.echo(inert(str(problem)), err=True)
