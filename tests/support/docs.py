"""The parts of the guides that are made from the program: what they should say, and where they are.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. `python -m tests.support.docs`
writes all of them anew; a test shows that they are up to date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click

from broker.approvals import MOVES
from broker.digest import VOLATILE_HEADERS
from broker.errors import CODES
from broker.telemetry.metrics import METRICS
from certs.clients import CLIENTS, VARIABLES, WITHHELD
from keybroker.cli import cli
from keybroker.packs import counts, hosts, shipped
from rules.lint.codes import CODES as FINDINGS

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs"

_PART = re.compile(r"<!-- generated: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def moves() -> str:
    """The states of an approval and every legal move, as Mermaid draws them."""
    starts = {source for source, _ in MOVES}
    lines = ["stateDiagram-v2", "    [*] --> pending: open"]
    lines += [f"    {source} --> {target}: {event}" for (source, event), target in MOVES.items()]
    ends = dict.fromkeys(target for target in MOVES.values() if target not in starts)
    lines += [f"    {target} --> [*]" for target in ends]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def codes() -> str:
    """Every code that Keybroker answers an agent with."""
    rows = ((f"`{name}`", str(code.status), code.title) for name, code in CODES.items())
    return _table(("code", "status", "meaning"), rows)


def volatile() -> str:
    """The headers in which a repeated request may differ."""
    return ", ".join(f"`{name}`" for name in sorted(VOLATILE_HEADERS)) + "\n"


def variables() -> str:
    """What `keybroker run` sets for its command."""
    words = {
        "proxy": "the proxy URL",
        "bundle": "bundle",
        "ca": "the certificate alone",
        "1": "`1`",
        "true": "`true`",
        "": "empty",
        "java": "`-D` options, after what is there",
        "git": "`http.proxy` and `http.version`, after what is there",
        "wgetrc": "a file that names the bundle",
        "curlrc": "a folder with an empty `.curlrc`",
    }
    rows = ((f"`{v.name}`", words[v.value], v.clients) for v in VARIABLES)
    return _table(("variable", "value", "read by"), rows)


def withheld() -> str:
    """What `keybroker run` takes out of its command's environment."""
    return ", ".join(f"`{name}`" for name in sorted(WITHHELD)) + "\n"


def clients() -> str:
    """Every client that was tried: what it needs, how long it waits, what it says."""
    rows = (
        (
            client.name,
            "by hand" if client.by_hand else "yes",
            ", ".join(f"`{name}`" for name in client.needs),
            "as long as it takes" if client.waits is None else f"{client.waits} s",
            f"`{client.refused}`",
        )
        for client in CLIENTS
    )
    heads = ("client", "unmodified", "needs", "waits for a held call", "shows without a token")
    return _table(heads, rows)


def by_hand() -> str:
    """What is left to do for clients that the variables do not lead."""
    return "".join(f"- **{c.name}**: {c.by_hand}.\n" for c in CLIENTS if c.by_hand)


def metrics() -> str:
    """Every metric with its kind, labels, fixed values and buckets."""
    rows = []
    for metric in METRICS:
        said = metric.help
        if metric.buckets:
            said += f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}."
        labels = [
            f"`{name}`"
            + (
                ": " + ", ".join(f"`{v}`" for v in dict.fromkeys(v[i] for v in metric.values))
                if metric.values != ((),)
                else ""
            )
            for i, name in enumerate(metric.labels)
        ]
        rows.append((f"`{metric.name}`", metric.kind, "; ".join(labels), said))
    return _table(("name", "kind", "labels", "meaning"), rows)


def packs() -> str:
    """Every shipped pack: where it goes, how its rules are classified, what can be filled in."""
    rows = (
        (
            f"`{pack.name}`",
            pack.title,
            ", ".join(f"`{host}`" for host in hosts(pack)),
            *(str(number) for number in counts(pack).values()),
            ", ".join(
                f"`{p.name}`" + ("" if p.default else " (needed)") for p in pack.parameters.values()
            ),
        )
        for pack in shipped()
    )
    heads = ("pack", "API", "hosts", "low", "medium", "high", "parameters")
    return _table(heads, rows)


def findings() -> str:
    """Every code of `policy check`: how bad, why it matters, how to mend it."""
    rows = ((f"`{name}`", code.severity, code.why, code.mend) for name, code in FINDINGS.items())
    return _table(("code", "severity", "why it matters", "how to mend it"), rows)


def commands() -> str:
    """Every command with its help, arguments and options."""
    return "\n".join(_command(name, command) for name, command in walk(cli))


PARTS: Mapping[str, Callable[[], str]] = {
    part.__name__: part
    for part in (
        moves,
        codes,
        volatile,
        variables,
        withheld,
        clients,
        by_hand,
        metrics,
        packs,
        findings,
        commands,
    )
}


def walk(group: click.Group, prefix: str = "keybroker") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, in the order of the help; hidden ones left out."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield f"{prefix} {name}", command
            yield from walk(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command)
    arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
    paragraphs = [" ".join(p.split()) for p in (command.help or "").split("\n\n")]
    text = f"## {name}\n\n`{' '.join([name, *arguments])}`\n\n" + "\n\n".join(paragraphs) + "\n"
    rows = []
    for option in command.params:
        if not isinstance(option, click.Option) or option.name == "workspace":
            continue
        names = ", ".join(f"`{word}`" for word in (*option.opts, *option.secondary_opts))
        if not option.is_flag:
            names += f" {option.make_metavar(context)}".replace("|", "\\|")
        said = option.help or ""
        if option.required:
            said += " Required."
        if option.show_default:
            said += f" Default: `{option.default}`."
        rows.append((names, said.strip()))
    return text + ("\n" + _table(("option", "meaning"), rows) if rows else "")


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines) + "\n"


def brought_up_to_date(text: str) -> str:
    """The guide with its generated parts as they should be. Raises KeyError for an unknown part."""
    return _PART.sub(
        lambda found: f"<!-- generated: {found[1]} -->\n{PARTS[found[1]]()}<!-- end -->", text
    )


if __name__ == "__main__":
    for guide in sorted(GUIDES.glob("*.md")):
        guide.write_text(brought_up_to_date(guide.read_text()))
