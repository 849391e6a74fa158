"""The list of what a backup holds must be true of it, and name what is not in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from keybroker.backup.contents import Manifest, files_below, fingerprint, kept, named_files
from keybroker.errors import Unreadable
from keybroker.settings import load_settings
from keybroker.workspace import Workspace


def manifest(folder: Path, **changed: object) -> Manifest:
    fields: dict[str, object] = {
        "format": 1,
        "id": "b-1",
        "keybroker": "0.1.0",
        "taken_at": "2026-11-25T00:00:00.000000Z",
        "seq": 1,
        "hash": "0" * 64,
        "files": {name: fingerprint(path) for name, path in files_below(folder)},
        "outside": (),
    }
    made = Manifest(**{**fields, **changed})  # type: ignore[arg-type]
    made.dump(folder)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "key").write_text("k")
    return tmp_path


def test_a_true_list_is_taken(folder: Path) -> None:
    made = manifest(folder)
    assert Manifest.load(folder) == made


def test_a_file_that_changed_is_named(folder: Path) -> None:
    manifest(folder)
    (folder / "state" / "key").write_text("other")
    with pytest.raises(Unreadable, match="state/key is not what was backed up"):
        Manifest.load(folder)


def test_a_file_too_many_or_too_few_is_named(folder: Path) -> None:
    manifest(folder)
    (folder / "state" / "extra").write_text("e")
    with pytest.raises(Unreadable, match="state/extra"):
        Manifest.load(folder)
    (folder / "state" / "extra").unlink()
    (folder / "state" / "key").unlink()
    with pytest.raises(Unreadable, match="state/key"):
        Manifest.load(folder)


def test_a_format_of_the_future_is_refused(folder: Path) -> None:
    manifest(folder, format=2, keybroker="9.0.0")
    with pytest.raises(Unreadable, match=r"format 2, and this Keybroker reads 1.*9\.0\.0"):
        Manifest.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "files": []}'])
def test_a_list_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(Unreadable, match="has no list"):
        Manifest.load(folder)


def test_what_belongs_to_one_run_is_left_out() -> None:
    assert kept("vault.db")
    assert kept("ready.json")
    for name in ("keybroker.db-wal", "up.lock", "keybroker.db-ledger.lock", ".draft", "x.sock"):
        assert not kept(name)


def test_what_is_to_be_read_once_and_deleted_is_left_out() -> None:
    workspace = Workspace(Path("/w"))
    for file in (workspace.recovery_keys_file, workspace.setup_link_file):
        assert not kept(file.name)


def test_files_that_the_settings_name_are_found(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere.pem"
    home.mkdir()
    (home / "roots.pem").write_text("r")
    elsewhere.write_text("e")
    text = f"""
vault: {{url: "https://vault.example", ca_bundle: {elsewhere}, auth: {{token_file: token}}}}
egress: {{ca_bundle: roots.pem}}
"""
    settings = load_settings(text, file="keybroker.yaml", base=home)
    inside, outside = named_files(Workspace(home), settings)
    assert inside == {"roots.pem": home / "roots.pem"}
    assert outside == [elsewhere]
