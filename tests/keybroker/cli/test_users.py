"""`keybroker user`: accounts, passwords from stdin, tokens shown once."""

from __future__ import annotations

from pathlib import Path

from keybroker.compose import open_workspace
from keybroker.workspace import Workspace
from tests.keybroker.cli.conftest import Run

PASSWORD = "correct horse battery"


def test_a_password_comes_from_stdin_and_only_its_hash_is_kept(workspace: Path, run: Run) -> None:
    added = run(
        "user", "add", "alice", "--role", "approver", "--password-stdin", "--json",
        stdin=PASSWORD + "\n",
    )  # fmt: skip
    assert added.json == {"user": "alice", "role": "approver", "password": True}
    services = open_workspace(Workspace(workspace))
    assert services.people.check_password("alice", PASSWORD) is not None
    services.close()
    assert PASSWORD.encode() not in (workspace / "state" / "keybroker.db").read_bytes()


def test_without_a_password_a_token_is_the_way_in(workspace: Path, run: Run) -> None:
    assert run("user", "add", "bob", "--role", "viewer").status == 0
    token = run("user", "token", "bob", "--json").json["token"]
    services = open_workspace(Workspace(workspace))
    user = services.people.by_api_token(token)
    assert user is not None
    assert user.name == "bob"
    assert run("user", "disable", "bob").status == 0
    assert services.people.by_api_token(token) is None
    services.close()
    (listed,) = run("user", "list", "--json").json
    assert listed["disabled_at"] is not None


def test_an_impossible_account_is_refused(run: Run) -> None:
    short = run("user", "add", "a", "--role", "admin", "--password-stdin", stdin="short\n")
    assert short.status == 1
    assert "too short" in short.err
    assert run("user", "add", "a", "--role", "god").status == 2
    assert run("user", "token", "nobody").status == 1
