"""The workspace: one directory with settings, policy and state. Finds it, makes it, guards it.

It is never looked for in the current directory, where an agent could plant one. `state/` is the
owner's alone; anything looser is refused, with the command that mends it.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keybroker.errors import Unreadable, Unusable

if TYPE_CHECKING:
    from keybroker.settings import Settings

ENVIRONMENT = "KEYBROKER_WORKSPACE"

STARTER_SETTINGS = """\
# Settings of this workspace. Relative paths are relative to this file.
# `keybroker doctor` checks them; a running `keybroker up` reads them at its start.

proxy:
  listen: 127.0.0.1:8080      # what agents use as their proxy
  # tls: auto                 # for agents on other machines: https proxy, workspace's certificate
  workers: auto               # processes; auto: one for each core
  hold_wait: 25s              # how long a held call waits before it is told "pending"
  # gateway: https://gateway.example    # for clients in base-URL mode; default its own address
  body_limit: 10MiB           # larger request bodies are refused
  held_calls: 200             # of one agent at a time
  held_bytes: 64MiB           # stored for one agent's held calls

admin:
  listen: 127.0.0.1:8081      # where people approve
  # url: https://keybroker.example   # as people open it; default http://localhost:PORT
  # tls: {certificate: page.pem, key: page-key.pem}

store: sqlite                 # state/keybroker.db

vault: embedded               # an OpenBao run by Keybroker in state/vault; or your own:
# vault:
#   url: https://vault.example:8200
#   namespace: team-a
#   ca_bundle: vault-ca.pem
#   auth: {approle: {role_id: ..., secret_id_file: secret-id}}   # or {token_file: token}

egress:
  ca_bundle: system           # or a PEM file
  allow_networks: []          # CIDRs allowed besides public addresses
  # proxy: {url: http://corp-proxy:3128, username: keybroker, password_file: corp-password}
"""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Names the files of one workspace; `directory` is absolute."""

    directory: Path

    @property
    def settings_file(self) -> Path:
        return self.directory / "keybroker.yaml"

    @property
    def policy_file(self) -> Path:
        return self.directory / "policy.yaml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def key_file(self) -> Path:
        return self.state / "workspace.key"

    @property
    def database(self) -> Path:
        return self.state / "keybroker.db"

    @property
    def vault(self) -> Path:
        return self.state / "vault"

    @property
    def authority(self) -> Path:
        return self.state / "ca"

    @property
    def recovery_keys_file(self) -> Path:
        return self.state / "recovery-keys.txt"

    @property
    def setup_link_file(self) -> Path:
        return self.state / "setup-link.txt"

    @property
    def lock_file(self) -> Path:
        return self.state / "up.lock"

    def settings(self) -> Settings:
        """The checked settings. Raises InvalidFile, Unreadable."""
        # Here, since most commands do without: it takes as long to import as all the rest.
        from keybroker.settings import load_settings

        return load_settings(
            read_text(self.settings_file), file=str(self.settings_file), base=self.directory
        )

    def check(self) -> None:
        """Raises Unusable unless the workspace is there, whole, and closed to other users."""
        if not self.settings_file.exists():
            raise Unusable(
                f"there is no workspace at {self.directory}: make one with"
                f" `keybroker init {self.directory}`, or name another with --workspace"
            )
        try:
            mode = stat.S_IMODE(self.state.stat().st_mode)
            owner = self.state.stat().st_uid
            key = self.key_file.stat()
        except FileNotFoundError as error:
            raise Unusable(
                f"{error.filename} is missing, so what is stored in this workspace cannot be"
                " opened; restore it from a backup, or make a new workspace with `keybroker init`"
            ) from error
        except OSError as error:
            raise Unusable(_denied(error)) from error
        if mode & 0o077 or key.st_mode & 0o077:
            raise Unusable(
                f"others can read {self.state}: close it with `chmod -R go= {self.state}`"
            )
        if owner not in (os.geteuid(), 0):
            raise Unusable(
                f"{self.state} belongs to another user (uid {owner}); run keybroker as that user"
            )
        if not os.access(self.state, os.R_OK | os.W_OK | os.X_OK):
            raise Unusable(f"{self.state} cannot be read and written by this user")


def _denied(error: OSError) -> str:
    return f"{error.filename} cannot be read ({error.strerror}); check who owns it and its mode"


def read_text(path: Path) -> str:
    """The file as UTF-8 text. Raises Unreadable with a sentence."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Unreadable(f"there is no file {path}") from error
    except OSError as error:
        raise Unreadable(_denied(error)) from error
    except UnicodeDecodeError as error:
        because = f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        raise Unreadable(because) from error


def default_directory() -> Path:
    """The user's data directory for Keybroker (XDG Base Directory; Library on macOS)."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "keybroker"
    base = os.environ.get("XDG_DATA_HOME", "")
    # A relative XDG_DATA_HOME is to be ignored (XDG Base Directory), and would mean the cwd here.
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "share"
    return root / "keybroker"


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise Unusable(f"{path}: there is no such user, or their home is not known") from error


def choose(option: Path | None) -> Path:
    """Where the workspace is: the option, else KEYBROKER_WORKSPACE, else the data directory."""
    named = option or (Path(value) if (value := os.environ.get(ENVIRONMENT)) else None)
    return (_expanded(named) if named else default_directory()).absolute()


def find(option: Path | None) -> Workspace:
    """The checked workspace. Raises Unusable with a sentence."""
    workspace = Workspace(choose(option))
    workspace.check()
    return workspace


def create(directory: Path, *, solo: bool) -> Workspace:
    """Writes a new workspace, its key and store included, and returns it.

    Raises Unusable if any of its files is there already; then nothing was written.
    """
    from broker.services import create_state
    from rules.load import starter_policy

    workspace = Workspace(_expanded(directory).absolute())
    for path in (workspace.settings_file, workspace.policy_file, workspace.state):
        if path.exists() or path.is_symlink():
            raise Unusable(
                f"{path} is already there and is not overwritten; name another directory"
            )
    try:
        # Not what the umask leaves: whoever can write here can replace the policy.
        workspace.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        # The settings go last: a half-made workspace is not taken for a whole one.
        workspace.state.mkdir(mode=0o700)
        workspace.state.chmod(0o700)
        create_state(workspace.directory)
        write_new(workspace.policy_file, starter_policy(solo).encode(), 0o644)
        write_new(workspace.settings_file, STARTER_SETTINGS.encode(), 0o644)
    except OSError as error:
        raise Unusable(f"{error.filename} cannot be written ({error.strerror})") from error
    return workspace


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Writes a file that must not exist yet, durable, with `mode` from its first byte on."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(content)
        file.flush()
        os.fsync(fd)
