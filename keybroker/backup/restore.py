"""Checks a backup, and restores it into a directory that holds no workspace yet.

All is unpacked, verified and put in order beside the target, which then appears in one step.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit.errors import AuditError
from audit.verify import verify
from broker.keys import Keys
from broker.restoring import Ended, end_what_was_open
from keybroker import compose
from keybroker.backup import archive
from keybroker.backup.contents import Manifest
from keybroker.errors import Unreadable, Unusable
from keybroker.workspace import Workspace

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored, and what was ended for it."""

    workspace: Workspace
    manifest: Manifest
    ended: Ended


def check(file: Path, key: archive.Key, *, progress: Progress) -> Manifest:
    """Opens the backup, compares every file with its list and verifies the ledger in it.

    Raises Unreadable, Unusable.
    """
    with tempfile.TemporaryDirectory(prefix="keybroker-check-") as directory:
        return _opened(file, key, Path(directory), progress)


def restore(
    file: Path,
    target: Path,
    key: archive.Key,
    *,
    by: str,
    end_tokens: bool,
    progress: Progress,
) -> Restored:
    """Makes the workspace `target` from the backup. `end_tokens`: of agents and people too.

    Raises Unreadable, Unusable, StoreUnavailable; then there is nothing at `target`.
    """
    target = target.expanduser().absolute()
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise Unusable(f"{target} is already there and is not overwritten; name a new directory")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target) as draft:
            manifest = _opened(file, key, draft, progress)
            (draft / archive.MANIFEST).unlink()
            workspace = Workspace(draft)
            with closing(compose.open_workspace(workspace)) as services:
                ended = end_what_was_open(
                    services, backup=manifest.id, by=by, end_tokens=end_tokens
                )
            draft.chmod(0o755)
            # An empty directory at the target is replaced; rename(2) refuses any other.
            draft.rename(target)
    except OSError as error:
        raise Unusable(
            f"the backup cannot be restored: {error.strerror} ({error.filename or target})"
        ) from error
    return Restored(Workspace(target), manifest, ended)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """An empty directory (0700) next to `target`; gone afterwards unless it was renamed."""
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _opened(file: Path, key: archive.Key, into: Path, progress: Progress) -> Manifest:
    done, total = 0, file.stat().st_size if file.exists() else 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        progress("opening", min(done, total), total)

    archive.read(file, into, key, tell)
    manifest = Manifest.load(into)
    workspace = Workspace(into)
    try:
        head_key = Keys.derive(workspace.key_file.read_bytes()).ledger_head
        verdict = verify(workspace.database, head_key=head_key)
    except (AuditError, OSError, ValueError) as error:
        raise Unreadable(f"the ledger in the backup cannot be read: {error}") from error
    if not verdict.ok:
        raise Unusable(
            "the ledger in the backup is broken; open it by hand and run `keybroker audit verify"
            f" --file` on its {os.path.join('state', workspace.database.name)}"  # noqa: PTH118
        )
    return manifest
