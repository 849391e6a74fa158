"""One root, one key a purpose, and none of them shows itself."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from broker.keys import Keys


def test_each_purpose_has_a_key_of_its_own() -> None:
    keys = astuple(Keys.derive(b"r" * 32))
    assert len(set(keys)) == len(keys) >= 6
    assert all(len(key) == 32 for key in keys)


def test_keys_stay_the_same_for_the_same_root() -> None:
    """A changed derivation would orphan every sealed request and every ledger's head."""
    keys = Keys.derive(b"r" * 32)
    assert keys == Keys.derive(b"r" * 32)
    assert keys != Keys.derive(b"s" * 32)
    assert keys.digest.hex() == DIGEST


DIGEST = "0572c2612c1206f982531c74314269639c1d3e21b9576e8ed55217d97d851dd5"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_root_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"must be 32 bytes, not {length}"):
        Keys.derive(b"r" * length)


def test_no_key_shows_itself() -> None:
    assert repr(Keys.derive(b"r" * 32)) == "Keys()"
