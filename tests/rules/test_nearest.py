"""What a denied or held call lacks, from the rules that come nearest, at a bounded cost."""

from __future__ import annotations

import json

import pytest

from rules.decide import Rulebook
from rules.load import load_policy
from rules.misses import Miss
from rules.model import Subject
from rules.nearest import misses, nearest
from rules.reading.call import Reading
from rules.request import Request

BOT = Subject("bot")
JSON = (("content-type", "application/json"),)


def book(*rules: str) -> Rulebook:
    text = "version: 1\nrules:\n" + "".join(f"  - {{agents: [bot], {rule}}}\n" for rule in rules)
    return Rulebook(load_policy(text)[0])


def post(path: str, body: object, host: str = "a.example") -> Request:
    text = json.dumps(body).encode()
    return Request("POST", "https", host, 443, path, "token=hunter2", JSON, text)


SMALL = (
    "id: small, match: {method: POST, host: a.example, path: /pay, json: {/n: {lte: 50}}},"
    " effect: allow"
)
CLOSER = (
    "id: closer, match: {method: POST, host: a.example, path: /pay,"
    " json: {/n: {lte: 90}, /to: me}}, effect: allow"
)
READ = "id: read, match: {method: GET, host: a.example}, effect: allow"
NEVER = (
    "id: never, match: {method: POST, host: a.example, path: /pay, json: {/n: {gt: 1000}}},"
    " effect: deny"
)


def test_a_denial_names_the_rule_that_the_call_misses_by_least() -> None:
    sentence = book(READ, CLOSER, SMALL).decide(BOT, post("/pay", {"n": 99})).sentence
    assert sentence == (
        'No rule lets agent "bot" make this call: POST https://a.example/pay. Rule "small" allows'
        " it only if JSON /n <= 50; it is 99."
    )
    sentence = book(READ, CLOSER, SMALL).decide(BOT, post("/pay", {"n": 60})).sentence
    assert sentence.endswith('Rule "closer" allows it only if JSON /to = me; it is not there.')


def test_where_no_rule_is_about_the_place_or_method_all_of_the_host_are_told() -> None:
    found = book(READ, SMALL)
    for request in (
        post("/other", {}),
        Request("PUT", "https", "a.example", 443, "/pay", None, (), b""),
    ):
        sentence = found.decide(BOT, request).sentence
        assert (
            "There are rules for GET https://a.example/**; POST https://a.example/pay" in sentence
        )


def test_what_a_deny_spares_is_not_told() -> None:
    decision = book(NEVER).decide(BOT, post("/pay", {"n": 5}))
    assert "never" not in decision.sentence
    assert "1000" not in decision.sentence
    decision = book(NEVER, SMALL).decide(BOT, post("/pay", {"n": 5000}))
    assert decision.rules == ("never",)
    assert "50" not in decision.sentence.removeprefix("5000")


def test_nothing_of_a_query_or_a_text_is_kept() -> None:
    text = "id: t, match: {method: POST, host: a.example, json: {/to: me}, query: {token: x}}"
    decision = book(f"{text}, effect: allow").decide(BOT, post("/pay", {"to": "hunter3"}))
    assert "if query token = x (it is another text)" in decision.sentence
    assert "hunter" not in decision.sentence


HOLD = "match: {method: POST, host: a.example, path: /pay}, effect: hold"


@pytest.mark.parametrize(
    ("hold", "told"),
    [
        (f"id: big, except: {{json: {{/n: {{lte: 50}}}}}}, {HOLD}", True),
        (f"id: big, {HOLD.replace('/pay}', '/pay, json: {/n: {gt: 50}}}')}", True),
        (f"id: big, {HOLD}", False),
    ],
)
def test_a_hold_says_what_would_have_passed_unless_nothing_would(hold: str, told: bool) -> None:
    decision = book(hold, SMALL).decide(BOT, post("/pay", {"n": 99}))
    assert decision.effect == "hold"
    ending = 'Rule "small" allows it only if JSON /n <= 50; it is 99.'
    assert decision.sentence.endswith(ending) is told


def test_few_rules_are_looked_at_for_a_sentence_and_fewer_with_a_large_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = book(*(SMALL.replace("small", f"r{i}").replace("50", str(i)) for i in range(300)))
    looked: list[str] = []
    import rules.nearest as module

    real = module.miss

    def counting(rule, *others):  # type: ignore[no-untyped-def]
        looked.append(rule.id)
        return real(rule, *others)

    monkeypatch.setattr(module, "miss", counting)
    decision = many.decide(BOT, post("/pay", {"n": 999}))
    assert looked == []  # before anybody asks
    assert decision.sentence == decision.sentence
    assert len(looked) == 16
    looked.clear()
    assert many.decide(BOT, post("/pay", {"n": 999, "x": "y" * 70_000})).sentence
    assert len(looked) == 2
    looked.clear()
    assert len(misses(many.index, BOT, Reading(post("/pay", {"n": 999})))) == 200


def test_a_rule_that_matches_otherwise_is_no_miss() -> None:
    both = book(
        "id: both, match: [{host: a.example, path: /pay, json: {/n: 1}}, {host: a.example}],"
        " effect: allow"
    )
    assert misses(both.index, BOT, Reading(post("/pay", {"n": 2}))) == []


def test_the_nearest_has_one_of_the_effects_asked_for() -> None:
    index = book(SMALL, NEVER).index
    call = Reading(post("/pay", {"n": 99}))
    found = nearest(index, BOT, call, ("deny",))
    assert isinstance(found, Miss)
    assert found.rule.id == "never"
    assert nearest(index, BOT, call, ("hold",)) is None
