"""Takes a backup, whether `up` runs or not: one moment of the vault, a later one of the store.

In that order, so that the ledger in the backup tells of every secret in it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from audit.record import Draft, timestamp
from broker.secrets.still import still
from broker.services import new_id
from keybroker import compose
from keybroker.backup import archive
from keybroker.backup.contents import FORMAT, Manifest, files_below, fingerprint, kept, named_files
from keybroker.errors import Unusable
from keybroker.workspace import Workspace

DRAFT = ".backup-"
_PAGES = 2048
"""Of the database, copied at a time; writers get their turn in between."""
_TRIES = 5

Progress = Callable[[str, int, int], None]
"""(what is done now, bytes done, bytes in all)"""


def take(
    workspace: Workspace, target: Path, lock: archive.Lock, *, by: str, progress: Progress
) -> Manifest:
    """Writes a backup of the workspace to the new file `target`, and a record of it to the ledger.

    Raises Unusable, VaultUnavailable, StoreUnavailable; then there is no file.
    """
    if target.exists() or target.is_symlink():
        raise Unusable(f"{target} is already there and is not overwritten")
    settings = workspace.settings()
    id = new_id("b")
    for stale in workspace.state.glob(f"{DRAFT}*"):  # of a run that was killed
        shutil.rmtree(stale, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=DRAFT, dir=workspace.state) as directory:
            draft = Path(directory)
            inside, outside = named_files(workspace, settings)
            _copy_vault(workspace, draft)
            _copy_state(workspace, draft)
            inside |= {p.name: p for p in (workspace.settings_file, workspace.policy_file)}
            for name, path in inside.items():
                _copy(path, draft / name)
            # Durable before visible: the ledger in the backup tells of the backup.
            with closing(compose.open_workspace(workspace)) as services:
                begun = Draft("workspace.backup", {"backup": id, "by": by})
                services.store.write(lambda tx: tx.append(begun))
            _copy_database(workspace, draft, progress)
            seq, tip = _head(draft)
            manifest = Manifest(
                format=FORMAT,
                id=id,
                keybroker=version("keybroker"),
                taken_at=timestamp(datetime.now(UTC)),
                seq=seq,
                hash=tip,
                files={name: fingerprint(path) for name, path in files_below(draft)},
                outside=tuple(str(path) for path in outside),
            )
            manifest.dump(draft)
            total = sum(size for size, _ in manifest.files.values())
            done = 0

            def tell(size: int) -> None:
                nonlocal done
                done += size
                progress("sealing", min(done, total), total)

            archive.write(target, draft, lock, tell)
            return manifest
    except OSError as error:
        raise Unusable(
            f"the backup cannot be written: {error.strerror} ({error.filename or target})"
        ) from error


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    shutil.copymode(source, target)


def _copy_state(workspace: Workspace, draft: Path) -> None:
    for name, path in files_below(workspace.state):
        parts = Path(name).parts
        if parts[0] == "vault" or path == workspace.database or any(not kept(p) for p in parts):
            continue
        _copy(path, draft / "state" / name)


def _copy_vault(workspace: Workspace, draft: Path) -> None:
    if not (workspace.vault / "ready.json").exists():
        return  # external, or never started
    for _ in range(_TRIES):
        target = draft / "state" / "vault"
        with still(workspace.vault) as undisturbed:
            for name, path in files_below(workspace.vault):
                if kept(path.name):
                    _copy(path, target / name)
            if undisturbed():
                return
        shutil.rmtree(target)
    raise Unusable("the embedded vault keeps restarting; look at `keybroker doctor` first")


def _copy_database(workspace: Workspace, draft: Path, progress: Progress) -> None:
    """SQLite's own online backup (https://sqlite.org/backup.html): one moment, whoever writes."""
    target = draft / "state" / workspace.database.name
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    size: int | None = None

    def tell(_: int, remaining: int, total: int) -> None:
        progress("copying the store", (total - remaining) * (size or 0), total * (size or 0))

    try:
        with (
            closing(sqlite3.connect(f"{workspace.database.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            size = source.execute("PRAGMA page_size").fetchone()[0]
            # A read transaction pins one moment, or the copy would begin anew at every write.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(copy, pages=_PAGES, progress=tell)
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise Unusable(f"the store cannot be copied: {error}") from error


def _head(draft: Path) -> tuple[int, str]:
    with closing(sqlite3.connect(draft / "state" / "keybroker.db")) as db:
        seq, tip = db.execute("SELECT seq, hash FROM ledger_head").fetchone()
    return int(seq), str(tip)
