"""The basis changes with what mattered to the decision, and with nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rules.basis import Definitions
from rules.load import load_policy
from rules.model import Subject

TEXT = """\
version: 1
credentials:
  stripe: {secret: "kv/stripe#key", hosts: [api.stripe.com, b.stripe.com], inject: bearer}
  crm: {secret: "kv/crm#key", hosts: [crm.example], inject: bearer}
approvers: {finance: [alice, bob, carol], security: [dave]}
tiers:
  money: {quorum: [{group: finance, count: 2}]}
  other: {quorum: [{group: security, count: 1}]}
rules:
  - id: refund
    agents: [bot]
    match: {method: [POST, PUT, PATCH], host: api.stripe.com}
    effect: hold
    risk: money
    summary: Refund
    use: [stripe]
  - {id: unrelated, agents: [other], match: {host: x.example}, effect: allow}
"""
BOT = Subject("bot", frozenset({"a", "b", "c"}), "alice")


def basis(text: str, subject: Subject = BOT) -> str:
    policy = load_policy(text)[0]
    rules = [rule for rule in policy.rules if rule.id == "refund"]
    return Definitions(policy).basis(subject, rules)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("#key\"", "#key2\""),
        ("inject: bearer}\n  crm", "inject: {header: X-Key}}\n  crm"),
        ("[alice, bob, carol]", "[alice, bob, eve]"),
        ("count: 2", "count: 3"),
        ("count: 2}]", "count: 2}], execute_within: 1m"),
        ("summary: Refund", "summary: Refund!"),
        ("PUT, ", ""),
        ("    use: [stripe]\n", ""),
        ("agents: [bot]", "agents: [bot, x]"),
    ],
)  # fmt: skip
def test_what_mattered_changes_it(old: str, new: str) -> None:
    assert old in TEXT
    assert basis(TEXT.replace(old, new, 1)) != basis(TEXT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1\n", "# moved down\n\n\nversion: 1\n"),
        ("kv/crm#key", "kv/crm#other"),
        ('kv/stripe#key", hosts', 'kv/stripe#key", env: A_KEY, hosts'),
        ("[dave]", "[erin]"),
        ("host: x.example", "host: y.example"),
        ("[POST, PUT, PATCH]", "[PATCH, POST, PUT]"),
        ("count: 1}]", "count: 1}], denials: 2"),
    ],
)
def test_what_did_not_matter_leaves_it(old: str, new: str) -> None:
    assert old in TEXT
    assert basis(TEXT.replace(old, new, 1)) == basis(TEXT)


@pytest.mark.parametrize(
    "subject",
    [
        Subject("bot2", BOT.tags, "alice"),
        Subject("bot", BOT.tags, "bob"),
        Subject("bot", frozenset("a"), "alice"),
    ],
)
def test_the_agent_counts(subject: Subject) -> None:
    assert basis(TEXT, subject) != basis(TEXT)


def test_it_is_the_same_in_every_process() -> None:
    """Sets are hashed in another order there."""
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from rules.basis import Definitions; from rules.load import load_policy\n"
        "from rules.model import Subject\n"
        "policy = load_policy(sys.stdin.read())[0]\n"
        "bot = Subject('bot', frozenset({'c', 'b', 'a'}), 'alice')\n"
        "print(Definitions(policy).basis(bot, policy.rules[:1]))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=TEXT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == basis(TEXT)


def test_it_is_the_same_whether_remembered_or_not() -> None:
    policy = load_policy(TEXT)[0]
    definitions, rules = Definitions(policy), policy.rules
    eve = Subject("eve", BOT.tags, BOT.owner)
    for subject in (BOT, eve, BOT, Subject("bot"), BOT):
        for some in (rules[:1], rules, rules[1:], rules[::-1]):
            assert definitions.basis(subject, iter(some)) == Definitions(policy).basis(
                subject, some
            )
    assert definitions.basis(BOT, rules) != definitions.basis(eve, rules)


OF_THE_FIRST_RELEASE = """\
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["localhost:47613"], inject: bearer}
rules:
  - id: write
    agents: [bot]
    match: {method: POST, host: "localhost:47613", path: /**}
    effect: hold
    summary: "Pay {form:n}"
    use: [pay]
"""


def test_it_is_the_same_as_in_the_first_release() -> None:
    """An upgrade takes back no approval; the digest stands in the workspace of that release."""
    policy = load_policy(OF_THE_FIRST_RELEASE)[0]
    bot = Subject("bot", frozenset({"billing"}), "alice")
    found = Definitions(policy).basis(bot, policy.rules)
    assert found == "8a7a7b021f6a35cd0f357ab8678aa5248f6a7d6d6fcd77149138700fcbef59a1"


def test_a_rule_that_lets_bodies_stream_is_another() -> None:
    read = TEXT.replace("effect: hold\n    risk: money", "effect: allow")
    stream = read.replace("effect: allow\n", "effect: allow\n    body: stream\n", 1)
    limited = stream.replace("body: stream\n", "body: stream\n    body_limit: 1MiB\n")
    assert len({basis(TEXT), basis(read), basis(stream), basis(limited)}) == 4


def test_limits_are_of_the_rule_and_so_is_the_tier_of_what_goes_beyond() -> None:
    allow = TEXT.replace("effect: hold\n    risk: money", "effect: allow")
    limited = allow.replace("effect: allow\n", "effect: allow\n    limit: {calls: 3, per: 1m}\n", 1)
    held = limited.replace("per: 1m}", "per: 1m, over: hold}")
    more = held.replace("calls: 3", "calls: 4")
    tier = held.replace("count: 1}]}\nrules", "count: 1}]}\n  medium: {denials: 2}\nrules")
    assert len({basis(text) for text in (TEXT, allow, limited, held, more, tier)}) == 6
    other = limited.replace("count: 1}]}\nrules", "count: 1}]}\n  medium: {denials: 2}\nrules")
    assert basis(other) == basis(limited)
    tenth = limited.replace("calls: 3", "sum: form:a, max: 0.10")
    assert basis(tenth) == basis(limited.replace("calls: 3", "sum: form:a, max: 0.1"))
