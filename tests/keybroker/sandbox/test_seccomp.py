"""The filter, run as the kernel would, for each architecture: what it refuses, what it lets by."""

from __future__ import annotations

import errno
import struct

import pytest

from keybroker.sandbox.seccomp import MACHINES, Machine, program

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def decide(code: bytes, audit: int, number: int, *arguments: int) -> int:
    """The filter's answer to a call: classic BPF over `struct seccomp_data`."""
    filled = (*arguments, *([0] * (6 - len(arguments))))
    data = struct.pack("=IIQ6Q", number, audit, 0, *filled)
    steps = list(struct.iter_unpack("=HBBI", code))
    at = value = 0
    while True:
        operation, true, false, operand = steps[at]
        at += 1
        match operation:
            case 0x20:
                value = struct.unpack_from("=I", data, operand)[0]
            case 0x54:
                value &= operand
            case 0x15:
                at += true if value == operand else false
            case 0x35:
                at += true if value >= operand else false
            case 0x45:
                at += true if value & operand else false
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(hex(operation))


machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=list(MACHINES))


def refused(machine: Machine, name: str, *arguments: int) -> int | None:
    """The error of a call; None if it is let by."""
    answer = decide(program(machine), machine.audit, machine.calls[name], *arguments)
    return None if answer == ALLOW else answer - ERRNO


@machines
def test_calls_of_another_architecture_end_the_process(machine: Machine) -> None:
    assert decide(program(machine), 0x40000003, 1) == KILL


@machines
def test_calls_under_other_numbers_are_not_there(machine: Machine) -> None:
    number = 0x40000000 | machine.calls["socket"]
    assert decide(program(machine), machine.audit, number, 1) == ERRNO | errno.ENOSYS


@machines
def test_what_programs_do_all_day_is_let_by(machine: Machine) -> None:
    for number in (0, 1, 3, 63, 64, 93, 221, 231, 257):
        if number not in machine.calls.values():
            assert decide(program(machine), machine.audit, number) == ALLOW


@machines
@pytest.mark.parametrize("name", ["keyctl", "add_key", "request_key", "mount", "setns", "bpf"])
def test_calls_that_no_agent_needs_are_refused(machine: Machine, name: str) -> None:
    assert refused(machine, name) == errno.EPERM


@machines
@pytest.mark.parametrize("name", ["clone3", "io_uring_setup"])
def test_calls_that_programs_do_without_are_not_there(machine: Machine, name: str) -> None:
    assert refused(machine, name) == errno.ENOSYS


@machines
@pytest.mark.parametrize("upper", [0, 1 << 32])
def test_sockets_are_unix_ip_and_netlink(machine: Machine, upper: int) -> None:
    """The kernel reads the lower half alone; so does the filter."""
    for family in (1, 2, 10, 16):
        assert refused(machine, "socket", upper | family) is None
    for family in (3, 17, 38, 40, 43, 44):
        assert refused(machine, "socket", upper | family) == errno.EAFNOSUPPORT
    assert refused(machine, "socketpair", upper | 1) is None
    assert refused(machine, "socketpair", upper | 30) == errno.EAFNOSUPPORT


@machines
@pytest.mark.parametrize("upper", [0, 1 << 32])
def test_nothing_is_pushed_into_a_terminal(machine: Machine, upper: int) -> None:
    for request in (0x5412, 0x541C, 0x5423, 0x4B4D, 0x4B49, 0x5606):
        assert refused(machine, "ioctl", 0, upper | request) == errno.EPERM
    for request in (0x5401, 0x5402, 0x5413, 0x540F, 0x5410, 0x8913):
        assert refused(machine, "ioctl", 0, upper | request) is None


@machines
@pytest.mark.parametrize("bit", [17, 25, 26, 27, 28, 29, 30])
def test_no_namespace_is_made(machine: Machine, bit: int) -> None:
    assert refused(machine, "clone", 1 << bit | 17) == errno.EPERM
    assert refused(machine, "unshare", 1 << bit) == errno.EPERM


@machines
def test_processes_and_threads_are_made(machine: Machine) -> None:
    assert refused(machine, "clone", 17) is None  # fork: SIGCHLD
    assert refused(machine, "clone", 0x3D0F00) is None  # a thread, as glibc makes it
    assert refused(machine, "unshare", 0x400) is None  # CLONE_FILES
    assert refused(machine, "unshare", 0x80) == errno.EPERM  # CLONE_NEWTIME
