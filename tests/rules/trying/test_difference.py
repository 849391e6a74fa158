"""What changed is shown by a call that both policies were asked about."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decide import Rulebook
from rules.load import load_policy
from rules.model import Policy, Subject
from rules.trying import difference
from rules.trying.difference import Compared, Side, compare

HEAD = """\
version: 1
credentials:
  key: {secret: "kv/a#k", hosts: [api.example], inject: bearer}
  other: {secret: "kv/b#k", hosts: [api.example], inject: {header: X-Key}}
"""
AT = "host: api.example, path: /v1/refunds, method: POST"


def policy(*rules: str, head: str = HEAD) -> Policy:
    lines = "".join(
        f"  - {{{'' if 'id:' in rule else f'id: r{i}, '}agents: [bot], {rule}}}\n"
        for i, rule in enumerate(rules)
    )
    return load_policy(head + "rules:\n" + lines)[0]


def confirmed(old: Policy, new: Policy, *agents: Subject) -> Compared:
    """The comparison, after every example of it was decided again."""
    found = compare(old, new, agents)
    for each in found.differences:
        assert each.examples
        for example in each.examples:
            subject, request = example.subject, example.request
            assert subject in each.subjects
            for book, side in ((Rulebook(old), each.before), (Rulebook(new), each.after)):
                if request.method == "CONNECT":
                    said = book.tunnel(subject, request.host, request.port)
                else:
                    said = book.decide(subject, request)
                assert Side.of(said) == side
    return found


def told(old: Policy, new: Policy) -> set[tuple[str, str]]:
    return {(d.before.effect, d.after.effect) for d in confirmed(old, new).differences}


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ([], [], set()),
        ([f"match: {{{AT}}}, effect: allow"], [f"match: {{{AT}}}, effect: allow"], set()),
        ([], [f"match: {{{AT}}}, effect: allow"], {("deny", "allow")}),
        ([f"match: {{{AT}}}, effect: allow"], [], {("allow", "deny")}),
        (
            [f"match: {{{AT}}}, effect: allow"],
            [f"match: {{{AT}}}, effect: hold"],
            {("allow", "hold")},
        ),
        (
            [f"match: {{{AT}, json: {{/n: {{lte: 50}}}}}}, effect: allow"],
            [f"match: {{{AT}, json: {{/n: {{lte: 100}}}}}}, effect: allow"],
            {("deny", "allow")},
        ),
        (
            [f"match: {{{AT}, json: {{/n: {{lte: 50}}}}}}, effect: allow"],
            [f"match: {{{AT}}}, effect: allow"],
            {("deny", "allow")},
        ),
        (
            [f"match: {{{AT}}}, effect: allow"],
            [f"match: {{{AT}}}, except: {{form: {{a: b}}}}, effect: allow"],
            {("allow", "deny")},
        ),
        (
            [f"match: {{{AT}}}, effect: allow"],
            [
                f"match: {{{AT}}}, effect: allow",
                "match: {path: /v1/refunds, query: {dry: '1'}}, effect: deny",
            ],
            {("allow", "deny")},
        ),
        (
            [f"match: {{{AT}, headers: {{x-a: b}}}}, effect: hold"],
            [f"match: {{{AT}, headers: {{x-a: {{not_in: [b]}}}}}}, effect: hold"],
            {("hold", "deny"), ("deny", "hold")},
        ),
        (
            ["match: {host: api.example, path: /v1/**}, effect: allow"],
            ["match: {host: api.example, path: '/v1/*'}, effect: allow"],
            {("allow", "deny")},
        ),
        (
            [f'match: {{{AT}, time: {{from: "09:00", to: "17:00", zone: UTC}}}}, effect: allow'],
            [f'match: {{{AT}, time: {{from: "09:00", to: "18:00", zone: UTC}}}}, effect: allow'],
            {("deny", "allow")},
        ),
        (
            [f"match: {{{AT}, source: {{run: true}}}}, effect: allow"],
            [f"match: {{{AT}}}, effect: allow"],
            {("deny", "allow")},
        ),
        (
            [f"match: {{{AT}, json: {{/n: {{lte: 50}}}}}}, effect: allow"],
            [
                f"match: {{{AT}, json: {{/n: {{lte: 50}}}}}}, effect: allow",
                "match: {method: POST, path: /v1/**}, effect: hold",
            ],
            {("allow", "hold"), ("deny", "hold")},
        ),
        (
            ["match: {host: api.example, method: GET}, effect: allow"],
            ["match: {host: api.example}, effect: allow"],
            {("deny", "allow")},
        ),
        (
            [f"match: {{{AT}}}, effect: allow, use: [key]"],
            [f"match: {{{AT}}}, effect: allow, use: [key, other]"],
            {("allow", "allow")},
        ),
        (
            [f"match: {{{AT}}}, effect: hold, risk: medium"],
            [f"match: {{{AT}}}, effect: hold, risk: high"],
            {("hold", "hold")},
        ),
        (
            [f"match: {{{AT}}}, effect: allow, limit: {{calls: 5, per: 1d}}"],
            [f"match: {{{AT}}}, effect: allow, limit: {{calls: 9, per: 1d}}"],
            {("allow", "allow")},
        ),
        (
            [f"match: {{{AT}}}, effect: allow, limit: {{sum: json:/n, max: 5, per: 1d}}"],
            [f"match: {{{AT}}}, effect: allow"],
            {("deny", "allow"), ("allow", "allow")},
        ),
        (
            [f"match: {{{AT}}}, effect: hold, limit: {{sum: form:n, max: 5, per: 1d}}"],
            [f"match: {{{AT}}}, effect: hold, limit: {{sum: form:n, max: 5, per: 1d, over: hold}}"],
            {("hold", "hold")},
        ),
        (
            [],
            [f"match: {{{AT}}}, except: {{query: {{dry: {{exists: false}}}}}}, effect: allow"],
            {("deny", "allow")},
        ),
        (
            [
                f"match: {{{AT}}}, except: {{host: '*.example', path: /v1/**,"
                " json: {/n: {exists: false}}}, effect: hold"
            ],
            [],
            {("hold", "deny")},
        ),
        (
            ["id: r, match: {host: api.example, query: {q: x}}, effect: allow"],
            ["id: r, match: {method: POST, path: /v1/**}, effect: hold"],
            {("allow", "hold"), ("allow", "deny"), ("deny", "hold")},
        ),
        (
            ["match: {host: pypi.org}, effect: tunnel"],
            ["match: {host: '*.org'}, effect: tunnel"],
            {("deny", "tunnel")},
        ),
        (
            ["id: t, match: {host: '*.org'}, effect: tunnel"],
            [
                "id: t, match: {host: '*.org'}, effect: tunnel",
                "id: d, match: {host: pypi.org, method: DELETE}, effect: deny",
            ],
            {("tunnel", "deny")},
        ),
        (
            [
                "id: t, match: {host: pypi.org}, effect: tunnel",
                "id: d, match: {host: '*.org', method: DELETE}, effect: deny",
            ],
            ["id: t, match: {host: pypi.org}, effect: tunnel"],
            {("deny", "tunnel")},
        ),
    ],
)
def test_each_change_has_its_call(
    old: list[str], new: list[str], changes: set[tuple[str, str]]
) -> None:
    assert told(policy(*old), policy(*new)) == changes


def test_a_tier_or_group_that_changes_changes_its_rules() -> None:
    def with_group(people: str) -> Policy:
        head = f"approvers: {{g: [{people}]}}\ntiers: {{t: {{quorum: [{{group: g, count: 1}}]}}}}\n"
        return policy(f"match: {{{AT}}}, effect: hold, risk: t", head="version: 1\n" + head)

    found = compare(with_group("a"), with_group("a, b"))
    assert found.changed == ("r0",)
    assert compare(with_group("a"), with_group("a")).changed == ()


def test_a_line_that_moved_is_no_change() -> None:
    one = policy(f"match: {{{AT}}}, effect: allow")
    other = policy(f"match: {{{AT}}}, effect: allow", head="# moved\n" + HEAD)
    assert compare(one, other).tried == 0


def test_agents_with_the_same_change_stand_together() -> None:
    rules = (
        "rules:\n  - {id: r, agents: [a, b, 'tag:t'], match: {host: api.example}, effect: allow}\n"
    )
    new = load_policy("version: 1\n" + rules)[0]
    agents = Subject("c", frozenset({"t"})), Subject("idle")
    found = confirmed(policy(), new, *agents)
    names = {subject.name for each in found.differences for subject in each.subjects}
    assert names == {"a", "b", "c"}
    strange = confirmed(policy(), new)
    assert {s.name for d in strange.differences for s in d.subjects} == {
        "a",
        "b",
        difference.STAND_IN,
    }


def test_there_are_few_examples_and_none_says_what_another_does() -> None:
    many = ", ".join(f"/p{n}" for n in range(30))
    found = confirmed(
        policy(), policy(f"match: {{host: api.example, path: [{many}]}}, effect: allow")
    )
    (only,) = found.differences
    places = [(e.request.method, e.request.path) for e in only.examples]
    assert len(places) == len(set(places)) == difference.EXAMPLES


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "MOST_CALLS", 10)
    new = policy(*(f"match: {{host: api.example, path: /p{n}}}, effect: allow" for n in range(9)))
    found = compare(policy(), new)
    assert not found.whole
    assert found.tried < 60


RULES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "{host: api.example}",
                "{host: '*.example', method: [GET, POST]}",
                "{host: api.example, path: '/a/{x}', json: {/n: {gt: 5}}}",
                "{host: api.example, path: /a/**, query: {q: {prefix: x}}}",
                "{host: api.example, graphql: {kind: mutation, fields: [a]}}",
                "{host: api.example, mcp: {tool: 'del*', arguments: {/p: x}}}",
                "{host: api.example, upgrade: websocket}",
                "{path: /a, form: {a: {in: [b, c]}}}",
            ]
        ),
        st.sampled_from(["allow", "hold", "deny"]),
    ),
    max_size=3,
)


@settings(max_examples=40)
@given(RULES, RULES)
def test_every_example_is_confirmed(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> None:
    one, other = (
        policy(*(f"match: {match}, effect: {effect}" for match, effect in rules))
        for rules in (old, new)
    )
    confirmed(one, other)


@settings(max_examples=40)
@given(RULES)
def test_of_equal_policies_nothing_is_said(rules: list[tuple[str, str]]) -> None:
    one = policy(*(f"match: {match}, effect: {effect}" for match, effect in rules))
    assert compare(one, policy(*(f"match: {m}, effect: {e}" for m, e in rules))).differences == ()


def of_pack(name: str, more: str = "") -> Policy:
    return load_policy(f"version: 1\ninclude: [{{pack: {name}, agents: bot}}]\n{more}")[0]


@pytest.mark.parametrize(
    ("name", "more", "changes"),
    [
        ("pypi", "", set()),
        ("crates-io", "override: {crates-io.publish: {effect: deny}}", {("hold", "deny")}),
        ("slack", "override: {slack.message: {effect: allow}}", {("hold", "allow")}),
        (
            "slack",
            "override: {slack.message: {match: {method: POST, path: /api/chat.postMessage}}}",
            {("hold", "deny")},  # the rest leaves to it what the pack gave it
        ),
    ],
)
def test_packs_and_overrides_are_compared_as_what_they_make(
    name: str, more: str, changes: set[tuple[str, str]]
) -> None:
    assert told(of_pack(name), of_pack(name, more)) == changes
