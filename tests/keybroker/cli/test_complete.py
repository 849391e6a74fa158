"""Shell completion: bash's own function is run, and what it offers is in the store."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from keybroker.compose import open_workspace
from keybroker.workspace import Workspace
from tests.keybroker.cli.conftest import Run

POLICY = """\
version: 1
credentials:
  stripe: {secret: "kv/stripe#api_key", hosts: [api.stripe.com], inject: bearer}
rules:
  - id: stripe-read
    agents: [billing-bot]
    match: {host: api.stripe.com}
    effect: allow
    use: [stripe]
"""
# The directory of the program under test comes first, so that bash runs this `keybroker`.
BIN = str(Path(sys.executable).parent)


@pytest.fixture
def filled(workspace: Path, run: Run) -> Path:
    run("agent", "add", "billing-bot")
    run("agent", "add", "build-bot")
    run("agent", "add", "gone")
    run("agent", "revoke", "gone")
    run("user", "add", "alice", "--role", "admin")
    run("user", "add", "albert", "--role", "viewer")
    services = open_workspace(Workspace(workspace))
    services.policies.publish(POLICY, "cli:test")
    services.close()
    return workspace


def bash(workspace: Path, line: str) -> tuple[list[str], str]:
    """What bash offers after `line`, and what was said on stderr."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    array = " ".join(shlex.quote(word) for word in words)
    script = (
        f"source <(keybroker completion bash)\n"
        f"COMP_WORDS=({array}) COMP_CWORD={len(words) - 1}\n"
        "_keybroker_completion keybroker\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "KEYBROKER_WORKSPACE": str(workspace),
        },
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("keybroker agent revoke ", ["billing-bot", "build-bot"]),
        ("keybroker agent rotate bu", ["build-bot"]),
        ("keybroker agent add x --owner ", ["albert", "alice"]),
        ("keybroker run --agent bi", ["billing-bot"]),
        ("keybroker user disable al", ["albert", "alice"]),
        ("keybroker user add al", []),
        ("keybroker user role albert a", ["approver", "admin"]),
        ("keybroker audit search --rule ", ["stripe-read"]),
        ("keybroker audit search --secret kv", ["kv/stripe#api_key"]),
        ("keybroker audit search --outcome ex", ["expired"]),
        ("keybroker audit search --type agent.r", ["agent.revoked"]),
        ("keybroker secret set kv", ["kv/stripe"]),
        ("keybroker secret set kv/stripe ", ["api_key"]),
        ("keybroker approvals approve ", []),
    ],
)
def test_bash_offers_what_is_there(filled: Path, line: str, offered: list[str]) -> None:
    assert bash(filled, line) == (offered, "")


def test_sessions_and_tokens_are_those_of_the_person(filled: Path, run: Run) -> None:
    run("user", "token", "alice", "--name", "nightly")
    [token] = run("user", "tokens", "alice", "--json").json
    assert bash(filled, "keybroker user revoke-token alice ") == ([token["id"]], "")
    assert bash(filled, "keybroker user revoke-token albert ") == ([], "")
    services = open_workspace(Workspace(filled))
    session = services.sessions.start(services.people.get("alice"))
    services.close()
    assert bash(filled, "keybroker user end-sessions alice --session ") == ([session.id], "")


@pytest.mark.parametrize("spoil", ["missing", "garbage", "empty", "no-policy"])
def test_it_is_silent_whatever_is_wrong(filled: Path, spoil: str) -> None:
    database = filled / "state" / "keybroker.db"
    if spoil == "no-policy":
        services = open_workspace(Workspace(filled))
        services.store.write(lambda tx: tx.db.execute("UPDATE policies SET text = '['"))
        services.close()
    elif spoil == "garbage":
        for file in (filled / "state").glob("keybroker.db-*"):
            file.unlink()
        database.write_bytes(b"no database" * 1000)
    else:
        database.unlink()
        if spoil == "empty":
            database.touch()
    assert bash(filled, "keybroker audit search --rule ") == ([], "")
    if spoil == "missing":
        assert not database.exists(), "looking makes nothing"
