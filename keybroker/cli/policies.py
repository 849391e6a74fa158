"""`keybroker policy`: the group, and checking the file. Sends nothing."""

from __future__ import annotations

from pathlib import Path

import click

from keybroker.cli.differences import diff
from keybroker.cli.findings import show_findings
from keybroker.cli.frame import FILE, App, Group, complain, emit, json_option, pass_app
from keybroker.cli.imports import importing
from keybroker.cli.packs import packs
from keybroker.cli.trials import explain, schema, test
from keybroker.cli.trying import learn, replay
from keybroker.errors import Unusable

EXIT_VALID, EXIT_INVALID, EXIT_UNREADABLE = 0, 1, 2


@click.group(cls=Group)
def policy() -> None:
    """Check, test and explain the policy, try a change before it bites, look at packs."""


policy.add_command(packs)
policy.add_command(importing)
policy.add_command(replay)
policy.add_command(learn)
policy.add_command(diff)
policy.add_command(test)
policy.add_command(explain)
policy.add_command(schema)


@policy.command()
@click.argument("file", type=FILE, required=False)
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings too.")
@json_option
@click.pass_context
@pass_app
def check(app: App, context: click.Context, file: Path | None, strict: bool, as_json: bool) -> None:
    """Check FILE, or the workspace's policy: what is wrong with it, and what is odd about it.

    Each finding has its file and line, a code that docs/policy-check.md explains, and a call that
    shows it. Exits with 0 if there is no error (warnings and notes may stand there), 1 if there is,
    2 if the policy could not be read.
    """
    from keybroker.policy import accounts_in
    from keybroker.policyfile import read_policy
    from rules.lint.check import check as lint

    path = file
    try:
        # A file elsewhere can be checked without a workspace.
        services = app.services() if file is None or app.has_workspace() else None
        path = file if file is not None else app.workspace().policy_file
        found = read_policy(path)
    except Unusable as error:
        if as_json:
            name = None if path is None else str(path)
            emit({"valid": False, "file": name, "error": str(error), "findings": []})
        complain(str(error))
        context.exit(EXIT_UNREADABLE)
    accounts = None if services is None else accounts_in(services)
    report = lint(found.text, str(path), found.sources, accounts)
    if as_json:
        findings = [finding.to_dict() for finding in report.findings]
        emit({"valid": report.valid, "file": str(path), "findings": findings})
    else:
        show_findings(report, str(path))
    warned = any(finding.severity == "warning" for finding in report.findings)
    context.exit(EXIT_INVALID if not report.valid or (strict and warned) else EXIT_VALID)
