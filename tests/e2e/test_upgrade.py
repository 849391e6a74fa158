"""The workspace of every release so far comes up under this program with all that it held."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.old_workspace import PORT, SECRET
from tests.support.program import AgentKey, Program
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.e2e

RELEASES = sorted((Path(__file__).parents[1] / "vectors").glob("workspace-*.tar.xz"))


@dataclass(frozen=True)
class Upgraded:
    kb: Program
    facts: dict[str, Any]
    bot: AgentKey

    @property
    def url(self) -> str:
        return f"https://localhost:{PORT}/ok"

    def token(self, name: str) -> str:
        token: str = self.facts["tokens"][name]
        return token


@pytest.fixture(scope="module", params=RELEASES, ids=lambda path: path.name.split("-")[1][:5])
def old(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Upgraded]:
    directory = tmp_path_factory.mktemp("old")
    with tarfile.open(request.param) as tar:
        tar.extractall(directory, filter="data")
    # Archives keep no owner's bits that the filter knows of.
    for path in (directory / "workspace" / "state").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (directory / "workspace" / "state").chmod(0o700)
    facts = json.loads((directory / "facts.json").read_text())
    with Upstream(port=PORT) as upstream:
        upstream.answer("/ok", Reply(200, body=b"fine"))
        kb = Program(directory, upstream, hold_wait="0s")
        kb.write_settings()
        _keep_open(kb.database)
        kb.start()
        agent = facts["agent"]
        proxy = f"http://{agent['name']}:{agent['token']}@127.0.0.1:{kb.proxy_port}"
        yield Upgraded(kb, facts, AgentKey(agent["name"], agent["token"], proxy))
        kb.stop()


def _keep_open(database: Path) -> None:
    """Moves the clocks of the open approvals on: the archive is older than they ran."""
    with closing(sqlite3.connect(database)) as db, db:
        later = "2999-01-01T00:00:00.000000Z"
        db.execute("UPDATE approvals SET decide_by = ? WHERE state = 'pending'", (later,))
        db.execute("UPDATE approvals SET execute_by = ? WHERE state = 'approved'", (later,))


def test_there_is_one_of_the_first_release() -> None:
    assert "workspace-0.1.0.tar.xz" in {path.name for path in RELEASES}


def test_the_ledger_goes_on_from_where_it_stood(old: Upgraded) -> None:
    old.kb.verify()
    assert len(old.kb.records()) > old.facts["records"]
    assert [r["data"]["sentence"] for r in old.kb.records(type="call.unknown")]  # it was under way


def test_an_old_agent_gets_its_secret(old: Upgraded) -> None:
    done = old.kb.curl(old.bot, old.url)
    assert (done.status, done.body) == (200, b"fine")
    assert old.kb.upstream.requests[-1].values("authorization") == [f"Bearer {SECRET}"]


def test_who_was_revoked_stays_revoked(old: Upgraded) -> None:
    gone = old.facts["revoked"]
    proxy = f"http://{gone['name']}:{gone['token']}@127.0.0.1:{old.kb.proxy_port}"
    assert old.kb.curl(AgentKey(gone["name"], gone["token"], proxy), old.url).exit != 0


def test_what_was_approved_is_sent_once(old: Upgraded) -> None:
    assert old.kb.curl(old.bot, old.url, "-d", "n=approved").status == 200
    assert old.kb.upstream.requests[-1].body == b"n=approved"
    assert old.kb.curl(old.bot, old.url, "-d", "n=approved").code == "approval_pending"


def test_what_was_pending_can_be_voted_on(old: Upgraded) -> None:
    pending = old.facts["approvals"]["pending"]
    assert old.kb.vote(old.token("bob"), pending, "approve")[0] == 200
    assert old.kb.curl(old.bot, old.url, "-d", "n=pending").status == 200


@pytest.mark.parametrize("state", ["used", "denied"])
def test_what_had_ended_is_as_it_was(old: Upgraded, state: str) -> None:
    status, card = old.kb.api(
        old.token("alice"), f"/api/v1/approvals/{old.facts['approvals'][state]}"
    )
    assert (status, card["state"]) == (200, state)


def test_people_are_known(old: Upgraded) -> None:
    assert {u["user"] for u in old.kb.json("user", "list")} >= {"alice", "bob"}
    old.kb.cli("user", "disable", "bob")
    assert old.kb.api(old.token("bob"), "/api/v1/approvals?state=pending")[0] == 401
