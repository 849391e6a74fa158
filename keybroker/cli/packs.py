"""`keybroker policy packs`: the rules for known APIs that a policy can include."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from keybroker.cli.frame import Group, emit, inert, json_option, paint
from keybroker.errors import Unusable

if TYPE_CHECKING:
    from rules.pack import Pack

_COLOURS = {"low": "green", "medium": "yellow", "high": "red"}


@click.group(cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def packs(context: click.Context, as_json: bool) -> None:
    """List the packs: rules for known APIs, to be had with `include:`."""
    if context.invoked_subcommand is not None:
        return
    from keybroker.packs import counts, overview, shipped

    found = shipped()
    if as_json:
        emit([overview(pack) for pack in found])
        return
    width = max(len(pack.name) for pack in found)
    for pack in found:
        classes = ", ".join(f"{number} {level}" for level, number in counts(pack).items())
        click.echo(f"{pack.name:{width}}  {pack.title} ({classes})")


@packs.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the pack NAME: its classes, its rules in words, what to fill in, how its key goes in."""
    from keybroker.packs import find, whole
    from rules import packs as known
    from rules.yamlfile import did_you_mean

    pack = find(name)
    if pack is None:
        raise Unusable(f'there is no pack "{name}"{did_you_mean(name, known.names())}')
    told = whole(pack)
    if as_json:
        emit(told)
    else:
        _print(pack, told)


def _print(pack: Pack, told: dict[str, Any]) -> None:
    click.echo(f"{pack.title}: {pack.about}")
    click.echo(f"hosts: {', '.join(told['hosts'])}")
    for parameter in told["parameters"]:
        default = parameter["default"]
        what = "needed" if default is None else f"default {', '.join(default)}"
        click.echo(f"with {parameter['name']} ({what}): {parameter['about']}")
    click.echo(f"credential: {_credential(pack.credential)}")
    for rule in told["rules"]:
        level = rule["class"]
        click.echo(f"\n{paint(level, fg=_COLOURS[level], bold=True)} {rule['id']}")
        for line in rule["calls"]:
            click.echo(f"  {inert(line)}")
        for word in ("summary", "impact", "undo"):
            if rule[word]:
                click.echo(f"  {word}: {inert(rule[word])}")


def _credential(credential: object) -> str:
    return "none" if credential is None else json.dumps(credential)
