"""Makes the workspace of a release, with something of everything in it, for tests of later ones.

    python -m tests.support.old_workspace tests/vectors/workspace-0.1.0.tar.xz

Run it once, with the release that it is named for, and commit what it made; a workspace in the
field cannot be made anew either. Its keys and tokens are of no use anywhere else.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

from tests.support.program import Program, wait_until
from tests.support.upstream import Received, Reply, Upstream

PORT = 47613
"""Where the upstream of the stored requests is."""
SECRET = "sk_live_of_an_old_release"
PASSWORD = "correct horse battery staple"
POLICY = """\
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: "$HOST", path: /**}, effect: allow,
     use: [pay]}
  - {id: write, agents: [bot], match: {method: POST, host: "$HOST", path: /**}, effect: hold,
     summary: "Pay {form:n}", use: [pay]}
"""


def main(target: Path) -> None:
    """Writes the archive: `workspace/` and `facts.json`."""
    with tempfile.TemporaryDirectory() as directory, Upstream(port=PORT) as upstream:
        kb = Program(Path(directory), upstream, policy=POLICY, hold_wait="0s")
        kb.init()
        kb.start()
        try:
            facts = _live(kb, upstream)
        finally:
            kb.kill()
        (kb.directory / "facts.json").write_text(json.dumps(facts, indent=1))
        target.unlink(missing_ok=True)
        with tarfile.open(target, "w:xz", preset=9) as tar:
            tar.add(kb.directory / "facts.json", "facts.json")
            tar.add(kb.workspace, "workspace", filter=_of_the_workspace)


def _of_the_workspace(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return member if member.isreg() or member.isdir() else None


def _live(kb: Program, upstream: Upstream) -> dict[str, object]:
    """Leaves calls and approvals in every state; the program is then killed."""
    stuck = threading.Event()

    def wait(_: Received) -> Reply:
        stuck.wait(60)
        return Reply(200)

    upstream.routes["/stuck"] = wait
    upstream.answer("/ok", Reply(200, body=b"fine"))
    kb.secret("kv/pay", "api_key", SECRET)
    bot, gone = kb.agent("bot", "--owner", "alice", "--tag", "billing"), kb.agent("gone")
    kb.cli("agent", "revoke", "gone")
    alice, bob = kb.user("alice", "admin", PASSWORD), kb.user("bob")

    def held(n: str) -> str:
        kb.curl(bot, f"{upstream.url}/ok", "-d", f"n={n}")
        cards = {c["summaries"][0]: c["id"] for c in kb.pending(alice)}
        id: str = cards[f"Pay {n}"]
        return id

    approvals = {"used": held("used")}
    assert kb.vote(bob, approvals["used"], "approve")[0] == 200
    assert kb.curl(bot, f"{upstream.url}/ok", "-d", "n=used").status == 200
    approvals["denied"] = held("denied")
    assert kb.vote(bob, approvals["denied"], "deny", "not today")[0] == 200
    assert kb.curl(bot, f"{upstream.url}/ok").status == 200
    assert kb.curl(bot, f"{upstream.url}/ok", "-X", "DELETE").code == "policy_denied"
    kb.start_curl(bot, f"{upstream.url}/stuck")
    wait_until(lambda: bool(kb.records(type="call.sent")[2:]), what="a call is under way")
    approvals["approved"] = held("approved")
    assert kb.vote(bob, approvals["approved"], "approve")[0] == 200
    approvals["pending"] = held("pending")
    return {
        "agent": {"name": bot.name, "token": bot.token},
        "revoked": {"name": gone.name, "token": gone.token},
        "tokens": {"alice": alice, "bob": bob},
        "password": PASSWORD,
        "secret": SECRET,
        "approvals": approvals,
        "records": len(kb.records()),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
