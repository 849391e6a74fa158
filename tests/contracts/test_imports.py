"""The import contracts of pyproject.toml bite: each is broken once, in a copy, and must say so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e  # real processes and time-outs

ROOT = Path(__file__).parents[2]
PACKAGES = ("keybroker", "proxy", "broker", "rules", "audit", "certs")

CACHES = shutil.ignore_patterns("__pycache__")

VIOLATIONS = {
    "one-way": ("rules/hosts.py", "import broker.errors"),
    "admin": ("proxy/pages.py", "import broker.admin.app"),
    "engine": ("broker/pipeline.py", "import mitmproxy.http"),
    "hvac": ("broker/secrets/embedded.py", "import hvac"),
    "cel": ("rules/matching.py", "import cel_expr_python"),
    "core": ("broker/scrub.py", "import socket"),
}


def test_every_contract_has_its_violation() -> None:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configured["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == set(VIOLATIONS)


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_contract_is_broken_by_one_import(contract: str, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=CACHES)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert _lint(tmp_path, contract).returncode == 0
    file, line = VIOLATIONS[contract]
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    broken = _lint(tmp_path, contract)
    assert broken.returncode == 1
    assert "BROKEN" in broken.stdout


def _lint(tree: Path, contract: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    return subprocess.run(
        [*command, "--contract", contract, "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "NO_COLOR": "1", "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
