"""A child says that it is ready or why not, and leaves when its parent is gone."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from keybroker.children import DESCRIPTORS, ORPHANED, Child, start


def _start(body: str) -> Child:
    life_read, life_write = os.pipe()
    ready_read, ready_write = os.pipe()
    script = textwrap.dedent(
        """
        import sys, time
        from broker.errors import KeybrokerError
        from keybroker.children import child
        with child(int(sys.argv[1]), int(sys.argv[2])) as ready:
        """
    ) + textwrap.indent(textwrap.dedent(body), "    ")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(life_read), str(ready_write)],
        pass_fds=(life_read, ready_write),
    )
    os.close(life_read)
    os.close(ready_write)
    return Child("the child", process, life_write, ready_read)


def test_a_child_reports_and_leaves_with_its_parent() -> None:
    child = _start("ready()\ntime.sleep(60)")
    assert child.report() is None
    assert child.process.poll() is None
    child.release()  # as the kernel does for a parent that was killed
    assert child.process.wait(20) == ORPHANED


def test_a_child_leaves_no_core_file() -> None:
    """It would hold secrets, and lie about wherever `up` was started (law 2)."""
    child = _start(
        "import resource\nraise KeybrokerError(str(resource.getrlimit(resource.RLIMIT_CORE)))"
    )
    assert child.report() == "(0, 0)"
    child.process.wait(20)
    child.release()


def test_a_child_may_have_as_many_connections_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        limit = "resource.getrlimit(resource.RLIMIT_NOFILE)[0]"
        child = _start(f"import resource\nraise KeybrokerError(str({limit}))")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    most = DESCRIPTORS if before[1] == resource.RLIM_INFINITY else min(before[1], DESCRIPTORS)
    assert child.report() == str(most)
    child.process.wait(20)
    child.release()


def test_a_child_that_cannot_be_started_leaves_nothing_open() -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(ValueError, match="null"):
        start("the child", Path("/"), ["a\0b"], keep=())
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_child_tells_why_it_cannot_serve() -> None:
    child = _start("raise KeybrokerError('the store is closed')")
    assert child.report() == "the store is closed"
    assert child.process.wait(20) == 1
    child.release()


def test_a_child_that_dies_silently_is_noticed() -> None:
    child = _start("import os\nos._exit(3)")
    report = child.report()
    assert report is not None
    assert "ended before it was ready" in report
    child.process.wait(20)
    child.release()
