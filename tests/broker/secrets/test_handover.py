"""What goes through the store: sealed, numbered, and gone when it is taken back."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit.record import Draft
from broker.secrets.handover import Handover, taken
from broker.secrets.login import Grant
from broker.secrets.trouble import VaultUnavailable
from broker.stores.sqlite import Store

KEY = bytes(range(32))
GRANT = Grant("hvs.c4nary", 60, renewable=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(
        tmp_path / "keybroker.db", clock=lambda: datetime.now(UTC), head_key=KEY, create=True
    )
    yield store
    store.close()


@pytest.fixture
def handover(store: Store) -> Handover:
    return Handover(store, KEY, secrets.token_bytes)


def test_a_token_is_taken_as_it_was_published(handover: Handover, tmp_path: Path) -> None:
    before = handover.changes
    handover.publish(GRANT)
    assert handover.changes > before
    assert handover.read().grant == GRANT
    got = taken(handover.read(), own=False)
    assert (got.token, got.lease, got.own) == ("hvs.c4nary", 0, False)
    assert "c4nary" not in repr(handover.read())
    assert all(b"c4nary" not in file.read_bytes() for file in tmp_path.iterdir())


def test_without_a_token_it_says_why(handover: Handover) -> None:
    with pytest.raises(VaultUnavailable, match="`keybroker up` has not logged in"):
        taken(handover.read(), own=False)
    handover.publish(GRANT)
    handover.publish(None, "The SecretID is used up.")
    with pytest.raises(VaultUnavailable, match=r"The SecretID is used up\."):
        taken(handover.read(), own=False)


async def test_a_refusal_is_about_one_token_and_no_later_one(handover: Handover) -> None:
    handover.publish(GRANT)
    old = handover.read().serial
    await handover.refuse(old)
    assert handover.read().refused
    handover.publish(GRANT)
    assert not handover.read().refused
    await handover.refuse(old)
    assert not handover.read().refused


def test_sealed_bytes_are_bound_to_key_and_number(handover: Handover, store: Store) -> None:
    handover.publish(GRANT)
    assert Handover(store, bytes(32), secrets.token_bytes).read().grant is None
    store.write(lambda tx: tx.db.execute("UPDATE vault_token SET serial = 7").rowcount)
    assert handover.read().grant is None
    store.write(lambda tx: tx.db.execute("UPDATE vault_token SET sealed = x'00'").rowcount)
    assert handover.read().grant is None


def test_a_wrapping_token_is_remembered_before_it_is_used(handover: Handover) -> None:
    assert handover.used("w1") is None
    handover.using("w1", Draft("vault.unwrapping", {"path": "p"}))
    use = handover.used("w1")
    assert use is not None and use.outcome is None
    handover.came_out("w1", "unwrapped", Draft("vault.unwrapped", {"path": "p"}))
    handover.came_out("w2", "refused", Draft("vault.unwrapping_refused", {"sentence": "s"}))
    found = [handover.used(token) for token in ("w1", "w2", "w3")]
    assert [use.outcome if use else None for use in found] == ["unwrapped", "refused", None]
