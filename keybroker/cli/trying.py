"""`keybroker policy replay|learn`: a policy tried before it bites, or made from what was seen."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from keybroker.cli import complete
from keybroker.cli.frame import (
    FILE,
    App,
    Command,
    emit,
    inert,
    json_option,
    note,
    paint,
    pass_app,
    table,
)
from keybroker.cli.trials import hint_at
from keybroker.errors import Unusable
from rules.request import authority

if TYPE_CHECKING:
    from keybroker.replaying import Load, Replayed
    from rules.trying.replay import Change, Group, Seen

SHOWN_GROUPS = 40
_IN_MEMORY = 4 * 1024 * 1024
_HEADS = {
    "changed": "would change",
    "uncertain": "cannot be told from what the ledger keeps",
    "otherwise": "would stay, but otherwise",
}


class Progress:
    """One line on a terminal while something takes long; nothing elsewhere."""

    def __init__(self, doing: str) -> None:
        self._doing = inert(doing)
        self._begun = time.monotonic()
        self._shown = 0.0

    def __call__(self, done: float) -> None:
        now = time.monotonic()
        stream = sys.stderr
        if stream is None or not stream.isatty() or now - self._begun < 1:
            return
        if now - self._shown >= 0.2:
            self._shown = now
            click.echo(f"\r{self._doing}: {done:.0%} ", nl=False, err=True)

    def end(self) -> None:
        """Takes the line away, if there is one."""
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)


def _now() -> datetime:
    from broker.services import utc_now

    return utc_now()


def time_option[F: Callable[..., Any]](name: str, text: str) -> Callable[[F], F]:
    """An option for a time: RFC 3339, or so long ago."""

    def read(_: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
        from keybroker.replaying import moment_of

        try:
            return None if given is None else moment_of(given, _now(), parameter.name or "")
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return click.option(f"--{name}", metavar="TIME", callback=read, help=text)


since_option = time_option("since", "Calls from this time on: 7d (ago), 36h, or RFC 3339.")
until_option = time_option("until", "Calls before this time.")


def _check_window(since: str | None, until: str | None) -> None:
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--until must be later than --since")


@click.command(cls=Command)
@click.argument("file", metavar="NEW", type=FILE)
@since_option
@until_option
@click.option("--agent", help="Calls of this agent only.", shell_complete=complete.agents)
@json_option
@pass_app
def replay(
    app: App, file: Path, since: str | None, until: str | None, agent: str | None, as_json: bool
) -> None:
    """Say what the policy NEW would have made of the calls in the ledger.

    Query, headers and body of calls are not kept. Where a rule looks at them, the ledger may still
    tell by which rules the call was decided then; else the call is listed as uncertain.
    """
    from audit.past import Past
    from audit.reading import open_ledger
    from keybroker import replaying
    from keybroker.policy import subjects
    from keybroker.policyfile import load_policy_file

    candidate, _ = load_policy_file(file)
    _check_window(since, until)
    services = app.services()
    agents = services.agents.list()
    if agent is not None:
        hint_at(agent, agents, candidate)
    db = open_ledger(app.workspace().database)
    click.get_current_context().call_on_close(db.close)
    progress = Progress("replaying")
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8") as spool:

        def keep(change: Change) -> None:
            if as_json:
                spool.write(json.dumps(_change(change)) + "\n")

        try:
            done = replaying.replay(
                Past(db, since=since, until=until, agent=agent),
                candidate,
                replaying.earlier(services.policies),
                subjects(agents),
                services.people.list(),
                each=keep,
                progress=progress,
            )
        finally:
            progress.end()
        if as_json:
            _emit(done, spool)
        else:
            _tell(done)
    if candidate.shadows:
        ids = ", ".join(rule.id for rule in candidate.shadows[:3])
        more = f" and {len(candidate.shadows) - 3} more" if len(candidate.shadows) > 3 else ""
        note(inert(f"rules in shadow take no part: {ids}{more}"))


@click.command(cls=Command)
@click.option("--agent", required=True, help="Whose calls.", shell_complete=complete.agents)
@since_option
@until_option
@click.option("-o", "--output", type=FILE, help="The file to write; else it goes to stdout.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@json_option
@pass_app
def learn(
    app: App,
    agent: str,
    since: str | None,
    until: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Propose the least policy that covers what an agent did, as a file to review.

    Reads are allowed as they were; what changes something is held. What was denied is left out.
    """
    from audit.past import Past
    from audit.reading import open_ledger
    from certs.files import write_atomically
    from keybroker import replaying
    from keybroker.policy import subjects
    from rules.load import load_policy

    if output is not None and output.exists() and not force:
        raise Unusable(f"{output} is there already; --force overwrites it")
    _check_window(since, until)
    services = app.services()
    published = services.policies.refresh()
    if published is None:
        raise Unusable("no policy was ever in force here, so nothing can be learnt")
    agents = services.agents.list()
    hint_at(agent, agents, published.rulebook.policy)
    db = open_ledger(app.workspace().database)
    click.get_current_context().call_on_close(db.close)
    progress = Progress("learning")
    try:
        learnt = replaying.learn(
            Past(db, since=since, until=until, agent=agent),
            agent,
            published.rulebook.policy,
            subjects(agents),
            progress=progress,
        )
    finally:
        progress.end()
    proposal = learnt.propose()
    text = proposal.text(since or "", until or "")
    rules = load_policy(text, str(output or "the proposal"))[0].rules
    if output is not None:
        try:
            write_atomically(output, text.encode(), 0o644)
        except OSError as error:
            raise Unusable(f"{output} cannot be written ({error.strerror})") from error
    if as_json:
        emit(
            {
                "agent": agent,
                "output": None if output is None else str(output),
                "calls": proposal.calls,
                "denied": proposal.denied,
                "denied_covered": proposal.denied_covered,
                "left_out": proposal.left_out,
                "rules": len(rules),
                **({"policy": text} if output is None else {}),
            }
        )
    elif output is None:
        click.echo(text, nl=False)
    else:
        covered = f"{_many(len(rules), 'rule')} for {_many(proposal.calls, 'call')} of {agent}"
        click.echo(inert(f"wrote {output}: {covered}"))
        note(f"next: read it, then `keybroker policy replay {output} --agent {agent}`")


def _change(change: Change) -> dict[str, object]:
    seen, glimpse = change.seen, change.seen.glimpse
    return {
        "kind": change.kind,
        "call": seen.call,
        "agent": seen.subject.name,
        "method": glimpse.method,
        "host": glimpse.host,
        "port": glimpse.port,
        "path": glimpse.path,
        "before": seen.said,
        "after": change.outcome,
        "rule": change.rule,
        "was": change.was,
        "why": change.why,
    }


def _emit(done: Replayed, spool: IO[str]) -> None:
    """One object, whose lists are as long as they are: written piece by piece."""
    trial = done.replay
    head = {
        "calls": trial.calls,
        "unchanged": trial.unchanged,
        "undecided": done.skipped.undecided,
        "spoilt": done.skipped.spoilt,
        "limited": trial.limited,
        "holds_per_day": dict(done.holds.average),
        "holds": _load(done.holds),
        "holds_then": _load(done.then),
        "groups": [_group(group) for group in trial.groups.values()],
    }
    click.echo(json.dumps(head)[:-1], nl=False)
    for kind in _HEADS:
        click.echo(f', "{kind}": [', nl=False)
        for number, line in enumerate(_of_kind(spool, kind)):
            click.echo((", " if number else "") + line, nl=False)
        click.echo("]", nl=False)
    click.echo("}")


def _of_kind(spool: IO[str], kind: str) -> Iterator[str]:
    spool.seek(0)
    begin = f'{{"kind": "{kind}", '
    for line in spool:
        if line.startswith(begin):
            yield "{" + line.removeprefix(begin).rstrip("\n")


def _load(load: Load) -> dict[str, object]:
    return {
        "days": load.days,
        "average": dict(load.average),
        "busiest": {n: {"day": day, "holds": most} for n, (day, most) in load.busiest.items()},
        "unsure": dict(load.unsure),
    }


def _group(group: Group) -> dict[str, object]:
    return {
        "kind": group.kind,
        "before": group.before,
        "after": group.after,
        "rule": group.rule,
        "was": group.was,
        "why": group.why,
        "calls": group.calls,
        "agents": sorted(group.agents),
        "examples": [change.seen.call for change in group.examples],
    }


def _tell(done: Replayed) -> None:
    trial = done.replay
    changed = sum(g.calls for g in trial.groups.values() if g.kind == "changed")
    unsure = sum(g.calls for g in trial.groups.values() if g.kind == "uncertain")
    click.echo(
        paint(
            f"{trial.calls} calls: {changed} would change, {unsure} cannot be told, "
            f"{trial.unchanged} stay as they were",
            bold=True,
        )
    )
    for kind, head in _HEADS.items():
        groups = [group for group in trial.groups.values() if group.kind == kind]
        if groups:
            click.echo(f"\n{paint(head, bold=True)}")
            _tell_groups(sorted(groups, key=lambda group: -group.calls))
    _tell_load(done)
    if done.skipped.undecided:
        note(f"{done.skipped.undecided} calls were refused before any rule was asked")
    if done.skipped.spoilt:
        note(f"{done.skipped.spoilt} records do not have their form: see `keybroker audit verify`")
    if trial.limited:
        note(f"limits are not replayed: {trial.limited} calls are under rules with one")


def _by(group: Group) -> str:
    if group.rule is None:
        return "" if group.kind == "uncertain" else ", no rule matches"
    return f', {"perhaps " if group.kind == "uncertain" else ""}by rule "{group.rule}"'


def _tell_groups(groups: list[Group]) -> None:
    for group in groups[:SHOWN_GROUPS]:
        by = _by(group)
        was = f'; was "{group.was}"' if group.was and group.was != group.rule else ""
        colour = {"allow": "green", "deny": "red"}.get(group.after, "yellow")
        after = paint(group.after, fg=colour)
        click.echo(
            f"  {group.before} -> {after}: {_many(group.calls, 'call')} of "
            f"{inert(_few(sorted(group.agents)))}{inert(by + was)}"
        )
        if group.why:
            hangs = "it hangs on " if group.kind == "uncertain" else ""
            click.echo(inert(f"      {hangs}{group.why}"))
        for change in group.examples:
            click.echo(f"      {inert(_example(change.seen))}")
    if len(groups) > SHOWN_GROUPS:
        click.echo(f"  and {len(groups) - SHOWN_GROUPS} more groups; --json has them all")


def _example(seen: Seen) -> str:
    glimpse = seen.glimpse
    place = authority(glimpse.scheme, glimpse.host, glimpse.port)
    path = glimpse.path if len(glimpse.path) <= 120 else glimpse.path[:117] + "..."
    return f"{glimpse.method} {glimpse.scheme}://{place}{path}  {seen.call}"


def _tell_load(done: Replayed) -> None:
    then, would = done.then, done.holds
    names = sorted({*then.average, *would.average, *would.unsure})
    if not names:
        return
    click.echo(f"\n{paint('asked a day', bold=True)} (over {_days(would.days)})")
    table(
        ("APPROVER", "THEN", "WITH NEW", "BUSIEST DAY", "MAYBE MORE"),
        [
            (
                name,
                then.average.get(name, 0),
                would.average.get(name, 0),
                "{1} on {0}".format(*would.busiest[name]) if name in would.busiest else None,
                would.unsure.get(name),
            )
            for name in names
        ],
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _days(days: float) -> str:
    return "1 day" if days == 1 else f"{days:g} days"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
