"""`keybroker policy replay`: what it prints, for people and for machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.record import Draft
from broker.services import open_services
from tests.keybroker.cli.conftest import Run

POLICY = """
version: 1
rules:
  - {id: read, agents: [bot], match: {method: GET, host: api.example}, effect: allow}
  - {id: write, agents: [bot], match: {method: POST, host: api.example}, effect: allow}
"""
STRICTER = POLICY.replace("effect: allow}\n", "effect: hold}\n")
ESCAPE = "/\x1b]0;gotcha\x07\x1b[2J"


def what(path: str, method: str = "GET") -> dict[str, object]:
    return {"method": method, "scheme": "https", "host": "api.example", "port": 443, "path": path}


@pytest.fixture
def new(run: Run, workspace: Path) -> Path:
    """A candidate; and a ledger of calls that were allowed under the policy before."""
    run("agent", "add", "bot")
    run("user", "add", "ann", "--role", "approver")
    services = open_services(workspace)
    try:
        version, _ = services.policies.publish(POLICY, "cli:test")
        for n, path in enumerate(["/a", "/a", ESCAPE]):
            data = {"what": what(path), "rules": ["read"], "policy": version, "body_size": 0}
            sent = Draft("call.sent", data, f"c-{n}", "bot")  # type: ignore[arg-type]
            services.store.write(lambda tx, sent=sent: tx.append(sent))  # type: ignore[misc]
    finally:
        services.close()
    file = workspace.parent / "new.yaml"
    file.write_text(STRICTER)
    return file


def test_what_would_change_is_listed_call_by_call(run: Run, new: Path) -> None:
    told = run("policy", "replay", new, "--json").json
    assert (told["calls"], told["unchanged"]) == (3, 0)
    first = told["changed"][0]
    assert (first["call"], first["before"], first["after"], first["rule"]) == (
        "c-0",
        "allow",
        "hold",
        "read",
    )
    assert [change["call"] for change in told["changed"]] == ["c-0", "c-1", "c-2"]
    assert told["uncertain"] == told["otherwise"] == []
    assert told["holds_per_day"] == {"ann": 3.0}
    (group,) = told["groups"]
    assert (group["calls"], group["agents"], group["examples"]) == (3, ["bot"], ["c-0", "c-2"])


def test_people_read_groups_and_examples(run: Run, new: Path) -> None:
    done = run("policy", "replay", new)
    assert done.status == 0
    assert "3 calls: 3 would change, 0 cannot be told, 0 stay as they were" in done.out
    assert 'allow -> hold: 3 calls of bot, by rule "read"' in done.out
    assert "GET https://api.example/a  c-0" in done.out
    assert "ann" in done.out.split("asked a day")[1]


def test_an_agent_cannot_drive_the_terminal(run: Run, new: Path) -> None:
    done = run("policy", "replay", new)
    assert "gotcha" in done.out
    assert "\x1b" not in done.out + done.err
    assert "\x07" not in done.out + done.err
    assert "\x1b" not in run("policy", "replay", new, "--json").out


def test_the_window_and_the_agent_count(run: Run, new: Path) -> None:
    assert run("policy", "replay", new, "--since", "1d", "--json").json["calls"] == 3
    assert run("policy", "replay", new, "--until", "1d", "--json").json["calls"] == 0
    assert run("policy", "replay", new, "--agent", "other", "--json").json["calls"] == 0
    odd = run("policy", "replay", new, "--since", "soon")
    assert odd.status == 2
    assert "so long ago: 36h, 7d" in odd.err
    empty = run("policy", "replay", new, "--since", "1h", "--until", "1d")
    assert (empty.status, "--until must be later than --since" in empty.err) == (2, True)
    assert run("policy", "learn", "--agent", "bot", "--since", "1h", "--until", "1d").status == 2


def test_an_agent_that_nobody_knows_is_remarked_on(run: Run, new: Path) -> None:
    for command in (("replay", new), ("learn",)):
        told = run("policy", *command, "--agent", "bott", "--json")
        assert 'there is no agent "bott" (did you mean "bot"?)' in told.err
        assert told.json["calls"] == 0
        assert "there is no agent" not in run("policy", *command, "--agent", "bot").err


def test_what_it_hangs_on_and_what_takes_no_part_is_said(run: Run, new: Path) -> None:
    shadow = "  - {id: no, agents: [bot], match: {host: api.example}, effect: deny, mode: shadow}\n"
    new.write_text(POLICY.replace("{method: GET,", "{method: GET, query: {a: b},") + shadow)
    done = run("policy", "replay", new)
    assert "it hangs on GET https://api.example/** with query a = b" in done.out
    assert 'of bot, perhaps by rule "read"' in done.out
    assert "rules in shadow take no part: no" in done.err


def test_of_what_cannot_be_told_it_is_not_said_that_no_rule_matches(
    run: Run, new: Path, workspace: Path
) -> None:
    services = open_services(workspace)
    try:
        data = {"what": what("/a"), "policy": 1, "code": "policy_denied"}
        services.store.write(lambda tx: tx.append(Draft("call.denied", data, "c-9", "bot")))
    finally:
        services.close()
    new.write_text(
        POLICY.replace("effect: allow}", "effect: allow, limit: {calls: 9, per: 1d}}", 1)
    )
    done = run("policy", "replay", new)
    assert "what its limit had left then" in done.out
    assert "no rule matches" not in done.out


def test_what_is_learnt_is_valid_and_replays_without_denials(
    run: Run, new: Path, tmp_path: Path
) -> None:
    file = tmp_path / "learnt.yaml"
    done = run("policy", "learn", "--agent", "bot", "--since", "7d", "-o", file)
    assert done.status == 0, done.err
    assert f"wrote {file}: 1 rule for 2 calls of bot" in done.out  # one is no path of anybody's
    assert run("policy", "check", file).status == 0
    told = run("policy", "replay", file, "--json").json
    assert [change["call"] for change in told["changed"]] == ["c-2"]
    again = run("policy", "learn", "--agent", "bot", "-o", file)
    assert (again.status, "--force" in again.err) == (1, True)
    assert run("policy", "learn", "--agent", "bot", "-o", file, "--force").status == 0


def test_what_is_learnt_goes_to_stdout_too(run: Run, new: Path) -> None:
    done = run("policy", "learn", "--agent", "bot")
    assert done.out.startswith("# A proposal")
    assert "\x1b" not in done.out
    told = run("policy", "learn", "--agent", "bot", "--json").json
    assert (told["calls"], told["denied"], told["left_out"], told["rules"]) == (2, 0, 1, 1)
    assert told["policy"] == done.out
    nobody = run("policy", "learn", "--agent", "nobody", "--json").json
    assert (nobody["calls"], nobody["rules"]) == (0, 0)
    assert run("policy", "learn").status == 2


def test_a_bad_candidate_is_refused_as_everywhere(run: Run, new: Path) -> None:
    new.write_text(STRICTER.replace("hold", "hole"))
    done = run("policy", "replay", new)
    assert done.status == 1
    assert f"{new}:4: error:" in done.err
    assert run("policy", "replay", new.with_name("none.yaml")).status == 1
