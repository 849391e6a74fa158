"""Private files: owner only, whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from broker.secrets.files import make_directory, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _open_umask() -> object:
    """As loose as can be: the modes must not come from the umask."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_private(file, b"one")
    assert (file.read_bytes(), mode(file)) == (b"one", 0o600)


def test_replacing_tightens_the_mode_and_leaves_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"old")
    file.chmod(0o644)
    write_private(file, b"new")
    assert (file.read_bytes(), mode(file)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".key.{os.getpid()}").write_bytes(b"half")
    write_private(tmp_path / "key", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    make_directory(inner)
    make_directory(inner)
    assert mode(inner) == 0o700
