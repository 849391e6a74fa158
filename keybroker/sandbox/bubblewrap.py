"""A view as the arguments of bubblewrap, bwrap(1)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from keybroker.sandbox.view import View

NAMESPACES = (
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
    "--unshare-cgroup-try", "--disable-userns", "--die-with-parent", "--cap-drop", "ALL",
)  # fmt: skip

READ_ONLY = (
    "/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi",
    "/proc/driver", "/proc/scsi", "/proc/mtrr", "/proc/pressure",
)  # fmt: skip
"""root, even without capabilities, is the owner of these: of core_pattern for one, which names a
program that the kernel runs outside. bwrap covers some of them only."""
EMPTY = ("/proc/keys", "/proc/kcore", "/proc/timer_list")
"""What other users' processes hold."""


def arguments(view: View, nothing: str, filter_fd: int) -> tuple[str, ...]:
    """Everything from the first option to `--`. `nothing` is an empty file.

    bwrap reads the seccomp filter from `filter_fd`, and sets it for its own process 1 too.
    """
    filtered = ("--seccomp", str(filter_fd))
    return (*NAMESPACES, *_mounts(view, nothing), *filtered, "--chdir", view.cwd, "--")


def _mounts(view: View, nothing: str) -> Iterator[str]:
    yield from ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc")
    for path in READ_ONLY:
        yield from ("--ro-bind-try", path, path)
    for path in EMPTY:
        if os.path.exists(path):
            yield from ("--ro-bind", nothing, path)
    for place in view.places:
        match place.kind:
            case "readable":
                yield from ("--ro-bind", place.path, place.path)
            case "writable":
                yield from ("--bind", place.path, place.path)
            case "private":
                yield from ("--perms", "1777", "--tmpfs", place.path)
            case "hidden" if place.folder:
                yield from ("--perms", "0755", "--tmpfs", place.path)
            case "hidden":
                yield from ("--ro-bind", nothing, place.path)
    for place in view.places:
        # At the end: places may lie in what is hidden, and are made there.
        if place.kind == "hidden" and place.folder:
            yield from ("--remount-ro", place.path)
