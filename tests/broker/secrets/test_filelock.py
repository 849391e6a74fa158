"""One holder at a time; whoever dies lets go."""

from __future__ import annotations

from pathlib import Path

from broker.secrets.filelock import FileLock


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.take(exclusive=True, patience=0)
    assert first.held
    assert not first.take(exclusive=True, patience=0)
    assert not second.take(exclusive=True, patience=0.05)
    assert not second.held
    first.release()
    first.release()
    assert second.take(exclusive=True, patience=0)


def test_guests_share_it(tmp_path: Path) -> None:
    guests = [FileLock(tmp_path / "lock") for _ in range(2)]
    assert all(guest.take(exclusive=False, patience=0) for guest in guests)
    owner = FileLock(tmp_path / "lock")
    assert not owner.take(exclusive=True, patience=0)
    for guest in guests:
        guest.release()
    assert owner.take(exclusive=True, patience=0)
