"""The policy file with all that it includes, as it lies on the disk.

What is included is read from below the policy's own directory and through no symbolic link: whoever
may write a link there could else have any file shown in a message.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from keybroker.errors import Unreadable
from keybroker.workspace import read_text
from rules.errors import Problem
from rules.include import FILE_SUFFIXES, Sources, included, parse_file, shipped
from rules.load import load_policy
from rules.model import Policy
from rules.yamlfile import did_you_mean

MAX_BYTES = 16 * 1024 * 1024
"""Of an included file."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What was read; two are equal if they mean the same."""

    path: Path
    text: str
    sources: Sources

    def load(self) -> tuple[Policy, tuple[Problem, ...]]:
        """As `rules.load.load_policy`. Raises InvalidFile."""
        return load_policy(self.text, str(self.path), self.sources)


def read_policy(path: Path) -> PolicyFile:
    """The file with the packs of this program and the files that it includes. Raises Unreadable if
    the policy itself cannot be read; what it includes is told of when it is loaded."""
    text = read_text(path)
    packs, files = included(text)
    texts, refused = shipped(packs), {}
    for name in files:
        try:
            name = parse_file(name)
        except ValueError:
            continue
        try:
            texts[name] = _read_below(path.parent, name)
        except Unreadable as error:
            refused[name] = str(error)
    return PolicyFile(path, text, Sources(texts, refused))


def load_policy_file(path: Path) -> tuple[Policy, tuple[Problem, ...]]:
    """Reads and loads in one. Raises Unreadable, InvalidFile."""
    return read_policy(path).load()


def _read_below(directory: Path, name: str) -> str:
    *parents, last = name.removeprefix("./").split("/")
    try:
        with ExitStack() as stack:
            flags = os.O_RDONLY | os.O_DIRECTORY
            at = os.open(directory, flags)
            stack.callback(os.close, at)
            for parent in parents:
                at = os.open(parent, flags | os.O_NOFOLLOW, dir_fd=at)
                stack.callback(os.close, at)
            # Without waiting for the other end of a pipe.
            try:
                file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
            except FileNotFoundError as error:
                beside = (n for n in os.listdir(at) if n.endswith(FILE_SUFFIXES))  # noqa: PTH208
                hint = did_you_mean(last, beside)
                raise Unreadable(f"there is no file {name}{hint}") from error
            stack.callback(os.close, file)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise Unreadable(f"{name} is not a plain file")
            with os.fdopen(file, "rb", closefd=False) as opened:
                content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            because = f"{name} is, or lies behind, a symbolic link; include the file itself"
            raise Unreadable(because) from error
        raise Unreadable(f"{name} cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise Unreadable(f"{name} is larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        because = f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        raise Unreadable(because) from error
