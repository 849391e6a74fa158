"""`keybroker audit`: reads, verifies and exports the ledger. Changes nothing."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from audit.filters import FIELDS, OUTCOMES, BadFilter, read_filter
from keybroker.cli import complete
from keybroker.cli.frame import (
    App,
    Group,
    complain,
    emit,
    inert,
    json_option,
    note,
    paint,
    pass_app,
)
from rules.request import authority

if TYPE_CHECKING:
    from audit.record import Record

EXIT_WHOLE, EXIT_BROKEN, EXIT_UNREADABLE = 0, 1, 2
_DIGEST = re.compile("[0-9a-f]{64}")
_POLL = 0.25  # seconds between looks of `tail --follow`


@click.group(cls=Group)
def audit() -> None:
    """Read, verify and export the audit log."""


@contextmanager
def ledger_of(app: App) -> Iterator[sqlite3.Connection]:
    """A connection to the workspace's ledger that can only read."""
    from audit.reading import open_ledger

    with closing(open_ledger(app.workspace().database)) as db:
        yield db


def _print(record: Record, as_json: bool) -> None:
    if as_json:
        from audit.query import export_jsonl

        click.echo("".join(export_jsonl([record])), nl=False)
        return
    data = ", ".join(f"{k}={_short(v)}" for k, v in record.data.items() if v not in (None, []))
    who = f" {record.agent}" if record.agent else ""
    call = f" {record.call}" if record.call else ""
    click.echo(
        f"{record.seq:>6} {record.time} {paint(record.type, bold=True)}"
        f"{inert(who)}{inert(call)}  {inert(data)}"
    )


def _short(value: object) -> str:
    if isinstance(value, dict) and {"method", "host", "path"} <= value.keys():
        place = authority(value.get("scheme", ""), value["host"], value.get("port"))
        return f"{value['method']} {place}{value['path']}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _DIGEST.fullmatch(text):
        return text[:12] + "..."  # for people; `--json` has it whole
    return text if len(text) <= 80 else text[:77] + "..."


@audit.command()
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="How many.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@json_option
@pass_app
def tail(app: App, count: int, follow: bool, as_json: bool) -> None:
    """Print the newest records, oldest of them first."""
    from audit import query

    with ledger_of(app) as db:
        last = 0
        for record in query.tail(db, count):
            _print(record, as_json)
            last = record.seq
        while follow:
            time.sleep(_POLL)
            for record in query.after(db, last):
                _print(record, as_json)
                last = record.seq


def filter_options[F: Callable[..., object]](function: F) -> F:
    """An option for each field that the history can be searched by (audit.filters)."""
    for field in reversed(FIELDS):
        kind = click.Choice(OUTCOMES) if field.kind == "outcome" else None
        function = click.option(
            f"--{field.name}",
            type=kind,
            metavar="TIME" if field.kind == "time" else None,
            help=field.help.replace("Calls", "Records of calls").replace("`", ""),
            shell_complete=complete.BY_FIELD.get(field.name),
        )(function)
    return function


@audit.command()
@click.option(
    "--type",
    "type_",
    help="A record type, such as call.sent; `call` is all of its kind.",
    shell_complete=complete.types,
)
@click.option("--call", help="Records of this call.")
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="How many at most.",
)
@json_option
@pass_app
def search(
    app: App,
    /,
    type_: str | None,
    call: str | None,
    limit: int,
    as_json: bool,
    **given: str | None,
) -> None:
    """Print the records that match all that is given, newest first."""
    from audit import query

    try:
        wanted = read_filter({name: value for name, value in given.items() if value is not None})
    except BadFilter as error:
        raise click.UsageError(str(error)) from None
    with ledger_of(app) as db:
        found = query.search(db, wanted, type=type_, call=call, limit=limit)
        for record in found:
            _print(record, as_json)
    if not found and not as_json:
        note("nothing matches")


@audit.command()
@click.argument("id_", metavar="CALL|APPROVAL", shell_complete=complete.told_of)
@json_option
@pass_app
def show(app: App, id_: str, as_json: bool) -> None:
    """Print everything recorded about one call or approval."""
    from audit import query
    from broker.errors import NotFound

    with ledger_of(app) as db:
        records = query.show(db, id_)
    if not records:
        raise NotFound(f"the audit log has nothing about {id_}")
    for record in records:
        _print(record, as_json)


@audit.command()
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A copy of the database, or an export, instead of the workspace's own.",
)
@json_option
@click.pass_context
@pass_app
def verify(app: App, context: click.Context, file: Path | None, as_json: bool) -> None:
    """Verify the whole log: the chain, its newest record, and that every sent call was permitted.

    Exits with 0 if it is whole, 1 if it is broken, 2 if it could not be read.
    """
    from audit.errors import AuditError
    from broker.errors import KeybrokerError
    from keybroker.compose import verify_ledger

    try:
        verdict = verify_ledger(app.option, file)
    except (AuditError, KeybrokerError, OSError, sqlite3.Error) as error:
        if as_json:
            emit({"ok": None, "error": str(error)})
        complain(str(error))
        context.exit(EXIT_UNREADABLE)
    if as_json:
        emit(
            {
                "ok": verdict.ok,
                "records": verdict.records,
                "head": verdict.head,
                "faults": [
                    {"seq": f.seq, "kind": f.kind, "sentence": f.sentence} for f in verdict.faults
                ],
                "notes": list(verdict.notes),
            }
        )
    else:
        for fault in verdict.faults:
            complain(inert(f"record {fault.seq}: {fault.sentence}"))
        for remark in verdict.notes:
            note(inert(remark))
        word = paint("whole", fg="green") if verdict.ok else paint("BROKEN", fg="red", bold=True)
        click.echo(f"{word}: {verdict.records} records, head {verdict.head}")
    context.exit(EXIT_WHOLE if verdict.ok else EXIT_BROKEN)


@audit.command()
@click.option(
    "--format", "format_", type=click.Choice(["jsonl"]), default="jsonl", help="The form."
)
@click.option(
    "--output",
    "-o",
    type=click.File("w", encoding="utf-8"),
    default="-",
    metavar="FILE",
    help="Where to; else to stdout.",
)
@pass_app
def export(app: App, format_: str, output: IO[str]) -> None:
    """Write every record, one line of JSON each, oldest first."""
    from audit import query

    with ledger_of(app) as db:
        output.writelines(query.export_jsonl(query.export(db)))
