"""A real upstream over TLS and an engine in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.harness import Worker
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.clear()
    shared_upstream.routes.clear()
    return shared_upstream


@pytest.fixture
def lane() -> str:
    """The way of plain calls; modules about such calls have both."""
    return "express"


@pytest.fixture
def worker(upstream: Upstream, tmp_path: Path, lane: str) -> Iterator[Worker]:
    with Worker(tmp_path, upstream.ca_file, express=lane == "express") as worker:
        yield worker
