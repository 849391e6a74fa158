"""A running workspace, looked over: a set-back clock, changed certificates, an agent's own view."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit.record import Draft
from broker.keys import Keys
from broker.stores.sqlite import Store
from keybroker import workspace
from keybroker.doctor import examine
from tests.support.program import Program
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Upstream() as upstream, Program(tmp_path_factory.mktemp("house"), upstream) as kb:
        kb.agent("bot")
        yield kb


def unwell(findings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f["check"]: f for f in findings if f["state"] != "ok"}


def test_an_agent_sees_its_own_environment_well(kb: Program, tmp_path: Path) -> None:
    """In a run everything is set; the one thing wrong is that it can read the workspace."""
    doctor = [sys.executable, "-m", "keybroker", "--workspace", str(kb.workspace), "doctor"]
    done = kb.run("run", "--agent", "bot", "--", *doctor, "--as-agent", "--json")
    assert done.returncode == 1
    assert unwell(json.loads(done.stdout)).keys() == {"containment"}
    doctor[4] = str(tmp_path)
    done = kb.run("run", "--agent", "bot", "--", *doctor, "--as-agent", "--json")
    assert (done.returncode, unwell(json.loads(done.stdout))) == (0, {}), done.stdout


def test_an_agent_is_told_what_its_environment_lacks(kb: Program, tmp_path: Path) -> None:
    script = 'unset HTTPS_PROXY https_proxy; NO_PROXY=internal exec "$@"'
    doctor = [sys.executable, "-m", "keybroker", "--workspace", str(tmp_path), "doctor"]
    done = kb.run("run", "--agent", "bot", "--", "sh", "-c", script, "sh", *doctor, "--as-agent")
    assert done.returncode == 1
    assert "HTTPS_PROXY is not set: clients go direct" in done.stdout
    assert "NO_PROXY is set" in done.stdout and "fix:" in done.stdout


def test_an_environment_that_leads_to_this_proxy_is_looked_over_too(kb: Program) -> None:
    env = {"HTTPS_PROXY": f"http://bot:t@127.0.0.1:{kb.proxy_port}", "NO_PROXY": "localhost"}
    found = unwell(json.loads(kb.run("doctor", "--json", env=env).stdout))
    assert found["direct"]["says"].startswith("NO_PROXY is set")
    assert "direct" not in unwell(json.loads(kb.run("doctor", "--json").stdout))


def test_certificates_that_changed_under_a_running_proxy(kb: Program) -> None:
    file = kb.workspace / "state" / "ca" / "ca.pem"
    assert "authority" not in unwell(json.loads(kb.run("doctor", "--json").stdout))
    later = datetime.now().timestamp() + 60
    os.utime(file, (later, later))
    found = unwell(json.loads(kb.run("doctor", "--json").stdout))["authority"]
    assert "changed after `up` started" in found["says"] and "restart" in found["fix"]


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """As the ledger shows it: its newest record is still to come."""
    made = workspace.create(tmp_path / "workspace", solo=True)
    keys = Keys.derive(made.key_file.read_bytes())
    later = datetime.now(UTC) + timedelta(hours=1)
    store = Store(made.database, clock=lambda: later, head_key=keys.ledger_head)
    store.write(lambda tx: tx.append(Draft("call.denied", {})))
    store.close()
    found = {f.check: f for f in examine(made.directory)}
    assert found["clock"].state == "wrong"
    assert "still to come" in found["clock"].says and "NTP" in found["clock"].fix
