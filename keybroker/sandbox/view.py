"""Which paths a sandboxed command sees, and how: everything read-only, but for what is said here.

The deepest place that a path lies in decides. What must stay hidden (the workspace above all)
cannot be shown or made writable by any wish, under none of its names; what lies inside a writable
folder is fastened there, so that it cannot be moved away and replaced. Nothing is mounted here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from keybroker.errors import Unusable
from keybroker.sandbox import secrets
from keybroker.sandbox.mounts import Mount, aliases, mounts_here, sockets_here, within

Kind = Literal["readable", "writable", "hidden", "private"]

PRIVATE = ("/tmp", "/var/tmp", "/run", "/var/run")  # noqa: S108 -- named, not used
"""Folders that all users share, sockets lie in, and programs write to: the sandbox's own."""
MACHINE = ("/proc", "/sys", "/dev")
_SYSTEM = ("/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/boot")


@dataclass(frozen=True, slots=True)
class Place:
    """How `path` and what lies below it is seen. `hidden` and `private` are empty at first.

    `readable` and `writable` are as outside, `private` can be written to and goes with the run.
    """

    path: str
    kind: Kind
    folder: bool = True


@dataclass(frozen=True, slots=True)
class View:
    """Places, outer ones before inner ones, below a root that is readable."""

    places: tuple[Place, ...]
    cwd: str

    def kind_of(self, path: str) -> Kind:
        """How a real path is seen."""
        return _kind(path, {place.path: place.kind for place in self.places})

    @property
    def hidden(self) -> tuple[str, ...]:
        """What a look from inside must find empty."""
        return tuple(place.path for place in self.places if place.kind == "hidden")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user of a run asked for. `writable` None: the current directory."""

    writable: tuple[Path, ...] | None = None
    readable: tuple[Path, ...] = ()
    hide: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a view is made from, besides wishes; the defaults are this machine's."""

    home: str
    cwd: str
    guarded: tuple[str, ...]
    """Workspaces and their keys, wherever they lie: never to be seen."""
    shown: tuple[str, ...] = ()
    """The run's own files: always to be seen."""
    program: tuple[str, ...] = ()
    """Keybroker's own code and its interpreter: never to be changed."""
    mounts: tuple[Mount, ...] = field(default_factory=mounts_here)
    sockets: frozenset[str] = field(default_factory=lambda: frozenset(sockets_here()))


def program_files() -> tuple[str, ...]:
    """Where this program's code lies."""
    root = Path(__file__).parents[2]
    packages = [root / name for name in ("keybroker", "proxy", "broker", "rules", "audit", "certs")]
    prefixes = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent]
    return tuple(dict.fromkeys(str(path.resolve()) for path in (*packages, *prefixes)))


def make_view(wishes: Wishes, around: Surroundings) -> View:
    """The view. Raises Unusable, with what to change, for a wish that cannot be met."""
    guarded = _with_aliases(_real(around.guarded), around.mounts)
    cwd = os.path.realpath(around.cwd)
    writable = _writable(wishes, cwd, around, guarded)
    readable = [_asked(path, "--readable") for path in wishes.readable]
    for path in readable:
        if any(within(path, secret) for secret in guarded):
            raise Unusable(f"--readable {path}: that is the workspace, which stays hidden")
    hidden = [os.path.realpath(path) for path in wishes.hide]
    kinds: dict[str, Kind] = {}
    kinds |= dict.fromkeys(_there(PRIVATE), "private")
    kinds |= dict.fromkeys(_with_aliases(_real(_usual(around.home)), around.mounts), "hidden")
    kinds |= dict.fromkeys(around.sockets, "hidden")
    kinds |= dict.fromkeys(_real(around.program), "readable")
    if cwd not in PRIVATE:
        kinds[cwd] = "readable"
    kinds |= dict.fromkeys(hidden, "hidden")
    kinds |= dict.fromkeys(readable, "readable")
    kinds |= dict.fromkeys(writable, "writable")
    kinds |= dict.fromkeys(_real(around.shown), "readable")
    kinds |= dict.fromkeys(guarded, "hidden")
    kinds.pop("/", None)
    kinds = _needed(kinds)
    if _kind(cwd, kinds) == "hidden" or any(within(cwd, secret) for secret in guarded):
        raise Unusable(f"{cwd} is hidden in the sandbox: start the command in another folder")
    places = (Place(path, kind, _is_folder(path)) for path, kind in _fastened(kinds).items())
    return View(tuple(sorted(places, key=lambda place: place.path.split("/"))), cwd)


def _writable(wishes: Wishes, cwd: str, around: Surroundings, guarded: Sequence[str]) -> list[str]:
    asked = wishes.writable
    paths = [cwd] if asked is None else [_asked(path, "--writable") for path in asked]
    for path in paths:
        what = f"the current directory {path}" if asked is None else f"--writable {path}"
        other = "; change to a project's folder, or name what may be written with --writable"
        mend = other if asked is None else "; name a folder of its own"
        if not _is_folder(path):
            raise Unusable(f"{what}: there is no such folder")
        # Above it, the agent could put another in its place.
        for secret in guarded:
            if within(path, secret) or within(secret, path):
                raise Unusable(f"{what} would let the command at the workspace {secret}{mend}")
        if path == "/" or within(os.path.realpath(around.home), path):
            raise Unusable(f"{what} holds your home, whose files run when you log in{mend}")
        if path in PRIVATE:
            raise Unusable(f"{what} is every user's, with sockets that lead to others{mend}")
        for folder in (*_SYSTEM, *MACHINE, *_real(around.program)):
            if within(path, folder):
                raise Unusable(f"{what} belongs to the system or to Keybroker{mend}")
    return paths


def _asked(path: Path, option: str) -> str:
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise Unusable(f"{option} {path}: there is nothing there")
    if any(within(real, folder) for folder in MACHINE):
        raise Unusable(f"{option} {path}: {real} is the sandbox's own and cannot be chosen")
    return real


def _usual(home: str) -> Iterator[str]:
    yield from secrets.SYSTEM
    yield from (os.path.join(home, name) for name in secrets.HOME)


def _there(paths: Iterable[str]) -> Iterator[str]:
    """Those that exist by this very name."""
    return (path for path in paths if os.path.isdir(path) and not os.path.islink(path))


def _real(paths: Iterable[str]) -> list[str]:
    """The real paths of those that exist."""
    return [os.path.realpath(path) for path in paths if os.path.exists(path)]


def _with_aliases(paths: Iterable[str], mounts: Sequence[Mount]) -> list[str]:
    found = dict.fromkeys(paths)
    for path in tuple(found):
        found |= dict.fromkeys(_there_or_file(aliases(path, mounts)))
    return list(found)


def _there_or_file(paths: Iterable[str]) -> Iterator[str]:
    return (path for path in paths if os.path.exists(path))


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)


def _holder(path: str, kinds: Mapping[str, Kind]) -> str | None:
    """The nearest place around `path`, itself not counted."""
    while path != "/":
        path = os.path.dirname(path)
        if path in kinds:
            return path
    return None


def _kind(path: str, kinds: Mapping[str, Kind]) -> Kind:
    if path in kinds:
        return kinds[path]
    holder = _holder(path, kinds)
    return "readable" if holder is None else kinds[holder]


def _needed(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """Without places that change nothing: hidden in what is hidden or empty, and the like."""
    kept: dict[str, Kind] = {}
    for path in sorted(kinds, key=lambda path: path.split("/")):
        kind, around = kinds[path], _kind(os.path.dirname(path), kept)
        if any(within(path, folder) for folder in MACHINE):
            continue
        if kind == around or (kind == "hidden" and around == "private"):
            continue
        kept[path] = kind
    return kept


def _fastened(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """With each folder between a writable one and a place in it mounted upon itself.

    A mount point cannot be renamed; the folders that lead to it could.
    """
    out = dict(kinds)
    for path in kinds:
        holder = _holder(path, kinds)
        if holder is None or kinds[holder] != "writable":
            continue
        step = os.path.dirname(path)
        while step != holder:
            out[step] = "writable"
            step = os.path.dirname(step)
    return out
