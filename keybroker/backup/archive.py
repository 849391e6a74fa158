"""The file that a backup is: a zip of the sealed tar and, with a passphrase, of the key to it.

Both are in the age format (https://age-encryption.org/v1), so that a backup can be opened without
this program (see `_HELP`). Nothing is written in the clear on the way; what was read is trusted
only once age has vouched for its end.
"""

from __future__ import annotations

import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import DEFAULT_BUFFER_SIZE, BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import cast

import pyrage

from keybroker.errors import Unreadable, Unusable

TAR = "workspace.tar.gz.age"
IDENTITY = "identity.age"
README = "README.txt"
MANIFEST = "manifest.json"
_HELP = f"""\
A backup of a Keybroker workspace. `keybroker backup restore` opens it.

By hand (https://age-encryption.org):
  age -d -i KEY {TAR} | tar xz
KEY is {IDENTITY} (opened by the passphrase), or the private key of a recipient.
"""

Recipient = pyrage.x25519.Recipient | pyrage.ssh.Recipient
Identity = pyrage.x25519.Identity | pyrage.ssh.Identity
Tell = Callable[[int], None]
"""Told how many more bytes are done."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Who can open a backup: whoever knows the passphrase, or holds a recipient's key."""

    passphrase: str | None = None
    recipients: tuple[Recipient, ...] = ()

    def __repr__(self) -> str:
        return f"Lock({len(self.recipients)} recipients)"


@dataclass(frozen=True, slots=True)
class Key:
    """What opens a backup."""

    passphrase: str | None = None
    identities: tuple[Identity, ...] = ()

    def __repr__(self) -> str:
        return "Key()"


def parse_recipient(text: str) -> Recipient:
    """An age or SSH public key. Raises Unusable."""
    for kind in (pyrage.x25519.Recipient, pyrage.ssh.Recipient):
        try:
            return kind.from_str(text.strip())
        except pyrage.RecipientError:
            continue
    raise Unusable(
        f"{text[:20]!r}.. is no recipient: give an age public key (age1...), or an SSH one"
        " (ssh-ed25519 ..., ssh-rsa ...)"
    )


def read_identities(path: Path) -> tuple[Identity, ...]:
    """The private keys of an age identity file, or an SSH private key. Raises Unusable."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror})") from error
    if b"PRIVATE KEY-----" in data:
        try:
            return (pyrage.ssh.Identity.from_buffer(data),)
        except pyrage.IdentityError as error:
            raise Unusable(
                f"{path} is no SSH private key that opens backups: it must be Ed25519 or RSA, and"
                " without a passphrase"
            ) from error
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    try:
        identities = tuple(pyrage.x25519.Identity.from_str(line) for line in found)
    except pyrage.IdentityError as error:
        raise Unusable(f"{path} is no age identity file (AGE-SECRET-KEY-1...)") from error
    if not identities:
        raise Unusable(f"{path} holds no key")
    return identities


def write(target: Path, source: Path, lock: Lock, tell: Tell) -> None:
    """Writes the files below `source` into the new archive `target` (0600), durable.

    Nothing is left behind if it fails. Raises Unusable, OSError.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as outer:
                _fill(outer, source, lock, tell)
            file.flush()
            os.fsync(descriptor)
        # link(2) fails where something is there already; rename(2) would replace it.
        os.link(draft, target)
    except FileExistsError as error:
        raise Unusable(f"{target} is already there and is not overwritten") from error
    finally:
        draft.unlink(missing_ok=True)
    _sync_directory(target.parent)


def _fill(outer: zipfile.ZipFile, source: Path, lock: Lock, tell: Tell) -> None:
    outer.writestr(README, _HELP)
    recipients: Sequence[Recipient] = lock.recipients
    if lock.passphrase is not None:
        # age takes a passphrase for small things held in memory: so it opens the key, not the tar.
        identity = pyrage.x25519.Identity.generate()
        recipients = (*recipients, identity.to_public())
        sealed = pyrage.passphrase.encrypt(str(identity).encode(), lock.passphrase)
        outer.writestr(IDENTITY, sealed)
    with outer.open(TAR, "w", force_zip64=True) as out, _packing(source, tell) as packed:
        pyrage.encrypt_io(packed, cast(BufferedIOBase, out), list(recipients))


def read(archive: Path, into: Path, key: Key, tell: Tell) -> None:
    """Unpacks the archive below the empty directory `into`. Raises Unusable, Unreadable, OSError.

    If it raises, what stands in `into` is not to be used.
    """
    try:
        with zipfile.ZipFile(archive) as outer, outer.open(TAR) as sealed:
            identities = _identities(outer, key)
            with _unpacking(into, tell) as sink:
                pyrage.decrypt_io(cast(BufferedIOBase, sealed), sink, list(identities))
    except FileNotFoundError as error:
        raise Unreadable(f"there is no file {archive}") from error
    except (zipfile.BadZipFile, KeyError) as error:
        raise Unreadable(f"{archive} is no backup of a workspace, or is damaged") from error
    except pyrage.DecryptError as error:
        raise Unusable(f"this key does not open {archive}; give another one") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise Unreadable(f"{archive} is damaged; use another backup") from error
    except OSError as error:
        if error.errno is None:  # age's own: a chunk is not what was sealed, or the end is missing
            raise Unreadable(f"{archive} is damaged; use another backup") from error
        raise


def needs_passphrase(archive: Path) -> bool:
    """Whether the archive was locked with a passphrase. Raises Unreadable."""
    try:
        with zipfile.ZipFile(archive) as outer:
            return IDENTITY in outer.namelist()
    except FileNotFoundError as error:
        raise Unreadable(f"there is no file {archive}") from error
    except zipfile.BadZipFile as error:
        raise Unreadable(f"{archive} is no backup of a workspace, or is damaged") from error
    except OSError as error:
        raise Unreadable(f"{archive} cannot be read ({error.strerror})") from error


def _identities(outer: zipfile.ZipFile, key: Key) -> Sequence[Identity]:
    if key.passphrase is None:
        return key.identities
    if IDENTITY not in outer.namelist():
        raise Unusable("this backup was locked to a key, not with a passphrase; use --identity")
    try:
        opened = pyrage.passphrase.decrypt(outer.read(IDENTITY), key.passphrase)
    except pyrage.DecryptError as error:
        raise Unusable("the passphrase is wrong, or the backup is damaged") from error
    return (*key.identities, pyrage.x25519.Identity.from_str(opened.decode()))


@contextmanager
def _packing(source: Path, tell: Tell) -> Iterator[BufferedIOBase]:
    """A stream of the tar, made by a thread; its failure is raised at the end."""

    def pack(sink: BufferedIOBase) -> None:
        with tarfile.open(
            fileobj=sink, mode="w|gz", format=tarfile.PAX_FORMAT, compresslevel=1
        ) as tar:
            for path in sorted(source.rglob("*")):
                info = tar.gettarinfo(path, path.relative_to(source).as_posix())
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                if path.is_dir():
                    tar.addfile(info)
                else:
                    with path.open("rb") as file:
                        tar.addfile(info, file)
                    tell(info.size)

    with _piped(pack, reads=False) as stream:
        yield stream


@contextmanager
def _unpacking(into: Path, tell: Tell) -> Iterator[BufferedIOBase]:
    """A stream into which the tar is to be written; what it holds appears below `into`."""

    def unpack(source: BufferedIOBase) -> None:
        with tarfile.open(fileobj=source, mode="r|gz") as tar:
            for member in tar:
                if not (member.isreg() or member.isdir()) or not _is_plain(member.name):
                    raise tarfile.TarError("something that no backup holds")
                tar.extract(member, into, filter="data")
                # The filter keeps the owner's bits only as it likes; every file is the owner's.
                (into / member.name).chmod(0o700 if member.isdir() else member.mode & 0o644)
                tell(member.size)
        while source.read(DEFAULT_BUFFER_SIZE):
            pass  # padding: the writer must not find the pipe closed

    with _piped(unpack, reads=True) as stream:
        yield stream


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts


@contextmanager
def _piped(work: Callable[[BufferedIOBase], None], *, reads: bool) -> Iterator[BufferedIOBase]:
    """One end of a pipe, while a thread does `work` with the other. Raises what `work` raised."""
    failed: list[BaseException] = []
    out, into = os.pipe()
    theirs = os.fdopen(out, "rb") if reads else os.fdopen(into, "wb")
    ours = os.fdopen(into, "wb") if reads else os.fdopen(out, "rb")

    def run() -> None:
        try:
            with theirs:
                work(theirs)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            failed.append(error)

    thread = threading.Thread(target=run, name="backup", daemon=True)
    thread.start()
    try:
        with ours:
            yield ours
    except BrokenPipeError:
        thread.join()
        if not failed:
            raise
    finally:
        thread.join()
    if failed and not isinstance(failed[0], BrokenPipeError):
        raise failed[0]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
