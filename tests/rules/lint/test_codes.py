"""Codes: the table has all that are told, and no others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from rules.lint.codes import CODES

ROOT = Path(__file__).parents[3] / "rules"
_AT = {"error": 1, "warn": 1, "note": 3, "problem": 2, "finding": 0, "Finding": 0, "_of_tier": 1}
"""Which argument of these calls is the code."""
_BY_KIND = ("field", "credential", "tier", "group", "pack", "parameter", "rule-of-a-pack")
_ELSEWHERE = {"invalid-value", "invalid-yaml", *(f"unknown-{kind}" for kind in _BY_KIND)}


def told() -> Iterator[str]:
    for file in [*ROOT.glob("*.py"), *ROOT.glob("lint/*.py"), *ROOT.glob("trial/*.py")]:
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            at = _AT.get(name)
            values = [k.value for k in call.keywords if k.arg == "code"]
            if at is not None and len(call.args) > at:
                values.append(call.args[at])
            yield from (v.value for v in values if isinstance(v, ast.Constant) and v.value)


def test_every_code_that_is_told_stands_in_the_table() -> None:
    in_loops = {"hold-avoidable", "comparison-avoidable", "tunnel-looks-inside"}
    assert set(told()) | _ELSEWHERE | in_loops == set(CODES)


def test_each_says_why_and_how_to_mend_it_in_one_line() -> None:
    for code in CODES.values():
        for sentence in (code.why, code.mend):
            assert sentence and "\n" not in sentence and "|" not in sentence
            assert not sentence.endswith(".")
