"""What all connections share says no more than it must."""

from __future__ import annotations

import dataclasses

import pytest

from broker.model import Client
from proxy.setup import Entered
from tests.proxy.harness import Worker


def test_bodies_have_the_limit_of_the_settings(tmp_path: object) -> None:
    setup = Worker(tmp_path, body_limit=4711).engine._setup  # type: ignore[arg-type]
    assert setup.body_limit == 4711
    assert not setup.draining


def test_who_has_entered_is_not_taken_for_decrypted() -> None:
    """Of a new tunnel nothing was read: that is where it starts, and it cannot be changed."""
    entered = Entered(Client("bot", "t1"), ("localhost", 443))
    assert entered.encrypted
    assert (entered.sni, entered.tunnel) == (None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        entered.place = ("elsewhere", 443)  # type: ignore[misc]
