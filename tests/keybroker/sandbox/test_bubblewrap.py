"""A view in bubblewrap's words."""

from __future__ import annotations

from itertools import pairwise

from keybroker.sandbox.bubblewrap import NAMESPACES, READ_ONLY, arguments
from keybroker.sandbox.view import Place, View

VIEW = View(
    (
        Place("/home/u", "hidden"),
        Place("/home/u/.netrc", "hidden", folder=False),
        Place("/home/u/project", "writable"),
        Place("/tmp", "private"),
        Place("/tmp/run", "readable"),
    ),
    "/home/u/project",
)
WORDS = arguments(VIEW, "/tmp/run/nothing", 7)


def at(*words: str) -> int:
    """Where `words` stand in a row. Raises ValueError."""
    rows = [WORDS[start : start + len(words)] for start in range(len(WORDS))]
    return rows.index(words)


def test_every_namespace_is_new_and_no_further_one_can_be_made() -> None:
    for word in ("user", "ipc", "pid", "net", "uts"):
        assert f"--unshare-{word}" in WORDS
    assert {"--disable-userns", "--die-with-parent"} <= set(WORDS)
    assert ("--cap-drop", "ALL") in pairwise(WORDS)
    assert WORDS[: len(NAMESPACES)] == NAMESPACES and WORDS[-1] == "--"


def test_everything_is_read_only_until_said_otherwise() -> None:
    assert at("--ro-bind", "/", "/") < at("--bind", "/home/u/project", "/home/u/project")
    assert [w for w in WORDS if w in ("--bind", "--dev-bind")] == ["--bind"]


def test_outer_places_come_before_inner_ones_and_are_closed_last() -> None:
    hidden = at("--tmpfs", "/home/u")
    inner = at("--bind", "/home/u/project", "/home/u/project")
    assert hidden < inner < at("--remount-ro", "/home/u")
    assert at("--perms", "1777", "--tmpfs", "/tmp") < at("--ro-bind", "/tmp/run", "/tmp/run")


def test_a_hidden_file_is_an_empty_one() -> None:
    assert at("--ro-bind", "/tmp/run/nothing", "/home/u/.netrc")


def test_what_root_owns_in_proc_is_read_only() -> None:
    proc = at("--proc", "/proc")
    for path in READ_ONLY:
        assert at("--ro-bind-try", path, path) > proc
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(READ_ONLY)


def test_the_filter_is_set_for_process_1_as_well() -> None:
    assert at("--seccomp", "7") < at("--chdir", "/home/u/project")


def test_it_starts_where_the_user_is() -> None:
    assert at("--chdir", "/home/u/project", "--") == len(WORDS) - 3
