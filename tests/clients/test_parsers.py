"""What is certain to our readers of forms is so to the parsers of real servers.

Where a rule that permits holds, each of them that takes the form at all sees the field or file that
the rule is about, or sees none where there must be none. What they differ on must be in doubt.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from rules.bodies import Field
from rules.errors import Unreadable
from rules.model import ValueTest
from rules.reading.call import Reading
from rules.reading.forms import may_be
from rules.request import Request
from tests.clients.forms import WANTED, Form, forms

pytestmark = pytest.mark.e2e

INSTALLED = Path(__file__).parents[2] / ".clients"
"""What scripts/ensure-clients puts there."""
PROGRAMS = {
    "node": [str(INSTALLED / "node/bin/node"), str(INSTALLED / "node/parsers.mjs")],
    "go": [str(INSTALLED / "go/parsers")],
    "python": [
        str(INSTALLED / "venv/bin/python"),
        str(Path(__file__).parent / "scripts/parsers_.py"),
    ],
}

type Entry = tuple[str, str | int]
"""A field with its text, or a file with its size."""


def asked(program: str, of: Sequence[Form]) -> list[dict[str, list[Entry] | None]]:
    """What each parser of the program sees in each form; None where it takes none."""
    command = PROGRAMS[program]
    if not Path(command[0]).exists() and not os.environ.get("CI"):
        pytest.skip(f"{command[0]} is not there; scripts/ensure-clients")
    given = [{"type": kind, "body": base64.b64encode(body).decode()} for kind, body in of]
    done = subprocess.run(
        command, input=json.dumps(given).encode(), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return [
        {
            name: None
            if entries is None
            else [(n, v if isinstance(v, str) else v["size"]) for n, v in entries]
            for name, entries in found.items()
        }
        for found in json.loads(done.stdout)
    ]


def certain(call: Reading, test: ValueTest) -> bool:
    try:
        return Field(test).holds(call, wide=False)
    except Unreadable:
        return False


def ours(form: Form, name: str) -> list[str | int] | None:
    """What certainly stands under the name, all that is tested; None if that is in doubt."""
    kind, body = form
    request = Request("POST", "https", "a.example", 443, "/", None, (("content-type", kind),), body)
    call = Reading(request)
    if certain(call, ValueTest(name, exists=False)):
        return []
    if not certain(call, ValueTest(name, exists=True)):
        return None
    sizes: list[str | int] = [len(part.value) for part in call.form_files if part.name == name]
    return sizes or [v for given, v in call.form_pairs(wide=False) if may_be(given, name)]


def agree(mine: list[str | int], seen: list[Entry], name: str) -> bool:
    """Whether the parser sees nothing under the name but what we do, and nothing only if we do."""
    there = {value for given, value in seen if given == name or given.startswith(f"{name}[")}
    return there <= set(mine) and bool(there) is bool(mine)


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_certain_is_so_to_real_parsers(program: str) -> None:
    corpus = forms()
    known = [{name: ours(form, name) for name in WANTED} for form in corpus]
    agreed: Counter[tuple[str, bool]] = Counter()
    different = []
    for form, mine, found in zip(corpus, known, asked(program, corpus), strict=True):
        for parser, seen in found.items():
            for name, values in mine.items():
                if values is None or seen is None:
                    continue
                if agree(values, seen, name):
                    agreed[f"{parser} {form[0].partition(';')[0]}", bool(values)] += 1
                else:
                    different.append((parser, name, values[:5], seen[:5], form[0], form[1][:300]))
    assert not different, "\n".join([f"{len(different)} differ:", *map(str, different[:40])])
    # Neither side says no to everything.
    assert all(count > 50 for count in agreed.values()), agreed
    assert len(agreed) == 2 * len({parser for parser, _ in agreed}), agreed
