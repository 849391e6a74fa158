"""Every `sh` block of the README and of the quickstart runs, in order, in one shell.

The ports that they name may be taken on this machine, so free ones stand in for them; and where the
README starts `up` in the background, the test waits as a reader would.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keybroker.settings import load_settings
from rules.load import load_policy
from rules.trial.cases import read_cases
from tests.support.bao import free_port
from tests.support.program import environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
CANARY = "ghp_readme_canary_1Vx8"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(file: str) -> Iterator[tuple[str, str]]:
    """(language, text) of each block, in order."""
    for found in BLOCK.finditer((ROOT / file).read_text()):
        yield found[1], found[2]


def run(script: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The script in one shell that stops at the first error, as a reader would."""
    home.mkdir()
    # Whatever is still in the background at the end is ended, and waited for.
    end = "trap 'for job in $(jobs -p); do kill $job; wait $job; done' EXIT\n"
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    with (home / "output").open("w") as output:
        done = subprocess.run(
            ["bash", "-e", "-u", "-x", "-o", "pipefail", "-c", end + script],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=150,
            check=False,
            cwd=home,
            env=environment({"HOME": str(home), "PATH": path, "GITHUB_TOKEN": CANARY}),
        )
    text = (home / "output").read_text()
    return subprocess.CompletedProcess(done.args, done.returncode, text)


def test_the_readme_runs(tmp_path: Path) -> None:
    proxy, admin = free_port(), free_port()
    script = ""
    for language, text in blocks("README.md"):
        if language == "yaml":  # "What an agent may do stands in `policy.yaml`"
            text = f"cat > $KEYBROKER_WORKSPACE/policy.yaml <<'POLICY'\n{text}POLICY\n"
        elif language != "sh":
            continue
        script += text
        if "keybroker init" in text:
            settings = "$KEYBROKER_WORKSPACE/keybroker.yaml"
            script += f"sed -i 's/:8080/:{proxy}/; s/:8081/:{admin}/' {settings}\n"
        if "keybroker up &" in text:
            probe = f"curl -sf -o /dev/null http://localhost:{admin}/healthz"
            script += f"until {probe}; do kill -0 $!; sleep 0.2; done\n"
    for command in ("policy check", "up", "secret set", "agent add", "run", "audit verify"):
        assert f"keybroker {command}" in script, "the README lost a step"
    done = run(script, tmp_path / "home")
    assert done.returncode == 0, done.stdout
    output = done.stdout
    assert "valid, 2 rules" in output
    assert '"agent": "triage-bot"' in output or '"agent":"triage-bot"' in output  # whoami
    assert "whole:" in output
    assert "Traceback" not in output
    # Nothing but bash's own -x shows the token that was piped in.
    shown = [line for line in output.splitlines() if CANARY in line and not line.startswith("+")]
    assert shown == []


def test_the_quickstart_runs(tmp_path: Path) -> None:
    script = "".join(text for language, text in blocks("docs/quickstart.md") if language == "sh")
    assert "keybroker approvals approve" in script, "the quickstart lost a step"
    home = tmp_path / "home"
    done = run(script.replace("9443", str(free_port())), home)
    assert done.returncode == 0, done.stdout
    output = done.stdout
    assert output.index("policy_denied") < output.index("approval_pending")
    assert output.index("approval_pending") < output.index(": approved")
    assert output.index(": approved") < output.index("call.completed")
    assert "whole:" in output and "Traceback" not in output
    assert not (home / "keybroker-try").exists()


def test_the_yaml_of_the_docs_is_valid() -> None:
    """Each block is a whole policy, a file of cases, or a part of the settings."""
    checked = 0
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for language, text in blocks(str(file.relative_to(ROOT))):
            if language != "yaml":
                continue
            if text.startswith("version:"):
                load_policy(text, file.name)
            elif text.startswith("- name:"):
                read_cases(text, file.name)
            else:
                load_settings(text, file=file.name, base=ROOT)
            checked += 1
    assert checked
