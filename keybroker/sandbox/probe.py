"""Which back-end works on this machine, by trying it; if none does, what to install or enable.

There is no way from here to no sandbox at all.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keybroker.errors import Unusable
from keybroker.sandbox.launch import Backend, Sandbox, start
from keybroker.sandbox.view import PRIVATE, Place, View, program_files

ORDER: tuple[Backend, ...] = ("bubblewrap", "unshare")

ELSEWHERE = "run the agent as another user, or in a container that reaches the proxy only"

_SYS_ADMIN = 21
"""The number of CAP_SYS_ADMIN."""


def choose(backend: Backend | None = None) -> Backend:
    """The first that works, or `backend` if it does. Raises Unusable with what to do."""
    found = _first(ORDER if backend is None else (backend,))
    if isinstance(found, str):
        return found
    says, fix = _said(found)
    raise Unusable(f"{says}: {fix}")


def state() -> tuple[str, str]:
    """For `doctor`: what there is, and how to mend it; empty where there is nothing to mend."""
    found = _first(ORDER)
    return (f"`run --sandbox` works, by {found}", "") if isinstance(found, str) else _said(found)


def _first(candidates: Sequence[Backend]) -> Backend | dict[Backend, str]:
    """The first that works; else why each does not."""
    if not sys.platform.startswith("linux"):
        return dict.fromkeys(candidates, "needs Linux")
    reasons: dict[Backend, str] = {}
    for candidate in candidates:
        reason = try_out(candidate)
        if reason is None:
            return candidate
        reasons[candidate] = reason
    return reasons


def _said(reasons: Mapping[Backend, str]) -> tuple[str, str]:
    each = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    linux = sys.platform.startswith("linux")
    return f"there is no sandbox on this machine ({each})", advice(look()) if linux else ELSEWHERE


def try_out(backend: Backend) -> str | None:
    """Starts the smallest sandbox there is; None, or why it cannot be."""
    if backend == "bubblewrap" and shutil.which("bwrap") is None:
        return "not installed"
    private = [Place(path, "private") for path in PRIVATE if _own_folder(path)]
    with (
        tempfile.TemporaryDirectory(prefix="keybroker-probe-") as name,
        tempfile.TemporaryFile() as said,
    ):
        folder = Path(name)
        # As in every view: whoever has installed the program below /tmp finds it there.
        shown = sorted({folder.resolve(), *map(Path, program_files())})
        readable = [Place(str(path), "readable") for path in shown if path.is_dir()]
        sandbox = Sandbox(backend, View((*private, *readable), "/"), ("127.0.0.1", 9), 8080)
        try:
            status = start(sandbox, ["true"], os.environ, folder, stderr=said.fileno()).wait()
        except Unusable as error:
            said.seek(0)
            lines = said.read().decode(errors="replace").split("\n")
            return next((line for line in lines if line), str(error))
        return None if status == 0 else f"its trial ended with status {status}"


def _own_folder(path: str) -> bool:
    return Path(path).is_dir() and not Path(path).is_symlink()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the kernel says of itself; None: it does not know this setting."""

    root: bool
    admin: bool
    """Has CAP_SYS_ADMIN."""
    filtered: bool
    """A seccomp filter is in force, as in a container."""
    max_namespaces: int | None = None
    unprivileged: int | None = None
    apparmor: int | None = None
    bubblewrap: bool = False


def look() -> Facts:
    """The facts of this machine."""
    status = dict(
        line.split(":\t", 1)
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if ":\t" in line
    )
    return Facts(
        root=os.geteuid() == 0,
        admin=bool(int(status["CapEff"], 16) >> _SYS_ADMIN & 1),
        filtered=status.get("Seccomp", "0") != "0",
        max_namespaces=_number("user/max_user_namespaces"),
        unprivileged=_number("kernel/unprivileged_userns_clone"),
        apparmor=_number("kernel/apparmor_restrict_unprivileged_userns"),
        bubblewrap=shutil.which("bwrap") is not None,
    )


def _number(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


_CAUSES: tuple[tuple[Callable[[Facts], bool], str], ...] = (
    (
        lambda facts: facts.max_namespaces == 0,
        "user namespaces are switched off; enable them with `sysctl -w"
        " user.max_user_namespaces=15000`",
    ),
    (
        lambda facts: facts.unprivileged == 0 and not facts.admin,
        "user namespaces are for root only here; enable them with `sysctl -w"
        " kernel.unprivileged_userns_clone=1`",
    ),
    (
        lambda facts: facts.apparmor == 1 and not facts.admin,
        "AppArmor restricts user namespaces (Ubuntu 24.04 does); install bubblewrap with its"
        " AppArmor profile (`apt-get install bubblewrap apparmor-profiles`), or `sysctl -w"
        " kernel.apparmor_restrict_unprivileged_userns=0`",
    ),
    (
        lambda facts: facts.root and not facts.admin,
        "this is a container without CAP_SYS_ADMIN; start it with `--cap-add SYS_ADMIN"
        " --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt"
        " systempaths=unconfined`, or run the agent in a container of its own",
    ),
    (
        lambda facts: facts.filtered,
        "a seccomp filter is in force here, as in a container; start that with `--security-opt"
        " seccomp=unconfined --security-opt systempaths=unconfined`, or run the agent in a"
        " container of its own",
    ),
    (
        lambda facts: not facts.bubblewrap,
        "install bubblewrap (Debian: `apt-get install bubblewrap`)",
    ),
)


def advice(facts: Facts) -> str:
    """What to install or enable, by the first cause that fits."""
    for fits, sentence in _CAUSES:
        if fits(facts):
            return sentence
    return ELSEWHERE
