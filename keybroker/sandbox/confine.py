"""From what the user of `keybroker run` wished to a sandbox that can be started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from keybroker.errors import Unusable
from keybroker.runstate import proxy_address
from keybroker.sandbox import secrets
from keybroker.sandbox.launch import Backend, Sandbox, Sandboxed, start
from keybroker.sandbox.probe import choose
from keybroker.sandbox.view import Surroundings, View, Wishes, make_view, program_files
from keybroker.values import Listen
from keybroker.workspace import ENVIRONMENT, Workspace, default_directory

_FALLBACK_PORT = 8080
_PUBLIC = frozenset({"ca_bundle"})
"""Files that settings name and that hold no secret."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A sandbox that is ready to take a command."""

    sandbox: Sandbox
    folder: Path

    @property
    def place(self) -> Listen:
        """Where the command finds its proxy."""
        return Listen("127.0.0.1", self.sandbox.port)

    def environment(self, present: Mapping[str, str]) -> dict[str, str]:
        """`present` without variables that lead to what is not there."""
        kept = {name: value for name, value in present.items() if name not in secrets.VARIABLES}
        return {**kept, "PWD": self.sandbox.view.cwd}

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> Sandboxed:
        """Starts the command. Raises Unusable."""
        return start(self.sandbox, command, environment, self.folder)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What `--sandbox` and its options ask for."""

    wishes: Wishes
    backend: Backend | None = None

    def prepare(self, workspace: Workspace, folder: Path) -> Cell:
        """The sandbox that keeps a command off `workspace`; `folder` is the run's own.

        Raises Unusable if this machine has no sandbox or a wish cannot be met.
        """
        view = self.view(workspace, folder)
        proxy = proxy_address(workspace)
        # The command keeps its user, who may not be allowed to listen below 1024.
        port = proxy.port if proxy.port >= 1024 else _FALLBACK_PORT
        return Cell(Sandbox(choose(self.backend), view, (proxy.host, proxy.port), port), folder)

    def view(self, workspace: Workspace, folder: Path) -> View:
        """What the command will see. Raises Unusable."""
        try:
            cwd = str(Path.cwd())
        except OSError as error:
            raise Unusable("the current directory is gone") from error
        around = Surroundings(
            home=str(_home()),
            cwd=cwd,
            guarded=tuple(map(str, guarded_files(workspace))),
            shown=(str(folder),),
            program=program_files(),
        )
        return make_view(self.wishes, around)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def guarded_files(workspace: Workspace) -> Iterator[Path]:
    """Everything whose reader would be an administrator, of this workspace and of others."""
    yield workspace.directory
    yield from (workspace.state, workspace.vault, workspace.authority)
    yield from (workspace.key_file, workspace.database)
    yield default_directory()
    if (named := os.environ.get(ENVIRONMENT)) is not None:
        yield Path(named)
    yield from _named_files(workspace.settings())


def _named_files(settings: BaseModel) -> Iterator[Path]:
    """The files that settings name: keys and tokens, wherever they lie."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _named_files(value)
        elif isinstance(value, Path) and name not in _PUBLIC:
            yield value
