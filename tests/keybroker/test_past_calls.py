"""Calls of the ledger explained: real calls through the real pipeline."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from audit.reading import open_ledger
from keybroker.past_calls import Candidate, explain_past
from keybroker.policy import subjects
from keybroker.replaying import earlier
from rules.load import load_policy
from tests.support.past import go_by
from tests.support.services import POLICY, World, payout, raw, refund, template, world

__all__ = ["template", "world"]

CALLS = {
    "read": raw(path="/v1/charges?limit=hunter2"),
    "refund": refund(),
    "payout": payout(),
    "no-delete": raw("DELETE", "/v1/charges/1"),
    "none": raw("PUT", "/v1/refunds"),
    "odd": raw("GET", "/v1/../x"),
}


@pytest.fixture
def busy(world: World) -> World:
    go_by(world, *CALLS.values())
    return world


def ids(world: World) -> dict[str, str]:
    """The calls by the names above."""
    kinds = ("call.sent", "approval.opened", "call.denied")
    found: list[str] = []
    for record in world.records(*kinds):
        if record["call"] not in found:
            found.append(record["call"])
    return dict(zip(CALLS, found, strict=True))


def explained(world: World, id_: str, policy: str = POLICY) -> dict[str, Any]:
    services = world.services
    with closing(open_ledger(world.path)) as db:
        told = explain_past(
            db,
            id_,
            earlier(services.policies),
            subjects(services.agents.list()),
            Candidate("next.yaml", load_policy(policy)[0]),
        )
    assert told is not None
    return told


@pytest.mark.parametrize(
    ("name", "effect", "risk", "code", "rules", "sentence"),
    [
        ("read", "allow", "low", None, ["read"], 'Rule "read" allows GET https://api.stripe.com'),
        ("refund", "hold", "medium", "approval_pending", ["refund"], 'Rule "refund" holds POST'),
        ("payout", "hold", "high", "approval_pending", ["payout"], "(high risk: 2 approvers"),
        ("no-delete", "deny", None, "policy_denied", ["no-delete"], "nothing is deleted here"),
        ("none", "deny", None, "policy_denied", [], "No rule lets"),
        ("odd", "deny", None, "request_ambiguous", [], "segment"),
    ],
)
def test_what_was_decided_is_told(
    busy: World, name: str, effect: str, risk: str | None, code: str | None, rules: list[str],
    sentence: str,
) -> None:  # fmt: skip
    told = explained(busy, ids(busy)[name])
    assert (told["effect"], told["risk"], told["code"], told["rules"]) == (
        effect,
        risk,
        code,
        rules,
    )
    assert sentence in told["sentence"]
    assert "hunter2" not in str(told)
    if name != "odd":
        assert told["version"] == 1
        assert told["present"] == {
            "policy": "next.yaml",
            "same": True,
            "outcome": effect,
            "rule": None,
            "certain": True,
            "why": "",
        }


def test_near_misses_are_those_of_the_policy_of_that_time(busy: World) -> None:
    told = explained(busy, ids(busy)["none"])
    failed = {near["rule"]: near["failed"] for near in told["near"]}
    assert failed["refund"] == [{"condition": "with POST", "found": "it is PUT"}]


def test_the_present_policy_may_say_something_else(busy: World) -> None:
    stricter = POLICY.replace("path: /v1/**}\n    effect: allow", "path: /v1/**}\n    effect: hold")
    now = explained(busy, ids(busy)["read"], stricter)["present"]
    assert (now["same"], now["outcome"], now["rule"], now["certain"]) == (
        False,
        "hold",
        "read",
        True,
    )
    asking = POLICY.replace("path: /v1/**}", 'path: /v1/**, query: {limit: "3"}}')
    now = explained(busy, ids(busy)["read"], asking)["present"]
    assert (now["outcome"], now["certain"]) == ("allow or deny", False)
    assert now["why"]


def test_an_approval_stands_for_its_call(busy: World) -> None:
    (opened, *_) = busy.records("approval.opened")
    told = explained(busy, opened["approval"])
    assert told["call"] == opened["call"]


def test_an_unknown_id_is_none(busy: World) -> None:
    with closing(open_ledger(busy.path)) as db:
        assert explain_past(db, "c-none", lambda _: None, {}, None) is None


def test_without_the_policy_of_that_time_the_record_speaks(busy: World) -> None:
    with closing(open_ledger(busy.path)) as db:
        told = explain_past(db, ids(busy)["read"], lambda _: None, {}, None)
    assert told is not None
    assert told["rules"] == ["read"]
    assert "policy version 1 cannot be read here" in told["sentence"]
    assert told["near"] == []
    assert told["present"] is None


def test_a_call_that_repeats_a_denied_one_is_explained_itself(world: World) -> None:
    """It was held and denied like the first, whose approval it names."""
    go_by(world, refund())
    (first,) = world.records("approval.opened")
    world.vote(first["approval"], decision="deny")
    go_by(world, refund())
    again = world.records("call.denied")[-1]
    assert again["call"] != first["call"]
    told = explained(world, again["call"])
    assert (told["call"], told["effect"], told["rules"]) == (again["call"], "hold", ["refund"])
    assert told["present"]["same"] is True


def test_what_was_tried_in_shadow_is_told(world: World) -> None:
    shadow = "    effect: deny\n    mode: shadow\n"
    world.publish(f"{POLICY}  - id: try\n    agents: [bot]\n    match: {{path: /v1/**}}\n{shadow}")
    go_by(world, raw(), raw(host="open.example", path="/x"))
    tried, other = (explained(world, sent["call"]) for sent in world.records("call.sent"))
    assert tried["shadow"] == {"effect": "deny", "rules": ["try"]}
    assert other["shadow"] is None


def test_the_run_of_a_call_is_known(world: World) -> None:
    """What is asked of it now is told for certain."""
    token = world.services.agents.run_token("bot", ttl=60, by="cli:test")
    go_by(world, raw(), client=world.client(token=token))
    go_by(world, raw())
    of_run, of_none = (sent["call"] for sent in world.records("call.sent"))
    for asked, same in (("true", of_run), ("false", of_none)):
        policy = POLICY.replace("path: /v1/**}", f"path: /v1/**, source: {{run: {asked}}}}}")
        for call in (of_run, of_none):
            now = explained(world, call, policy)["present"]
            assert (now["same"], now["certain"]) == (call == same, True)
