"""What lies where on this machine: mounts, other names of a path, sockets in the file system."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc(5)): `root` of the file system `device` is seen at `point`."""

    device: str
    root: str
    point: str


def read_mounts(text: str) -> tuple[Mount, ...]:
    """The mounts in the text of /proc/self/mountinfo, later ones on top of earlier ones."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) > 5:
            found.append(Mount(fields[2], _plain(fields[3]), _plain(fields[4])))
    return tuple(found)


def _plain(field: str) -> str:
    """Blanks and the like are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it; both absolute and normal."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _moved(path: str, source: str, target: str) -> str:
    """`path` below `source` as it is named below `target`."""
    rest = os.path.relpath(path, source)
    return target if rest == "." else os.path.join(target, rest)


def aliases(path: str, mounts: Sequence[Mount]) -> Iterator[str]:
    """Other paths at which the same, or a part of it, is mounted: bind mounts and subvolumes."""
    holders = [mount for mount in mounts if within(path, mount.point)]
    if not holders:
        return
    deepest = max(len(mount.point) for mount in holders)
    home = [mount for mount in holders if len(mount.point) == deepest][-1]
    inside = _moved(path, home.point, home.root)
    for mount in mounts:
        if mount.device != home.device or mount == home:
            continue
        if within(inside, mount.root):
            yield _moved(inside, mount.root, mount.point)
        elif within(mount.root, inside):
            yield mount.point


def bound_sockets(text: str) -> Iterator[str]:
    """Absolute paths of the Unix sockets in the text of /proc/net/unix."""
    for line in text.splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("/"):
            yield fields[7]


def sockets_here() -> set[str]:
    """Sockets in the file system that somebody listens at, or that are mounted, by real path."""
    candidates: list[str] = []
    for file, read in (
        ("/proc/net/unix", bound_sockets),
        ("/proc/self/mountinfo", lambda text: (mount.point for mount in read_mounts(text))),
    ):
        candidates += read(_text(file))
    return set(_only_sockets(candidates))


def _only_sockets(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                yield os.path.realpath(path)
        except (OSError, ValueError):
            continue


def mounts_here() -> tuple[Mount, ...]:
    """The mounts that this process sees."""
    return read_mounts(_text("/proc/self/mountinfo"))


def _text(file: str) -> str:
    return Path(file).read_text(encoding="utf-8", errors="surrogateescape")
