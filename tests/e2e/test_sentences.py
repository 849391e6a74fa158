"""One sentence for one call: what the agent is refused with, what the reviewer's card says and what
`policy explain` says of it. And what an override loosens stands in the ledger, of a start and of a
reload."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.e2e

POLICY = """\
version: 1
include:
  - {pack: stripe, agents: [clerk]}
override:
  stripe.refund-create: {risk: medium}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: "$HOST", path: /a}, effect: allow}
  - {id: write, agents: [bot], match: {method: POST, host: "$HOST", path: /a}, effect: hold}
  - {id: never, agents: [bot], match: {method: DELETE, host: "$HOST"}, effect: deny, summary: no}
"""


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Upstream() as upstream:
        upstream.answer("/a", Reply(body=b"ok"))
        directory = tmp_path_factory.mktemp("sentences")
        with Program(directory, upstream, policy=POLICY, workers=1, hold_wait="1s") as program:
            yield program


@pytest.fixture(scope="module")
def bot(kb: Program) -> AgentKey:
    return kb.agent("bot")


def explained(kb: Program, *arguments: str) -> dict[str, object]:
    done = kb.cli("policy", "explain", *arguments, "--json")
    found = json.loads(done)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("DELETE", "/a", "policy_denied"),
        ("PUT", "/a", "policy_denied"),
        ("GET", "/a/%2e", "request_ambiguous"),
    ],
)
def test_a_refusal_is_what_explain_says(
    kb: Program, bot: AgentKey, method: str, path: str, code: str
) -> None:
    url = kb.upstream.url + path
    reply = kb.curl(bot, url, "-X", method, "--path-as-is")
    told = explained(kb, "--as", "bot", method, url)
    assert (reply.json["code"], told["code"]) == (code, code)
    assert reply.json["detail"] == told["sentence"]
    past = explained(kb, reply.headers["keybroker-request-id"])
    assert past["sentence"] == told["sentence"]


def test_an_allowed_call_is_told_alike_before_and_after(kb: Program, bot: AgentKey) -> None:
    url = kb.upstream.url + "/a"
    reply = kb.curl(bot, url)
    assert reply.status == 200
    past = explained(kb, reply.headers["keybroker-request-id"])
    assert past["sentence"] == explained(kb, "--as", "bot", "GET", url)["sentence"]


def test_the_card_and_the_waiting_agent_are_told_what_explain_says(
    kb: Program, bot: AgentKey
) -> None:
    url = kb.upstream.url + "/a"
    reply = kb.curl(bot, url, "-X", "POST")
    sentence = str(explained(kb, "--as", "bot", "POST", url)["sentence"])
    assert reply.json["code"] == "approval_pending"
    card = json.loads(kb.cli("approvals", "show", reply.json["approval"]["id"], "--json"))
    assert card["sentence"] == sentence
    assert reply.json["detail"].startswith(f"{sentence} This call waits for a person's approval (")
    assert sentence in reply.json["detail"]


def test_a_loosening_is_recorded_at_the_start_and_at_a_reload(kb: Program) -> None:
    first = kb.records(type="policy.published")[0]["data"]
    assert first["loosened"] == ["stripe.refund-create"]
    before = len(kb.records(type="policy.published"))
    kb.write_policy(
        POLICY.replace("override:\n", "override:\n  stripe.people-read: {effect: allow}\n")
    )
    wait_until(
        lambda: len(kb.records(type="policy.published")) > before, what="the change is published"
    )
    last = kb.records(type="policy.published")[-1]["data"]
    assert sorted(last["loosened"]) == ["stripe.people-read", "stripe.refund-create"]
