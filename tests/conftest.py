"""The order in which files are tested, and what the machine's speed may not decide."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, and no property is about that.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")

LONG = (
    "clients/test_clients.py",
    "e2e/test_telemetry.py",
    "keybroker/test_supervisor.py",
    "broker/secrets/test_embedded.py",
    "e2e/test_backup.py",
    "e2e/test_openapi.py",
    "e2e/test_readme.py",
    "e2e/test_install.py",
    "e2e/test_page.py",
    "e2e/test_bad_input.py",
    "e2e/test_demo.py",
)
"""A process runs a whole file (`--dist loadfile`): one that takes half a minute would else come
last, having few tests, with nothing left for the others to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first; apart from that the order is as it was."""
    here = Path(__file__).parent
    if gone := [name for name in LONG if not (here / name).exists()]:
        raise pytest.UsageError(f"{__file__} names files that are not there: {', '.join(gone)}")
    items.sort(key=lambda item: item.path.relative_to(here).as_posix() not in LONG)
