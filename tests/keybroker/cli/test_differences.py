"""`keybroker policy diff`: files, the policy in force, versions; words and JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.services import open_services
from tests.keybroker.cli.conftest import Run

OLD = """
version: 1
credentials:
  key: {secret: "kv/a#k", hosts: [api.example], inject: bearer}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: api.example}, effect: allow}
  - {id: pay, agents: [bot], match: {method: POST, host: api.example, path: /pay}, effect: hold}
"""
NEW = """
version: 1
credentials:
  key: {secret: "kv/a#k", hosts: [api.example], inject: bearer}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: api.example}, effect: allow, use: [key]}
  - id: pay
    agents: [bot]
    match: {method: POST, host: api.example, path: /pay, json: {/n: {lte: 5}}}
    effect: allow
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(OLD)
    new.write_text(NEW)
    return old, new


def test_two_files_are_compared_without_a_workspace(
    run: Run, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYBROKER_WORKSPACE", str(tmp_path / "none"))
    done = run("policy", "diff", *files)
    assert done.status == 0, done.err
    assert "newly allowed" in done.out
    assert 'bot: held (medium) by "pay" -> allowed by "pay"' in done.out
    assert 'bot: held (medium) by "pay" -> denied (no rule)' in done.out
    assert 'bot: allowed by "read" -> allowed by "read"; with key' in done.out
    assert "POST https://api.example/pay" in done.out
    assert "what none of them comes upon is not seen" in done.err


def test_a_tunnel_that_closes_is_told_by_what_becomes_of_its_calls(
    run: Run, files: tuple[Path, Path]
) -> None:
    old, new = files
    through = (
        "version: 1\nrules:\n  - {id: t, agents: [b], match: {host: x.example}, effect: tunnel}\n"
    )
    old.write_text(through)
    new.write_text(
        through + "  - {id: d, agents: [b], match: {host: x.example, path: /a}, effect: deny}\n"
    )
    told = run("policy", "diff", old, new).out
    assert 'b: passed on undecrypted by "t" -> not passed on: each call in it is decided' in told


def test_limits_that_differ_are_told(run: Run, files: tuple[Path, Path]) -> None:
    old, new = files
    rule = "version: 1\nrules:\n  - {id: r, agents: [b], match: {host: x.example}, effect: allow"
    old.write_text(f"{rule}, limit: {{calls: 5, per: 1d}}}}\n")
    new.write_text(f"{rule}}}\n")
    told = run("policy", "diff", old, new).out
    assert 'b: allowed by "r" (5 calls in 1 day) -> allowed by "r" (without a limit)' in told


def test_of_a_file_in_shadow_that_is_said(run: Run, files: tuple[Path, Path]) -> None:
    old, new = files
    new.write_text(old.read_text() + "mode: shadow\n")
    done = run("policy", "diff", old, new)
    assert "no rule differs" in done.out
    assert "new.yaml is in shadow" in done.err


def test_machines_get_every_example_as_a_test_takes_it(run: Run, files: tuple[Path, Path]) -> None:
    told = run("policy", "diff", *files, "--json").json
    assert (told["changed_rules"], told["whole"]) == (["read", "pay"], True)
    kinds = {each["kind"] for each in told["differences"]}
    assert kinds == {"allow", "otherwise", "deny"}
    allowed = next(each for each in told["differences"] if each["kind"] == "allow")
    assert allowed["before"] == {
        "effect": "hold",
        "rules": ["pay"],
        "risk": "medium",
        "credentials": [],
        "limits": [],
    }
    example = allowed["examples"][0]
    assert (example["as"], example["method"]) == ("bot", "POST")
    explained = run(
        "policy", "explain", "--policy", files[1], "--as", "bot", "--header",
        "Content-Type: application/json", "--body", _body(files[0], example["body"]),
        example["method"], example["url"], "--json",
    ).json  # fmt: skip
    assert explained["effect"] == "allow"


def _body(beside: Path, text: str) -> Path:
    file = beside.with_name("body")
    file.write_text(text)
    return file


def test_the_policy_in_force_and_versions_can_be_named(
    run: Run, files: tuple[Path, Path], workspace: Path
) -> None:
    assert run("policy", "diff", "active", files[1]).status == 1
    services = open_services(workspace)
    services.policies.publish(OLD, "cli:test")
    services.policies.publish(NEW, "cli:test")
    services.close()
    assert "no rule differs" in run("policy", "diff", "active", files[1]).out
    assert "no rule differs" in run("policy", "diff", "version:1", files[0]).out
    assert "newly allowed" in run("policy", "diff", "version:1", "version:2").out
    missing = run("policy", "diff", "version:9", "active")
    assert (missing.status, "the newest is 2" in missing.err) == (1, True)
    for odd in ("version:", "version:x", "version:-1", "version:" + "9" * 30):
        assert run("policy", "diff", odd, "active").status == 2
    assert run("policy", "diff", files[0], "missing.yaml").status == 1


def test_names_cannot_drive_the_terminal(run: Run, files: tuple[Path, Path]) -> None:
    assert "\x1b" not in run("policy", "diff", *files).out
