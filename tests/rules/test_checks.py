"""What concerns several parts of a policy at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.checks import can_be_met, host_inside, hosts_overlap, paths_overlap
from rules.errors import InvalidFile
from rules.hosts import parse_pattern, pattern_matches
from rules.load import load_policy
from rules.model import Quorum, Tier
from rules.paths import parse_template

HEAD = """\
version: 1
credentials:
  stripe: {secret: "kv/s#k", hosts: [api.stripe.com], inject: bearer}
  second: {secret: "kv/t#k", hosts: [api.stripe.com], inject: {header: Authorization}}
  third: {secret: "kv/u#k", hosts: [api.stripe.com], inject: {header: X-Key}}
  wide: {secret: "kv/w#k", hosts: ["*.stripe.com"], inject: bearer}
approvers: {finance: [alice, bob], security: [alice, dave]}
rules:
"""


def load(*rules: str) -> list[str]:
    """The messages of what is wrong with these rules, warnings included."""
    text = HEAD + "".join(f"  - {rule}\n" for rule in rules)
    try:
        problems = load_policy(text, "p")[1]
    except InvalidFile as error:
        problems = error.problems
    return [problem.message for problem in problems]


def one(fields: str) -> list[str]:
    return [
        message.removeprefix('rule "r": ') for message in load(f"{{id: r, agents: [a], {fields}}}")
    ]


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ("match: {host: api.stripe.com}, effect: allow, use: [stripe]", []),
        ("match: {host: 'api.stripe.com:443'}, effect: allow, use: [stripe]", []),
        ("match: {host: a.stripe.com}, effect: allow, use: [wide]", []),
        ("match: {host: '*.eu.stripe.com'}, effect: allow, use: [wide]", []),
        (
            "match: {host: [api.stripe.com, evil.example]}, effect: allow, use: [stripe]",
            ["stripe may go to api.stripe.com only, not to evil.example"],
        ),
        (
            "match: {host: 'api.stripe.com:8443'}, effect: allow, use: [stripe]",
            ["stripe may go to api.stripe.com only, not to api.stripe.com:8443"],
        ),
        (
            "match: {host: '*.stripe.com'}, effect: allow, use: [stripe]",
            ["stripe may go to api.stripe.com only, not to *.stripe.com"],
        ),
        (
            "match: {host: stripe.com}, effect: hold, use: [wide]",
            ["wide may go to *.stripe.com only, not to stripe.com"],
        ),
        (
            "match: {method: GET}, effect: allow, use: [stripe]",
            ["a rule with a credential needs a host"],
        ),
        (
            "match: [{host: api.stripe.com}, {}], effect: allow, use: [stripe]",
            ["a rule with a credential needs a host"],
        ),
        (
            "match: {host: api.stripe.com, scheme: http}, effect: allow, use: [stripe]",
            ["a credential travels over https only; leave scheme: http out"],
        ),
        (
            "match: {host: api.stripe.com}, effect: allow, use: [stripe, second]",
            ["stripe and second both go into the header authorization"],
        ),
        ("match: {host: api.stripe.com}, effect: allow, use: [stripe, third]", []),
        (
            "match: {host: api.stripe.com}, effect: allow, use: [Stripe]",
            ['unknown credential "Stripe" (did you mean "stripe"?)'],
        ),
        (
            "match: {}, effect: hold, risk: low",
            ["low never holds; use effect: allow, or a higher risk"],
        ),
        ("match: {}, effect: allow, risk: low", []),
        (
            "match: {}, effect: allow, risk: high",
            ["an allow runs by itself; use effect: hold with risk: high"],
        ),
        ("match: {}, effect: deny, risk: high", ["effect: deny has no use for a risk"]),
        (
            "match: {}, effect: allow, confirm: query:a",
            ["effect: allow asks nobody, so confirm has no effect"],
        ),
        ("match: {}, effect: hold, risk: high, confirm: query:a", []),
    ],
)
def test_one_rule(fields: str, messages: list[str]) -> None:
    assert one(fields) == messages


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ("match: {host: pypi.org}", []),
        ("match: {}", ["a tunnel needs the hosts it leads to"]),
        (
            "match: {host: pypi.org, path: /x}",
            ["a tunnel matches hosts only, since nothing inside it is read; leave the rest out"],
        ),
        (
            "match: {host: pypi.org, method: GET}",
            ["a tunnel matches hosts only, since nothing inside it is read; leave the rest out"],
        ),
        (
            "match: {host: pypi.org}, except: {path: /x}",
            ["a tunnel matches hosts only; leave except out"],
        ),
        (
            "match: {host: pypi.org}, use: [stripe]",
            ["a tunnel is not opened, so no credential can be put in"],
        ),
    ],
)
def test_a_tunnel(fields: str, messages: list[str]) -> None:
    assert one(f"effect: tunnel, {fields}") == messages


@pytest.mark.parametrize(
    "host", ["api.stripe.com", "'api.stripe.com:99'", "'*.com'", "x.stripe.com"]
)
def test_no_tunnel_to_a_host_with_a_credential(host: str) -> None:
    messages = one(f"effect: tunnel, match: {{host: {host}}}")
    assert messages
    assert all("and such hosts are never tunnelled" in message for message in messages)


def test_quorums() -> None:
    def met(*quorum: tuple[str, int], exclude: tuple[str, ...] = ()) -> bool:
        groups = {"finance": ["alice", "bob"], "security": ["alice", "dave"], "one": ["alice"]}
        entries = tuple(Quorum(group, count) for group, count in quorum)
        return can_be_met(Tier("t", entries, exclude, 1, 1, 1, "optional", "none"), groups)

    assert met(("any", 50))
    assert met(("finance", 2), ("any", 1))
    assert met(("finance", 1), ("security", 2))
    assert met(("security", 1), ("one", 1), ("finance", 1))
    assert not met(("finance", 3))
    assert not met(("finance", 2), exclude=("bob",))
    assert not met(("finance", 2), ("security", 2))
    assert not met(("one", 1), ("one", 1))
    assert not met(("nobody", 1))
    assert met(("finance", 1), exclude=("owner", "bob"))


def test_a_quorum_of_an_unknown_group() -> None:
    with pytest.raises(InvalidFile) as caught:
        load_policy(HEAD.replace("rules:", "tiers: {high: {quorum: [{group: fnance}]}}"))
    assert [problem.message for problem in caught.value.problems] == [
        'tier "high": unknown group "fnance" (did you mean "finance"?)'
    ]


A = "{id: a, agents: [bot], match: {method: GET, host: api.stripe.com, path: /v1/**}, effect: allow"


@pytest.mark.parametrize(
    ("other", "clash"),
    [
        ("agents: [bot], match: {host: api.stripe.com}, use: [second]", True),
        ("agents: [x, bot], match: {host: api.stripe.com, path: '/{v}/x'}, use: [second]", True),
        ("agents: [bot], match: {host: '*.stripe.com', method: [GET, PUT]}, use: [wide]", True),
        ("agents: [bot], match: {host: api.stripe.com}, use: [stripe]", False),
        ("agents: [bot], match: {host: api.stripe.com}, use: [third]", False),
        ("agents: [x], match: {host: api.stripe.com}, use: [second]", False),
        ("agents: ['tag:x'], match: {host: api.stripe.com}, use: [second]", False),
        ("agents: [bot], match: {host: api.stripe.com, method: PUT}, use: [second]", False),
        ("agents: [bot], match: {host: api.stripe.com, path: /v2/**}, use: [second]", False),
        (
            "agents: [bot], match: {host: api.stripe.com}, except: {path: /v1/**}, use: [second]",
            False,
        ),
        ("agents: [bot], match: {host: api.stripe.com, query: {a: b}}, use: [second]", False),
        ("agents: [bot], match: {host: b.stripe.com}, use: [wide]", False),
    ],
)
def test_two_credentials_for_one_slot(other: str, clash: bool) -> None:
    """Reported where the file makes it certain; otherwise the decision denies."""
    first, second = A + ", use: [stripe]}", f"{{id: b, effect: hold, {other}}}"
    for rules in ((first, second), (second, first)):
        messages = load(*rules)
        assert bool(messages) == clash
        if clash:
            assert len(messages) == 1
            assert "goes into the header authorization of calls by bot, where rule" in messages[0]
    if clash:
        used = "wide" if "wide" in other else "second"
        assert load(first, second)[0] == (
            f'rule "b": {used} goes into the header authorization of calls by bot, where rule "a" '
            "(line 9) puts stripe; part them with except:"
        )


HOSTS = st.builds(
    lambda wild, labels: ("*." if wild else "") + ".".join(labels),
    st.booleans(),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
)


@given(HOSTS, HOSTS, st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join))
def test_inside_and_overlap_agree_with_matching(one: str, other: str, host: str) -> None:
    first, second = parse_pattern(one), parse_pattern(other)
    in_first = pattern_matches(first, host, 443, 443)
    in_second = pattern_matches(second, host, 443, 443)
    assert hosts_overlap(first, second) == hosts_overlap(second, first)
    assert hosts_overlap(first, second) or not (in_first and in_second)
    if host_inside(first, second):
        assert in_second or not in_first
        assert hosts_overlap(first, second)


PARTS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3)
TEMPLATES = st.builds(
    lambda parts, rest: "/" + "/".join([*parts, "**"] if rest else parts), PARTS, st.booleans()
)


@given(TEMPLATES, TEMPLATES, st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
def test_path_overlap_agrees_with_matching(one: str, other: str, parts: list[str]) -> None:
    first, second = parse_template(one), parse_template(other)
    path = "/" + "/".join(parts)
    if first.matches(path) and second.matches(path):
        assert paths_overlap(first, second)
    assert paths_overlap(first, second) == paths_overlap(second, first)


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ("match: {}, effect: allow, body: stream", []),
        ("match: {}, effect: allow, body: stream, body_limit: 5GiB, summary: '{path}'", []),
        ("match: {}, effect: allow, body: buffer", []),
        ("match: {}, effect: allow, body: raw", ["body must be buffer or stream"]),
        (
            "match: {}, effect: hold, body: stream",
            ["effect: hold cannot stream; only an allow can be sent unread"],
        ),
        (
            "match: {}, effect: deny, body: stream",
            ["effect: deny cannot stream; only an allow can be sent unread"],
        ),
        (
            "match: {}, effect: allow, body: stream, summary: 'Pay {json:/a}'",
            ["a streamed body is not read; leave json: and form: places out"],
        ),
        (
            "match: {}, effect: allow, body_limit: 5GiB",
            ["body_limit is for body: stream; the setting limits others"],
        ),
        (
            "match: {}, effect: allow, body: stream, body_limit: much",
            [
                "body_limit: 'much' is not a size; write a number and a unit, such as 64KiB, 10MiB",
            ],
        ),
    ],
)
def test_only_what_its_head_decides_may_stream(fields: str, messages: list[str]) -> None:
    assert one(fields) == messages
