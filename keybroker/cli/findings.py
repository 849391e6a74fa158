"""Findings about a policy, for people: by file and line, each with the call that shows it."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

import click

from keybroker.cli.frame import inert, paint

if TYPE_CHECKING:
    from rules.lint.check import Report
    from rules.lint.finding import Example, Finding

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
_MAX_BODY = 200
"""Characters of a body; JSON output has all of it."""


def show_findings(report: Report, path: str) -> None:
    """Prints them on stderr, as compilers do, and on stdout a line with how many there are."""
    for _, group in groupby(report.findings, key=lambda finding: finding.file):
        for finding in group:
            _show(finding)
        click.echo(err=True)
    counts = Counter[str](finding.severity for finding in report.findings)
    told = ", ".join(
        f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}"
        for name in _COLOURS
        if counts[name]
    )
    if report.valid:
        rules = f"{report.rules} rule{'' if report.rules == 1 else 's'}"
        click.echo(f"{path}: valid, {rules}" + (f"; {told}" if told else ""))
    else:
        click.echo(f"{path}: not valid; {told}")


def _show(finding: Finding) -> None:
    where = f"{finding.file}:{finding.line}" if finding.line else finding.file
    severity = paint(finding.severity, err=True, fg=_COLOURS[finding.severity], bold=True)
    code = paint(f"[{finding.code}]", err=True, dim=True)
    click.echo(f"{inert(where)}: {severity}: {inert(finding.message)} {code}", err=True)
    if finding.example is not None:
        click.echo(f"    example: {inert(_in_words(finding.example))}", err=True)


def _in_words(example: Example) -> str:
    """`bot: POST https://api.example.com/x (content-type: application/json) {"a": 1}`."""
    told = example.to_dict()
    words = [f"{told['as']}: {told['method']} {told['url']}"]
    beside = [f"{name}: {value}" for name, value in told.get("headers", {}).items()]
    beside += [f"{name} {told[name]}" for name in ("at", "via", "run") if name in told]
    if beside:
        words.append(f"({', '.join(beside)})")
    body = told.get("body", told.get("body_base64"))
    if body:
        words.append(body if len(body) <= _MAX_BODY else body[:_MAX_BODY] + "...")
    return " ".join(words)
