"""Tests in rules: they hold, or the policy is refused, with the line and what failed."""

from __future__ import annotations

import pytest

from rules import packs
from rules.errors import InvalidFile
from rules.include import Sources
from rules.load import load_policy
from rules.pack import read_pack
from rules.trial.inline import pack_failures

RULE = """\
version: 1
rules:
  - id: small
    agents: [bot, "tag:ci"]
    match: {method: POST, host: shop.example.com, path: /refunds, json: {/amount: {lte: 50}}}
    except: {json: {/to: thief}}
    effect: EFFECT
    tests:
"""


def refused(tests: str, effect: str = "allow") -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load_policy(RULE.replace("EFFECT", effect) + tests)
    return [str(problem) for problem in caught.value.problems]


def test_tests_that_hold_are_no_matter() -> None:
    text = (
        RULE.replace("EFFECT", "allow")
        + """\
      match:
        - {method: POST, path: /refunds, json: {amount: 50}}
        - method: POST
          url: "https://shop.example.com/refunds"
          body: '{"amount": 1}'
          headers: {content-type: application/json}
      no_match:
        - {method: POST, path: /refunds, json: {amount: 51}}
        - {method: POST, path: /refunds, json: {amount: 5, to: thief}}
        - {method: POST, url: "https://other.example.com/refunds", json: {amount: 5}}
        - {method: POST, path: /a/../refunds, json: {amount: 5}}
"""
    )
    policy, warnings = load_policy(text)
    assert warnings == ()
    plain, _ = load_policy(text.partition("    tests:")[0])
    assert policy.rules == plain.rules, "tests change nothing about what a rule is"


@pytest.mark.parametrize(
    ("test", "why"),
    [
        (
            "{method: POST, path: /refunds, json: {amount: 51}}",
            "if JSON /amount <= 50, and it is 51",
        ),
        ("{method: GET, path: /refunds}", "with POST, and it is GET"),
        ("{method: POST, path: /refund, json: {amount: 1}}", "at /refunds, and it is /refund"),
        ("{method: POST, path: /refunds}", "it has no body"),
        ("{method: POST, path: /refunds, body: x}", "its body is no JSON"),
        ("{method: POST, path: /refunds, json: {}}", "it is not there"),
        ("{method: POST, path: /refunds, json: {amount: '5'}}", 'it is "5"'),
        (
            "{method: POST, path: /refunds, json: {amount: 5, to: thief}}",
            "if it is no call with JSON /to = thief, and it is one",
        ),
        (
            '{method: POST, url: "https://other.example/refunds", json: {amount: 5}}',
            "to shop.example",
        ),
        ("{method: POST, path: //refunds, json: {amount: 5}}", "matches no rule: "),
    ],
)
def test_a_match_that_does_not_names_the_condition(test: str, why: str) -> None:
    (problem,) = refused(f"      match:\n        - {test}\n")
    assert problem.startswith('policy.yaml:10: error: rule "small": a test fails: ')
    assert why in problem


def test_a_no_match_that_does_is_refused() -> None:
    (problem,) = refused("      no_match: [{method: POST, path: /refunds, json: {amount: 5}}]\n")
    assert problem == (
        'policy.yaml:9: error: rule "small": a test fails: POST https://shop.example.com/refunds'
        " falls under it"
    )


def test_an_allow_takes_no_call_without_the_number_that_it_sums_up() -> None:
    limit = "allow\n    limit: {sum: json:/amount, max: 5, per: 1d}"
    match = "      match: [{method: POST, path: /refunds, json: {amount: 1.5}}]\n"
    without = "{method: POST, path: /refunds, json: {amount: -1}}"
    load_policy(RULE.replace("EFFECT", limit) + match + f"      no_match: [{without}]\n")
    (problem,) = refused(f"      match: [{without}]\n", limit)
    assert "must stand there once, as a plain decimal" in problem
    held = limit.replace("allow", "hold")
    load_policy(RULE.replace("EFFECT", held) + f"      match: [{without}]\n")


def test_rules_are_read_as_widely_as_they_are_when_they_decide() -> None:
    """A hold takes the text "5" for a number, and another letter case for the same path."""
    text = """\
      match: [{method: POST, path: /Refunds, json: {AMOUNT: "5"}}]
"""
    load_policy(RULE.replace("EFFECT", "hold") + text)
    assert "at /refunds, and it is /Refunds" in refused(text)[0]


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("      mach: []\n", 'unknown field "mach" (did you mean "match"?)'),
        ("      match: {method: GET}\n", "match must be a list of requests"),
        ("      match: [{method: GET, pth: /x}]\n", 'unknown field "pth" (did you mean "path"?)'),
        ("      match: [{method: GET}]\n", '"url" is missing, or the path alone'),
    ],
)
def test_mistakes_in_tests_are_mistakes_of_the_policy(tests: str, why: str) -> None:
    assert any(why in problem for problem in refused(tests))


def test_every_test_runs_and_each_that_fails_is_told() -> None:
    tests = "      match:\n" + "        - {method: GET, path: /refunds}\n" * 3
    assert [problem.split(":")[1] for problem in refused(tests)] == ["10", "11", "12"]


def test_a_policy_that_held_before_is_not_tried_again() -> None:
    text = RULE.replace("EFFECT", "allow") + "      match: [{method: GET, path: /refunds}]\n"
    policy, _ = load_policy(text, try_out=False)
    assert policy.rules[0].id == "small"


def test_agents_of_a_tag_have_it_in_tests() -> None:
    load_policy("""\
version: 1
rules:
  - id: ci
    agents: ["tag:ci"]
    match: {host: a.example, source: {tags: [ci], run: true}, time: {days: [mon], zone: UTC}}
    effect: allow
    tests:
      match: [{method: GET, path: /, run: true, at: "2026-03-02T09:30:00Z"}]
      no_match:
        - {method: GET, path: /, at: "2026-03-02T09:30:00Z"}
        - {method: GET, path: /, run: true, at: "2026-03-03T09:30:00Z"}
        - {method: GET, path: /, run: true}
""")


# -- of packs

PACK = """\
pack: shop
title: Shop
about: Orders.
hosts: [api.shop.example]
parameters:
  owner: {default: "*", about: Whose.}
  site: {kind: host, about: Where.}
rules:
  - id: pay
    class: high
    match: [{method: POST, path: "/${owner}/pay"}, {host: "${site}", path: /pay}]
    tests:
      match:
        - {method: POST, path: /acme/pay}
        - {method: GET, url: "https://${site}/pay"}
        - {method: GET, url: "https://site.example/pay"}
      no_match: [{method: GET, path: /acme/pay}]
"""
INCLUDING = """\
version: 1
include:
  - {file: ./shop.yaml, agents: [bot], with: {owner: contoso, site: a.example}}
"""


@pytest.mark.parametrize("name", packs.names())
def test_the_tests_of_shipped_packs_hold(name: str) -> None:
    text = packs.text_of(name)
    assert text is not None
    assert any(rule.tests for rule in read_pack(text, name).rules)
    assert pack_failures(text, packs.file_of(name)) == ()


def test_a_pack_is_tried_as_it_is_shipped_whatever_is_filled_in() -> None:
    load_policy(INCLUDING, sources=Sources({"./shop.yaml": PACK}))


def test_a_pack_whose_test_fails_is_refused_where_it_is_included() -> None:
    broken = PACK.replace("/acme/pay}]", "/acme/pay}, {method: POST, path: /acme/pay}]")
    with pytest.raises(InvalidFile) as caught:
        load_policy(INCLUDING, sources=Sources({"./shop.yaml": broken}))
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("policy.yaml", 3)
    assert "falls under it (./shop.yaml:17)" in problem.message
    load_policy(INCLUDING, sources=Sources({"./shop.yaml": broken}), try_out=False)


def test_an_override_can_bring_tests_of_its_own() -> None:
    tests = "{tests: {match: [{method: POST, path: PATH}]}, match: {method: POST, path: /x}}"
    text = f"{INCLUDING}override:\n  shop.pay: {tests}\n"
    sources = Sources({"./shop.yaml": PACK})
    with pytest.raises(InvalidFile) as caught:
        load_policy(text.replace("PATH", "/y"), sources=sources)
    (problem,) = caught.value.problems
    assert problem.line == 5
