"""`keybroker up` as a whole: starting or refusing to, replacing the dead, draining, reloading."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keybroker.supervisor import say_published
from tests.support.program import Program, environment, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

POLICY = """
version: 1
credentials:
  up: {secret: "kv/up#key", hosts: ["$HOST"], inject: bearer}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: "$HOST", path: /echo}, effect: allow}
  - {id: slow, agents: [bot], match: {method: GET, host: "$HOST", path: /slow}, effect: allow}
  - id: write
    agents: [bot]
    match: {method: POST, host: "$HOST", path: /echo}
    effect: hold
    risk: medium
    use: [up]
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def kb(tmp_path: Path, upstream: Upstream) -> Iterator[Program]:
    with Program(tmp_path, upstream, policy=POLICY, workers=2) as program:
        yield program


def children_of(kb: Program) -> dict[str, int]:
    """The hidden command of each child of ours, and its pid."""
    assert kb.process is not None
    found = {}
    listing = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(kb.process.pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in listing.splitlines():
        pid, _, arguments = line.strip().partition(" ")
        words = arguments.split()
        if "keybroker" in words:
            name = words[words.index("keybroker") + 1]
            index = next((w for w in words if w.startswith("--index")), "")
            found[name + index] = int(pid)
    return found


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat").read_text() if Path(f"/proc/{pid}/stat").exists() else ") Z"
    return state.rpartition(")")[2].split()[0] == "Z"


def test_it_says_where_it_is_serves_and_stops_cleanly(kb: Program) -> None:
    assert kb.facts["proxy"] == f"127.0.0.1:{kb.proxy_port}"
    assert kb.facts["admin"] == kb.admin_url
    assert kb.process is not None
    assert kb.facts["pid"] == kb.process.pid
    assert kb.setup_link().startswith(f"{kb.admin_url}/setup?token=")
    bot = kb.agent("bot")
    assert kb.curl(bot, kb.upstream.url + "/echo").status == 200
    assert {f["state"] for f in kb.json("doctor")} == {"ok", "warning"}

    second = kb.run("up")
    assert second.returncode == 1
    assert f"already runs in {kb.workspace} (pid {kb.process.pid})" in second.stderr

    kb.process.send_signal(signal.SIGTERM)
    assert kb.process.wait(30) == 0
    kb.verify()
    assert [r["type"] for r in kb.records() if r["type"].startswith("broker.")] == [
        "broker.started",
        "broker.stopped",
    ]


def test_the_dead_are_replaced_and_orphans_leave(kb: Program) -> None:
    bot = kb.agent("bot")
    before = children_of(kb)
    assert before.keys() == {"worker--index=0", "worker--index=1", "admin"}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = children_of(kb)
        return now.keys() == before.keys() and not set(now.values()) & set(before.values())

    wait_until(replaced, what="every child is replaced")
    wait_until(lambda: kb.curl(bot, kb.upstream.url + "/echo").status == 200, what="calls go again")
    assert kb.api(None, "/healthz")[0] == 200

    orphans = children_of(kb)
    assert kb.process is not None
    kb.process.kill()
    kb.process.communicate()
    wait_until(lambda: all(gone(pid) for pid in orphans.values()), what="orphans leave")
    kb.start()
    assert kb.curl(bot, kb.upstream.url + "/echo").status == 200
    kb.verify()


def test_a_child_that_cannot_be_replaced_yet_takes_nothing_else_along(kb: Program) -> None:
    bot = kb.agent("bot")
    assert kb.process is not None
    limits = resource.prlimit(kb.process.pid, resource.RLIMIT_NOFILE)
    before = children_of(kb)
    resource.prlimit(kb.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    os.kill(before["worker--index=0"], signal.SIGKILL)
    wait_until(lambda: "is not started again yet" in kb.log.read_text(), what="it is said")
    assert kb.process.poll() is None
    assert kb.curl(bot, kb.upstream.url + "/echo").status == 200
    resource.prlimit(kb.process.pid, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: children_of(kb).keys() == before.keys(), what="it is replaced in the end")


def test_a_call_in_a_killed_worker_becomes_unknown_and_is_not_sent_again(kb: Program) -> None:
    bot = kb.agent("bot")
    arrived = len(kb.upstream.requests)
    slow = kb.start_curl(bot, kb.upstream.url + "/slow?s=20")
    wait_until(lambda: bool(kb.records(type="call.sent")), what="the call is sent")
    for name, pid in children_of(kb).items():
        if name.startswith("worker"):
            os.kill(pid, signal.SIGKILL)
    slow.wait()
    wait_until(lambda: bool(kb.records(type="call.unknown")), what="the call is unknown")
    assert len(kb.records(type="call.sent")) == 1
    assert len(kb.upstream.requests) - arrived <= 1
    kb.verify()


def test_of_a_version_in_shadow_it_is_not_said_that_it_is_in_force() -> None:
    assert say_published(2, 2) == "policy version 2 is in force"
    assert say_published(3, 2) == "policy version 3 is in shadow; version 2 stays in force"


def test_the_policy_is_followed_and_a_bad_one_changes_nothing(kb: Program) -> None:
    bot = kb.agent("bot")
    url = kb.upstream.url + "/echo"
    kb.write_policy(POLICY.replace("effect: allow", "effect: alow"))
    wait_until(lambda: bool(kb.records(type="policy.refused")), what="the refusal is recorded")
    assert "effect must be" in kb.log.read_text()
    assert "stays in force" in kb.log.read_text()
    assert kb.curl(bot, url).status == 200
    kb.publish(POLICY.replace("effect: allow", "effect: deny"))
    wait_until(lambda: kb.curl(bot, url).status == 403, what="the new policy denies", timeout=2)


def test_a_held_call_survives_a_drain_and_a_second_signal_ends_it(kb: Program) -> None:
    bot, alice = kb.agent("bot"), kb.user("alice", "admin")
    kb.secret("kv/up", "key", "sk_live_canary_up")
    held = kb.start_curl(bot, kb.upstream.url + "/echo", "--data", "a=1")
    (card,) = kb.pending(alice)
    assert kb.process is not None
    kb.process.send_signal(signal.SIGTERM)
    assert kb.vote(alice, card["id"], "approve")[0] == 200
    assert held.wait().status == 200
    kb.process.communicate(timeout=30)
    assert kb.process.returncode == 0

    kb.start()
    held = kb.start_curl(bot, kb.upstream.url + "/echo", "--data", "a=2")
    kb.pending(alice)
    assert kb.process is not None
    kb.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not _answers(kb.proxy_port), what="it listens no more")
    kb.process.send_signal(signal.SIGTERM)
    assert kb.process.wait(10) == 0
    assert held.wait().status == 0, "cut off without an answer"
    kb.verify()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_a_run_goes_through_the_proxy_with_a_token_of_its_own(kb: Program) -> None:
    kb.agent("bot")
    url = kb.upstream.url + "/echo"
    done = kb.run("run", "--agent", "bot", "--reason", "look", "--", "curl", "-sS", "--fail", url)
    assert done.returncode == 0, done.stderr
    assert '"target": "/echo"' in done.stdout
    (line,) = done.stderr.splitlines()
    assert "acting as an administrator" in line
    seen = kb.run(
        "run", "--agent", "bot", "sh", "-c", "env; exit 5", env={"KEYBROKER_TOKEN": "kb_user_x"}
    )
    assert seen.returncode == 5
    assert str(kb.workspace) not in seen.stdout
    assert "KEYBROKER" not in seen.stdout
    proxy = next(x for x in seen.stdout.splitlines() if x.startswith("HTTPS_PROXY="))
    kb_run = proxy.partition("=")[2]
    late = subprocess.run(
        ["curl", "-sS", "--proxy", kb_run, "--cacert", str(kb.ca_file), url],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert "407" in late.stderr, "the token ended with the run"
    assert kb.records(type="agent.token")[0]["data"]["note"] == "look"


def test_votes_on_the_command_line_need_a_person(kb: Program) -> None:
    bot = kb.agent("bot")
    alice, carol = kb.user("alice"), kb.user("carol", "viewer")
    kb.secret("kv/up", "key", "sk_live_canary_up")
    held = kb.start_curl(bot, kb.upstream.url + "/echo", "--data", "note=%1b[2J")
    (card,) = kb.pending(alice)
    shown = kb.cli("approvals", "show", card["id"])
    assert "\\x1b[2J" in shown
    assert "\x1b" not in shown
    assert card["id"] in kb.cli("approvals", "list")
    for env, says in (
        ({}, "a vote needs a person"),
        ({"KEYBROKER_TOKEN": "kb_user_wrong"}, "is nobody's"),
        ({"KEYBROKER_TOKEN": carol}, "viewer"),
    ):
        refused = kb.run("approvals", "approve", card["id"], env=env)
        assert refused.returncode == 1
        assert says in refused.stderr
    done = kb.run(
        "approvals", "approve", card["id"], "--reason", "ok", "--json",
        env={"KEYBROKER_TOKEN": alice},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert held.wait().status == 200
    (vote,) = kb.records(type="approval.voted")
    assert vote["data"]["user"] == "alice"
    assert vote["data"]["via"] == "cli"
    again = kb.run("approvals", "deny", card["id"], env={"KEYBROKER_TOKEN": alice})
    assert again.returncode == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("proxy: {listen: '$TAKEN'}", "is in use by another program"),
        ("egress: {ca_bundle: none.pem}", "cannot be read"),
        ("egress: {ca_bundle: policy.yaml}", "holds no certificates in PEM"),
        (
            "vault: {url: 'http://$CLOSED', auth: {token_file: t}}",
            "no connection",
        ),
        ("proxy: {workers: many}", "keybroker.yaml:1: error"),
    ],
    ids=["taken port", "no bundle", "spoilt bundle", "vault", "settings"],
)
def test_what_cannot_start_says_why_in_a_line(
    tmp_path: Path, upstream: Upstream, settings: str, says: str
) -> None:
    program = Program(tmp_path, upstream)
    program.init()
    base = "admin: {listen: 127.0.0.1:0}\n"
    if "proxy" not in settings:
        base += "proxy: {listen: 127.0.0.1:0}\n"
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        text = settings + "\n" + base
        for name, place in (("$TAKEN", other), ("$CLOSED", closed)):
            text = text.replace(name, f"127.0.0.1:{place.getsockname()[1]}")
        (program.workspace / "keybroker.yaml").write_text(text)
        done = program.run("up")
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    program.verify()


def test_a_bad_policy_does_not_start(tmp_path: Path, upstream: Upstream) -> None:
    program = Program(tmp_path, upstream, policy="version: 1\nrules: {}\nmore: 1\n")
    program.init()
    done = program.run("up")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert "policy.yaml:2: error" in done.stderr
