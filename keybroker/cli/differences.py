"""`keybroker policy diff`: what two policies make of calls differently. Changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keybroker.cli.frame import App, Command, emit, inert, json_option, note, paint, pass_app
from keybroker.cli.trying import Progress
from keybroker.errors import Unusable
from rules.request import authority

if TYPE_CHECKING:
    from rules.lint.finding import Example
    from rules.model import Policy
    from rules.trying.difference import Compared, Difference, Side

SHOWN = 60
_LONGEST = 120
_HEADS = {
    "allow": "newly allowed",
    "tunnel": "newly passed on undecrypted",
    "otherwise": "otherwise",
    "hold": "newly held",
    "deny": "newly denied",
}
_COLOURS = {"allow": "red", "tunnel": "red", "otherwise": "yellow", "hold": "yellow"}
_VERSION = "version:"


@click.command(cls=Command)
@click.argument("old")
@click.argument("new")
@json_option
@pass_app
def diff(app: App, old: str, new: str, as_json: bool) -> None:
    """Say what NEW makes of calls that OLD does not, with calls that show it.

    OLD and NEW are files, `active` (the policy in force) or `version:N`. It goes by examples made
    from the rules that are not the same: each is certain, and what none comes upon is not seen.
    """
    from keybroker.policy import subjects
    from rules.trying.difference import compare

    before, after = _policy(app, old), _policy(app, new)
    for name, policy in ((old, before), (new, after)):
        if policy.shadow:
            note(f"{name} is in shadow: shown is what it would do if it were in force")
    agents = subjects(app.services().agents.list()).values() if app.has_workspace() else ()
    progress = Progress("comparing")
    try:
        found = compare(before, after, agents, progress)
    finally:
        progress.end()
    if as_json:
        emit(_report(found))
    else:
        _tell(found)


def _policy(app: App, name: str) -> Policy:
    from broker.errors import NotFound
    from keybroker.policyfile import load_policy_file

    if name != "active" and not name.startswith(_VERSION):
        return load_policy_file(Path(name))[0]
    policies = app.services().policies
    if name == "active":
        published = policies.refresh()
        if published is None:
            raise Unusable("no policy was ever in force here: `keybroker up` publishes the file")
        return published.rulebook.policy
    number = name.removeprefix(_VERSION)
    if not (number.isascii() and number.isdigit()) or len(number) > 9:
        raise click.UsageError(f"{name!r}: write version:N, with the number of a version")
    policy = policies.version(int(number))
    if policy is None:
        newest = policies.newest()
        raise NotFound(f"there is no version {number} of the policy; the newest is {newest}")
    return policy


def _report(found: Compared) -> dict[str, object]:
    return {
        "changed_rules": list(found.changed),
        "tried": found.tried,
        "whole": found.whole,
        "differences": [
            {
                "kind": each.kind,
                "agents": [subject.name for subject in each.subjects],
                "before": _side(each.before),
                "after": _side(each.after),
                "sentence": _sentence(each),
                "examples": [example.to_dict() for example in each.examples],
            }
            for each in found.differences
        ],
    }


def _side(side: Side) -> dict[str, object]:
    return {
        "effect": side.effect,
        "rules": list(side.rules),
        "risk": side.risk if side.effect == "hold" else None,
        "credentials": list(side.credentials),
        "limits": list(side.limits),
    }


def _tell(found: Compared) -> None:
    if not found.changed:
        click.echo("no rule differs")
        return
    if not found.differences:
        differ = f"{len(found.changed)} rules differ"
        click.echo(f"{differ}; none of {found.tried} calls is decided otherwise")
    for kind, head in _HEADS.items():
        here = [each for each in found.differences if each.kind == kind]
        if here:
            click.echo(paint(head, fg=_COLOURS.get(kind), bold=True))
        for each in here[:SHOWN]:
            click.echo(inert(f"  {_sentence(each)}"))
            for example in each.examples:
                click.echo(inert(f"      {_example(example)}"))
        if len(here) > SHOWN:
            click.echo(f"  and {len(here) - SHOWN} more; --json has them all")
    note(f"by {found.tried} examples: what none of them comes upon is not seen")
    if not found.whole:
        note("there were too many rules to try all: compare parts of them")


def _sentence(each: Difference) -> str:
    names = [subject.name for subject in each.subjects]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    who = ", ".join(names[:3]) + more
    before, after = each.before, each.after
    tunnelled = "tunnel" in (before.effect, after.effect)
    limits = before.limits != after.limits
    told = [_words(side, tunnelled=tunnelled, limits=limits) for side in (before, after)]
    return f"{who}: {' -> '.join(told)}{_credentials(each)}"


def _words(side: Side, *, tunnelled: bool, limits: bool) -> str:
    by = ", ".join(f'"{rule}"' for rule in side.rules[:3])
    if limits and side.effect in ("allow", "hold"):
        by += f" ({'; '.join(side.limits)})" if side.limits else " (without a limit)"
    match side.effect:
        case "hold":
            return f"held ({' and '.join(side.tiers)}) by {by}"
        case "allow":
            return f"allowed by {by}"
        case "tunnel":
            return f"passed on undecrypted by {by}"
        case _ if tunnelled:
            return "not passed on: each call in it is decided"
        case _:
            return f"denied by {by}" if by else "denied (no rule)"


def _credentials(each: Difference) -> str:
    gone = set(each.before.credentials) - set(each.after.credentials)
    come = set(each.after.credentials) - set(each.before.credentials)
    told = [f"with {', '.join(sorted(come))}"] if come else []
    if gone and each.after.effect in ("allow", "hold"):
        told.append(f"without {', '.join(sorted(gone))}")
    return "; " + ", ".join(told) if told else ""


def _example(example: Example) -> str:
    """In one line; what may be long is cut."""
    request = example.request
    place = authority(request.scheme, request.host, request.port)
    parts = [f"{request.method} {request.scheme}://{place}{request.target}"]
    if request.upgrade is not None:
        parts.append(f"for a {request.upgrade}")
    parts += [f"{name}: {value}" for name, value in request.headers]
    if request.body:
        parts.append(request.body.decode("utf-8", "replace"))
    if request.moment is not None:
        parts.append(f"at {request.moment:%a %H:%M %Z}")
    if request.run is not None:
        parts.append("in a run")
    if request.via != "proxy":
        parts.append(f"by the {request.via}")
    return "  ".join(map(_cut, parts))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
