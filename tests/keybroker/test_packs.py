"""Packs in words and as JSON."""

from __future__ import annotations

from keybroker.packs import counts, find, hosts, overview, shipped, whole
from rules import packs


def test_every_shipped_pack_can_be_told() -> None:
    assert [pack.name for pack in shipped()] == list(packs.names())
    for pack in shipped():
        told = whole(pack)
        assert len(told["rules"]) == sum(counts(pack).values()) == sum(told["classes"].values())
        assert all(rule["calls"] for rule in told["rules"])
        assert overview(pack).items() <= told.items()


def test_a_pack_is_found_by_its_name_only() -> None:
    assert find("stripe") is not None
    for name in ("Stripe", "../stripe", "stripe.yaml", "", "__init__"):
        assert find(name) is None


def test_the_hosts_of_single_rules_are_told_too() -> None:
    pack = find("slack")
    assert pack is not None
    assert hosts(pack) == ["slack.com", "www.slack.com", "files.slack.com"]


def test_rules_are_told_in_words() -> None:
    pack = find("stripe")
    assert pack is not None
    by_id = {rule["id"]: rule for rule in whole(pack)["rules"]}
    assert by_id["refund-create"]["class"] == "high"
    assert by_id["refund-create"]["undo"].startswith("no")
    assert by_id["read"]["calls"][0].startswith("GET or HEAD https://api.stripe.com")
    assert by_id["read"]["calls"][0].endswith("of what no other rule has")
