"""What a backup holds, and the list that says so: each file with its size and SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from keybroker.backup.archive import MANIFEST
from keybroker.errors import Unreadable
from keybroker.settings import Settings
from keybroker.workspace import Workspace

FORMAT = 1

_NOT_KEPT = frozenset(
    {
        "keybroker.db-wal",
        "keybroker.db-shm",
        "history.db",
        "history.db-wal",
        "history.db-shm",
        "up.lock",
        "lock",
        "guests",
        "run.json",
        "bao.log",
        "recovery-keys.txt",
        "setup-link.txt",
    }
)
"""Of one run or one machine, made anew, or to be read once and deleted; the database is copied by
SQLite itself."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Of what, when and by which program a backup was taken."""

    format: int
    id: str
    keybroker: str
    taken_at: str
    """As the ledger writes times."""
    seq: int
    """The ledger's last record in it."""
    hash: str
    files: dict[str, tuple[int, str]]
    """Path in the workspace -> size in bytes, SHA-256 in hex."""
    outside: tuple[str, ...]
    """Files that the settings name and that lie outside the workspace: they are not in it."""

    def dump(self, folder: Path) -> None:
        """Writes it into `folder`."""
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """The one in `folder`, which must be true of the files there. Raises Unreadable."""
        try:
            fields: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
            if fields["format"] != FORMAT:
                raise Unreadable(
                    f"the backup has format {fields['format']}, and this Keybroker reads {FORMAT}:"
                    f" it was taken by {fields.get('keybroker', 'another version')}"
                )
            fields["files"] = {name: (size, sha) for name, (size, sha) in fields["files"].items()}
            fields["outside"] = tuple(fields["outside"])
            found = cls(**fields)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unreadable("the backup has no list of its files; use another one") from error
        present = {name: fingerprint(path) for name, path in files_below(folder)}
        present.pop(MANIFEST, None)
        if present != found.files:
            odd = sorted({*present.items()} ^ {*found.files.items()})
            raise Unreadable(f"the backup's {odd[0][0]} is not what was backed up; use another one")
        return found


def fingerprint(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """(path in the folder, path) of every regular file, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def kept(name: str) -> bool:
    """Whether a file of the workspace's `state` of this name belongs in a backup."""
    return name not in _NOT_KEPT and not name.endswith((".lock", ".sock")) and name[0] != "."


def named_files(workspace: Workspace, settings: Settings) -> tuple[dict[str, Path], list[Path]]:
    """Files that the settings name: those in the workspace, by path in it, and those outside."""
    inside: dict[str, Path] = {}
    outside: list[Path] = []
    for path in _paths(settings):
        resolved = path.resolve()
        if not resolved.is_file():
            continue
        try:
            name = resolved.relative_to(workspace.directory.resolve()).as_posix()
        except ValueError:
            outside.append(path)
            continue
        if not name.startswith("state/"):
            inside[name] = resolved
    return inside, outside


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _paths(getattr(value, field))
