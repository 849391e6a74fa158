"""Findings: each with its place, and with a call that shows it on the path of a real call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rules.lint.check import Report, check
from rules.lint.codes import CODES
from rules.lint.finding import Finding
from rules.lint.view import Accounts
from rules.load import starter_policy
from rules.model import Subject
from tests.support.linting import HEAD, PEOPLE, SHOWS, checked, codes, confirm, policy_of

GROUPS = """\
version: 1
approvers: {finance: [paul, nobody], viewers: [vera, paul]}
tiers:
  own: {quorum: [{group: any, count: 1}], exclude: []}
  two: {quorum: [{group: any, count: 3}], exclude: [owner]}
  finance: {quorum: [{group: finance, count: 1}, {group: viewers, count: 1}], exclude: [olga, gone]}
"""
HEADS = {
    "head": HEAD,
    "two-hosts": HEAD.replace('["*.wide.example"]', '["*.wide.example", "b.example"]'),
    "keys": HEAD.replace("{header: Authorization}", "bearer")
    + '  key: {secret: "kv/k#k", hosts: [api.example.com], inject: {header: X-Key}}\n',
    "groups": GROUPS,
    "unmet": "version: 1\napprovers: {few: [paul]}\n"
    "tiers: {big: {quorum: [{group: few, count: 2}]}}\n",
}


CASES = yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text())
ACCOUNTS = {"people": PEOPLE, "nobody": Accounts((Subject("bot"),))}


@pytest.mark.parametrize("case", CASES["findings"], ids=lambda case: case["code"])
def test_a_finding_is_shown_by_its_example(case: dict[str, Any]) -> None:
    code, rule = case["code"], case.get("rule", "")
    head = HEADS.get(case.get("head", ""), "version: 1\n")
    text = policy_of(*case["rules"], head=head)
    report = confirm(text, ACCOUNTS.get(case.get("accounts", "")))
    assert (code, rule) in codes(report)
    lines = text.splitlines()
    for finding in report.findings:
        assert finding.file == "p.yaml"
        assert 1 <= finding.line <= len(lines)
        assert finding.severity == CODES[finding.code].severity or finding.severity == "note"
        if (finding.code, finding.rule) == (code, rule) and rule:
            assert f"id: {rule}" in lines[finding.line - 1] or code.startswith(("quorum", "owner"))
        assert finding.to_dict().keys() == {
            "code", "severity", "rule", "file", "line", "message", "example",
        }  # fmt: skip


def test_every_code_has_its_example() -> None:
    found = {case["code"] for case in CASES["findings"]}
    later = {"loosened", "looked-at-in-part"}
    assert {n for n, code in CODES.items() if code.severity != "error"} == set(SHOWS) - {
        "wider-than-credential",
        "quorum-cannot-be-met",
    }
    assert set(SHOWS) - found == later


@pytest.mark.parametrize("rules", CASES["in_order"])
def test_what_is_in_order_is_let_be(rules: list[str]) -> None:
    report = checked(*rules)
    assert {f.code for f in report.findings} <= {"risky-without-hold"}


def test_a_refused_policy_is_not_linted() -> None:
    report = checked(
        "id: r, agents: [bot], match: {host: a.example}, effect: alow",
        "id: s, agents: [bot], match: {host: a.example}, effect: allow",
    )
    assert [(f.code, f.rule, f.line, f.severity) for f in report.findings] == [
        ("unknown-word", "r", 3, "error")
    ]
    assert not report.valid


def test_what_is_not_yaml_is_one_finding() -> None:
    (finding,) = check("a: [", "p.yaml").findings
    assert (finding.code, finding.severity, finding.example) == ("invalid-yaml", "error", None)


def test_a_loosened_rule_is_named_with_a_call_of_it() -> None:
    text = (
        HEAD.replace("api.example.com", "api.stripe.com")
        + "include: [{pack: stripe, agents: [bot], use: [api]}]\n"
        + "override: {stripe.refund-create: {effect: allow}}\n"
    )
    assert ("loosened", "stripe.refund-create") in codes(confirm(text))


def test_a_new_workspace_has_no_findings() -> None:
    for solo in (True, False):
        assert check(starter_policy(solo)).findings == ()


def _only(report: Report, code: str) -> Finding:
    (finding,) = [f for f in report.findings if f.code == code]
    return finding


def test_an_unknown_agent_is_shown_by_the_first_rule_that_decides_something() -> None:
    text = policy_of(
        "id: dead, agents: [robot], match: {host: a.example, json: {/a: {gt: 5, lt: 3}}}, "
        "effect: allow",
        "id: alive, agents: [robot], match: {method: GET, host: a.example}, effect: allow",
    )
    finding = _only(confirm(text, PEOPLE), "unknown-agent")
    assert (finding.rule, finding.line) == ("alive", 4)
    assert finding.example is not None and finding.example.subject.name == "robot"


def test_a_tier_is_shown_by_a_rule_that_holds_something() -> None:
    text = policy_of(
        "id: no, agents: [bot], match: {host: a.example}, effect: deny",
        "id: dead, agents: [bot], match: {host: a.example, path: /x}, effect: hold, risk: own",
        "id: live, agents: [bot], match: {host: b.example}, effect: hold, risk: own",
        head="version: 1\ntiers: {own: {quorum: [{group: any, count: 1}], exclude: []}}\n",
    )
    (found,) = [f for f in confirm(text, PEOPLE).findings if f.code == "owner-may-approve"]
    assert found.rule == "live"
    assert found.example is not None


@pytest.mark.parametrize("risk", ["medium", "own"])
def test_of_a_person_in_a_group_that_no_hold_asks_that_is_said(risk: str) -> None:
    text = policy_of(
        f"id: r, agents: [bot], match: {{host: a.example}}, effect: hold, risk: {risk}",
        head="version: 1\napprovers: {unused: [gone], used: [left]}\n"
        "tiers: {own: {quorum: [{group: used, count: 1}]}}\n",
    )
    messages = {
        f.message.split(":")[0]: f.message
        for f in confirm(text, PEOPLE).findings
        if f.code == "unknown-user"
    }
    assert "no hold asks the group so far" in messages['group "unused"']
    assert ("no hold asks the group so far" in messages['group "used"']) is (risk != "own")


@pytest.mark.parametrize(
    ("match", "shows"),
    [
        ("method: GET, path: /x, when: 'call.path == \"/x\"'", "the example falls under it"),
        (
            "method: GET, when: 'call.query.x == \"1\"'",
            "the example is as all else in it asks, and the expression leaves it out",
        ),
        ("method: GET, json: {/a: {gt: 5, lt: 3}}, when: 'true'", ""),
    ],
)
def test_what_the_example_of_an_expression_shows_is_said(match: str, shows: str) -> None:
    text = policy_of(f"id: r, agents: [bot], match: {{host: a.example, {match}}}, effect: allow")
    finding = _only(confirm(text), "opaque-condition")
    assert f"({shows})" in finding.message or not shows


def test_of_many_credentials_in_one_call_each_rule_tells_once() -> None:
    names = [f"k{number}" for number in range(5)]
    head = "version: 1\ncredentials:\n" + "".join(
        f"  {name}: {{secret: kv/k#k, hosts: [api.example.com], inject: {{header: X-{name}}}}}\n"
        for name in names
    )
    match = "match: {method: GET, host: api.example.com}, effect: allow"
    rules = [f"id: r-{name}, agents: [bot], {match}, use: [{name}]" for name in names]
    found = [f for f in confirm(policy_of(*rules, head=head)).findings if "together" in f.code]
    assert [finding.rule for finding in found] == [f"r-{name}" for name in names[1:]]


def test_of_rules_that_were_not_compared_with_all_others_that_is_said() -> None:
    match = "match: {method: POST, host: a.example, path: /x"
    hold = f"id: ask, agents: [bot], {match}, json: {{/n: {{gt: 5}}}}}}, effect: hold"
    allows = [
        f"id: r{n}, agents: [bot], {match}, query: {{k{n}: {{exists: true}}}}}}, effect: allow"
        for n in range(22)
    ]
    for count, told in ((15, []), (22, [("looked-at-in-part", "ask")])):
        report = confirm(policy_of(hold, *allows[:count]))
        assert [pair for pair in codes(report) if pair[0] == "looked-at-in-part"] == told
