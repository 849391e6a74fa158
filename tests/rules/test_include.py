"""`include:` and `override:`: ordinary rules, each mistake told where it can be mended, and every
attempt to reach further than the place of a parameter or a file refused."""

from __future__ import annotations

import pytest

from rules.decide import Rulebook
from rules.errors import InvalidFile
from rules.include import Sources, included, shipped
from rules.load import load_policy
from tests.support.packs import BOT, request_of

PACK = """\
pack: shop
title: Shop
about: A shop.
hosts: [api.shop.example]
parameters:
  owner: {default: "*", about: Whose orders.}
  region: {default: [eu, us], about: Where.}
rules:
  - id: pay
    class: high
    match: {method: POST, path: "/${region}/${owner}/pay"}
    summary: "Pay {json:/amount} in ${region}"
    impact: Money leaves.
    undo: no
  - id: read
    class: low
    rest: true
    match: {method: GET, path: "/${region}/${owner}/**"}
  - id: write
    class: medium
    rest: true
    match: {method: POST, path: "/${region}/${owner}/**"}
    summary: Write
"""
POLICY = """\
version: 1
credentials:
  shop: {secret: "kv/shop#key", hosts: [api.shop.example], inject: bearer}
include:
  - file: ./shop.yaml
    agents: [bot]
    use: [shop]
"""


def load(text: str, pack: str = PACK):  # type: ignore[no-untyped-def]
    return load_policy(text, "p.yaml", Sources({"./shop.yaml": pack}))


def refused(text: str, pack: str = PACK) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load(text, pack)
    return [str(problem) for problem in caught.value.problems]


def decided(text: str, method: str, path: str, **more: object) -> tuple[str, str, tuple[str, ...]]:
    policy, _ = load(text)
    spec = {"method": method, "path": path, **more}
    decision = Rulebook(policy).decide(BOT, request_of(spec, "api.shop.example"))
    return decision.effect, decision.risk, decision.rules


def test_a_pack_becomes_ordinary_rules() -> None:
    policy, warnings = load(POLICY)
    assert warnings == ()
    pay = next(rule for rule in policy.rules if rule.id == "shop.pay")
    assert (pay.agents, pay.effect, pay.risk, pay.use) == (("bot",), "hold", "high", ("shop",))
    assert (pay.summary, pay.impact, pay.undo) == (
        "Pay {json:/amount} in eu, us",
        "Money leaves.",
        "no",
    )
    assert pay.matches[0].paths == ("/eu/*/pay", "/us/*/pay")
    assert pay.line == 5
    assert decided(POLICY, "GET", "/eu/acme/pay") == ("allow", "low", ("shop.read",))
    assert decided(POLICY, "POST", "/eu/acme/pay") == ("hold", "high", ("shop.pay",))
    assert decided(POLICY, "POST", "/us/acme/x") == ("hold", "medium", ("shop.write",))
    assert decided(POLICY, "POST", "/ap/acme/x") == ("deny", "low", ())


def test_parameters_narrow() -> None:
    text = POLICY + "    with: {owner: acme, region: eu}\n"
    assert decided(text, "GET", "/eu/acme/x")[0] == "allow"
    assert decided(text, "GET", "/eu/other/x")[0] == "deny"
    assert decided(text, "GET", "/us/acme/x")[0] == "deny"


@pytest.mark.parametrize(
    "value",
    ["a/b", "*", "**", "{x}", "${region}", "a%2Fb", "..", ".", "a b", "a?b", "a#b", "é", ""],
)
def test_a_value_cannot_leave_its_place(value: str) -> None:
    [problem] = refused(POLICY + f"    with: {{owner: {value!r}}}\n")
    assert problem.startswith("p.yaml:8: error: ")


def test_a_value_is_text_and_no_yaml() -> None:
    for value in ("{a: b}", "[[x]]", "7", "null", "[]"):
        assert refused(POLICY + f"    with: {{owner: {value}}}\n")


def test_a_shipped_pack_needs_no_file() -> None:
    text = "version: 1\ninclude:\n  - {pack: stripe, agents: bot, as: money}\n"
    policy, _ = load_policy(text)
    assert "money.refund-create" in {rule.id for rule in policy.rules}
    assert included(text) == (("stripe",), ())
    assert load_policy(text, sources=Sources(shipped(["stripe"])))[0].rules == policy.rules


def test_unknown_names_are_told_with_what_was_meant() -> None:
    text = """\
version: 1
include:
  - {pack: strpe, agents: bot}
  - {pack: stripe, agents: bot, with: {acount: x}}
  - {pack: stripe, as: two, agents: bot}
override:
  two.refund-creat: {risk: medium}
"""
    with pytest.raises(InvalidFile) as caught:
        load_policy(text, "p")
    told = [str(problem) for problem in caught.value.problems]
    assert told[0] == 'p:3: error: unknown pack "strpe" (did you mean "stripe"?)'
    assert told[1].startswith('p:4: error: unknown parameter "acount"')
    with pytest.raises(
        InvalidFile, match=r'p:5: .*two.refund-creat" \(did you mean "two.refund-create'
    ):
        load_policy(
            "version: 1\ninclude:\n  - {pack: stripe, as: two, agents: bot}\noverride:\n"
            "  two.refund-creat: {risk: medium}\n",
            "p",
        )


def test_one_name_for_two_packs_is_refused() -> None:
    again = POLICY + "  - {file: ./shop.yaml, agents: [other]}\n"
    [problem] = refused(again)
    assert "p.yaml:8" in problem
    assert 'line 5 are called "shop."' in problem
    policy, _ = load(again.replace("agents: [other]", "agents: [other], as: second"))
    assert "second.pay" in {rule.id for rule in policy.rules}


def test_an_own_rule_cannot_have_the_id_of_an_included_one() -> None:
    text = POLICY + "rules:\n  - {id: shop.pay, agents: bot, match: {}, effect: deny}\n"
    [problem] = refused(text)
    assert 'rule id "shop.pay" is taken by line 9' in problem


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("agents: [bot]", "agents: []", 6, "agents is empty; leave the field out or fill it in"),
        ("agents: [bot]", 'agents: "*"', 6, "agents: there is no rule for every agent"),
        ("use: [shop]", "use: [shpo]", 7, 'unknown credential "shpo" (did you mean "shop"?)'),
        ("hosts: [api", "hosts: [ap", 7, "shop may go to ap.shop.example only, not to api.shop"),
    ],
)
def test_a_slip_of_the_include_is_told_once(old: str, new: str, line: int, told: str) -> None:
    [problem] = refused(POLICY.replace(old, new))
    assert problem.startswith(f"p.yaml:{line}: error: {told}")


def test_an_override_says_what_cannot_be_changed_and_how_else() -> None:
    for change, told in (
        ("class: low", "write the class as risk: low, medium or high"),
        ("rest: false", "what a rule leaves to others is the pack's to say; change its match"),
        ("id: x", "a rule keeps its id; what else it says can change"),
        ("match: null", "match cannot be taken away; say what it should be"),
        ("effect: null", "effect cannot be taken away; say what it should be"),
        ("agents: null", "agents cannot be taken away; say what it should be"),
    ):
        [problem] = refused(POLICY + f"override:\n  shop.pay: {{{change}}}\n")
        assert problem.startswith("p.yaml:9: error: ") and told in problem
    # What the shipped fields do not go with is told where the effect was changed.
    for problem in refused(POLICY + "override:\n  shop.pay: {effect: tunnel}\n"):
        assert problem.startswith('p.yaml:9: error: rule "shop.pay": ')


def test_an_override_of_what_is_not_included_says_so() -> None:
    [problem] = refused(POLICY + "override:\n  stripe.refund: {effect: deny}\n")
    told = 'unknown rule of a pack "stripe.refund"; nothing is included as "stripe"'
    assert problem == f"p.yaml:9: error: {told}"


def test_a_match_of_an_override_that_names_no_host_is_about_the_packs_hosts() -> None:
    match = "{method: POST, path: /eu/acme/pay, json: {/amount: {lte: 5}}}"
    text = POLICY + f"override:\n  shop.pay: {{effect: allow, match: [{match}]}}\n"
    policy, _ = load(text)
    pay = next(rule for rule in policy.rules if rule.id == "shop.pay")
    assert [host.host for host in pay.matches[0].hosts] == ["api.shop.example"]
    # With a host of its own the override means what it says, and the credential stays at home.
    [problem] = refused(text.replace("{method", "{host: evil.example, method"))
    assert "shop may go to api.shop.example only, not to evil.example" in problem
    # What stands for the pack's parameters is the pack's own.
    assert refused(text.replace("/eu/acme", "/eu/${owner}"))


def test_an_own_rule_is_not_overridden() -> None:
    text = POLICY + (
        "override: {mine: {effect: deny}}\n"
        "rules:\n  - {id: mine, agents: bot, match: {}, effect: deny}\n"
    )
    [problem] = refused(text)
    assert problem == 'p.yaml:8: error: rule "mine" stands in this file; change it there'


def test_a_mistake_in_a_pack_is_told_at_the_include_with_its_place_in_the_pack() -> None:
    [problem] = refused(POLICY, PACK.replace("method: GET", "method: get"))
    assert problem.startswith('p.yaml:5: error: rule "shop.read": method: "get" is not a method')
    assert problem.endswith("(./shop.yaml:18)")
    [problem] = refused(POLICY, PACK.replace("class: low", "class: tiny"))
    assert problem.startswith("p.yaml:5: error: class must be low or medium or high")
    assert problem.endswith("(./shop.yaml:16)")


def test_a_mistake_in_an_override_is_told_there() -> None:
    text = POLICY + "override:\n  shop.pay:\n    risk: hgih\n    impct: x\n"
    assert refused(text) == [
        'p.yaml:11: error: rule "shop.pay": unknown field "impct" (did you mean "impact"?)'
    ]
    [problem] = refused(text.replace("    impct: x\n", ""))
    assert (
        problem == 'p.yaml:10: error: rule "shop.pay": unknown tier "hgih" (did you mean "high"?)'
    )


def test_a_mistake_in_what_the_include_gives_is_told_there() -> None:
    told = refused(POLICY.replace("use: [shop]", "use: [shopp]"))
    assert all(p.startswith("p.yaml:7: error: ") and "did you mean" in p for p in told)


@pytest.mark.parametrize(
    ("change", "effect", "risk", "loosened"),
    [
        ("shop.pay: {risk: medium}", "hold", "medium", True),
        ("shop.pay: {effect: allow}", "allow", "low", True),
        ("shop.pay: {risk: low}", "allow", "low", True),
        ("shop.pay: {effect: deny}", "deny", "low", False),
        ("shop.pay: {impact: Much.}", "hold", "high", False),
        ("shop.pay: {except: {path: /eu/x/pay}}", "hold", "high", True),
        ("shop.pay: {agents: [bot, other]}", "hold", "high", True),
    ],
)
def test_an_override_changes_one_rule_and_is_named_if_it_loosens(
    change: str, effect: str, risk: str, loosened: bool
) -> None:
    text = POLICY + f"override:\n  {change}\n"
    assert decided(text, "POST", "/eu/acme/pay")[:2] == (effect, risk)
    policy, warnings = load(text)
    assert policy.loosened == (("shop.pay",) if loosened else ())
    assert [(w.code, w.rule, w.line) for w in warnings] == [("loosened", "shop.pay", 9)] * loosened


def test_a_low_rule_can_be_held() -> None:
    text = POLICY + "override:\n  shop.read: {risk: medium}\n"
    assert decided(text, "GET", "/eu/acme/x") == ("hold", "medium", ("shop.read",))
    assert load(text)[0].loosened == ()


@pytest.mark.parametrize(
    "name",
    ["/etc/x.yaml", "../x.yaml", "./a/../x.yaml", "a//x.yaml", "a\\x.yaml", ".", "./x.txt", "./.."],
)
def test_a_file_lies_below_the_policy(name: str) -> None:
    [problem] = refused(POLICY.replace("./shop.yaml", name))
    assert problem.startswith("p.yaml:5: error: file: ")


def test_a_policy_is_no_pack_and_a_pack_includes_nothing() -> None:
    [problem] = refused(POLICY, POLICY)
    assert "this is a policy" in problem
    [problem] = refused(POLICY, PACK + "include: [{pack: stripe}]\n")
    assert "a pack includes no other; include both in the policy (./shop.yaml:24)" in problem
    for other in ("", "# nothing\n", "- a\n", "shop\n", "name: shop\n"):
        [problem] = refused(POLICY, other)
        assert "this is no pack; a pack has pack, title, about, hosts and rules" in problem


def test_a_file_that_could_not_be_read_says_why() -> None:
    with pytest.raises(InvalidFile, match=r"p:5: error: it is gone"):
        load_policy(POLICY, "p", Sources({}, {"./shop.yaml": "it is gone"}))
    with pytest.raises(InvalidFile, match="only a policy in a file can include files"):
        load_policy(POLICY, "p")


def test_a_published_text_uses_no_pack_that_was_not_published_with_it() -> None:
    with pytest.raises(InvalidFile, match='unknown pack "stripe"'):
        load_policy("version: 1\ninclude: [{pack: stripe, agents: bot}]\n", "p", Sources())


def test_the_digest_is_over_all_texts() -> None:
    one, other = Sources({"stripe": "a"}), Sources({"stripe": "b"})
    assert len({s.digest("x") for s in (one, other, Sources(), Sources({"slack": "a"}))}) == 4
