"""`backup`: take, check and restore backups of a workspace."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from keybroker.cli.frame import FILE, App, Group, emit, json_option, note, pass_app, warn

if TYPE_CHECKING:
    from keybroker.backup import archive
    from keybroker.backup.contents import Manifest

_KiB, _MiB = 1 << 10, 1 << 20


@click.group(cls=Group)
def backup() -> None:
    """Take, check and restore backups of the workspace.

    A backup holds every key: it is sealed in the age format, with a passphrase or to the public
    keys of recipients.
    """


def passphrase_option[F: Callable[..., object]](function: F) -> F:
    """`--passphrase-file`."""
    return click.option(
        "--passphrase-file",
        type=click.File("r", lazy=False),
        help="File whose first line is the passphrase; `-` is stdin. Else it is asked for.",
    )(function)


def identity_option[F: Callable[..., object]](function: F) -> F:
    """`--identity`."""
    return click.option(
        "-i",
        "--identity",
        "identities",
        type=FILE,
        multiple=True,
        help="Private key of a recipient: an age identity file or an SSH key.",
    )(function)


@backup.command()
@click.argument("file", type=FILE)
@click.option(
    "-r",
    "--recipient",
    "recipients",
    multiple=True,
    metavar="KEY",
    help="Public key (age1..., ssh-ed25519 ..., ssh-rsa ...) that can open it; may be repeated.",
)
@passphrase_option
@json_option
@pass_app
def create(
    app: App,
    file: Path,
    recipients: tuple[str, ...],
    passphrase_file: TextIO | None,
    as_json: bool,
) -> None:
    """Write a backup of the workspace to the new FILE, whether `up` runs or not.

    Settings, policy, keys, certificates, the store with the ledger, and the embedded vault. Calls
    go on meanwhile.
    """
    from keybroker.backup import archive
    from keybroker.backup.take import take

    workspace = app.workspace()
    parsed = tuple(archive.parse_recipient(text) for text in recipients)
    passphrase = None
    if passphrase_file is not None or not parsed:
        passphrase = _passphrase(passphrase_file, new=True)
    lock = archive.Lock(passphrase, parsed)
    made = take(workspace, file.absolute(), lock, by=app.actor, progress=Progress())
    if as_json:
        emit({"file": str(file.absolute()), **_facts(made)})
        return
    size = file.stat().st_size
    click.echo(f"wrote {file} ({_size(size)}): {len(made.files)} files, ledger up to {made.seq}")
    for path in made.outside:
        warn(f"{path} lies outside the workspace and is not in the backup")
    note(f"next: try it, with `keybroker backup check {file}`")


@backup.command()
@click.argument("file", type=FILE)
@passphrase_option
@identity_option
@json_option
def check(
    file: Path,
    passphrase_file: TextIO | None,
    identities: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Open FILE, compare every file in it with its list, and verify the ledger in it.

    Nothing is kept. It needs no workspace.
    """
    from keybroker.backup import restore as restoring

    found = restoring.check(file, _key(file, passphrase_file, identities), progress=Progress())
    if as_json:
        emit({"ok": True, **_facts(found)})
        return
    click.echo(
        f"whole: backup {found.id} of {found.taken_at}, {len(found.files)} files,"
        f" ledger up to {found.seq}"
    )


@backup.command()
@click.argument("file", type=FILE)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--end-tokens", is_flag=True, help="End the tokens of all agents and people, too.")
@passphrase_option
@identity_option
@json_option
@pass_app
def restore(
    app: App,
    file: Path,
    directory: Path,
    end_tokens: bool,
    passphrase_file: TextIO | None,
    identities: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Make the workspace DIRECTORY, which must not be there yet, from the backup FILE.

    Open approvals, sessions and runs are ended, since nothing is known of what came after the
    backup. Whatever was revoked after it is good again, unless --end-tokens.
    """
    from keybroker.backup import restore as restoring

    done = restoring.restore(
        file,
        directory,
        _key(file, passphrase_file, identities),
        by=app.actor,
        end_tokens=end_tokens,
        progress=Progress(),
    )
    if as_json:
        ended = {
            name: getattr(done.ended, name)
            for name in ("unknown", "approvals", "sessions", "tokens")
        }
        emit({"workspace": str(done.workspace.directory), **_facts(done.manifest), "ended": ended})
        return
    click.echo(f"restored {done.workspace.directory} as of {done.manifest.taken_at}")
    click.echo(
        f"ended: {done.ended.approvals} open approvals, {done.ended.sessions} sessions,"
        f" {done.ended.tokens} tokens; {done.ended.unknown} calls under way are now unknown"
    )
    if not end_tokens:
        warn(
            "agents, people and tokens are as they were at that time: revoke again what was revoked"
            " since, or restore with --end-tokens"
        )
    for path in done.manifest.outside:
        warn(f"{path} was not in the backup: put it in place before `keybroker up`")


def _facts(manifest: Manifest) -> dict[str, object]:
    return {
        "backup": manifest.id,
        "taken_at": manifest.taken_at,
        "keybroker": manifest.keybroker,
        "files": len(manifest.files),
        "bytes": sum(size for size, _ in manifest.files.values()),
        "seq": manifest.seq,
        "hash": manifest.hash,
        "outside": list(manifest.outside),
    }


def _key(file: Path, passphrase_file: TextIO | None, identities: tuple[Path, ...]) -> archive.Key:
    from keybroker.backup import archive

    found = tuple(one for path in identities for one in archive.read_identities(path))
    if passphrase_file is not None or (not found and archive.needs_passphrase(file)):
        return archive.Key(_passphrase(passphrase_file, new=False), found)
    if not found:
        raise click.UsageError("this backup was locked to a key: name it with --identity FILE")
    return archive.Key(None, found)


def _passphrase(file: TextIO | None, *, new: bool) -> str:
    if file is not None:
        line = file.readline().rstrip("\r\n")
        if not line:
            raise click.UsageError("the passphrase file is empty")
        return line
    if not sys.stdin.isatty():
        raise click.UsageError(
            "give --passphrase-file FILE"
            + (" or --recipient KEY" if new else " or --identity FILE")
            + ": there is no terminal to ask for a passphrase"
        )
    typed: str = click.prompt(
        "passphrase", hide_input=True, confirmation_prompt="again" if new else False, err=True
    )
    return typed


class Progress:
    """One line on a terminal, a few times a second; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        now = time.monotonic()
        if done < total and now - self._shown < 0.1:
            return
        self._shown = now
        line = f"{what}: {_size(done)} of {_size(total)}"
        click.echo(f"\r{line:<60}", nl=done >= total, err=True)


def _size(count: int) -> str:
    if count < _MiB:
        return f"{count / _KiB:.0f} KiB"
    return f"{count / _MiB:.1f} MiB"
