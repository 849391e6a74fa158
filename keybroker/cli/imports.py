"""`keybroker policy import`: packs of rules from what others write about their APIs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keybroker.cli.frame import Group, complain, emit, inert, json_option, note
from keybroker.errors import Unreadable, Unusable

if TYPE_CHECKING:
    from rules.openapi.importing import Imported

EXIT_UNREADABLE = 2
_STREAM = "-"


@click.group(name="import", cls=Group)
def importing() -> None:
    """Make packs of rules from descriptions of APIs."""


def _hosts(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    from rules.hosts import parse_pattern

    for host in given:
        try:
            parse_pattern(host)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return given


def _name(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    from rules.openapi.importing import pack_name

    if given is not None and (not given or pack_name(given) != given):
        raise click.BadParameter("write small letters, digits and hyphens; at most 40 characters")
    return given


@importing.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False))
@click.option(
    "--host",
    "hosts",
    multiple=True,
    callback=_hosts,
    help="Where the API is served, [*.]NAME[:PORT]; may be repeated. Else its first server.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    help="The pack to write; else it goes to stdout.",
)
@click.option("--name", callback=_name, help="The pack's name; else that of the output, or FILE.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@json_option
@click.pass_context
def openapi(
    context: click.Context,
    file: Path,
    hosts: tuple[str, ...],
    output: Path | None,
    name: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make a pack from FILE, an OpenAPI 3 description (JSON or YAML; `-` is stdin).

    Every operation gets one class: low is allowed, medium and high are held. What a person should
    look at stands at the top of the pack. Nothing is fetched. With --json a report is printed, and
    the pack only written to the output.
    """
    from rules.openapi.importing import import_openapi, pack_name

    to_stdout = output is None or str(output) == _STREAM
    if output is not None and not to_stdout and output.exists() and not force:
        raise Unusable(f"{output} is there already; --force overwrites it")
    try:
        data = _read(file)
    except Unreadable as error:
        complain(str(error))
        context.exit(EXIT_UNREADABLE)
    told = "stdin" if str(file) == _STREAM else file.name
    stem = "" if to_stdout or output is None else output.stem
    chosen = name or pack_name(stem) or pack_name("" if told == "stdin" else file.stem) or "api"
    progress = _Progress(told)
    try:
        made = import_openapi(data, file=told, name=chosen, hosts=hosts, progress=progress)
    finally:
        progress.end()
    if output is not None and not to_stdout:
        _write(output, made.text)
    elif not as_json:
        click.echo(made.text, nl=False)
    if as_json:
        emit(_report(made, None if to_stdout else output))
    elif not to_stdout:
        _tell(made, output)


def _read(file: Path) -> bytes:
    """The description, or a byte more than one may have: then it is refused by its length."""
    from rules.openapi.reading import MAX_BYTES

    try:
        if str(file) == _STREAM:
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise Unreadable(f"there is no file {file}") from error
    except OSError as error:
        raise Unreadable(f"{file} cannot be read ({error.strerror})") from error


def _write(output: Path, text: str) -> None:
    from certs.files import write_atomically

    try:
        write_atomically(output, text.encode("utf-8"), 0o644)
    except OSError as error:
        raise Unusable(f"{output} cannot be written ({error.strerror})") from error


def _counts(made: Imported) -> str:
    return ", ".join(f"{count} {name}" for name, count in made.counts.items())


def _tell(made: Imported, output: Path | None) -> None:
    click.echo(
        inert(
            f"wrote {output}: {len(made.rules)} rules for {made.operations} operations of "
            f"{made.title} ({_counts(made)})"
        )
    )
    for remark in made.remarks:
        many = f" ({len(remark.about)})" if remark.about else ""
        click.echo(inert(f"  look at {remark.code}{many}: {remark.sentence}"))
    note("next: read the comments at its top, and change classes with override: where you include")


def _report(made: Imported, output: Path | None) -> dict[str, object]:
    return {
        "pack": made.name,
        "output": None if output is None else str(output),
        "title": made.title,
        "version": made.version,
        "operations": made.operations,
        "rules": len(made.rules),
        "classes": made.counts,
        "review": [
            {"code": r.code, "sentence": r.sentence, "about": list(r.about)} for r in made.remarks
        ],
        "list": [
            {
                "rule": rule.id,
                "class": rule.risk,
                "operations": [{"method": m, "path": p} for m, p in rule.operations],
                "reasons": list(rule.reasons),
            }
            for rule in made.rules
        ],
    }


class _Progress:
    """One line on a terminal while a large file is read; nothing elsewhere."""

    def __init__(self, file: str) -> None:
        self._file = inert(file)
        self._begun = time.monotonic()
        self._shown = 0.0

    def __call__(self, done: float) -> None:
        now = time.monotonic()
        stream = sys.stderr
        if (
            stream is None
            or not stream.isatty()
            or now - self._begun < 1
            or now - self._shown < 0.2
        ):
            return
        self._shown = now
        click.echo(f"\rreading {self._file}: {done:.0%} ", nl=False, err=True)

    def end(self) -> None:
        """Takes the line away, if there is one."""
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)
