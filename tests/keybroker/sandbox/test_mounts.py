"""Other names of a path, and sockets in the file system."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from keybroker.sandbox.mounts import (
    Mount,
    aliases,
    bound_sockets,
    mounts_here,
    read_mounts,
    sockets_here,
    within,
)

INFO = """\
22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw
27 1 8:1 / / rw,relatime - ext4 /dev/vda rw
30 27 8:1 /home /data\\040disk rw,relatime - ext4 /dev/vda rw
"""


def test_mountinfo_is_read() -> None:
    assert read_mounts(INFO) == (
        Mount("0:21", "/", "/proc"),
        Mount("8:1", "/", "/"),
        Mount("8:1", "/home", "/data disk"),
    )


def test_below_is_not_beside() -> None:
    assert within("/a/b", "/a") and within("/a", "/a") and within("/a", "/")
    assert not within("/ab", "/a") and not within("/a", "/a/b")


def test_a_bind_mount_is_another_name() -> None:
    mounts = read_mounts(INFO)
    assert list(aliases("/home/u/ws", mounts)) == ["/data disk/u/ws"]
    assert list(aliases("/data disk/u/ws", mounts)) == ["/home/u/ws"]
    assert list(aliases("/var/ws", mounts)) == []
    assert list(aliases("/proc/1", mounts)) == []


def test_a_part_that_is_mounted_elsewhere_is_another_name() -> None:
    mounts = (Mount("8:1", "/", "/"), Mount("8:1", "/home/u/ws/state", "/mnt"))
    assert list(aliases("/home/u/ws", mounts)) == ["/mnt"]


def test_a_subvolume_is_found_under_its_volume() -> None:
    mounts = (
        Mount("0:30", "/@root", "/"),
        Mount("0:30", "/@home", "/home"),
        Mount("0:30", "/", "/.volume"),
    )
    assert list(aliases("/home/u/ws", mounts)) == ["/.volume/@home/u/ws"]


def test_the_top_one_of_several_mounts_at_a_point_counts() -> None:
    mounts = (Mount("8:1", "/", "/"), Mount("8:2", "/", "/h"), Mount("8:3", "/", "/h"))
    other = Mount("8:2", "/x", "/seen")
    assert list(aliases("/h/x", (*mounts, other))) == []


def test_sockets_are_listed_by_their_paths() -> None:
    text = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0: 00000002 00000000 00010000 0001 01 1 /run/a b.sock\n"
        "0: 00000002 00000000 00010000 0001 01 2 @abstract\n"
        "0: 00000002 00000000 00010000 0001 01 3\n"
    )
    assert list(bound_sockets(text)) == ["/run/a b.sock"]


def test_a_socket_of_this_machine_is_found(tmp_path: Path) -> None:
    path = tmp_path / "here.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert os.path.realpath(path) in sockets_here()
    path.unlink()
    assert os.path.realpath(path) not in sockets_here()


def test_the_root_of_this_machine_is_mounted() -> None:
    assert any(mount.point == "/" for mount in mounts_here())
