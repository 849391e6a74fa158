"""The sandbox by our own hands, where bubblewrap is not: unshare(2), mount(2), pivot_root(2).

Run as a program of its own (`start`), since a process with threads cannot enter a user namespace.
It becomes the keeper that waits outside the new process namespace; its child is process 1 in it,
builds the view, gives all capabilities up and starts the command as process 2. Each dies with the
one before it. Standard library and `inner` only. Needs Linux 5.12 (mount_setattr).
"""

from __future__ import annotations

import base64
import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
from typing import Any, NoReturn

from keybroker.sandbox import inner

_BIND, _RECURSIVE, _PRIVATE, _REMOUNT = 4096, 16384, 1 << 18, 32
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_CAPABILITY_VERSION_3 = 0x20080522
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = (
    ("/proc/self/fd", "fd"), ("/proc/self/fd/0", "stdin"), ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"), ("pts/ptmx", "ptmx"),
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The kernel refused a step; the sentence names it."""


def start(fd: int) -> NoReturn:
    """The whole of it, from the orders on the control socket `fd` on."""
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    parent = os.getppid()
    try:
        _die_with(parent)
        orders = inner.read_orders(control)
        _leave()
        child = os.fork()
    except (OSError, Refused, EOFError) as error:
        inner.complain(control, str(error))
    if child:
        _keep(control, child)
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _build(orders)
        _give_up()
        # Here, not only in the command: whoever traces process 1 must not find it unfiltered.
        _filter(base64.b64decode(orders["filter"]))
        command = os.fork()
    except (OSError, Refused) as error:
        inner.complain(control, str(error))
    if command:
        _reap(control, command)
    inner.enter(control, orders)


# --- leaving -----------------------------------------------------------------------------------


def _die_with(parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise Refused("keybroker run is gone")


def _leave() -> None:
    """Into namespaces of its own, in which this user is the same user, and alone."""
    user, group = os.geteuid(), os.getegid()
    kinds = (
        os.CLONE_NEWUSER | os.CLONE_NEWNS | os.CLONE_NEWPID | os.CLONE_NEWNET
        | os.CLONE_NEWIPC | os.CLONE_NEWUTS | os.CLONE_NEWCGROUP
    )  # fmt: skip
    try:
        os.unshare(kinds)
    except OSError as error:
        raise Refused(f"no namespaces can be made ({error.strerror})") from error
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise Refused(f"{path} cannot be written ({error.strerror})") from error


# --- process 1 ---------------------------------------------------------------------------------


def _build(orders: dict[str, Any]) -> None:
    _loopback_up()
    _mount("none", "/", None, _RECURSIVE | _PRIVATE)
    # Something to stand on while the new root is put together; it is covered by nothing else.
    base = "/proc"
    _mount("tmpfs", base, "tmpfs", _NOSUID | _NODEV, "mode=755,size=1m")
    new, old, nothing = f"{base}/new", f"{base}/old", f"{base}/nothing"
    os.mkdir(new)
    os.mkdir(old)
    os.close(os.open(nothing, os.O_WRONLY | os.O_CREAT, 0o444))
    _mount("/", new, None, _BIND | _RECURSIVE)
    # The bind has brought the tmpfs along, at new/proc; the real one comes there.
    _restrict(new, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, deep=True)
    _devices(new)
    _processes(new, orders)
    for path, kind, folder in orders["places"]:
        _place(new, path, kind, folder, nothing)
    for path, kind, folder in orders["places"]:
        if kind == "hidden" and folder:
            _restrict(new + path, _ATTR_RDONLY)
    for path in orders["empty"]:
        if os.path.exists(new + path):
            _bind(nothing, new + path, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    _turn(new)
    # The limit of this user namespace, which nobody in it can raise any more: no further ones.
    _write("/proc/sys/user/max_user_namespaces", "0")
    for path in orders["read_only"]:
        if os.path.exists(path):
            _bind(path, path, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("=h", fcntl.ioctl(sock, _SIOCGIFFLAGS, name + bytes(24)), 16)[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, name + struct.pack("=h", flags | _IFF_UP) + bytes(22))


def _devices(new: str) -> None:
    outside = {name: f"/dev/{name}" for name in DEVICES}
    dev = f"{new}/dev"
    _mount("tmpfs", dev, "tmpfs", _NOSUID, "mode=755")
    for name, device in outside.items():
        os.close(os.open(f"{dev}/{name}", os.O_WRONLY | os.O_CREAT, 0o666))
        _bind(device, f"{dev}/{name}", _ATTR_NOSUID)
    for target, name in LINKS:
        os.symlink(target, f"{dev}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{dev}/{name}")
    _mount(
        "devpts", f"{dev}/pts", "devpts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=0666,mode=620"
    )
    _mount("tmpfs", f"{dev}/shm", "tmpfs", _NOSUID | _NODEV, "mode=1777")


def _processes(new: str, orders: dict[str, Any]) -> None:
    try:
        _mount("proc", f"{new}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    except Refused as error:
        raise Refused(f"{error}; in a container its /proc must not be masked") from error


def _place(new: str, path: str, kind: str, folder: bool, nothing: str) -> None:
    target = new + path
    _make(target, folder or kind == "private")
    if kind in ("readable", "writable"):
        limits = _ATTR_NOSUID | _ATTR_NODEV
        _bind(path, target, limits | (_ATTR_RDONLY if kind == "readable" else 0))
    elif folder:
        mode = "1777" if kind == "private" else "0755"
        _mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, f"mode={mode}")
    else:
        _bind(nothing, target, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)


def _make(target: str, folder: bool) -> None:
    """A place to mount on, where it lies in an empty folder of ours."""
    if os.path.lexists(target):
        return
    os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
    if not folder:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444))


def _turn(new: str) -> None:
    """`new` becomes the root, and what was the root is gone."""
    os.chdir(new)
    number = _PIVOT_ROOT[os.uname().machine]
    # On itself: the old root then lies on top of the new one, and is taken off (pivot_root(2)).
    if _libc.syscall(number, b".", b"."):
        _fail("pivot_root")
    if _libc.umount2(b".", _DETACH):
        _fail("umount of the old root")
    os.chdir("/")


def _give_up() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)):
        _fail("capset")


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter(program: bytes) -> None:
    code = _Program(len(program) // 8, program)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(code), 0, 0):
        _fail("the seccomp filter")


# --- waiting -----------------------------------------------------------------------------------


def _keep(control: socket.socket, child: int) -> NoReturn:
    control.close()
    os.chdir("/")
    _follow(child)


def _reap(control: socket.socket, command: int) -> NoReturn:
    """Process 1: it gets the orphans, and when the command ends, everything ends."""
    control.close()
    _follow(command)


def _follow(child: int) -> NoReturn:
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


# --- system calls ------------------------------------------------------------------------------


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    coded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    if _libc.mount(coded[0], coded[1], coded[2], ctypes.c_ulong(flags), coded[3]):
        _fail(f"mounting {target}")


def _bind(source: str, target: str, limits: int) -> None:
    _mount(source, target, None, _BIND | _RECURSIVE)
    _restrict(target, limits, deep=True)


def _restrict(target: str, limits: int, *, deep: bool = False) -> None:
    attributes = struct.pack("=QQQQ", limits, 0, 0, 0)
    if _libc.syscall(
        _MOUNT_SETATTR,
        _AT_FDCWD,
        os.fsencode(target),
        _AT_RECURSIVE if deep else 0,
        attributes,
        ctypes.c_size_t(len(attributes)),
    ):
        _fail(f"restricting the mount {target}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        _fail(f"prctl {option}")


def _fail(step: str) -> NoReturn:
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        raise Refused(f"{step}: this kernel is too old (5.12 is needed)")
    raise Refused(f"{step} was refused ({os.strerror(number)})")
