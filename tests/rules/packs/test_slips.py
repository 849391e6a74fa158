"""Calls that look milder, or worse, than they are: whose class a field, a header, a second name for
the action, another way to the same end, or an unknown name must not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rules.pack import CLASSES
from tests.support.packs import BOT, class_of, host_of, matched, request_of, rulebook

SLIPS = [
    pytest.param(name, level, spec, id=f"{name}-{level}-{spec['method']}-{index}")
    for name, levels in yaml.safe_load(Path(__file__).with_name("slips.yaml").read_text()).items()
    for level, specs in levels.items()
    for index, spec in enumerate(specs)
]


@pytest.mark.parametrize(("name", "level", "spec"), SLIPS)
def test_its_class_goes_by_what_it_does(name: str, level: str, spec: dict[str, Any]) -> None:
    """Of several classes, as where a body has more than one reading, the strictest counts."""
    book = rulebook(name)
    found = matched(book, request_of(spec, host_of(book.policy.rules[0].matches[0])))
    assert level == max((class_of(rule) for rule in found), key=CLASSES.index), [
        rule.id for rule in found
    ]


@pytest.mark.parametrize(
    "path",
    ["/api/v3/repos/a/b/pulls/1/merge", "/api/graphql", "/graphql/"],
)
def test_servers_with_other_paths_are_not_taken_for_github(path: str) -> None:
    """GitHub Enterprise Server has its calls below /api/v3: there no rule of the pack fits them."""
    request = request_of({"method": "PUT", "path": path}, "api.github.com")
    assert rulebook("github").decide(BOT, request).effect == "deny"
