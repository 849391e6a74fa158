"""`keybroker policy test`, `explain` and `schema`: for whoever writes a policy."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from keybroker.cli import complete
from keybroker.cli.frame import (
    FILE,
    FILE_OR_STDIN,
    App,
    Command,
    complain,
    emit,
    inert,
    json_option,
    note,
    paint,
    pass_app,
)
from keybroker.errors import Unreadable, Unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.model import Agent
    from rules.errors import Problem
    from rules.model import Policy
    from rules.trial.cases import Case, Tried

EXIT_PASSED, EXIT_FAILED, EXIT_UNREADABLE = 0, 1, 2
_COLOURS = {"allow": "green", "hold": "yellow", "deny": "red"}

policy_option = click.option(
    "--policy", "policy_file", type=FILE, help="Instead of the workspace's policy."
)


def _load(app: App, file: Path | None) -> tuple[Policy, Sequence[Agent]]:
    """The policy, and the agents that have accounts: a file elsewhere can be tried without a
    workspace; with one, its agents have their tags. Raises Unreadable, InvalidFile."""
    from keybroker.policyfile import load_policy_file

    loaded, _ = load_policy_file(file or app.workspace().policy_file)
    known = app.services().agents.list() if file is None or app.has_workspace() else []
    return loaded, known


@click.command(cls=Command)
@click.argument("files", type=FILE, required=True, nargs=-1, metavar="FILE...")
@policy_option
@json_option
@click.pass_context
@pass_app
def test(
    app: App,
    context: click.Context,
    files: tuple[Path, ...],
    policy_file: Path | None,
    as_json: bool,
) -> None:
    """Run the cases in each FILE against the policy, and print what differs.

    Exits with 0 if all is as expected, 1 if something differs or the policy is refused, 2 if a file
    could not be read.
    """
    from keybroker.policy import try_cases
    from keybroker.workspace import read_text
    from rules.errors import InvalidFile
    from rules.trial.cases import read_cases

    cases: list[Case] = []
    errors: list[Exception] = []
    for file in files:
        try:
            cases += read_cases(read_text(file), str(file))
        except (Unreadable, InvalidFile) as error:
            errors.append(error)
    if errors:
        _refuse(context, errors, EXIT_UNREADABLE, as_json)
    try:
        loaded, known = _load(app, policy_file)
    except (Unusable, InvalidFile) as error:
        refused = isinstance(error, InvalidFile)
        _refuse(context, [error], EXIT_FAILED if refused else EXIT_UNREADABLE, as_json)
    tried = try_cases(loaded, known, cases)
    failed = [each for each in tried if not each.passed]
    if as_json:
        emit(
            {
                "passed": len(tried) - len(failed),
                "failed": len(failed),
                "cases": [each.to_json() for each in tried],
            }
        )
    else:
        _print(tried, failed)
    context.exit(EXIT_FAILED if failed else EXIT_PASSED)


def _refuse(
    context: click.Context, errors: Sequence[Exception], status: int, as_json: bool
) -> NoReturn:
    """Says what is wrong with files, and leaves."""
    if as_json:
        told = [line for error in errors for line in str(error).splitlines()]
        emit({"passed": 0, "failed": 0, "cases": [], "problems": told})
    for error in errors:
        problems: Sequence[Problem] = getattr(error, "problems", ())
        for problem in problems:
            click.echo(inert(str(problem)), err=True)
        if not problems:
            complain(str(error))
    context.exit(status)


def _print(tried: Sequence[Tried], failed: Sequence[Tried]) -> None:
    for each in failed:
        case = each.case
        click.echo(f"{paint('failed', fg='red', bold=True)} {inert(case.name)}")
        click.echo(f"  {inert(case.file)}:{case.line}")
        for difference in each.differences:
            click.echo(f"  {inert(difference)}")
        click.echo(f"  {inert(each.got.sentence)}")
    passed = len(tried) - len(failed)
    click.echo(f"{passed} passed, {len(failed)} failed")


@click.command(cls=Command)
@click.option(
    "--as",
    "agent",
    metavar="AGENT",
    help="The agent that would call.",
    shell_complete=complete.agents,
)
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header.")
@click.option("--body", type=FILE_OR_STDIN, help="A file with the body; - reads stdin.")
@click.option("--target", help="Path and query as on the wire, in place of those of URL.")
@click.option("--at", "moment", metavar="TIME", help="When it comes (ISO 8601), instead of now.")
@click.option(
    "--run", metavar="ID|true", help="The run of `keybroker run` that it comes from; true: any."
)
@policy_option
@click.argument("method", metavar="METHOD|CALL", shell_complete=complete.told_of)
@click.argument("url", required=False)
@json_option
@pass_app
def explain(
    app: App,
    agent: str | None,
    headers: tuple[str, ...],
    body: Path | None,
    target: str | None,
    moment: str | None,
    run: str | None,
    policy_file: Path | None,
    method: str,
    url: str | None,
    as_json: bool,
) -> None:
    """Say what the policy says of METHOD URL, or what was said of a CALL in the ledger.

    With the rules that match, and of the nearest others the conditions that fail. Of a CALL also
    what the present policy would say. Its query, headers and body are not kept; what hangs on them
    is told as far as the ledger tells it.
    """
    if url is None:
        if any((agent, headers, body, target is not None, moment, run)):
            raise click.UsageError("METHOD needs a URL; a CALL is explained as it was made")
        _explain_past(app, method, policy_file, as_json)
        return
    from keybroker.policy import explain_call, subject_of
    from rules.trial.requests import Written

    if agent is None:
        raise click.UsageError("--as AGENT is missing: which agent would call?")
    written = Written(
        method,
        url,
        tuple([_header(line) for line in headers]),
        _content(body),
        target,
        _moment(moment),
        run=_run(run),
    )
    loaded, known = _load(app, policy_file)
    hint_at(agent, known, loaded)
    if loaded.shadow:
        note("this policy is all shadow: told is what it would do if it were in force")
    told = explain_call(loaded, subject_of(agent, known), written)
    if as_json:
        emit(told)
    else:
        _tell(told)


def hint_at(agent: str, known: Sequence[Agent], policy: Policy) -> None:
    """A remark if nobody knows the agent: it has no tags, and made no calls."""
    from rules.load import agents_named
    from rules.yamlfile import did_you_mean

    names = {one.name for one in known} | agents_named(policy)
    if agent not in names:
        note(inert(f'there is no agent "{agent}"{did_you_mean(agent, names)}'))


def _explain_past(app: App, id_: str, policy_file: Path | None, as_json: bool) -> None:
    """A call of the ledger. The present policy is the one in force."""
    from audit.reading import open_ledger
    from keybroker.past_calls import Candidate, explain_past
    from keybroker.policy import subjects
    from keybroker.policyfile import load_policy_file
    from keybroker.replaying import earlier

    services = app.services()
    then = earlier(services.policies)
    candidate = None
    if policy_file is not None:
        candidate = Candidate(str(policy_file), load_policy_file(policy_file)[0])
    elif (number := services.policies.in_force()) is not None and (policy := then(number)):
        candidate = Candidate(f"version {number}", policy)
    with closing(open_ledger(app.workspace().database)) as db:
        agents = subjects(services.agents.list())
        told = explain_past(db, id_, then, agents, candidate)
    if told is None:
        raise Unusable(f"the ledger has no call or approval {id_!r}; `audit search` finds them")
    if as_json:
        emit(told)
    else:
        _tell_past(told)


def _tell_past(told: dict[str, Any]) -> None:
    version = "" if told["version"] is None else f", by version {told['version']} of the policy"
    click.echo(inert(f"{told['call']} of {told['agent']}, {told['time']}{version}"))
    effect = told["effect"]
    colour = _COLOURS.get(effect, "green")
    click.echo(f"{paint(effect, fg=colour, bold=True)}: {inert(told['sentence'])}")
    if told["rules"]:
        click.echo(f"rules: {', '.join(told['rules'])}")
    if told["tiers"]:
        click.echo(f"risk: {', '.join(tier['name'] for tier in told['tiers'])}")
    if told["credentials"]:
        click.echo(f"credentials: {', '.join(told['credentials'])}")
    _tell_shadow(told)
    _tell_rules(told)
    now = told["present"]
    if now is not None:
        same = "the same" if now["same"] and now["certain"] else now["outcome"]
        rule = f", by {now['rule']}" if now["rule"] else ""
        why = f" ({now['why']})" if now["why"] else ""
        unsure = "" if now["certain"] else "; it cannot be told which"
        click.echo(f"{inert(now['policy'])} says: {same}{rule}{unsure}{inert(why)}")


@click.command(cls=Command)
@click.option("--tests", "of", flag_value="tests", help="Of a file for `policy test`.")
@click.option("--pack", "of", flag_value="pack", help="Of a pack.")
def schema(of: str | None) -> None:
    """Print the JSON Schema (2020-12) of the policy file, for editors."""
    from rules.editor import schemas

    made = {"tests": schemas.tests_schema, "pack": schemas.pack_schema}
    click.echo(json.dumps(made.get(of or "", schemas.policy_schema)(), indent=2))


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise click.UsageError(f"--header {line!r}: write 'NAME: VALUE'")
    return name.strip(), value.strip()


def _content(body: Path | None) -> bytes:
    if body is None:
        return b""
    try:
        return sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    except OSError as error:
        raise Unusable(f"{body} cannot be read ({error.strerror})") from error


def _run(text: str | None) -> str | None:
    from rules.trial.requests import run_of

    try:
        return None if text is None else run_of(text)
    except ValueError as error:
        raise click.UsageError(f"--run: {error}") from None


def _moment(text: str | None) -> datetime:
    from rules.trial.requests import parse_moment

    try:
        return parse_moment(text) if text is not None else datetime.now(UTC)
    except ValueError as error:
        raise click.UsageError(f"--at: {error}") from None


def _tell(told: dict[str, Any]) -> None:
    effect = told["effect"]
    click.echo(f"{paint(effect, fg=_COLOURS[effect], bold=True)}: {inert(told['sentence'])}")
    if told["rules"]:
        click.echo(f"rules: {', '.join(told['rules'])}")
    for tier in told["tiers"]:
        click.echo(f"risk: {tier['name']} ({tier['people']}, within {tier['decide_within']})")
    if told["credentials"]:
        click.echo(f"credentials: {', '.join(told['credentials'])}")
    for summary in told["summaries"]:
        click.echo(f"summary: {inert(summary)}")
    for limit in told["limits"]:
        click.echo(f"limit of {limit['rule']}: {inert(limit['sentence'])}")
    _tell_shadow(told)
    _tell_rules(told)


def _tell_shadow(told: dict[str, Any]) -> None:
    shadow = told["shadow"]
    if shadow is not None:
        by = ", ".join(shadow["rules"]) or "no rule"
        click.echo(inert(f"in shadow: {shadow['effect']}, by {by}"))


def _tell_rules(told: dict[str, Any]) -> None:
    for rule in told["matched"]:
        if rule["rule"] not in told["rules"]:
            click.echo(f"also matches: {_rule(rule)}")
    for near in told["near"]:
        click.echo(f"does not match: {_rule(near)}")
        for why in near["failed"]:
            click.echo(f"  only {inert(why['condition'])}; {inert(why['found'])}")


def _rule(rule: dict[str, Any]) -> str:
    line = f", line {rule['line']}" if "line" in rule else ""
    return f"{rule['rule']} ({rule['effect']}{line})"
