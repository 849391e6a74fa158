"""The card: what is shown of a held call, and to whom it says that they may vote."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from broker.cards import MOST_CLAIM, show
from broker.model import Approval
from rules.canonical import canonicalise
from tests.support.holding import hold
from tests.support.services import CANARY, START, World, payout, raw, refund


def card(world: World, held: Approval, viewer: str | None = None) -> dict[str, Any]:
    stored = world.services.holds.stored(held.id)
    shown = show(
        world.services.holds.get(held.id),
        None if stored is None else stored.outgoing,
        None if viewer is None else world.people[viewer],
        START,
    )
    json.dumps(shown)
    return shown


def test_the_card_shows_the_request_to_the_letter(world: World) -> None:
    held = hold(world, raw("POST", "/v1/refunds?x=%20y", body=b"amount=5&charge=ch_1"))
    shown = card(world, held)
    request = shown["request"]
    assert request["url"] == "https://api.stripe.com/v1/refunds?x=%20y"
    assert (request["path"], request["query"]) == ("/v1/refunds", "x=%20y")
    assert base64.b64decode(request["body_base64"]) == b"amount=5&charge=ch_1"
    assert request["body_text"] == "amount=5&charge=ch_1"
    assert request["fields"] == [["amount", "5"], ["charge", "ch_1"]]
    assert request["files"] == []
    assert ["accept-encoding", "identity"] in request["headers"]


def test_a_body_that_is_no_text_has_none(world: World) -> None:
    shown = card(world, hold(world, raw("POST", "/v1/refunds", body=b"amount=\xff")))
    assert shown["request"]["body_text"] is None
    assert shown["request"]["body_size"] == 8


def test_the_card_says_who_asks_what_and_what_follows(world: World) -> None:
    shown = card(world, hold(world, refund(headers=(("Keybroker-Reason", "the customer asked"),))))
    assert (shown["agent"], shown["owner"], shown["risk"]) == ("bot", "alice", "medium")
    assert shown["summaries"] == ["Refund 5"]
    assert shown["impacts"] == ["Money leaves the account."]
    assert shown["claim"] == "the customer asked"
    assert shown["rules"][0]["id"] == "refund"
    assert "held until approved" in shown["rules"][0]["sentence"]
    assert shown["needs"] == "Still needed: one person."
    assert shown["notes"] == []
    assert shown["resolution"] is None
    assert shown["confirm"] is None
    assert shown["policy_version"] == 1


def test_a_rule_without_a_summary_is_shown_by_its_request(world: World) -> None:
    assert card(world, hold(world, payout()))["summaries"] == ["POST api.stripe.com/v1/payouts"]


def test_the_credential_is_shown_by_name_and_slot_never_by_value(world: World) -> None:
    shown = card(world, hold(world, refund(headers=(("Authorization", "Bearer mine"),))))
    assert shown["credentials"] == [
        {
            "name": "stripe",
            "secret": "kv/stripe#api_key",
            "header": "authorization",
            "preview": "Bearer {stripe}",
            "hosts": ["api.stripe.com"],
        }
    ]
    text = json.dumps(shown)
    assert CANARY not in text
    assert "mine" not in text, "what the agent put into the slot is replaced, so it is not shown"


def test_a_long_claim_is_cut(world: World) -> None:
    long = canonicalise(refund(headers=(("Keybroker-Reason", "x" * 500),)))
    assert long.claim is not None
    held = hold(world, refund(headers=(("Keybroker-Reason", "x" * 500),)))
    assert len(card(world, held)["claim"]) <= MOST_CLAIM


def test_a_tier_that_asks_for_retyping_says_where_the_value_stands(world: World) -> None:
    shown = card(world, hold(world, payout()))
    assert shown["confirm"] == {
        "place": "form:amount",
        "hint": 'Retype the amount (form field "amount") to approve.',
    }
    held = replace(hold(world, payout(1)))
    held.card["confirm_place"] = "path"
    assert show(held, None, None, START)["confirm"]["hint"] == "Retype the path to approve."


@pytest.mark.parametrize(
    ("viewer", "may", "why"),
    [
        (None, False, "Log in to vote."),
        ("bob", True, "You may vote as admin or approver."),
        ("alice", False, "its tier excludes them"),
        ("victor", False, "may look but not vote"),
    ],
)
def test_the_viewer_is_told_whether_they_may_vote(
    world: World, viewer: str | None, may: bool, why: str
) -> None:
    you = card(world, hold(world), viewer)["you"]
    assert you["may_vote"] is may
    assert why in you["why"]


def test_who_has_voted_may_not_again_and_nobody_may_once_it_is_decided(world: World) -> None:
    held = hold(world, payout())
    world.vote(held.id, "bob", reason="ok", confirm="900")
    assert card(world, held, "bob")["you"] == {"may_vote": False, "why": "You have voted."}
    assert card(world, held, "carol")["you"]["may_vote"]
    world.vote(held.id, "carol", reason="sure", confirm="900")
    shown = card(world, held, "dave")
    assert shown["you"] == {"may_vote": False, "why": "This call is approved."}
    assert shown["needs"] == ""
    assert [(v["user"], v["decision"], v["reason"]) for v in shown["votes"]] == [
        ("bob", "approve", "ok"),
        ("carol", "approve", "sure"),
    ]
    assert shown["resolution"]["by"] == ["bob", "carol"]
    assert shown["resolution"]["state"] == "approved"
    assert shown["execute_by"] is not None


def test_an_ended_card_says_how_and_has_no_request(world: World) -> None:
    held = hold(world)
    world.vote(held.id, decision="deny", reason="not today")
    shown = card(world, held)
    assert shown["request"] is None
    assert shown["what"]["path"] == "/v1/refunds"
    assert shown["resolution"]["by"] == ["bob"]
    assert shown["resolution"]["reason"] == "not today"


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("expired", "expired without a decision"),
        ("unknown", "its result is unknown: it may have taken effect"),
        ("superseded", "was set aside because the policy or the agent changed"),
        ("used", "was approved and sent"),
        ("denied", "was denied"),
    ],
)
def test_a_card_tells_of_the_one_before(world: World, state: str, told: str) -> None:
    held = hold(world)
    held.card["earlier"] = {"approval": "a-0", "state": state, "at": "then", "reason": None}
    [note] = show(held, None, None, START)["notes"]
    assert told in note
    assert "a-0" in note
