"""The system's user that a command runs as, and whether that one could read the workspace."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from keybroker.errors import Unusable


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, with the groups that a log-in would give."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def __str__(self) -> str:
        return f"{self.name} (uid {self.uid})"

    @property
    def present(self) -> bool:
        """Whether this process runs as this user already."""
        return self.uid == os.geteuid()

    def environment(self) -> dict[str, str]:
        """What a log-in would say of the user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def can_read(self, path: Path) -> bool:
        """Asks the kernel, as this user. What cannot be found out counts as yes."""
        if self.present:
            return os.access(path, os.R_OK, effective_ids=True)
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", 'test -r "$0"', str(path)],
                user=self.uid,
                group=self.gid,
                extra_groups=self.groups,
                cwd="/",
                env={},
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except OSError:
            return True
        return done.returncode != 1


def present() -> Account:
    """The user of this process."""
    uid = os.geteuid()
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        return Account(f"uid-{uid}", uid, os.getegid(), tuple(os.getgroups()), "/")


def named(name: str) -> Account:
    """The user `name`. Raises Unusable if there is none, or if this process may not become it."""
    try:
        account = _account(pwd.getpwnam(name))
    except KeyError as error:
        raise Unusable(f"--user {name}: this machine has no such user") from error
    if os.geteuid() != 0 and not account.present:
        raise Unusable(f"--user {name}: only root can start a command as another user")
    return account


def _account(entry: pwd.struct_passwd) -> Account:
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)
