"""The whole program behind a corporate proxy: calls, held ones, refusals, and its password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.connect_proxy import ConnectProxy
from tests.support.program import AgentKey, Program
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

PASSWORD = "c0rp+canary/pass:word"
SECRET = "sk_live_behind_the_proxy"
POLICY = """\
version: 1
credentials:
  pay: {secret: "kv/pay#key", hosts: ["$HOST"], inject: bearer}
tiers:
  medium: {exclude: []}
rules:
  - {id: open, agents: [bot], match: {host: "$HOST", path: /echo}, effect: allow, use: [pay]}
  - {id: ask, agents: [bot], match: {host: "$HOST", path: /ask}, effect: hold, use: [pay]}
  - {id: inside, agents: [bot], match: {host: 10.0.0.1, path: /**}, effect: allow}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def corp() -> Iterator[ConnectProxy]:
    with ConnectProxy("kb", PASSWORD) as proxy:
        yield proxy


def settings(corp: ConnectProxy, folder: Path) -> str:
    (folder / "corp-password").write_text(PASSWORD + "\n")
    file = folder / "corp-password"
    return f"proxy: {{url: '{corp.url}', username: kb, password_file: {file}}}"


@pytest.fixture(scope="module")
def kb(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, corp: ConnectProxy
) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("chained")
    with Program(
        folder, upstream, policy=POLICY, hold_wait="10s", egress_settings=settings(corp, folder)
    ) as program:
        program.secret("kv/pay", "key", SECRET)
        yield program


@pytest.fixture(scope="module")
def bot(kb: Program) -> AgentKey:
    return kb.agent("bot")


@pytest.fixture(autouse=True)
def clean(upstream: Upstream, corp: ConnectProxy) -> None:
    upstream.clear()
    corp.refuse = None
    corp.asked.clear()


def test_a_call_gets_its_key_and_leaves_through_the_proxy(
    kb: Program, bot: AgentKey, upstream: Upstream, corp: ConnectProxy
) -> None:
    assert kb.curl(bot, upstream.url + "/echo").status == 200
    (request,) = upstream.requests
    assert request.values("authorization") == [f"Bearer {SECRET}"]
    assert corp.asked == [f"127.0.0.1:{upstream.port}"]
    assert not any(SECRET in head for head in corp.heads)
    sent = kb.records(type="call.sent")[-1]["data"]
    assert sent["address"] == "127.0.0.1", "the address that was checked and asked for"


def test_a_refusal_of_the_proxy_leaves_an_approval_good(
    kb: Program, bot: AgentKey, upstream: Upstream, corp: ConnectProxy
) -> None:
    boss = kb.user("boss")
    corp.refuse = 403
    waiting = kb.start_curl(bot, upstream.url + "/ask")
    (card,) = kb.pending(boss)
    assert kb.vote(boss, card["id"], "approve")[0] == 200
    reply = waiting.wait()
    assert (reply.status, reply.code) == (502, "upstream_unreachable")
    assert "The egress proxy does not let this host be called (403)" in reply.json["detail"]
    failed = kb.records(type="call.failed")[-1]["data"]
    assert failed["sent"] is False
    corp.refuse = None
    assert kb.curl(bot, upstream.url + "/ask").status == 404, "the approval was not used up"
    assert [r.path for r in upstream.requests] == ["/ask"]


def test_inside_addresses_stay_refused(kb: Program, bot: AgentKey, corp: ConnectProxy) -> None:
    """The proxy could reach them; whether it may is decided here."""
    reply = kb.curl(bot, "https://10.0.0.1/")
    assert (reply.status, reply.code) == (403, "egress_refused")
    assert corp.asked == []


def test_the_password_is_nowhere(kb: Program, bot: AgentKey, corp: ConnectProxy) -> None:
    corp.refuse = 407
    assert "credentials (407)" in kb.curl(bot, kb.upstream.url + "/echo").json["detail"]
    kb.verify()
    basic = "a2I6"  # how base64 of `kb:` begins
    everything = json.dumps(kb.records()) + kb.log.read_text()
    state = [f for f in (kb.workspace / "state").rglob("*") if f.is_file()]
    everything += "".join(f.read_bytes().decode("latin-1") for f in state)
    assert PASSWORD not in everything
    assert basic + "YzByc" not in everything
    environments = "".join(
        Path(f"/proc/{pid}/environ").read_text() + Path(f"/proc/{pid}/cmdline").read_text()
        for pid in kb.processes("worker")
    )
    assert environments
    assert PASSWORD not in environments


def test_doctor_asks_the_proxy(kb: Program, corp: ConnectProxy) -> None:
    says = [f["says"] for f in json.loads(kb.run("doctor", "--json").stdout)]
    assert f"calls leave through {corp.url}" in says


def test_it_does_not_start_without_its_password(
    tmp_path: Path, upstream: Upstream, corp: ConnectProxy
) -> None:
    program = Program(tmp_path, upstream, egress_settings=settings(corp, tmp_path))
    program.init()
    (tmp_path / "corp-password").write_text("\n")
    done = program.run("up")
    assert done.returncode == 1
    assert "no usable password in its first line (`egress.proxy.password_file`)" in done.stderr
