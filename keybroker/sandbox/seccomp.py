"""The system calls that namespaces do not hold: a classic BPF program for seccomp(2).

Not a list of what is allowed: programs run as they are. Refused is what reaches past the
namespaces (kernel keyrings, sockets of machines and of virtual machines' hosts, keystrokes pushed
into the terminal) or what no agent needs and the kernel has paid for (mounts, BPF, io_uring, which
would go around this filter).
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
"""Numbers from here on are x32 calls: the same calls under other numbers (x86-64)."""

TIOCSTI, TIOCSETD, TIOCLINUX = 0x5412, 0x5423, 0x541C
CONSOLE = (0x4B00, 0x5600)
"""Keyboard maps and consoles (ioctl_console(2)): the upper bytes of their numbers."""
NAMESPACES = 0x7E020000
"""All CLONE_NEW* flags but the time namespace's, which in clone(2) is part of the signal."""
NEW_TIME = 0x80
FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. AF_VSOCK for one is not held by a network namespace."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One architecture: its audit number and its system call numbers."""

    audit: int
    calls: Mapping[str, int]


_NEWER = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "mount_setattr": 442, "open_tree_attr": 467, "io_uring_setup": 425,
    "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435, "quotactl_fd": 443,
}  # fmt: skip
"""Calls since Linux 5.1 have one number everywhere."""

MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(0xC000003E, _NEWER | {
        "socket": 41, "socketpair": 53, "ioctl": 16, "clone": 56, "unshare": 272, "setns": 308,
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "keyctl": 250,
        "add_key": 248, "request_key": 249, "bpf": 321, "perf_event_open": 298,
        "userfaultfd": 323, "open_by_handle_at": 304, "kexec_load": 246, "kexec_file_load": 320,
        "init_module": 175, "finit_module": 313, "delete_module": 176, "reboot": 169,
        "swapon": 167, "swapoff": 168, "acct": 163, "quotactl": 179, "fanotify_init": 300,
        "syslog": 103, "iopl": 172, "ioperm": 173,
    }),
    "aarch64": Machine(0xC00000B7, _NEWER | {
        "socket": 198, "socketpair": 199, "ioctl": 29, "clone": 220, "unshare": 97, "setns": 268,
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "keyctl": 219,
        "add_key": 217, "request_key": 218, "bpf": 280, "perf_event_open": 241,
        "userfaultfd": 282, "open_by_handle_at": 265, "kexec_load": 104, "kexec_file_load": 294,
        "init_module": 105, "finit_module": 273, "delete_module": 106, "reboot": 142,
        "swapon": 224, "swapoff": 225, "acct": 89, "quotactl": 60, "fanotify_init": 262,
        "syslog": 116,
    }),
}  # fmt: skip

_ABSENT = frozenset({"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"})
"""Said not to exist: programs then do without. The flags of clone3 cannot be seen from here."""
_ARGUMENTS = frozenset({"socket", "socketpair", "ioctl", "clone", "unshare"})


def machine() -> Machine | None:
    """This machine's architecture; None if the filter is not written for it."""
    return MACHINES.get(platform.machine())


def program(where: Machine) -> bytes:
    """The filter as an array of `struct sock_filter`."""
    code = [_load(_ARCH), *_unless(_EQUAL, where.audit, _KILL), _load(_NUMBER)]
    code += _when(_AT_LEAST, _X32, _refuse(errno.ENOSYS))
    for name, number in where.calls.items():
        if name not in _ARGUMENTS:
            error = errno.ENOSYS if name in _ABSENT else errno.EPERM
            code += _when(_EQUAL, number, _refuse(error))
    calls = where.calls
    code += _call(calls["socket"], _families(FAMILIES))
    code += _call(calls["socketpair"], _families((1,)))
    code += _call(calls["ioctl"], _terminals())
    code += _call(calls["clone"], _flags(NAMESPACES))
    code += _call(calls["unshare"], _flags(NAMESPACES | NEW_TIME))
    return b"".join([*code, _return(_ALLOW)])


def _families(allowed: Sequence[int]) -> list[bytes]:
    code = [_load(_argument(0))]
    for family in allowed:
        code += _when(_EQUAL, family, _ALLOW)
    return [*code, _return(_refuse(errno.EAFNOSUPPORT))]


def _terminals() -> list[bytes]:
    code = [_load(_argument(1))]
    for request in (TIOCSTI, TIOCSETD, TIOCLINUX):
        code += _when(_EQUAL, request, _refuse(errno.EPERM))
    code.append(_instruction(_AND, 0xFFFFFF00))
    for family in CONSOLE:
        code += _when(_EQUAL, family, _refuse(errno.EPERM))
    return [*code, _return(_ALLOW)]


def _flags(refused: int) -> list[bytes]:
    return [
        _load(_argument(0)),
        *_when(_ANY_BIT, refused, _refuse(errno.EPERM)),
        _return(_ALLOW),
    ]


def _argument(index: int) -> int:
    """The lower half of an argument, which is all that the kernel reads of these."""
    return 16 + 8 * index


def _refuse(error: int) -> int:
    return _ERRNO | error


def _call(number: int, body: list[bytes]) -> list[bytes]:
    """`body`, which returns, for the call `number`; else on with what follows."""
    return [_instruction(_EQUAL, number, 0, len(body)), *body]


def _when(test: int, value: int, result: int) -> list[bytes]:
    return [_instruction(test, value, 0, 1), _return(result)]


def _unless(test: int, value: int, result: int) -> list[bytes]:
    return [_instruction(test, value, 1, 0), _return(result)]


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _return(value: int) -> bytes:
    return _instruction(_RETURN, value)


def _instruction(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)
