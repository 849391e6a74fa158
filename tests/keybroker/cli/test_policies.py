"""`keybroker policy`: exit statuses, lines of problems, and the very decision of the proxy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.keybroker.cli.conftest import Run
from tests.rules.lint.test_check import CASES, HEADS
from tests.support.linting import policy_of

POLICY = """
version: 1
credentials:
  stripe: {secret: "kv/stripe#api_key", hosts: [api.stripe.com], inject: bearer}
approvers: {finance: [alice]}
tiers:
  medium: {quorum: [{group: finance, count: 1}]}
rules:
  - id: read
    agents: [bot]
    match: {method: GET, host: api.stripe.com, path: /v1/**}
    effect: allow
    use: [stripe]
  - id: refund
    agents: ["tag:finance"]
    match: {method: POST, host: api.stripe.com, path: /v1/refunds}
    effect: hold
    risk: medium
    use: [stripe]
"""


@pytest.fixture(autouse=True)
def policy(workspace: Path) -> Path:
    file = workspace / "policy.yaml"
    file.write_text(POLICY)
    return file


def test_a_valid_policy_warns_of_accounts_that_are_not_there_yet(run: Run) -> None:
    done = run("policy", "check", "--json")
    assert done.json["valid"] is True
    messages = [finding["message"] for finding in done.json["findings"]]
    assert any("there is no agent bot yet" in message for message in messages)
    assert any("there is no user alice yet" in message for message in messages)
    run("agent", "add", "bot")
    run("user", "add", "alice", "--role", "approver")
    codes = {finding["code"] for finding in run("policy", "check", "--json").json["findings"]}
    assert codes.isdisjoint(("unknown-agent", "unknown-user"))


def test_all_problems_come_with_file_and_line(run: Run, policy: Path) -> None:
    policy.write_text(POLICY.replace("allow", "alow").replace("risk: medium", "risk: none"))
    done = run("policy", "check")
    assert done.status == 1
    assert f"{policy}:12: error:" in done.err
    assert f"{policy}:18: error:" in done.err


def test_findings_come_with_a_code_and_a_call(run: Run, policy: Path) -> None:
    policy.write_text(
        POLICY + "  - {id: never, agents: [bot], match: {method: POST, host: a.example,"
        " json: {/a: {gt: 5, lt: 3}}}, effect: deny}\n"
    )
    run("agent", "add", "bot", "--tag", "finance")
    run("user", "add", "alice", "--role", "approver")
    done = run("policy", "check")
    assert done.status == 0
    assert f'{policy}:20: warning: rule "never": it can never match' in done.err
    assert "[never-matches]" in done.err
    assert "    example: bot: POST https://a.example/ (content-type: application/json)" in done.err
    assert done.out == f"{policy}: valid, 3 rules; 1 warning\n"
    assert "\x1b" not in done.err + done.out
    assert run("policy", "check", "--strict").status == 1
    [finding] = run("policy", "check", "--json").json["findings"]
    assert (finding["code"], finding["rule"], finding["line"]) == ("never-matches", "never", 20)
    example = finding["example"]
    assert (example["as"], example["method"], example["url"]) == (
        "bot", "POST", "https://a.example/",
    )  # fmt: skip


def test_a_file_elsewhere_is_checked_against_the_accounts_of_the_workspace(
    run: Run, policy: Path, tmp_path: Path
) -> None:
    file = policy.rename(tmp_path / "next.yaml")
    found = {f["code"] for f in run("policy", "check", file, "--json").json["findings"]}
    assert {"unknown-agent", "unknown-user", "unknown-tag"} <= found


def test_who_may_not_call_or_approve_counts_for_nobody(run: Run) -> None:
    run("agent", "add", "bot", "--tag", "finance")
    run("user", "add", "alice", "--role", "viewer")
    found = {f["code"] for f in run("policy", "check", "--json").json["findings"]}
    assert {"user-may-not-approve", "hold-tells-nobody"} <= found
    assert run("agent", "revoke", "bot").status == 0
    found = {f["code"] for f in run("policy", "check", "--json").json["findings"]}
    assert {"unknown-agent", "unknown-tag"} <= found


def test_a_file_elsewhere_is_checked_without_a_workspace(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(POLICY)
    monkeypatch.setenv("KEYBROKER_WORKSPACE", str(tmp_path / "none"))
    assert run("policy", "check", file).status == 0
    missing = run("policy", "check", tmp_path / "missing.yaml")
    assert missing.status == 2
    assert "there is no file" in missing.err
    told = run("policy", "check", tmp_path / "missing.yaml", "--json")
    assert told.status == 2
    found = json.loads(told.out)
    assert found["file"] == str(tmp_path / "missing.yaml")
    assert (found["valid"], found["findings"]) == (False, [])
    nowhere = run("policy", "check", "--json")
    assert nowhere.status == 2
    assert "there is no workspace" in json.loads(nowhere.out)["error"]


@pytest.mark.parametrize(
    ("arguments", "effect", "code", "rules"),
    [
        (["GET", "https://api.stripe.com/v1/charges"], "allow", None, ["read"]),
        (["GET", "https://api.stripe.com:443/v1/a?b=c"], "allow", None, ["read"]),
        (["POST", "https://api.stripe.com/v1/refunds"], "hold", "approval_pending", ["refund"]),
        (["DELETE", "https://api.stripe.com/v1/x"], "deny", "policy_denied", []),
        (["GET", "https://api.stripe.com/v1/../x"], "deny", "request_ambiguous", []),
        (["get", "https://api.stripe.com/v1/x"], "deny", "request_ambiguous", []),
        (["GET", "https://bücher.example/"], "deny", "request_ambiguous", []),
    ],
)
def test_a_call_is_explained_as_it_would_be_decided(
    run: Run, arguments: list[str], effect: str, code: str | None, rules: list[str]
) -> None:
    run("agent", "add", "bot", "--tag", "finance")
    told = run("policy", "explain", "--as", "bot", *arguments, "--json").json
    assert told.keys() >= {"effect", "risk", "code", "rules", "limits", "sentence"}
    assert (told["effect"], told["code"], told["rules"]) == (effect, code, rules)
    assert told["sentence"]


def test_the_limits_of_a_call_are_told(run: Run, tmp_path: Path) -> None:
    run("agent", "add", "bot")
    file = tmp_path / "limited.yaml"
    file.write_text(
        "version: 1\nrules: [{id: often, agents: [bot], match: {host: a.example},"
        " effect: allow, limit: {calls: 30, per: 1m}}]\n"
    )
    call = ("policy", "explain", "--policy", file, "--as", "bot", "GET", "https://a.example/")
    [limit] = run(*call, "--json").json["limits"]
    assert limit == {"rule": "often", "sentence": "at most 30 calls in 1 minute"}
    assert "limit of often: at most 30 calls in 1 minute\n" in run(*call).out


def test_tags_count_in_another_file_too(run: Run, policy: Path, tmp_path: Path) -> None:
    run("agent", "add", "bot", "--tag", "finance")
    file = policy.rename(tmp_path / "next.yaml")
    call = ("POST", "https://api.stripe.com/v1/refunds", "--json")
    told = run("policy", "explain", "--policy", file, "--as", "bot", *call).json
    assert told["rules"] == ["refund"]


def test_another_file_is_explained_without_a_workspace(
    run: Run, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYBROKER_WORKSPACE", str(tmp_path / "none"))
    call = ("GET", "https://api.stripe.com/v1/charges", "--json")
    told = run("policy", "explain", "--policy", policy, "--as", "bot", *call).json
    assert told["rules"] == ["read"]


def test_headers_and_body_count(run: Run, tmp_path: Path) -> None:
    run("agent", "add", "bot")
    url = "https://api.stripe.com/v1/x"
    odd = run("policy", "explain", "--as", "bot", "--header", "X-HTTP-Method-Override: DELETE",
              "GET", url, "--json").json  # fmt: skip
    assert odd["code"] == "request_ambiguous"
    assert run("policy", "explain", "--as", "bot", "--header", "none", "GET", url).status == 2
    missing = run("policy", "explain", "--as", "bot", "--body", tmp_path / "no", "GET", url)
    assert missing.status == 1


def test_a_finding_about_an_included_rule_stands_where_the_user_can_mend_it(
    run: Run, policy: Path
) -> None:
    never = "match: {method: POST, path: /v1/x, json: {/a: {gt: 5, lt: 3}}}"
    (policy.parent / "own.yaml").write_text(
        "pack: own\ntitle: Own\nabout: Ours.\nhosts: [a.example]\nrules:\n"
        f"  - {{id: odd, class: low, {never}}}\n"
    )
    policy.write_text(
        "version: 1\n"
        "credentials:\n"
        '  stripe: {secret: "kv/stripe#api_key", hosts: ["*.stripe.com"], inject: bearer}\n'
        "include:\n"
        "  - {pack: stripe, agents: [bot], use: [stripe]}\n"
        "  - {file: ./own.yaml, agents: [bot]}\n"
        "override:\n"
        "  stripe.people-read:\n"
        f"    {never}\n"
    )
    found = run("policy", "check", "--json").json["findings"]
    assert {finding["file"] for finding in found} == {str(policy)}
    nevers = {f["rule"]: f for f in found if f["code"] == "never-matches"}
    assert {rule: finding["line"] for rule, finding in nevers.items()} == {
        "own.odd": 6,
        "stripe.people-read": 8,
    }
    assert nevers["own.odd"]["message"].endswith("(./own.yaml:6)")
    assert "stripe.yaml:" in nevers["stripe.people-read"]["message"]


def test_every_finding_comes_by_the_command_too(run: Run, policy: Path) -> None:
    """In a workspace with people: each code, with its place, what it means and a call."""
    run("user", "add", "vera", "--role", "viewer")
    for name in ("olga", "paul", "quinn"):
        run("user", "add", name, "--role", "approver")
    run("agent", "add", "bot", "--tag", "ci", "--owner", "olga")
    run("agent", "add", "second")
    for case in CASES["findings"]:
        head = HEADS.get(case.get("head", ""), "version: 1\n")
        policy.write_text(policy_of(*case["rules"], head=head))
        done = run("policy", "check", "--json")
        found = {
            (finding["code"], finding["rule"]): finding
            for finding in json.loads(done.out)["findings"]
        }
        finding = found.get((case["code"], case.get("rule", "")))
        if case.get("accounts") == "nobody":
            continue  # what is told where there are no people
        assert finding is not None, (case, sorted(found))
        assert finding["file"] == str(policy) and finding["line"] > 0, finding
        assert finding["message"] and (finding["example"] or finding["severity"] == "error")
        errors = any(each["severity"] == "error" for each in found.values())
        assert done.status == int(errors), (case["code"], done.status)
