"""Who a command runs as, and what that user could read."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from keybroker.account import Account, named, present
from keybroker.errors import Unusable


def test_the_present_user_is_known() -> None:
    account = present()
    assert account.present and account.uid == os.geteuid()
    assert str(account) == f"{account.name} (uid {account.uid})"


def test_the_present_user_may_be_named() -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    account = named(name)
    assert account.present and account.environment()["USER"] == name


def test_a_user_that_there_is_not_is_said_to_be_so() -> None:
    with pytest.raises(Unusable, match="no such user"):
        named("keybroker-nobody-of-this-name")


def test_only_root_may_name_others(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, 54_321))
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    with pytest.raises(Unusable, match="only root"):
        named(other.pw_name)


def test_what_the_present_user_reads_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x")
    assert present().can_read(tmp_path / "key")
    assert not present().can_read(tmp_path / "missing")


def test_whether_another_could_read_is_asked_as_that_one(tmp_path: Path) -> None:
    """Where this process cannot become another it cannot find out, and says yes."""
    (tmp_path / "key").write_text("x")
    (tmp_path / "key").chmod(0o600)
    other = Account("other", 64_321, 64_321, (64_321,), "/")
    assert other.can_read(tmp_path / "key") is (os.geteuid() != 0)
    assert other.can_read(Path("/etc/passwd"))
