"""Both lanes, side by side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proxy.express.both import Both, both
from tests.support.throwaway_ca import ThrowawayCA


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """One worker for each lane, with nothing of an earlier conversation in them."""
    with both(tmp_path_factory.mktemp("lanes"), ThrowawayCA()) as workers:
        yield workers
