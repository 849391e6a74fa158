"""A changed policy file is in force in every worker within two seconds; a broken one changes
nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.e2e

RULE = """\
  - {{id: {id}, agents: [bot], match: {{host: "$HOST", path: {path}}}, effect: {effect}}}
"""
FOLLOWED_WITHIN = 2.0
"""Seconds, by the contract."""


def policy(*rules: tuple[str, str, str]) -> str:
    return "version: 1\nrules:\n" + "".join(
        RULE.format(id=id, path=path, effect=effect) for id, path, effect in rules
    )


ONLY_A = policy(("a", "/a", "allow"))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        server.answer("/a", Reply(body=b"ok"))
        yield server


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("reload")
    with Program(directory, upstream, policy=ONLY_A, workers=2) as program:
        yield program


@pytest.fixture(scope="module")
def bot(kb: Program) -> AgentKey:
    return kb.agent("bot")


@pytest.fixture(autouse=True)
def as_before(kb: Program, bot: AgentKey) -> None:
    start = ONLY_A.replace("$HOST", f"localhost:{kb.upstream.port}")
    if not (kb.workspace / "policy.yaml").read_text().startswith(start):
        kb.publish(f"{ONLY_A}# {time.monotonic_ns()}\n")  # the same text is no new version


def statuses(kb: Program, bot: AgentKey, path: str, times: int = 8) -> set[int]:
    """New connections, so that the kernel hands them to both workers."""
    return {kb.curl(bot, f"{kb.upstream.url}{path}").status for _ in range(times)}


def test_a_changed_file_is_in_force_in_both_workers(kb: Program, bot: AgentKey) -> None:
    assert statuses(kb, bot, "/a") == {200} and statuses(kb, bot, "/b", 2) == {403}
    connections = [kb.tunnel(bot, kb.upstream.url) for _ in range(6)]
    began = time.monotonic()
    kb.write_policy(policy(("a", "/a", "deny"), ("b", "/echo", "allow")))
    time.sleep(max(0.0, began + FOLLOWED_WITHIN - time.monotonic()))
    # Connections that stood before follow too.
    for connection in connections:
        connection.request("GET", "/a")
        answer = connection.getresponse()
        assert answer.status == 403
        answer.read()
        connection.close()
    assert statuses(kb, bot, "/a") == {403}
    assert statuses(kb, bot, "/echo") == {200}


def test_whoami_and_the_ledger_name_the_version(kb: Program, bot: AgentKey) -> None:
    before = kb.curl(bot, "http://keybroker.internal/v1/whoami").json["policy_version"]
    kb.publish(policy(("echo", "/echo", "allow")))
    wait_until(
        lambda: (
            kb.curl(bot, "http://keybroker.internal/v1/whoami").json["policy_version"] == before + 1
        ),
        what="whoami knows the new version",
    )
    reply = kb.curl(bot, kb.upstream.url + "/echo")
    assert reply.status == 200
    (sent,) = kb.records(call=reply.headers["keybroker-request-id"], type="call.sent")
    assert sent["data"]["policy"] == before + 1
    published = kb.records(type="policy.published")[-1]["data"]
    assert published["version"] == before + 1 and len(published["sha256"]) == 64


BROKEN = """version: 1
rules:
  - id: a
    agents: [bot]
    match: {host: "$HOST", path: /a, colour: red}
    effect: alow
"""


@pytest.mark.parametrize("way", ["watched", "SIGHUP"])
def test_a_broken_file_keeps_the_old_policy_and_says_so(
    kb: Program, bot: AgentKey, way: str
) -> None:
    said = len(kb.log.read_text())
    refused = len(kb.records(type="policy.refused"))
    broken = BROKEN + f"# {way}\n"
    kb.write_policy(broken)
    if way == "SIGHUP":
        assert kb.process is not None
        kb.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "stays in force" in kb.log.read_text()[said:], what="the complaint")
    told = kb.log.read_text()[said:]
    # Both problems at once, with file and line.
    file = kb.workspace / "policy.yaml"
    assert f"{file}:5" in told and "colour" in told
    assert f"{file}:6" in told and 'did you mean "allow"' in told
    assert "Traceback" not in told
    wait_until(
        lambda: len(kb.records(type="policy.refused")) > refused, what="the ledger says it too"
    )
    problems = str(kb.records(type="policy.refused")[-1]["data"]["problems"])
    assert "policy.yaml:5" in problems and "policy.yaml:6" in problems
    assert statuses(kb, bot, "/a") == {200} and statuses(kb, bot, "/b", 2) == {403}


def test_a_file_that_vanished_keeps_the_old_policy(kb: Program, bot: AgentKey) -> None:
    said = len(kb.log.read_text())
    (kb.workspace / "policy.yaml").unlink()
    wait_until(lambda: "stays in force" in kb.log.read_text()[said:], what="the complaint")
    assert statuses(kb, bot, "/a") == {200}
    kb.publish(ONLY_A + "# back again\n")


def test_a_file_written_in_pieces_is_not_read_in_half(kb: Program, bot: AgentKey) -> None:
    """A denial at the end of the file must not be missing for a moment."""
    whole = policy(("open", "/echo", "allow"), ("shut", "/**", "deny")).replace(
        "$HOST", f"localhost:{kb.upstream.port}"
    )
    half = len(whole) - len(whole.splitlines(keepends=True)[-1])
    versions = len(kb.records(type="policy.published"))
    partial = kb.workspace / "policy.yaml"
    with partial.open("w") as file:
        file.write(whole[:half])
        file.flush()
        file.write(whole[half:])
    wait_until(
        lambda: len(kb.records(type="policy.published")) > versions, what="the whole file is taken"
    )
    assert len(kb.records(type="policy.published")) == versions + 1
    wait_until(lambda: statuses(kb, bot, "/echo", 6) == {403}, what="the denial is in force")


def test_a_file_replaced_by_rename_is_followed(kb: Program, bot: AgentKey) -> None:
    """As editors and configuration managers do."""
    text = policy(("b", "/echo", "allow")).replace("$HOST", f"localhost:{kb.upstream.port}")
    new = kb.workspace / "policy.yaml.new"
    new.write_text(text)
    os.replace(new, kb.workspace / "policy.yaml")  # noqa: PTH105 - the very call that is meant
    wait_until(lambda: statuses(kb, bot, "/echo", 6) == {200}, what="the new file is in force")


def test_sighup_reads_a_good_file(kb: Program, bot: AgentKey) -> None:
    kb.write_policy(policy(("b", "/echo", "allow")) + "# by signal\n")
    assert kb.process is not None
    kb.process.send_signal(signal.SIGHUP)
    wait_until(lambda: statuses(kb, bot, "/echo", 6) == {200}, what="the new file is in force")
    kb.verify()
