"""Recovery keys go to the operator's eyes, not to where machines read."""

from __future__ import annotations

import pytest

from broker.secrets.embedded import RecoveryKeys
from keybroker.recovery import print_recovery_keys


def test_every_key_is_shown_on_stderr_with_what_it_is_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_recovery_keys(RecoveryKeys(("k-1", "k-2", "k-3"), 2))
    captured = capsys.readouterr()
    assert captured.out == ""
    for word in ("k-1", "k-2", "k-3", "shown this once", "Any 2 of them"):
        assert word in captured.err
