"""The agent that tries to get out of the sandbox: a program of its own, the standard library only.

    python inmate.py FACTS

FACTS is JSON: where the things are that it wants. It prints JSON: for each attempt `null` where it
was held, else what it got. Each attempt runs in a process of its own. What it does is harmless
where nothing holds it, so that the same attempts can be made outside, where they must succeed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

Attempt = Callable[[dict[str, Any]], object]
ATTEMPTS: dict[str, Attempt] = {}
PATIENCE = 40

libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"


def attempt(function: Attempt) -> Attempt:
    ATTEMPTS[function.__name__.replace("_", "-")] = function
    return function


def syscall(number: int, *arguments: object) -> int:
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def read(path: str, limit: int = 4096) -> str | None:
    """What stands in a file; None if that is nothing."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, limit).decode(errors="replace").replace("\0", " ") or None
    finally:
        os.close(fd)


def connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> str:
    with socket.socket(family, kind) as sock:
        sock.settimeout(5)
        sock.connect(address)
        return f"connected to {address}"


# --- the network -------------------------------------------------------------------------------


@attempt
def tcp_loopback(facts: dict[str, Any]) -> object:
    return connect(socket.AF_INET, ("127.0.0.1", facts["port"]))


@attempt
def tcp_loopback_ipv6(facts: dict[str, Any]) -> object:
    return connect(socket.AF_INET6, ("::1", facts["port"]))


@attempt
def tcp_loopback_mapped(facts: dict[str, Any]) -> object:
    return connect(socket.AF_INET6, ("::ffff:127.0.0.1", facts["port"]))


@attempt
def tcp_this_host(facts: dict[str, Any]) -> object:
    return connect(socket.AF_INET, ("0.0.0.0", facts["port"]))


@attempt
def tcp_upstream(facts: dict[str, Any]) -> object:
    return connect(socket.AF_INET, ("127.0.0.1", facts["upstream"]))


@attempt
def tcp_admin_page(facts: dict[str, Any]) -> object:
    return connect(socket.AF_INET, ("127.0.0.1", facts["admin"]))


@attempt
def tcp_embedded_vault(facts: dict[str, Any]) -> object:
    return connect(socket.AF_INET, ("127.0.0.1", facts["vault"]))


@attempt
def tcp_fast_open(facts: dict[str, Any]) -> object:
    with socket.socket() as sock:
        sock.sendto(b"x", 0x20000000, ("127.0.0.1", facts["port"]))  # MSG_FASTOPEN
        return "sent"


@attempt
def every_port_but_the_proxys(facts: dict[str, Any]) -> object:
    """Whoever answers on this loopback besides the relay."""
    found = []
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        for port in {*range(1, 65536, 97), *facts["ports"]}:
            with socket.socket(family) as sock:
                # TCP lets a socket whose own port happens to be the one it asks for answer itself.
                if sock.connect_ex((host, port)) == 0 and sock.getsockname()[1] != port:
                    found.append((host, port))
    return [place for place in found if place != ("127.0.0.1", facts["proxy"])] or None


@attempt
def udp(facts: dict[str, Any]) -> object:
    """Whether it arrived is looked up by the test; here, whether anybody refused."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", facts["udp"]))
        sock.send(b"x")
        sock.settimeout(3)
        return sock.recv(1).decode()


@attempt
def dns(facts: dict[str, Any]) -> object:
    """A question to the name server, in the outside's stead one that the test runs."""
    question = bytes.fromhex("1234010000010000000000000765786d61706c6503636f6d0000010001")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.sendto(question, ("127.0.0.1", facts["udp"]))
        return sock.recv(512).decode()


@attempt
def abstract_socket(facts: dict[str, Any]) -> object:
    return connect(socket.AF_UNIX, "\0" + facts["abstract"])


@attempt
def socket_in_tmp(facts: dict[str, Any]) -> object:
    return connect(socket.AF_UNIX, facts["sockets"]["tmp"])


@attempt
def socket_in_var_tmp(facts: dict[str, Any]) -> object:
    return connect(socket.AF_UNIX, facts["sockets"]["var_tmp"])


@attempt
def socket_in_run(facts: dict[str, Any]) -> object:
    return connect(socket.AF_UNIX, facts["sockets"]["run"])


@attempt
def socket_by_another_name_of_run(facts: dict[str, Any]) -> object:
    return connect(socket.AF_UNIX, "/var" + facts["sockets"]["run"])


@attempt
def socket_in_the_home(facts: dict[str, Any]) -> object:
    return connect(socket.AF_UNIX, facts["sockets"]["home"])


@attempt
def socket_in_the_current_directory(facts: dict[str, Any]) -> object:
    return connect(socket.AF_UNIX, facts["sockets"]["desk"])


@attempt
def datagram_to_a_socket(facts: dict[str, Any]) -> object:
    ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.connect(facts["sockets"]["datagram"])
    return "connected a socket pair anew"


@attempt
def socket_of_the_virtual_machines_host(facts: dict[str, Any]) -> object:
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM):
        return "made one"


@attempt
def socket_of_the_virtual_machines_host_with_upper_bits(facts: dict[str, Any]) -> object:
    number = 41 if X86 else 198
    os.close(syscall(number, ctypes.c_ulong(1 << 32 | 40), ctypes.c_ulong(1), ctypes.c_ulong(0)))
    return "made one"


@attempt
def socket_of_the_kernels_cryptography(facts: dict[str, Any]) -> object:
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET):
        return "made one"


@attempt
def packet_socket(facts: dict[str, Any]) -> object:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW):
        return "made one"


@attempt
def io_uring(facts: dict[str, Any]) -> object:
    """Its operations make sockets that no filter sees."""
    os.close(syscall(425, ctypes.c_ulong(4), ctypes.create_string_buffer(256)))
    return "made a ring"


# --- the relay ---------------------------------------------------------------------------------


def through_the_relay(facts: dict[str, Any], data: bytes) -> str:
    with socket.create_connection(("127.0.0.1", facts["proxy"]), 10) as sock:
        sock.settimeout(10)
        sock.sendall(data)
        got = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while piece := sock.recv(4096):
                got += piece
                if b"\r\n\r\n" in got:
                    break
        return got.decode(errors="replace")


def authorization() -> str:
    import base64
    from urllib.parse import urlsplit

    parts = urlsplit(os.environ["HTTPS_PROXY"])
    pair = f"{parts.username}:{parts.password}".encode()
    return f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}"


@attempt
def relay_connects_to_the_admin_page(facts: dict[str, Any]) -> object:
    place = f"127.0.0.1:{facts['admin']}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}", authorization(), "", ""]
    got = through_the_relay(facts, "\r\n".join(lines).encode())
    if got.startswith("HTTP/1.1 200"):  # refusals come inside the tunnel: nothing was dialled
        return None
    return None if " 40" in got[:13] else got


@attempt
def relay_fetches_from_the_admin_page(facts: dict[str, Any]) -> object:
    place = f"127.0.0.1:{facts['admin']}"
    lines = [f"GET http://{place}/healthz HTTP/1.1", f"Host: {place}", authorization(), "", ""]
    got = through_the_relay(facts, "\r\n".join(lines).encode())
    return None if "egress_refused" in got or "policy_denied" in got else got


@attempt
def relay_speaks_socks(facts: dict[str, Any]) -> object:
    port = facts["port"].to_bytes(2, "big")
    got = through_the_relay(facts, b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\1" + port)
    return got if got.startswith("\x05") else None


@attempt
def relay_reads_a_proxy_header(facts: dict[str, Any]) -> object:
    line = f"PROXY TCP4 127.0.0.1 127.0.0.1 1 {facts['port']}\r\n"
    got = through_the_relay(facts, line.encode() + b"GET / HTTP/1.0\r\n\r\n")
    return got if "ringing" in got else None


@attempt
def relay_is_replaced(facts: dict[str, Any]) -> object:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", facts["proxy"]))
        sock.listen()
        return "listens in its stead"


@attempt
def descriptors_left_open(facts: dict[str, Any]) -> object:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):
                found[name] = os.readlink(f"/proc/self/fd/{name}")
    ours = f"/proc/{os.getpid()}/fd"
    return {k: v for k, v in found.items() if v != ours and int(k) != facts["report"]} or None


# --- the workspace -----------------------------------------------------------------------------


@attempt
def workspace_by_path(facts: dict[str, Any]) -> object:
    return read(facts["key"])


@attempt
def workspace_listed(facts: dict[str, Any]) -> object:
    return os.listdir(facts["workspace"]) or None


@attempt
def workspace_policy(facts: dict[str, Any]) -> object:
    return read(os.path.join(facts["workspace"], "policy.yaml"))


@attempt
def workspace_database(facts: dict[str, Any]) -> object:
    return read(os.path.join(facts["workspace"], "state", "keybroker.db"))


@attempt
def workspace_by_a_link(facts: dict[str, Any]) -> object:
    return read(os.path.join(facts["link"], "state", "workspace.key"))


@attempt
def workspace_by_a_new_link(facts: dict[str, Any]) -> object:
    os.symlink(facts["workspace"], os.path.join(os.getcwd(), "new-link"))
    return os.listdir("new-link") or None


@attempt
def workspace_by_a_hard_link(facts: dict[str, Any]) -> object:
    os.link(facts["key"], "hard-link")
    return read("hard-link")


@attempt
def workspace_by_dots(facts: dict[str, Any]) -> object:
    return read(f"../{facts['beside']}/../desk/{os.path.relpath(facts['key'])}")


@attempt
def workspace_by_another_mount(facts: dict[str, Any]) -> object:
    return read(facts["alias"])


@attempt
def workspace_by_the_parents_root(facts: dict[str, Any]) -> object:
    for pid in (os.getppid(), 1, *facts["pids"]):
        with contextlib.suppress(OSError):
            if found := read(f"/proc/{pid}/root{facts['key']}"):
                return found
    return None


@attempt
def workspace_by_a_directory_of_others(facts: dict[str, Any]) -> object:
    for pid in facts["pids"]:
        for name in ("cwd", "root"):
            with contextlib.suppress(OSError):
                return os.listdir(f"/proc/{pid}/{name}")
    return None


@attempt
def workspace_by_descriptors_of_others(facts: dict[str, Any]) -> object:
    for pid in (1, *facts["pids"]):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if "keybroker" in target or "workspace" in target:
                    return target
    return None


@attempt
def workspace_by_an_inherited_descriptor(facts: dict[str, Any]) -> object:
    return os.listdir(facts["descriptor"])


@attempt
def workspace_by_its_handle(facts: dict[str, Any]) -> object:
    """open_by_handle_at goes around paths."""
    handle = ctypes.create_string_buffer(bytes.fromhex(facts["handle"]))
    fd = os.open("/", os.O_RDONLY)
    os.close(syscall(304 if X86 else 265, fd, handle, os.O_RDONLY))
    return "opened it"


@attempt
def workspace_by_a_new_mount(facts: dict[str, Any]) -> object:
    os.makedirs("mount-point", exist_ok=True)
    if libc.mount(b"/", b"mount-point", None, 4096, None):
        raise OSError(ctypes.get_errno(), "mount")
    libc.umount2(b"mount-point", 2)
    return "mounted the root once more"


@attempt
def workspace_uncovered(facts: dict[str, Any]) -> object:
    for path in (facts["workspace"], "/tmp", "/proc"):
        if libc.umount2(path.encode(), 2) == 0:
            return f"took {path} off"
    return None


@attempt
def workspace_by_open_tree(facts: dict[str, Any]) -> object:
    os.close(syscall(428, -100, b"/", 1))  # OPEN_TREE_CLONE
    return "cloned the root"


@attempt
def workspace_of_the_data_folder(facts: dict[str, Any]) -> object:
    return read(os.path.join(facts["home"], ".local/share/keybroker/state/workspace.key"))


@attempt
def backup_of_the_tokens_file(facts: dict[str, Any]) -> object:
    return read(facts["named"])


# --- other secrets and files -------------------------------------------------------------------


def _home_secret(name: str) -> Attempt:
    return lambda facts: read(os.path.join(facts["home"], name))


for _name in (".ssh/id_ed25519", ".aws/credentials", ".kube/config", ".netrc", ".vault-token",
              ".config/gcloud/key.json", ".docker/config.json", ".gnupg/key", ".npmrc",
              ".bash_history", ".git-credentials"):  # fmt: skip
    ATTEMPTS[f"home-{_name.replace('/', '-')}"] = _home_secret(_name)


@attempt
def shadow_file(facts: dict[str, Any]) -> object:
    return read("/etc/shadow")


@attempt
def file_in_tmp(facts: dict[str, Any]) -> object:
    return read(facts["files"]["tmp"])


@attempt
def file_in_shared_memory(facts: dict[str, Any]) -> object:
    return read(facts["files"]["shm"])


def _write(path: str) -> str:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.close(fd)
    return f"opened {path} for writing"


@attempt
def write_to_the_home(facts: dict[str, Any]) -> object:
    return _write(os.path.join(facts["home"], ".bashrc"))


@attempt
def write_to_the_system(facts: dict[str, Any]) -> object:
    return _write("/etc/hostname")


@attempt
def write_beside(facts: dict[str, Any]) -> object:
    return _write(os.path.join(os.path.dirname(os.getcwd()), facts["beside"], "written"))


@attempt
def write_to_keybrokers_code(facts: dict[str, Any]) -> object:
    return _write(facts["code"])


@attempt
def write_through_a_link(facts: dict[str, Any]) -> object:
    os.symlink(os.path.join(facts["home"], ".profile"), "out")
    return _write("out")


@attempt
def plant_a_workspace(facts: dict[str, Any]) -> object:
    os.makedirs(os.path.join(facts["home"], ".local/share/keybroker/planted"))
    return "planted"


@attempt
def device_made(facts: dict[str, Any]) -> object:
    os.mknod("disk", 0o600 | 0o060000, os.makedev(*facts["disk"]))
    os.close(os.open("disk", os.O_RDONLY))
    return "opened a disk"


@attempt
def device_found(facts: dict[str, Any]) -> object:
    found = []
    for folder, _, names in os.walk("/dev"):
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                number = os.stat(path).st_rdev
                if os.major(number) not in (0, 1, 5, 136) and os.access(path, os.R_OK):
                    found.append(path)
    return found or None


# --- other processes ---------------------------------------------------------------------------


@attempt
def processes_listed(facts: dict[str, Any]) -> object:
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in facts["pids"] if pid in seen] or None


@attempt
def environment_of_the_parents(facts: dict[str, Any]) -> object:
    """`run` itself was told more than it passed on."""
    pid = os.getpid()
    while pid > 1:
        status = read(f"/proc/{pid}/status") or ""
        pid = int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1])
        with contextlib.suppress(OSError):
            if facts["mark"] in (read(f"/proc/{pid}/environ", 1 << 20) or ""):
                return f"{pid} has {facts['mark']}"
    return None


@attempt
def words_of_others(facts: dict[str, Any]) -> object:
    for pid in facts["pids"]:
        with contextlib.suppress(OSError):
            return read(f"/proc/{pid}/cmdline")
    return None


@attempt
def kill_a_process(facts: dict[str, Any]) -> object:
    os.kill(facts["victim"], signal.SIGCONT)
    return "signalled it"


@attempt
def kill_a_group(facts: dict[str, Any]) -> object:
    os.killpg(facts["victim"], signal.SIGCONT)
    return "signalled it"


@attempt
def pidfd_of_a_process(facts: dict[str, Any]) -> object:
    os.close(os.pidfd_open(facts["victim"]))
    return "opened it"


@attempt
def trace_a_process(facts: dict[str, Any]) -> object:
    if libc.ptrace(0x4206, facts["victim"], None, None) < 0:  # PTRACE_SEIZE
        raise OSError(ctypes.get_errno(), "ptrace")
    return "attached"


@attempt
def keeper_with_more_rights(facts: dict[str, Any]) -> object:
    """Process 1 runs as the same user and may be traced: it must not be freer than this one."""
    lines = (read("/proc/1/status") or "").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if status["Seccomp"] != "2" or status["NoNewPrivs"] != "1":
        return status
    return [n for n, v in status.items() if n.startswith("Cap") and int(v, 16)] or None


@attempt
def descriptors_of_the_keeper(facts: dict[str, Any]) -> object:
    """What process 1 still holds: a pipe or socket to the outside could be spoken to."""
    found = {}
    for fd in os.listdir("/proc/1/fd"):
        target = os.readlink(f"/proc/1/fd/{fd}")
        if int(fd) > 2 and not target.startswith("anon_inode:"):
            found[fd] = target
    return found or None


@attempt
def memory_of_a_process(facts: dict[str, Any]) -> object:
    os.close(os.open(f"/proc/{facts['victim']}/mem", os.O_RDONLY))
    return "opened it"


@attempt
def memory_of_a_process_by_call(facts: dict[str, Any]) -> object:
    class Part(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    into = ctypes.create_string_buffer(8)
    address = int((read(f"/proc/{facts['victim']}/maps") or "0-").split("-")[0], 16)
    local = Part(ctypes.cast(into, ctypes.c_void_p), 8)
    remote = Part(address, 8)
    got = libc.process_vm_readv(facts["victim"], ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return f"read {got} bytes" if got > 0 else None


@attempt
def limits_of_a_process(facts: dict[str, Any]) -> object:
    import resource

    return str(resource.prlimit(facts["victim"], resource.RLIMIT_CPU))


@attempt
def shared_memory_of_system_v(facts: dict[str, Any]) -> object:
    if libc.shmget(facts["shm"], 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    return "found it"


@attempt
def keyring_of_the_user(facts: dict[str, Any]) -> object:
    into = ctypes.create_string_buffer(64)
    number = 250 if X86 else 219
    length = syscall(number, 11, ctypes.c_ulong(facts["serial"]), into, ctypes.c_ulong(64))
    return into.raw[:length].decode(errors="replace")  # KEYCTL_READ


@attempt
def keyring_of_the_session(facts: dict[str, Any]) -> object:
    number = 250 if X86 else 219
    return str(syscall(number, 0, ctypes.c_ulong(-3 & (2**64 - 1)), ctypes.c_ulong(0)))


@attempt
def key_added(facts: dict[str, Any]) -> object:
    number = 248 if X86 else 217
    ring = ctypes.c_ulong(-2 & (2**64 - 1))  # the process's keyring: it goes with the process
    return str(syscall(number, b"user", b"keybroker-test-inmate", b"x", ctypes.c_ulong(1), ring))


@attempt
def keys_listed(facts: dict[str, Any]) -> object:
    return read("/proc/keys")


# --- the kernel --------------------------------------------------------------------------------


@attempt
def core_pattern(facts: dict[str, Any]) -> object:
    """The kernel runs what stands there, outside."""
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return "opened it for writing"


@attempt
def other_kernel_settings(facts: dict[str, Any]) -> object:
    found = []
    for folder, _, names in os.walk("/proc/sys"):
        for name in names:
            with contextlib.suppress(OSError):
                path = os.path.join(folder, name)
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                found.append(path)
    return found[:5] or None


@attempt
def writable_files_of_the_kernel(facts: dict[str, Any]) -> object:
    """Of /proc and /sys, but for those of its own processes."""
    found = []
    for top in ("/proc", "/sys"):
        for folder, folders, names in os.walk(top):
            folders[:] = [n for n in folders if not (n.isdigit() or "self" in n)]
            if folder.startswith("/proc/sys"):
                folders.clear()
                continue
            for name in names:
                path = os.path.join(folder, name)
                if os.access(path, os.W_OK) and not os.path.islink(path):
                    with contextlib.suppress(OSError):
                        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                        found.append(path)
            if found:
                return found[:5]
    return None


@attempt
def system_request(facts: dict[str, Any]) -> object:
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))
    return "opened it"


@attempt
def control_groups(facts: dict[str, Any]) -> object:
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name in ("cgroup.procs", "release_agent", "notify_on_release"):
                with contextlib.suppress(OSError):
                    os.close(os.open(os.path.join(folder, name), os.O_WRONLY))
                    return os.path.join(folder, name)
    return None


@attempt
def new_user_namespace(facts: dict[str, Any]) -> object:
    os.unshare(os.CLONE_NEWUSER)
    return "in a new one, with capabilities"


@attempt
def new_network_namespace(facts: dict[str, Any]) -> object:
    os.unshare(os.CLONE_NEWNET)
    return "in a new one"


@attempt
def new_mount_namespace(facts: dict[str, Any]) -> object:
    os.unshare(os.CLONE_NEWNS)
    return "in a new one"


@attempt
def new_namespace_by_clone(facts: dict[str, Any]) -> object:
    flags = 0x10000000 | signal.SIGCHLD  # CLONE_NEWUSER
    zero = ctypes.c_ulong(0)
    pid = syscall(56 if X86 else 220, ctypes.c_ulong(flags), zero, zero, zero, zero)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "made one"


@attempt
def new_namespace_by_clone3(facts: dict[str, Any]) -> object:
    arguments = (ctypes.c_ulonglong * 8)(0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    pid = syscall(435, arguments, ctypes.c_ulong(64))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "made one"


@attempt
def namespace_of_others(facts: dict[str, Any]) -> object:
    for pid in (1, *facts["pids"]):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            os.setns(fd, 0)
            return "entered one"
    return None


@attempt
def calls_of_32_bits(facts: dict[str, Any]) -> object:
    """x32: the same calls under other numbers, which a filter may forget."""
    number = 0x40000000 | 41
    os.close(syscall(number, ctypes.c_ulong(40), ctypes.c_ulong(1), ctypes.c_ulong(0)))
    return "made a socket"


@attempt
def host_name(facts: dict[str, Any]) -> object:
    socket.sethostname(socket.gethostname())
    return "set it"


@attempt
def new_root(facts: dict[str, Any]) -> object:
    os.chroot("/")
    return "changed it"


@attempt
def kernel_module(facts: dict[str, Any]) -> object:
    """With nothing in it: it is refused for that where it is not refused before."""
    try:
        syscall(175 if X86 else 105, ctypes.create_string_buffer(1), ctypes.c_ulong(0), b"")
    except OSError as error:
        return None if error.errno == errno.EPERM else f"looked at ({error.strerror})"
    return "loaded"


@attempt
def kernel_program(facts: dict[str, Any]) -> object:
    """bpf(BPF_MAP_CREATE): an array with one element."""
    what = (ctypes.c_uint * 32)(2, 4, 4, 1)
    os.close(syscall(321 if X86 else 280, 0, what, ctypes.c_ulong(128)))
    return "made a map"


@attempt
def kernel_log(facts: dict[str, Any]) -> object:
    return str(syscall(103 if X86 else 116, 10, None, 0))  # SYSLOG_ACTION_SIZE_BUFFER


@attempt
def other_user(facts: dict[str, Any]) -> object:
    os.setresuid(65534, 65534, 65534)
    return "became nobody"


@attempt
def other_group(facts: dict[str, Any]) -> object:
    os.setgroups([0, 4, 6])
    return "joined"


@attempt
def capabilities(facts: dict[str, Any]) -> object:
    text = read("/proc/self/status") or ""
    lines = [line for line in text.splitlines() if line.startswith("Cap")]
    return [line for line in lines if int(line.split()[1], 16)] or None


@attempt
def program_with_the_set_user_bit(facts: dict[str, Any]) -> object:
    """Of all mounts, and of this process: nothing that it starts may gain privileges."""
    text = read("/proc/self/status") or ""
    if "NoNewPrivs:\t1" not in text:
        return "privileges can be gained"
    loose = []
    with open("/proc/self/mountinfo") as file:
        for point in [line.split(" ")[4] for line in file]:
            with contextlib.suppress(OSError):  # what is covered by another mount
                if not os.statvfs(point).f_flag & os.ST_NOSUID:
                    loose.append(point)
    return loose or None


@attempt
def core_dump(facts: dict[str, Any]) -> object:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    return None if (soft, hard) == (1, 1) else f"limits {soft} {hard}"


# --- the terminal ------------------------------------------------------------------------------


@attempt
def characters_for_the_terminal(facts: dict[str, Any]) -> object:
    fd = os.open("/dev/tty", os.O_RDWR)
    fcntl.ioctl(fd, 0x5412, b"x")  # TIOCSTI
    return "pushed one"


@attempt
def characters_for_the_terminal_with_upper_bits(facts: dict[str, Any]) -> object:
    fd = os.open("/dev/tty", os.O_RDWR)
    syscall(16 if X86 else 29, fd, ctypes.c_ulong(0x5412 | 1 << 32), ctypes.c_char_p(b"x"))
    return "pushed one"


@attempt
def line_discipline(facts: dict[str, Any]) -> object:
    fd = os.open("/dev/tty", os.O_RDWR)
    fcntl.ioctl(fd, 0x5423, (0).to_bytes(4, "little"))  # TIOCSETD, to what it is
    return "set"


# --- running -----------------------------------------------------------------------------------


def try_one(function: Attempt, facts: dict[str, Any]) -> object:
    """What the attempt got, in a process of its own: it may change or end itself."""
    inside, outside = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(inside)
        signal.alarm(PATIENCE)
        try:
            got = function(facts | {"report": outside})
        except OSError:
            got = None
        except Exception as error:
            got = {"error": f"{type(error).__name__}: {error}"}
        os.write(outside, json.dumps(got).encode())
        os._exit(0)
    os.close(outside)
    data = b""
    if select.select([inside], [], [], PATIENCE + 5)[0]:
        while piece := os.read(inside, 65536):
            data += piece
    os.close(inside)
    os.waitpid(pid, 0)
    # Ended by the kernel: by the filter's last resort, or by the alarm.
    return json.loads(data) if data else None


def main() -> None:
    facts = json.loads(sys.argv[1])
    names = facts.get("only") or [n for n in ATTEMPTS if n not in facts.get("without", ())]
    print(json.dumps({name: try_one(ATTEMPTS[name], facts) for name in names}))


if __name__ == "__main__":
    main()
