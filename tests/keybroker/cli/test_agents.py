"""`keybroker agent`: tokens are shown once, and every change is recorded with who made it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from keybroker.compose import open_workspace
from keybroker.workspace import Workspace
from tests.keybroker.cli.conftest import Run


def test_an_agent_is_added_with_its_token_and_proxy_url(workspace: Path, run: Run) -> None:
    added = run(
        "agent", "add", "bot", "--owner", "alice", "--tag", "x", "--tag", "y",
        "--hold-wait", "4s", "--pending-status", "429", "--expires", "30d", "--json",
    ).json  # fmt: skip
    assert added.keys() == {"agent", "token", "proxy_url", "gateway_url"}
    assert added["proxy_url"] == f"http://bot:{added['token']}@127.0.0.1:8080"
    assert added["gateway_url"] == "http://127.0.0.1:8080/agents/bot"
    (listed,) = run("agent", "list", "--json").json
    assert listed["agent"] == "bot"
    assert listed["owner"] == "alice"
    assert listed["tags"] == ["x", "y"]
    assert listed["hold_wait"] == 4
    assert listed["pending_status"] == 429
    left = datetime.fromisoformat(listed["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert added["token"].encode() not in (workspace / "state" / "keybroker.db").read_bytes()


def test_rotating_ends_the_old_token_and_revoking_ends_the_agent(workspace: Path, run: Run) -> None:
    old = run("agent", "add", "bot", "--json").json["token"]
    new = run("agent", "rotate", "bot", "--json").json["token"]
    services = open_workspace(Workspace(workspace))
    assert services.agents.authenticate("bot", old) is None
    assert services.agents.authenticate("bot", new) is not None
    assert run("agent", "revoke", "bot").status == 0
    assert services.agents.authenticate("bot", new) is None
    services.close()
    assert "revoked" in run("agent", "list").out
    records = run("audit", "search", "--agent", "bot", "--json").out
    assert records.count('"by":"cli:') == 3


def test_mistakes_are_one_line(run: Run) -> None:
    assert run("agent", "add", "bot").status == 0
    again = run("agent", "add", "bot")
    assert again.status == 1
    assert "there is an agent bot already" in again.err
    assert run("agent", "revoke", "nobody").status == 1
    soon = run("agent", "add", "other", "--hold-wait", "soon")
    assert soon.status == 2
    assert "is not a duration" in soon.err
