"""The archive: sealed, whole or refused, and readable by whoever has age and tar."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from keybroker.backup import archive
from keybroker.errors import Unreadable, Unusable

CANARY = b"sk_live_backup_canary_5566"


def tell(_: int) -> None:
    return


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "state" / "deep").mkdir(parents=True)
    (folder / "policy.yaml").write_text("version: 1\n")
    (folder / "state" / "key").write_bytes(CANARY)
    (folder / "state" / "key").chmod(0o600)
    (folder / "state" / "deep" / "large").write_bytes(random.Random(1).randbytes(1 << 20))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def opened(path: Path, into: Path, key: archive.Key) -> dict[str, bytes]:
    into.mkdir()
    archive.read(path, into, key, tell)
    return contents(into)


def test_what_was_sealed_with_a_passphrase_opens_with_it(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.backup"
    archive.write(target, source, archive.Lock("correct horse"), tell)
    assert target.stat().st_mode & 0o777 == 0o600
    assert CANARY not in target.read_bytes()
    assert archive.needs_passphrase(target)
    assert opened(target, tmp_path / "out", archive.Key("correct horse")) == contents(source)
    assert (tmp_path / "out" / "state" / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unusable, match="passphrase is wrong"):
        archive.read(target, tmp_path / "none", archive.Key("wrong"), tell)


def test_recipients_open_it_and_nobody_else(source: Path, tmp_path: Path) -> None:
    mine, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    target = tmp_path / "a.backup"
    recipient = archive.parse_recipient(str(mine.to_public()))
    archive.write(target, source, archive.Lock(None, (recipient,)), tell)
    assert not archive.needs_passphrase(target)
    key_file = tmp_path / "key.txt"
    key_file.write_text(f"# created: today\n{mine}\n")
    key = archive.Key(None, archive.read_identities(key_file))
    assert opened(target, tmp_path / "out", key) == contents(source)
    with pytest.raises(Unusable, match="does not open"):
        archive.read(target, tmp_path / "none", archive.Key(None, (other,)), tell)
    with pytest.raises(Unusable, match="locked to a key"):
        archive.read(target, tmp_path / "none", archive.Key("a passphrase"), tell)


def test_an_ssh_key_opens_it(source: Path, tmp_path: Path) -> None:
    private = tmp_path / "id_ed25519"
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(private)]
    subprocess.run(made, check=True)
    public = private.with_suffix(".pub").read_text()
    target = tmp_path / "a.backup"
    archive.write(target, source, archive.Lock(None, (archive.parse_recipient(public),)), tell)
    key = archive.Key(None, archive.read_identities(private))
    assert opened(target, tmp_path / "out", key) == contents(source)


def test_age_and_tar_alone_open_it(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.backup"
    archive.write(target, source, archive.Lock("pass"), tell)
    with zipfile.ZipFile(target) as outer:
        key = pyrage.passphrase.decrypt(outer.read(archive.IDENTITY), "pass").decode()
        identity = pyrage.x25519.Identity.from_str(key)
        packed = pyrage.decrypt(outer.read(archive.TAR), [identity])
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        member = tar.extractfile("state/key")
        assert member is not None
        assert member.read() == CANARY


@pytest.mark.parametrize("where", [0.02, 0.3, 0.5, 0.8, 0.97])
def test_a_byte_that_changed_is_found(source: Path, tmp_path: Path, where: float) -> None:
    target = tmp_path / "a.backup"
    mine = pyrage.x25519.Identity.generate()
    archive.write(target, source, archive.Lock(None, (mine.to_public(),)), tell)
    with zipfile.ZipFile(target) as outer:
        info = outer.getinfo(archive.TAR)
        begin = info.header_offset + 30 + len(info.filename) + 20
    data = bytearray(target.read_bytes())
    data[begin + int(info.file_size * where)] ^= 1
    target.write_bytes(data)
    into = tmp_path / "out"
    into.mkdir()
    with pytest.raises((Unusable, Unreadable)):
        archive.read(target, into, archive.Key(None, (mine,)), tell)


def test_a_cut_archive_is_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.backup"
    archive.write(target, source, archive.Lock("pass"), tell)
    target.write_bytes(target.read_bytes()[:-2000])
    with pytest.raises(Unreadable, match="is damaged"):
        archive.needs_passphrase(target)
    with pytest.raises(Unreadable, match="is damaged"):
        archive.read(target, tmp_path, archive.Key("pass"), tell)


def test_a_sealed_stream_without_its_end_is_refused(source: Path, tmp_path: Path) -> None:
    """Zip's own checksum is not what vouches: whoever cuts can write a new one."""
    target, mine = tmp_path / "a.backup", pyrage.x25519.Identity.generate()
    archive.write(target, source, archive.Lock(None, (mine.to_public(),)), tell)
    with zipfile.ZipFile(target) as outer:
        sealed = outer.read(archive.TAR)
    cut = tmp_path / "cut.backup"
    with zipfile.ZipFile(cut, "w") as outer:
        outer.writestr(archive.TAR, sealed[: 65_536 + 200])
    into = tmp_path / "out"
    into.mkdir()
    with pytest.raises(Unreadable, match="is damaged"):
        archive.read(cut, into, archive.Key(None, (mine,)), tell)


def test_nothing_is_overwritten_and_nothing_half_made_is_left(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.backup"
    target.write_text("precious")
    with pytest.raises(Unusable, match="already there"):
        archive.write(target, source, archive.Lock("pass"), tell)
    assert target.read_text() == "precious"

    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        archive.write(tmp_path / "b.backup", source, archive.Lock("pass"), fails)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.backup", "source"]


def hostile(member: Callable[[tarfile.TarFile], None], target: Path) -> archive.Key:
    mine, packed = pyrage.x25519.Identity.generate(), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member(tar)
    with zipfile.ZipFile(target, "w") as outer:
        outer.writestr(archive.TAR, pyrage.encrypt(packed.getvalue(), [mine.to_public()]))
    return archive.Key(None, (mine,))


def _entry(name: str, **fields: object) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(info, field, value)
        tar.addfile(info)

    return add


@pytest.mark.parametrize(
    "member",
    [
        _entry("../escaped"),
        _entry("/etc/escaped"),
        _entry("state/../../escaped"),
        _entry("state", type=tarfile.SYMTYPE, linkname="/etc"),
        _entry("hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        _entry("pipe", type=tarfile.FIFOTYPE),
        _entry("device", type=tarfile.CHRTYPE),
    ],
)
def test_an_archive_that_reaches_outside_is_refused(
    member: Callable[[tarfile.TarFile], None], tmp_path: Path
) -> None:
    target, into = tmp_path / "hostile.backup", tmp_path / "deep" / "out"
    key = hostile(member, target)
    into.mkdir(parents=True)
    with pytest.raises(Unreadable, match="damaged"):
        archive.read(target, into, key, tell)
    assert not list(into.iterdir())
    assert not list(tmp_path.rglob("escaped"))


def test_no_special_mode_comes_out(tmp_path: Path) -> None:
    target, into = tmp_path / "a.backup", tmp_path / "out"
    key = hostile(_entry("tool", mode=0o6777), target)
    into.mkdir()
    archive.read(target, into, key, tell)
    assert (into / "tool").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize("text", ["", "age1xx", "ssh-ed25519 AAAA", "alice"])
def test_what_is_no_recipient_is_refused(text: str) -> None:
    with pytest.raises(Unusable, match="is no recipient"):
        archive.parse_recipient(text)


def test_what_is_no_identity_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(Unreadable):
        archive.read_identities(file)
    for text, says in (("", "holds no key"), ("nonsense", "is no age identity")):
        file.write_text(text)
        with pytest.raises(Unusable, match=says):
            archive.read_identities(file)
    file.write_text(
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    )
    with pytest.raises(Unusable, match="no SSH private key"):
        archive.read_identities(file)


def test_keys_do_not_print_themselves() -> None:
    shown = f"{archive.Lock('hunter2')!r} {archive.Key('hunter2')!r}"
    assert "hunter2" not in shown
