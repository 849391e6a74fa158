"""`keybroker policy test` and `explain`: exit statuses, what differs, decisions laid open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.record import Draft
from broker.services import open_services
from tests.keybroker.cli.conftest import Run

POLICY = """
version: 1
credentials:
  stripe: {secret: "kv/stripe#api_key", hosts: [api.stripe.com], inject: bearer}
rules:
  - id: small
    agents: [bot]
    match: {method: POST, host: api.stripe.com, path: /v1/refunds, form: {amount: {lte: 1000}}}
    effect: allow
    use: [stripe]
  - id: refund
    agents: [bot]
    match: {method: POST, host: api.stripe.com, path: /v1/refunds, form: {amount: {gt: 1000}}}
    effect: hold
    risk: high
    use: [stripe]
    tests:
      match: [{method: POST, path: /v1/refunds, form: {amount: 4950}}]
  - id: tagged
    agents: ["tag:ci"]
    match: {method: GET, host: api.stripe.com}
    effect: allow
"""
CASES = """
- name: refund over the limit is held
  as: bot
  request:
    method: POST
    url: "https://api.stripe.com/v1/refunds"
    headers: {content-type: application/x-www-form-urlencoded}
    body: "amount=4950"
  expect: {effect: hold, risk: high, rule: refund, code: approval_pending}
- name: dots are ambiguous
  as: bot
  request: {method: GET, url: "https://api.stripe.com", target: "/v1/../x"}
  expect: {effect: deny, code: request_ambiguous}
- name: tags are given
  as: bot
  tags: [ci]
  request: {method: GET, url: "https://api.stripe.com/"}
  expect: {effect: allow, rules: [tagged], code: null, risk: low}
"""

FORM = ("--header", "Content-Type: application/x-www-form-urlencoded")
REFUND = ("POST", "https://api.stripe.com/v1/refunds")


@pytest.fixture
def policy(workspace: Path) -> Path:
    file = workspace / "policy.yaml"
    file.write_text(POLICY)
    return file


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    file = tmp_path / "cases.yaml"
    file.write_text(CASES)
    return file


@pytest.mark.usefixtures("policy")
def test_cases_that_hold_exit_with_0(run: Run, cases: Path) -> None:
    done = run("policy", "test", cases)
    assert (done.status, done.out) == (0, "3 passed, 0 failed\n")
    told = run("policy", "test", cases, "--json").json
    assert (told["passed"], told["failed"]) == (3, 0)
    first = told["cases"][0]
    assert first["name"] == "refund over the limit is held"
    assert first["passed"] is True
    assert first["got"].keys() == {"effect", "risk", "code", "rules", "sentence"}
    assert first["got"]["rules"] == ["refund"]


@pytest.mark.usefixtures("policy")
def test_what_differs_is_printed_and_exits_with_1(run: Run, cases: Path) -> None:
    cases.write_text(CASES.replace("effect: hold, risk: high", "effect: allow, risk: hihg"))
    done = run("policy", "test", cases)
    assert done.status == 1
    assert "failed refund over the limit is held" in done.out
    assert f"{cases}:2\n" in done.out
    assert "the effect is hold, not allow" in done.out
    assert 'the policy has no tier "hihg" (did you mean "high"?)' in done.out
    assert "2 passed, 1 failed" in done.out
    told = json.loads(run("policy", "test", cases, "--json").out)
    assert (told["passed"], told["failed"]) == (2, 1)
    assert told["cases"][0]["differences"]


def test_several_files_and_a_candidate_without_a_workspace(
    run: Run, policy: Path, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = policy.rename(tmp_path / "next.yaml")
    monkeypatch.setenv("KEYBROKER_WORKSPACE", str(tmp_path / "none"))
    done = run("policy", "test", "--policy", candidate, cases, cases)
    assert (done.status, done.out) == (0, "6 passed, 0 failed\n")
    assert run("policy", "test", cases).status == 2


@pytest.mark.usefixtures("policy")
def test_the_mistakes_of_all_files_are_told(run: Run, cases: Path, tmp_path: Path) -> None:
    odd, missing = tmp_path / "odd.yaml", tmp_path / "missing.yaml"
    odd.write_text(CASES.replace("tags: [ci]", "tags: ['tag:ci']"))
    done = run("policy", "test", odd, missing, cases, "--json")
    assert done.status == 2
    told = json.loads(done.out)["problems"]
    assert len(told) == 2
    assert 'a tag is written without tag: here: "ci"' in told[0]
    assert told[1] == f"there is no file {missing}"


def test_accounts_give_agents_their_tags(run: Run, policy: Path, cases: Path) -> None:
    cases.write_text(
        '- {as: tester, request: {method: GET, url: "https://api.stripe.com/"},'
        " expect: {effect: allow}}"
    )
    failed = run("policy", "test", cases)
    assert failed.status == 1
    assert 'no rule names the agent "tester"' in failed.out
    run("agent", "add", "tester", "--tag", "ci")
    assert run("policy", "test", cases).status == 0
    assert run("policy", "test", "--policy", policy, cases).status == 0


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {nme: x}", 'unknown field "nme" (did you mean "name"?)'),
        ("- [", "not valid YAML"),
        ("cases: []", "this must be a list of cases"),
        ("", "this must be a list of cases"),
        ("\xff", ""),
    ],
)
def test_a_file_that_is_no_test_file_exits_with_2(
    run: Run, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(text.encode("latin-1"))
    done = run("policy", "test", file)
    assert done.status == 2
    assert said in done.err
    assert json.loads(run("policy", "test", file, "--json").out)["problems"]
    missing = run("policy", "test", tmp_path / "missing.yaml")
    assert missing.status == 2
    assert "there is no file" in missing.err


def test_a_policy_that_is_refused_exits_with_1(run: Run, policy: Path, cases: Path) -> None:
    policy.write_text(POLICY.replace("amount: 4950", "amount: 950"))
    done = run("policy", "test", cases)
    assert done.status == 1
    assert f'{policy}:18: error: rule "refund": a test fails' in done.err
    assert 'only if form amount > 1000, and it is "950"' in done.err
    assert run("policy", "check").status == 1


@pytest.mark.usefixtures("policy")
def test_an_explanation_lays_the_decision_open(run: Run, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_text("amount=4950")
    call = ("policy", "explain", "--as", "bot", *FORM, *REFUND, "--body", body)
    told = run(*call, "--json").json
    assert (told["effect"], told["risk"], told["code"]) == ("hold", "high", "approval_pending")
    assert told["rules"] == ["refund"]
    assert told["credentials"] == ["stripe"]
    assert [tier["name"] for tier in told["tiers"]] == ["high"]
    assert told["matched"] == [
        {
            "rule": "refund",
            "effect": "hold",
            "line": 11,
            "calls": ["POST https://api.stripe.com/v1/refunds with form amount > 1000"],
            "decides": True,
        }
    ]
    (near,) = told["near"]
    assert (near["rule"], near["effect"], near["line"]) == ("small", "allow", 6)
    assert near["failed"] == [{"condition": "if form amount <= 1000", "found": 'it is "4950"'}]
    out = run(*call).out
    assert "hold: Rule" in out
    assert "risk: high (" in out
    assert 'only if form amount <= 1000; it is "4950"' in out


@pytest.mark.usefixtures("policy")
def test_a_denied_call_is_told_what_it_lacks(run: Run) -> None:
    told = run("policy", "explain", "--as", "bot", *FORM, *REFUND, "--json").json
    assert told["effect"] == "deny"
    assert told["sentence"].endswith(
        'Rule "small" allows it only if form amount <= 1000; it is not there.'
    )


@pytest.mark.usefixtures("policy")
def test_odd_urls_are_results_and_odd_options_are_not(run: Run) -> None:
    for url in ("https://[::1/", "https://u:p@a.example/", "https:///x", "a.example/x", ""):
        told = run("policy", "explain", "--as", "bot", "GET", url, "--json").json
        assert (told["effect"], told["code"], told["rules"]) == ("deny", "request_ambiguous", [])
    for option, value, says in (
        ("--at", "noon", '"noon" is no time'),
        ("--run", "t-1", '--run: "t-1" is neither true nor false, nor the id of a run'),
        ("--header", "x", "write 'NAME: VALUE'"),
    ):
        odd = run("policy", "explain", "--as", "bot", option, value, "GET", "https://a.example/")
        assert odd.status == 2
        assert says in odd.err


def test_a_run_is_one_or_any(run: Run, workspace: Path) -> None:
    one, other = "t-01kjpy53vjx8q2m4z7d9r0n6ce", "t-01kjpy53vjx8q2m4z7d9r0n6cf"
    (workspace / "policy.yaml").write_text(
        "version: 1\nrules:\n"
        "  - {id: runs, agents: [bot], match: {source: {run: true}}, effect: allow}\n"
        f"  - {{id: runaway, agents: [bot], match: {{source: {{run: {one}}}}}, effect: deny}}\n"
    )
    call = ("policy", "explain", "--as", "bot", "GET", "https://a.example/", "--json")
    for said, rules in ((one, ["runaway"]), (other, ["runs"]), ("true", ["runs"]), ("false", [])):
        assert run(*call, "--run", said).json["rules"] == rules
    assert run(*call).json["rules"] == []


@pytest.mark.usefixtures("policy")
def test_a_body_can_come_from_stdin(run: Run) -> None:
    call = ("policy", "explain", "--as", "bot", *FORM, *REFUND, "--body", "-", "--json")
    assert run(*call, stdin="amount=4950").json["rules"] == ["refund"]
    assert run(*call, stdin="amount=5").json["rules"] == ["small"]
    missing = run(*call[:-2], "/no/such/body", "--json")
    assert missing.status == 1
    says = "/no/such/body cannot be read (No such file or directory)"
    assert json.loads(missing.out) == {"error": says}
    assert missing.err == f"keybroker: {says}\n"


def test_of_a_file_in_shadow_that_is_said(run: Run, policy: Path) -> None:
    call = ("policy", "explain", "--as", "bot", *REFUND, "--policy", policy)
    policy.write_text("mode: shadow\n" + POLICY)
    assert "all shadow: told is what it would do" in run(*call).err
    policy.write_text(POLICY)
    assert "shadow" not in run(*call).err


def test_a_call_of_the_ledger_is_explained(run: Run, workspace: Path, policy: Path) -> None:
    run("agent", "add", "bot")
    services = open_services(workspace)
    try:
        version, _ = services.policies.publish(POLICY, "cli:test")
        where = {"scheme": "https", "host": "api.stripe.com", "port": 443, "path": "/v1/refunds"}
        data = {
            "what": {"method": "POST", **where},
            "rules": ["small"],
            "policy": version,
            "body_size": 10,
            "shadow": {"effect": "deny", "rules": [{"rule": "no", "effect": "deny"}]},
        }
        sent = Draft("call.sent", data, "c-1", "bot")  # type: ignore[arg-type]
        services.store.write(lambda tx: tx.append(sent))
    finally:
        services.close()
    told = run("policy", "explain", "c-1", "--json").json
    assert (told["effect"], told["rules"], told["version"]) == ("allow", ["small"], 1)
    assert told["present"]["same"] is True
    assert told["present"]["policy"] == "version 1"
    out = run("policy", "explain", "c-1").out
    assert "c-1 of bot, " in out
    assert 'allow: Rule "small" allows POST https://api.stripe.com/v1/refunds.' in out
    assert "version 1 says: the same" in out
    assert "in shadow: deny, by no" in out
    services = open_services(workspace)
    try:
        services.policies.publish("mode: shadow\n" + POLICY, "cli:test")
    finally:
        services.close()
    assert "version 1 says: the same" in run("policy", "explain", "c-1").out
    policy.write_text(POLICY.replace("lte: 1000", "lte: 10"))
    out = run("policy", "explain", "c-1", "--policy", policy).out
    assert f"{policy} says: allow or deny" in out
    assert "it cannot be told which" in out
    missing = run("policy", "explain", "c-2")
    assert missing.status == 1
    assert "the ledger has no call or approval" in missing.err
    assert run("policy", "explain", "c-1", "--as", "bot").status == 2
    assert run("policy", "explain", "GET", "https://a.example/").status == 2


def test_schemas_need_no_workspace(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYBROKER_WORKSPACE", str(tmp_path / "none"))
    titles = [run("policy", "schema", *of).json["title"] for of in ((), ("--tests",), ("--pack",))]
    assert titles == ["Keybroker policy", "Keybroker policy tests", "Keybroker pack"]


@pytest.mark.usefixtures("policy")
def test_an_agent_that_nobody_knows_is_remarked_on(run: Run) -> None:
    call = ("GET", "https://api.stripe.com/")
    done = run("policy", "explain", "--as", "bott", *call)
    assert 'there is no agent "bott" (did you mean "bot"?)' in done.err
    assert "there is no agent" not in run("policy", "explain", "--as", "bot", *call).err
