"""`init`, `ca`, `doctor`: a new workspace is whole, and what is wrong comes with its cure."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.keybroker.cli.conftest import Run


def _free_ports(workspace: Path) -> None:
    file = workspace / "keybroker.yaml"
    text = file.read_text()
    file.write_text(text.replace(":8080", ":0").replace(":8081", ":0"))


def test_init_refuses_to_overwrite(run: Run, workspace: Path) -> None:
    done = run("init", workspace)
    assert done.status == 1
    assert "is not overwritten" in done.err
    made = run("init", workspace.parent / "two", "--json")
    assert made.json == {"workspace": str(workspace.parent / "two")}


def test_ca_show_prints_one_certificate(run: Run) -> None:
    pem = run("ca", "show").out
    assert pem.startswith("-----BEGIN CERTIFICATE-----\n")
    assert pem.count("BEGIN CERTIFICATE") == 1
    assert pem == run("ca", "show").out


def test_doctor_finds_a_new_workspace_well(run: Run, workspace: Path) -> None:
    _free_ports(workspace)
    done = run("doctor", "--json")
    findings = {finding["check"]: finding for finding in done.json}
    assert {f["state"] for f in findings.values()} == {"ok", "warning"}
    assert "act as an administrator" in findings["containment"]["says"]
    assert "nobody can approve" in findings["people"]["says"]


def test_doctor_names_everything_that_is_wrong_with_its_cure(run: Run, workspace: Path) -> None:
    (workspace / "policy.yaml").write_text("version: 2\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (workspace / "keybroker.yaml").write_text(
            f"proxy: {{listen: 127.0.0.1:{port}}}\n"
            "admin: {listen: 127.0.0.1:0}\n"
            "vault: {url: 'http://127.0.0.1:1', auth: {token_file: none}}\n"
            "egress: {ca_bundle: policy.yaml}\n"
        )
        done = run("doctor", "--json")
    assert done.status == 1
    wrong = {f["check"]: f for f in json.loads(done.out) if f["state"] == "wrong"}
    assert wrong.keys() == {"policy", "ports", "vault", "egress"}
    assert all(finding["fix"] for finding in wrong.values())
    assert f"127.0.0.1:{port} is in use" in wrong["ports"]["says"]
    assert "holds no certificates" in wrong["egress"]["says"]


def test_doctor_stops_at_a_workspace_that_others_can_read(run: Run, workspace: Path) -> None:
    (workspace / "state").chmod(0o755)
    done = run("doctor")
    assert done.status == 1
    assert "chmod -R go=" in done.out
