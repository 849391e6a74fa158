"""A backup taken under load is restored elsewhere: secrets, agents and ledger are there, and what
was open in it cannot act again."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from tests.support.program import Program, wait_until
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.e2e

SECRET = "sk_live_backup_9Xk2"
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: "$HOST", path: /**}, effect: allow,
     use: [pay]}
  - {id: twice, agents: [bot], match: {method: GET, host: "$HOST", path: /twice}, effect: allow,
     limit: {calls: 2, per: 31d}}
  - {id: write, agents: [bot], match: {method: POST, host: "$HOST", path: /**}, effect: hold,
     use: [pay]}
"""


def test_a_workspace_comes_back_from_its_backup(tmp_path: Path) -> None:
    file, phrase = tmp_path / "kb.backup", tmp_path / "phrase"
    phrase.write_text("correct horse battery staple\n")
    locked = ("--passphrase-file", str(phrase))
    with Upstream() as upstream:
        upstream.answer("/ok", Reply(200, body=b"fine"))
        with Program(tmp_path / "one", upstream, policy=POLICY, hold_wait="1s") as kb:
            kb.secret("kv/pay", "api_key", SECRET)
            bot, alice = kb.agent("bot"), kb.user("alice")
            assert kb.curl(bot, upstream.url + "/pay", "-d", "n=1").code == "approval_pending"
            (held,) = kb.pending(alice)
            assert kb.curl(bot, upstream.url + "/twice").status == 404

            over, answers = threading.Event(), []

            def keep_calling() -> None:
                while not over.is_set():
                    answers.append(kb.curl(bot, upstream.url + "/ok").status)

            caller = threading.Thread(target=keep_calling)
            caller.start()
            try:
                made = kb.json("backup", "create", str(file), *locked)
            finally:
                over.set()
                caller.join()
            assert set(answers) == {200}  # held still for moments only
            assert SECRET.encode() not in file.read_bytes()
            assert kb.run("backup", "create", str(file), *locked).returncode == 1
            # What happens after the backup: the held call is approved, and sent.
            assert kb.vote(alice, held["id"], "approve")[0] == 200
            assert kb.curl(bot, upstream.url + "/pay", "-d", "n=1").status == 404
            assert sum(r.method == "POST" for r in upstream.requests) == 1
            assert not list(kb.workspace.glob("state/.backup-*"))

        checked = kb.json("backup", "check", str(file), *locked)
        assert (checked["ok"], checked["seq"]) == (True, made["seq"])

        other = Program(
            tmp_path / "two", upstream, proxy_port=kb.proxy_port, admin_port=kb.admin_port
        )
        done = other.json("backup", "restore", str(file), str(other.workspace), *locked)
        assert done["ended"]["approvals"] == 1
        again = other.run("backup", "restore", str(file), str(other.workspace), *locked)
        assert (again.returncode, "already there" in again.stderr) == (1, True)
        # The first one is gone for good.
        shutil.rmtree(kb.workspace)
        other.directory.mkdir(exist_ok=True)
        other.start()
        try:
            wait_until(
                lambda: other.curl(bot, upstream.url + "/ok").status == 200,
                what="the agent's old token and the secret serve in the restored workspace",
            )
            assert upstream.requests[-1].values("authorization") == [f"Bearer {SECRET}"]
            # The approval that was used after the backup does not send the call a second time.
            assert other.vote(alice, held["id"], "approve")[0] == 409
            assert other.curl(bot, upstream.url + "/pay", "-d", "n=1").code == "approval_pending"
            assert sum(r.method == "POST" for r in upstream.requests) == 1
            # What had been used of a limit is used.
            assert other.curl(bot, upstream.url + "/twice").status == 404
            assert other.curl(bot, upstream.url + "/twice").code == "policy_denied"
            types = {r["type"] for r in other.records()}
            assert {"workspace.backup", "workspace.restored"} <= types
            other.verify()
        finally:
            other.stop()


def test_what_cannot_be_done_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with Upstream() as upstream:
        kb = Program(tmp_path / "one", upstream)
        kb.init()
        file, phrase = tmp_path / "kb.backup", tmp_path / "phrase"
        phrase.write_text("one\n")
        # No terminal to ask, and nothing given.
        asked = kb.run("backup", "create", str(file))
        assert (asked.returncode, "--passphrase-file" in asked.stderr) == (2, True)
        nowhere = kb.run("backup", "create", str(tmp_path / "no" / "x"), "--passphrase-file", "-",
                         stdin="p\n")  # fmt: skip
        assert nowhere.returncode == 1
        assert "cannot be written" in nowhere.stderr
        kb.cli("backup", "create", str(file), "--passphrase-file", str(phrase))
        phrase.write_text("two\n")
        wrong = kb.run("backup", "restore", str(file), str(tmp_path / "new"),
                       "--passphrase-file", str(phrase))  # fmt: skip
        assert (wrong.returncode, "passphrase is wrong" in wrong.stderr) == (1, True)
        phrase.write_text("one\n")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        damaged = kb.run("backup", "restore", str(file), str(tmp_path / "new"),
                         "--passphrase-file", str(phrase))  # fmt: skip
        assert damaged.returncode in (1, 2)
        assert "Traceback" not in damaged.stderr
        assert not [p for p in tmp_path.iterdir() if "new" in p.name]
