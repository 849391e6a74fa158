"""Lock files name versions and hashes, and no place that they came from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = [ROOT / "requirements.lock", ROOT / "tests" / "clients" / "requirements.lock"]
NODE = ROOT / "tests" / "clients" / "node" / "package-lock.json"


@pytest.mark.parametrize("lock", PYTHON, ids=lambda path: path.parent.name)
def test_every_python_package_has_its_hashes(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 20
    assert all(re.match(r"[a-z0-9-]+==\S+", e) and "--hash=sha256:" in e for e in entries)


def test_every_node_package_has_its_hash_and_no_host() -> None:
    packages = json.loads(NODE.read_text())["packages"]
    assert len(packages) > 20
    for name, package in packages.items():
        assert not name or package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package
