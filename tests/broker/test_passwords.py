"""Passwords: argon2id, bounded, and no faster to refuse where there is none."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from broker.errors import InvalidInput
from broker.passwords import Passwords
from tests.support.services import QUICK

GOOD = "correct horse battery"


class Counting:
    """Notes what is verified against."""

    def __init__(self) -> None:
        self.verified: list[str] = []

    def hash(self, password: str) -> str:
        return QUICK.hash(password)

    def verify(self, hashed: str, password: str) -> bool:
        self.verified.append(hashed)
        return bool(QUICK.verify(hashed, password))


def passwords(hasher: object = QUICK) -> Passwords:
    return Passwords(lambda count: b"x" * count, hasher)  # type: ignore[arg-type]


def test_a_password_is_found_again_and_no_other() -> None:
    kept = passwords().hash(GOOD)
    assert kept.startswith("$argon2id$")
    assert GOOD not in kept
    assert passwords().check(kept, GOOD)
    for wrong in (GOOD + "x", "", "\ud800"):
        assert not passwords().check(kept, wrong)
    assert not passwords().check("no hash", GOOD)


def test_where_there_is_none_a_hash_is_computed_too() -> None:
    """Else the time of the answer would tell which names exist."""
    counting = Counting()
    checked = passwords(counting)
    for kept in (None, ""):
        assert not checked.check(kept, GOOD)
    assert len(counting.verified) == 2
    assert all(hashed.startswith("$argon2id$") for hashed in counting.verified)
    # What it is compared against is nobody's way in.
    assert not checked.check(None, (b"x" * 16).hex())


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("x" * 9, "too short: 10 characters"),
        ("x" * 1025, "too long: 1024"),
        ("\ud800" * 12, "half a character"),
    ],
)
def test_a_bad_password_is_refused(password: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        passwords().hash(password)


def test_the_hashes_of_the_program_cost_what_the_rfc_recommends() -> None:
    """RFC 9106 section 4, the second recommended option: 64 MiB, three passes."""
    stock = PasswordHasher()
    assert (stock.memory_cost, stock.time_cost) == (65536, 3)
    assert (
        Passwords(lambda count: b"x" * count)
        .hash(GOOD)
        .startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    )
