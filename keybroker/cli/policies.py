"""`keybroker policy`: check the file, and explain what it says of one call. Sends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keybroker.cli import complete
from keybroker.cli.frame import App, Group, complain, emit, inert, json_option, paint, pass_app
from keybroker.cli.imports import importing
from keybroker.cli.packs import packs
from keybroker.cli.trying import replay
from keybroker.errors import Unreadable, Unusable

if TYPE_CHECKING:
    from rules.errors import Problem

EXIT_VALID, EXIT_INVALID, EXIT_UNREADABLE = 0, 1, 2
MAX_BODY = 64 * 1024 * 1024

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def policy() -> None:
    """Check the policy, explain it, try a change before it bites, look at packs."""


policy.add_command(packs)
policy.add_command(importing)
policy.add_command(replay)


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


@policy.command()
@click.option(
    "--as",
    "agent",
    required=True,
    metavar="AGENT",
    help="The agent that would call.",
    shell_complete=complete.agents,
)
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header.")
@click.option("--body", type=FILE, help="A file with the body.")
@click.option("--policy", "policy_file", type=FILE, help="Instead of the workspace's policy.")
@click.argument("method")
@click.argument("url")
@json_option
@pass_app
def explain(
    app: App,
    agent: str,
    headers: tuple[str, ...],
    body: Path | None,
    policy_file: Path | None,
    method: str,
    url: str,
    as_json: bool,
) -> None:
    """Say what the policy says of METHOD URL, and which rules say so."""
    from keybroker.policy import explain_call, raw_request, subject_of
    from keybroker.policyfile import load_policy_file

    path = policy_file or app.workspace().policy_file
    loaded, _ = load_policy_file(path)
    # A file elsewhere can be asked without a workspace; with one, its agents have their tags.
    known = app.services().agents.list() if policy_file is None or app.has_workspace() else []
    pairs = [_header(line) for line in headers]
    try:
        content = body.read_bytes() if body is not None else b""
    except OSError as error:
        raise Unusable(f"{body} cannot be read ({error.strerror})") from error
    raw = raw_request(method, url, pairs, content)
    told = explain_call(loaded, subject_of(agent, known), raw)
    if as_json:
        emit(told)
        return
    colour = {"allow": "green", "hold": "yellow"}.get(str(told["effect"]), "red")
    click.echo(f"{paint(str(told['effect']), fg=colour, bold=True)}: {inert(told['sentence'])}")
    if told["rules"]:
        click.echo(f"rules: {', '.join(told['rules'])}")  # type: ignore[arg-type]
    if told["effect"] == "hold":
        click.echo(f"risk: {told['risk']}")
    for limit in told["limits"]:  # type: ignore[attr-defined]
        click.echo(f"limit of {limit['rule']}: {limit['sentence']}")


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise click.UsageError(f"--header {line!r}: write 'NAME: VALUE'")
    return name.strip(), value.strip()
