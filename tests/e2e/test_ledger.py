"""The ledger of the running program: what it says, what it keeps to itself, and what happens when
it cannot be written."""

from __future__ import annotations

import base64
import json
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from audit.commitment import commit
from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.e2e

CANARY = "sk_live_CANARY_7hQz0Wm3"
CLAIM = "because-CLAIM-4411"
BODY = "amount=CANARYBODY5521"
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: {basic: {username: bot}}}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: "$HOST", path: /**}, effect: allow,
     use: [pay]}
  - {id: write, agents: [bot], match: {method: POST, host: "$HOST", path: /**}, effect: hold,
     use: [pay]}
"""


@dataclass(frozen=True)
class Books:
    kb: Program
    bot: AgentKey
    alice: str
    password: str
    completed: str
    """A call that was held, approved and completed."""
    approval: str
    denied: str

    def get(self, path: str = "/echo") -> tuple[int, str | None]:
        reply = self.kb.curl(self.bot, self.kb.upstream.url + path)
        return reply.status, reply.code


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Upstream() as upstream:
        directory = tmp_path_factory.mktemp("ledger")
        with Program(directory, upstream, policy=POLICY, workers=2) as kb:
            kb.secret("kv/pay", "api_key", CANARY)
            password = "correct horse battery staple"
            alice = kb.user("alice", password=password)
            bot = kb.agent("bot", "--owner", "owen")
            url = upstream.url
            held = kb.start_curl(
                bot, url + "/echo?q=QUERY7788", "-d", BODY, "-H", f"Keybroker-Reason: {CLAIM}"
            )
            (card,) = kb.pending(alice)
            assert kb.vote(alice, card["id"], "approve", "looks right")[0] == 200
            assert held.wait().status == 200
            denied = kb.curl(bot, url + "/echo", "-X", "DELETE")
            assert denied.code == "policy_denied"
            assert kb.curl(bot, url + "/reflect?as=raw").status == 200
            yield Books(
                kb, bot, alice, password, card["call"], card["id"], denied.json["request_id"]
            )


# --- what it says


def test_an_export_has_every_record_in_order(at: Books, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    at.kb.cli("audit", "export", "--format", "jsonl", "--output", str(file))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert records == at.kb.records()
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    for record in records:
        assert {"seq", "time", "type", "call", "agent", "data", "prev", "hash"} <= record.keys()
    assert all(a["hash"] == b["prev"] for a, b in pairwise(records))
    assert at.kb.run("audit", "verify", "--file", str(file)).returncode == 0
    lines = file.read_text().splitlines()
    del lines[4]
    file.write_text("\n".join(lines) + "\n")
    assert at.kb.run("audit", "verify", "--file", str(file)).returncode == 1


def test_a_completed_call_answers_every_question(at: Books) -> None:
    """Who, what, by which rules, who decided and saw what, which secret, and what came of it."""
    told: dict[str, Any] = {r["type"]: r["data"] for r in at.kb.records(call=at.completed)}
    opened, voted = told["approval.opened"], told["approval.voted"]
    sent, done = told["call.sent"], told["call.completed"]
    assert opened["what"] == {
        "method": "POST", "scheme": "https", "host": "localhost", "port": at.kb.upstream.port,
        "path": "/echo",
    }  # fmt: skip
    assert opened["rules"] == ["write"] and opened["policy"] == sent["policy"] >= 1
    assert opened["requirement"]["tiers"] and opened["credentials"][0]["name"] == "pay"
    assert len(opened["shown"]) == 64
    assert (voted["user"], voted["role"], voted["reason"]) == ("alice", "approver", "looks right")
    assert told["approval.resolved"]["by"] == ["alice"]
    assert sent["votes"] == ["alice"] and sent["approval"] == at.approval
    assert sent["secrets"] == [{"name": "pay", "ref": "kv/pay#api_key", "version": 1}]
    assert sent["address"] == "127.0.0.1" and sent["worker"].startswith("worker-")
    assert done["status"] == 200 and done["duration_ms"] >= done["first_byte_ms"] >= 0


def test_tail_search_and_show_find_it(at: Books) -> None:
    last = [
        json.loads(line)
        for line in at.kb.cli("audit", "tail", "-n", "3", "--json").split("\n")
        if line
    ]
    assert [r["seq"] for r in last] == [r["seq"] for r in at.kb.records()[-3:]]
    shown = at.kb.cli("audit", "show", at.completed)
    assert f"POST localhost:{at.kb.upstream.port}/echo" in shown
    assert "call.sent" in shown and "alice" in shown
    by_approval = at.kb.cli("audit", "show", at.approval, "--json")
    assert at.completed in by_approval
    found = at.kb.cli("audit", "search", "--type", "call.denied", "--agent", "bot", "--json")
    assert [json.loads(line)["call"] for line in found.splitlines()] == [at.denied]
    assert at.kb.cli("audit", "search", "--host", "localhost", "--since", "2020-01-01")
    assert at.kb.cli("audit", "search", "--until", "2020-01-01", "--json") == ""
    missing = at.kb.run("audit", "show", "c-none")
    assert missing.returncode != 0 and "nothing about c-none" in missing.stderr


def test_verify_tells_whole_from_broken_from_unreadable(at: Books, tmp_path: Path) -> None:
    whole = at.kb.run("audit", "verify", "--json")
    assert whole.returncode == 0 and json.loads(whole.stdout)["ok"] is True
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(at.kb.database)) as db, closing(sqlite3.connect(copy)) as target:
        db.backup(target)
    assert at.kb.run("audit", "verify", "--file", str(copy)).returncode == 0
    with closing(sqlite3.connect(copy)) as db:
        db.execute("DROP TRIGGER ledger_update")
        db.execute("UPDATE ledger SET data = replace(data, 'alice', 'mallory')")
        db.commit()
    broken = at.kb.run("audit", "verify", "--file", str(copy), "--json")
    assert broken.returncode == 1
    fault = json.loads(broken.stdout)["faults"][0]
    assert fault["seq"] >= 1 and fault["sentence"]
    for file in (tmp_path / "none.db", tmp_path):
        done = at.kb.run("audit", "verify", "--file", str(file))
        assert done.returncode == 2 and "Traceback" not in done.stderr


def test_the_database_refuses_to_forget(at: Books) -> None:
    with closing(sqlite3.connect(at.kb.database, timeout=10)) as db:
        for statement in (
            "UPDATE ledger SET agent = 'x' WHERE seq = 1",
            "DELETE FROM ledger WHERE seq = 1",
            "DELETE FROM ledger_head",
        ):
            with pytest.raises(sqlite3.DatabaseError):
                db.execute(statement)
            db.rollback()


def test_every_administrative_act_is_there(at: Books) -> None:
    at.kb.cli("user", "add", "temp", "--role", "viewer")
    at.kb.cli("user", "disable", "temp")
    types = {r["type"] for r in at.kb.records()}
    assert types >= {
        "ledger.created", "broker.started", "policy.published", "secret.written", "user.added",
        "user.token", "user.disabled", "agent.added", "approval.opened", "approval.voted",
        "approval.resolved", "secret.read", "call.sent", "call.completed", "call.denied",
    }  # fmt: skip


# --- what it keeps to itself


def test_responses_are_commitments_as_received_and_as_delivered(at: Books) -> None:
    text = f"your key is {CANARY}, thank you\n".encode()
    at.kb.upstream.answer("/thanks", Reply(headers=(("Content-Type", "text/plain"),), body=text))
    reply = at.kb.curl(at.bot, at.kb.upstream.url + "/thanks")
    assert reply.status == 200 and CANARY.encode() not in reply.body
    call = reply.headers["keybroker-request-id"]
    wait_until(
        lambda: bool(at.kb.records(type="call.completed", call=call)), what="the result is recorded"
    )
    (done,) = at.kb.records(type="call.completed", call=call)
    salt = _salt(at, call)
    assert done["data"]["received"] == commit(salt, "received", text)
    assert done["data"]["delivered"] == commit(salt, "delivered", reply.body)
    assert done["data"]["masked"] == 1
    assert done["data"]["received_size"] == len(text)
    # And the body that was voted on, under the approval's salt.
    (opened,) = at.kb.records(type="approval.opened", call=at.completed)
    assert opened["data"]["body"] == commit(_salt(at, at.approval), "body", BODY.encode())


def _salt(at: Books, subject: str) -> bytes:
    with closing(sqlite3.connect(at.kb.database, timeout=10)) as db:
        (salt,) = db.execute(
            "SELECT salt FROM ledger_salts WHERE subject = ?", (subject,)
        ).fetchone()
    assert isinstance(salt, bytes)
    return salt


def test_no_secret_is_anywhere_but_in_the_vault(at: Books) -> None:
    """Files of the workspace, what `up` said, what the agent got, environments, command lines."""
    pair = base64.b64encode(f"bot:{CANARY}".encode())
    needles = [CANARY.encode(), pair, CANARY.encode().hex().encode(), at.password.encode()]
    needles += [at.bot.token.encode(), at.alice.encode()]
    found = []
    for path in at.kb.directory.rglob("*"):
        if path.is_file() and "state/vault" not in str(path):
            content = path.read_bytes()
            # What was asked is sealed, and gone by now; the ledger has commitments.
            asked = [BODY.encode(), b"QUERY7788"] if "state" in path.parts else []
            found += [(path, needle) for needle in [*needles, *asked] if needle in content]
    allowed = [f for f in found if f[0].suffix in (".head", ".body") and f[1] in needles[4:]]
    assert [f for f in found if f not in allowed] == []
    processes = [*at.kb.processes("worker"), *at.kb.processes("admin"), *at.kb.processes("server")]
    assert at.kb.process is not None
    for pid in [*processes, at.kb.process.pid]:
        for name in ("environ", "cmdline"):
            content = Path(f"/proc/{pid}/{name}").read_bytes()
            assert not [needle for needle in needles if needle in content], (pid, name)
    exported = at.kb.cli("audit", "export")
    assert not [n for n in (CANARY, BODY, CLAIM, "QUERY7788") if n in exported]


def test_the_vaults_files_do_not_hold_it_in_the_clear(at: Books) -> None:
    for path in (at.kb.workspace / "state" / "vault").rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


# --- when it cannot be written


@contextmanager
def locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


@contextmanager
def full(kb: Program) -> Iterator[None]:
    """The workers can write no file any further than a disk without room lets them."""
    workers = kb.processes("worker")
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in workers]
    for pid, (_, hard) in zip(workers, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for pid, limits in zip(workers, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("fault", ["locked", "full"])
def test_nothing_is_sent_while_it_cannot_be_written(at: Books, fault: str) -> None:
    at.kb.curl(at.bot, at.kb.upstream.url + "/echo")
    count, records = len(at.kb.upstream.requests), len(at.kb.records())
    with locked(at.kb.database) if fault == "locked" else full(at.kb):
        read = at.kb.start_curl(at.bot, at.kb.upstream.url + "/echo")
        denied = at.kb.start_curl(at.bot, at.kb.upstream.url + "/echo", "-X", "DELETE")
        held = at.kb.start_curl(at.bot, at.kb.upstream.url + "/echo", "-d", "amount=9")
        for curl in (read, denied, held):
            reply = curl.wait()
            assert (reply.status, reply.code) == (503, "ledger_unavailable"), reply
            assert reply.headers["retry-after"] and "nothing was sent" in reply.json["detail"]
    assert len(at.kb.upstream.requests) == count
    wait_until(lambda: at.get() == (200, None), what="calls go through again", timeout=40)
    at.kb.verify()
    new = at.kb.records()[records:]
    assert [r["type"] for r in new if r["type"] == "call.sent"] == ["call.sent"]


def test_a_vote_is_not_counted_while_it_cannot_be_written(at: Books) -> None:
    held = at.kb.start_curl(at.bot, at.kb.upstream.url + "/echo", "-d", "amount=10")
    card = next(c for c in at.kb.pending(at.alice))
    with locked(at.kb.database):
        status, told = at.kb.vote(at.alice, card["id"], "approve")
        assert status == 503, told
    assert at.kb.vote(at.alice, card["id"], "approve")[0] == 200
    assert held.wait().status == 200
    at.kb.verify()


def test_a_command_says_so_in_one_line(at: Books) -> None:
    with locked(at.kb.database):
        done = at.kb.run("agent", "add", "unlucky")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "ledger" in done.stderr
    assert "unlucky" not in at.kb.cli("agent", "list")


def test_a_ledger_on_a_real_full_disk(tmp_path: Path) -> None:
    """The same on a file system of 96 MB that is filled up, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here; RLIMIT_FSIZE stands in for it")
    try:
        with Upstream() as upstream:
            policy = POLICY.replace(", use: [pay]", "").replace(",\n     use: [pay]", "")
            with Program(disk, upstream, policy=policy) as kb:
                bot = kb.agent("bot")
                assert kb.curl(bot, upstream.url + "/echo").status == 200
                ballast = disk / "ballast"
                with ballast.open("wb", buffering=0) as file, suppress(OSError):
                    while file.write(bytes(4096)):
                        pass
                count = len(upstream.requests)
                # What was preallocated may take a few more records; then nothing goes out.
                url = upstream.url + "/echo"
                options = ("--output", "/dev/null", "--dump-header", "/dev/null")
                wait_until(lambda: _status(kb, bot, url, options) == 503, what="the disk is full")
                sent = len(kb.records(type="call.sent"))
                assert len(upstream.requests) == sent >= count
                status, ready = kb.api(None, "/readyz")
                assert (status, ready["checks"]["disk"]) == (503, "fail")
                ballast.unlink()
                wait_until(
                    lambda: _status(kb, bot, url, options) == 200, what="there is room again"
                )
                wait_until(lambda: kb.api(None, "/readyz")[0] == 200, what="it is ready again")
                kb.verify()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _status(kb: Program, bot: AgentKey, url: str, options: tuple[str, ...]) -> int:
    done = subprocess.run(
        ["curl", "-s", "--proxy", bot.proxy_url, "--cacert", str(kb.ca_file), *options,
         "-w", "%{http_code}", url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return int(done.stdout)
