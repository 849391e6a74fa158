"""A secret gives itself away to `reveal()` and to nothing else."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import traceback
from collections.abc import Callable

import pytest

from broker.secret import Secret, SecretVersion
from rules.model import SecretRef

CANARY = "canary-9f2b7c"
SECRET = Secret(CANARY)
VERSION = SecretVersion(SecretRef("kv", "stripe", "api_key"), 3, SECRET)


def test_reveal_gives_the_value() -> None:
    assert SECRET.reveal() == CANARY


@pytest.mark.parametrize("holder", [SECRET, VERSION, [SECRET], {"a": VERSION}])
def test_nothing_that_shows_it_shows_the_value(holder: object) -> None:
    shown = [repr(holder), str(holder), f"{holder}", f"{holder!r:>40}", ascii(holder)]
    assert not any(CANARY in text for text in shown)
    assert "***" in repr(holder)


def test_a_format_spec_does_not_reach_the_value() -> None:
    assert f"{SECRET:>80}" == "Secret(***)"


@pytest.mark.parametrize(
    ("attempt", "holder"),
    [
        (pickle.dumps, SECRET),
        (pickle.dumps, VERSION),
        (copy.copy, SECRET),
        (copy.deepcopy, SECRET),
        (copy.deepcopy, VERSION),
        (json.dumps, SECRET),
        (vars, SECRET),
        (dataclasses.asdict, VERSION),
    ],
)
def test_it_is_not_copied_out(attempt: Callable[[object], object], holder: object) -> None:
    """Pickling, copying and turning into a dict fail, and the error shows nothing."""
    with pytest.raises(TypeError) as caught:
        attempt(holder)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_secrets_are_not_compared_by_value() -> None:
    """Equality on values would be an oracle, and no constant-time one."""
    assert SECRET == SECRET
    assert Secret(CANARY) != SECRET
    assert len({Secret(CANARY), Secret(CANARY)}) == 2
