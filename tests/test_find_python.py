"""`scripts/find-python`: a Python that outlives the environment which is made with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "find-python"


def find(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": "", **variables}
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )


def test_an_environment_on_the_path_gives_what_it_was_made_from(tmp_path: Path) -> None:
    """`make setup` removes .venv before it makes it anew, and .venv/bin may come first on PATH."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    found = find(PATH=f"{venv}/bin:{os.environ['PATH']}").stdout.strip()
    assert Path(found).is_absolute()
    assert venv not in Path(found).parents
    version = "import sys; print(sys.version_info >= (3, 12), sys.prefix == sys.base_prefix)"
    told = subprocess.run([found, "-c", version], capture_output=True, text=True, check=True)
    assert told.stdout == "True True\n"


def test_without_any_python_it_says_in_one_line_what_to_install(tmp_path: Path) -> None:
    none = find(PATH=str(tmp_path), HOME=str(tmp_path), PYENV_ROOT=str(tmp_path))
    assert (none.returncode, none.stdout) == (1, "")
    assert none.stderr.count("\n") == 1
    assert "keybroker needs Python >= 3.12" in none.stderr
