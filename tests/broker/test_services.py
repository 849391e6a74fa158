"""The services of a workspace, put together."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from broker.errors import StoreUnavailable
from broker.services import create_state, new_id, open_services, utc_now


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    create_state(tmp_path)
    return tmp_path


def test_what_one_opening_wrote_the_next_one_has(workspace: Path) -> None:
    services = open_services(workspace)
    _, token = services.agents.add("bot", by="cli:test")
    services.close()
    again = open_services(workspace)
    assert again.agents.authenticate("bot", token) is not None
    assert again.recover(None) == 0
    again.close()


def test_the_root_key_is_made_once_and_private(workspace: Path) -> None:
    key = workspace / "state" / "workspace.key"
    before = key.read_bytes()
    assert len(before) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        create_state(workspace)
    assert key.read_bytes() == before


def test_without_a_key_it_says_what_to_do(workspace: Path) -> None:
    (workspace / "state" / "workspace.key").unlink()
    with pytest.raises(StoreUnavailable, match=r"cannot be read .*: run `keybroker init`"):
        open_services(workspace)


def test_a_damaged_key_is_refused(workspace: Path) -> None:
    (workspace / "state" / "workspace.key").write_bytes(b"short")
    with pytest.raises(StoreUnavailable, match="is damaged: put it back from a backup"):
        open_services(workspace)


def test_with_another_key_nothing_is_written(workspace: Path) -> None:
    open_services(workspace).close()
    (workspace / "state" / "workspace.key").write_bytes(b"o" * 32)
    services = open_services(workspace)
    with pytest.raises(StoreUnavailable, match="does not bear this workspace's seal"):
        services.agents.add("bot", by="cli:test")
    services.close()


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id("c") for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(id) == 28 and id.startswith("c-") for id in ids)
    assert [id[:12] for id in ids] == sorted(id[:12] for id in ids)
    assert utc_now().utcoffset() is not None
