"""What is guarded from a sandboxed command: every workspace, and every file that settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from keybroker.sandbox import secrets
from keybroker.sandbox.confine import Cell, guarded_files
from keybroker.sandbox.launch import Sandbox
from keybroker.sandbox.view import View
from keybroker.workspace import Workspace, create

SETTINGS = """\
vault:
  url: https://vault.example:8200
  ca_bundle: vault-ca.pem
  auth: {approle: {role_id: r, secret_id_file: /etc/keybroker/secret-id}}
"""


def test_other_workspaces_and_named_keys_are_guarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("KEYBROKER_WORKSPACE", str(tmp_path / "other"))
    workspace = create(tmp_path / "ws", solo=True)
    workspace.settings_file.write_text(SETTINGS)
    guarded = set(guarded_files(Workspace(workspace.directory)))
    assert {
        workspace.directory,
        workspace.state,
        workspace.key_file,
        tmp_path / "data" / "keybroker",
        tmp_path / "other",
        Path("/etc/keybroker/secret-id"),
    } <= guarded
    assert workspace.directory / "vault-ca.pem" not in guarded  # public


def test_the_command_finds_its_proxy_and_loses_what_leads_astray(tmp_path: Path) -> None:
    sandbox = Sandbox("unshare", View((), "/work"), ("::1", 443), 8080)
    cell = Cell(sandbox, tmp_path)
    assert str(cell.place) == "127.0.0.1:8080"
    present = dict.fromkeys(secrets.VARIABLES, "x") | {"PATH": "/bin", "PWD": "/else"}
    assert cell.environment(present) == {"PATH": "/bin", "PWD": "/work"}
