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
    user = services.tokens.user(token)
    assert user is not None
    assert user.name == "bob"
    assert run("user", "disable", "bob").status == 0
    assert services.tokens.user(token) is None
    services.close()
    (listed,) = run("user", "list", "--json").json
    assert listed["disabled_at"] is not None


def test_an_impossible_account_is_refused(run: Run) -> None:
    short = run("user", "add", "a", "--role", "admin", "--password-stdin", stdin="short\n")
    assert short.status == 1
    assert "too short" in short.err
    assert run("user", "add", "a", "--role", "god").status == 2
    assert run("user", "token", "nobody").status == 1


def test_roles_and_the_last_admin(run: Run) -> None:
    run("user", "add", "alice", "--role", "admin")
    run("user", "add", "bob", "--role", "viewer")
    for arguments in (("role", "alice", "viewer"), ("disable", "alice")):
        last = run("user", *arguments)
        assert last.status == 1
        assert "alice is the last admin" in last.err
    assert run("user", "role", "bob", "admin", "--json").json == {"user": "bob", "role": "admin"}
    assert run("user", "disable", "alice", "--json").json == {"user": "alice", "disabled": True}
    assert run("user", "enable", "alice").out == "alice is enabled\n"
    assert run("user", "role", "bob", "root").status == 2


def test_tokens_are_listed_without_values_and_revoked(run: Run) -> None:
    run("user", "add", "bob", "--role", "viewer")
    token = run("user", "token", "bob", "--name", "nightly", "--expires", "30d", "--json").json
    listed = run("user", "tokens", "bob", "--json")
    [one] = listed.json
    assert one["name"] == "nightly"
    assert one["expires_at"] is not None
    assert token["token"] not in listed.out
    assert "nightly" in run("user", "tokens", "bob").out
    assert run("user", "revoke-token", "nobody", one["id"]).status == 1
    assert run("user", "revoke-token", "bob", one["id"]).status == 0
    assert run("user", "tokens", "bob", "--json").json == []
    assert run("user", "tokens", "nobody").status == 1


def test_sessions_are_listed_and_ended(workspace: Path, run: Run) -> None:
    run("user", "add", "bob", "--role", "viewer")
    services = open_workspace(Workspace(workspace))
    bob = services.people.get("bob")
    one, other = (services.sessions.start(bob, client="Firefox on Linux") for _ in range(2))
    listed = run("user", "sessions", "bob", "--json").json
    assert {session["id"] for session in listed} == {one.id, other.id}
    assert "Firefox on Linux" in run("user", "sessions", "bob").out
    assert run("user", "end-sessions", "bob", "--session", one.id).status == 0
    assert run("user", "end-sessions", "bob", "--session", one.id).status == 1
    assert services.sessions.get(one.token) is None
    assert run("user", "end-sessions", "bob", "--json").json == {"user": "bob", "ended": 1}
    assert services.sessions.get(other.token) is None
    assert run("user", "end-sessions", "nobody").status == 1
    services.close()


def test_a_reset_prints_a_link_once(workspace: Path, run: Run) -> None:
    run("user", "add", "bob", "--role", "viewer", "--password-stdin", stdin=PASSWORD + "\n")
    link = run("user", "reset", "bob", "--json").json["url"]
    base, _, token = link.partition("/reset?token=")
    assert base == "http://localhost:8081"
    services = open_workspace(Workspace(workspace))
    assert services.people.check_password("bob", PASSWORD) is None
    assert services.people.redeem_reset(token, PASSWORD + "!").name == "bob"
    services.close()
    stored = (workspace / "state" / "keybroker.db").read_bytes()
    assert token.encode() not in stored
    assert token not in run("audit", "tail", "--json").out
