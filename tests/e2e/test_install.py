"""The wheel installs into an empty environment, brings all that it needs, and takes no other
package's names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

from tests.support.bao import free_port
from tests.support.program import environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
OURS = frozenset({"audit", "broker", "certs", "keybroker", "proxy", "rules"})
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)( ; .*?)? \\$", re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheel` builds it."""
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    build += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run(build, check=True, env=environment())
    (built,) = directory.glob("keybroker-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `keybroker` command of `uv tool install`, with the versions of the lock file."""
    home = tmp_path_factory.mktemp("tools")
    install = [str(Path(sys.executable).with_name("uv")), "tool", "install", "--quiet"]
    install += ["--python", sys.executable, "--constraints", str(ROOT / "runtime.lock"), str(wheel)]
    tools = {"UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin")}
    subprocess.run(install, check=True, env=environment(tools))
    return home / "bin" / "keybroker"


def test_it_runs_and_serves_from_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    bare = {"HOME": str(tmp_path), "PATH": f"{installed.parent}:{os.defpath}"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(installed), *arguments], capture_output=True, text=True, env=bare, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version").startswith("keybroker")
    run("init")
    assert "_keybroker_completion" in run("completion", "bash")
    workspace = tmp_path / ".local" / "share" / "keybroker"
    settings = workspace / "keybroker.yaml"
    text = settings.read_text()
    for port in ("8080", "8081"):
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    settings.write_text(text)
    up = subprocess.Popen(
        [str(installed), "up", "--json"], stdout=subprocess.PIPE, text=True, env=bare, cwd="/"
    )
    assert up.stdout is not None
    try:
        facts = json.loads(up.stdout.readline())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for path in ("/login", "/static/app.css", "/healthz"):
            with opener.open(facts["admin"] + path, timeout=20) as response:
                assert response.status == 200
                assert response.read()
    finally:
        up.terminate()
        assert up.wait(60) == 0
        up.stdout.close()


@pytest.mark.parametrize("backend", ["bubblewrap", "unshare"])
def test_the_sandbox_shows_the_program_wherever_it_is(installed: Path, backend: str) -> None:
    """Here it lies below /tmp, of which a sandbox has its own."""
    python = installed.parent.parent / "tools" / "keybroker" / "bin" / "python"
    code = "import sys; from keybroker.sandbox.probe import try_out; print(try_out(sys.argv[1]))"
    done = subprocess.run(
        [str(python), "-I", "-c", code, backend],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert done.stdout == "None\n"


def top_level(distribution: Distribution) -> set[str]:
    """The names that it puts on the import path."""
    names = set()
    for file in distribution.files or ():
        first = file.parts[0]
        if first not in ("..", "__pycache__") and not first.endswith((".dist-info", ".pth")):
            names.add(first.removesuffix(".py"))
    return names


def test_no_other_package_of_the_lock_file_has_our_names(installed: Path) -> None:
    """`proxy` and `rules` are plain words; a second package of that name would shadow ours."""
    (libraries,) = (installed.parent.parent / "tools" / "keybroker" / "lib").glob("*/site-packages")
    checked = set()
    for path in (str(libraries), *sys.path):
        for distribution in distributions(path=[path]):
            name = normal(distribution.name)
            checked.add(name)
            if name != "keybroker":
                assert not top_level(distribution) & OURS, distribution.name
    (ours,) = [d for d in distributions(path=[str(libraries)]) if d.name == "keybroker"]
    assert top_level(ours) == OURS
    elsewhere = {"colorama", "pydivert", "mitmproxy-macos", "mitmproxy-windows"}
    assert set(pins("requirements.lock")) - checked <= elsewhere


def normal(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version, _ in _PIN.findall((ROOT / file).read_text()):
        found.setdefault(normal(name), set()).add(version)
    return found


def test_the_lock_for_running_is_part_of_the_lock_for_developing() -> None:
    run, develop = pins("runtime.lock"), pins("requirements.lock")
    assert run
    assert "pytest" not in run
    assert {name: develop.get(name) for name in run} == run
