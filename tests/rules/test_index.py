"""The index: what a call is compared with is all that it may match, in file order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rules.index
from rules.decide import taking
from rules.index import Index, host_key, host_keys, names_of
from rules.load import load_policy
from rules.model import HostPattern, Subject
from rules.reading.call import Reading
from rules.request import Request

POLICY, _ = load_policy("""
version: 1
rules:
  - {id: any, agents: [bot], match: {}, effect: allow}
  - {id: wide, agents: ["tag:ci"], match: {host: "*.example", path: /V1/**}, effect: deny}
  - {id: exact, agents: [bot, "tag:ci"], match: {method: [GET, PUT], host: a.example, path: /v1/x},
     effect: allow}
  - {id: port, agents: [bot], match: {method: GET, host: "a.example:8443"}, effect: hold}
  - {id: raw, agents: [bot], match: {host: raw.example}, effect: tunnel}
""")
INDEX = Index(POLICY)


@given(
    st.builds(
        Subject,
        st.sampled_from(["bot", "other"]),
        st.sampled_from([frozenset[str](), frozenset({"ci"})]),
    ),
    st.sampled_from(["GET", "PUT", "POST"]),
    st.sampled_from(["a.example", "b.a.example", "raw.example", "example", "c.test"]),
    st.sampled_from([443, 8443]),
    st.sampled_from(["/v1/x", "/V1/X", "/v1", "/"]),
)  # fmt: skip
def test_a_plan_has_every_rule_that_covers_the_call(
    subject: Subject, method: str, host: str, port: int, path: str
) -> None:
    call = Reading(Request(method, "https", host, port, path, None, (), b""), subject)
    plan = INDEX.plan(subject, host, method)
    orders = [entry.order for entry in plan.at(path)]
    assert orders == sorted(orders)
    assert INDEX.plan(subject, host, method) is plan
    planned = [entry for entry in plan.at(path) if entry.may_cover(path, port)]
    for entry in INDEX.candidates(subject, host):
        if entry.rule.effect != "tunnel" and entry.matcher.holds_at_host(call, wide=entry.wide):
            assert entry in planned, entry.rule.id


def test_keys_are_the_name_every_suffix_and_any() -> None:
    assert host_keys("b.a.example") == ["b.a.example", "*.a.example", "*.example", ""]
    assert host_key(HostPattern("a.example", True, None)) == "*.a.example"
    assert host_key(HostPattern("a.example", False, 8443)) == "a.example"
    assert host_key(None) == ""


def test_a_name_that_looks_like_a_tag_is_none() -> None:
    assert names_of(Subject("tag:ci")) == []
    assert set(names_of(Subject("bot", frozenset({"ci"})))) == {"bot", "tag:ci"}
    assert INDEX.rules_for(Subject("tag:ci")) == ()
    assert set(INDEX.hosts_of(Subject("bot"))) == {"a.example"}


TEMPLATES = st.sampled_from(
    ["/**", "/", "/a", "/a/", "/A/b", "/a/*", "/a/{x}:b", "/a/b/**", "/{+x}/b", "/{x}/b", "/b/a/c"]
)
EFFECTS = st.sampled_from(["allow", "hold", "deny"])
CALLED = st.sampled_from(
    ["/", "/a", "/a/", "/A/B", "/a/x:b", "/a/b/c/d/e/f/g", "/a%2Fb/b", "/x/b", "/a.", "/a%3Fx/b"]
)


@given(
    st.lists(
        st.tuples(TEMPLATES | st.none(), st.sampled_from(["allow", "hold", "deny"])), min_size=5
    ),
    CALLED,
)
def test_where_paths_begin_is_only_a_quicker_way(
    made: list[tuple[str | None, str]], path: str
) -> None:
    text = "".join(
        f"  - {{id: r{n}, agents: [bot], effect: {effect}, "
        f"match: {{host: a.example{f', path: "{path}"' if path else ''}}}}}\n"
        for n, (path, effect) in enumerate(made)
    )
    index = Index(load_policy(f"version: 1\nrules:\n{text}")[0])
    call = Reading(Request("GET", "https", "a.example", 443, path, None, (), b""), Subject("bot"))
    plan = index.plan(Subject("bot"), "a.example", "GET")
    assert len(plan.entries) == len(made)
    assert taking(plan.at(path), call) == taking(plan.entries, call)


def test_a_path_of_many_segments_is_not_looked_up_at_each() -> None:
    text = "".join(
        f"  - {{id: r{n}, agents: [bot], match: {{host: a.example, path: /{n}}}, effect: allow}}\n"
        for n in range(9)
    )
    index = Index(load_policy(f"version: 1\nrules:\n{text}")[0])
    plan = index.plan(Subject("bot"), "a.example", "GET")

    class Counted(str):
        cuts = 0

        def __getitem__(self, at):  # type: ignore[no-untyped-def]
            type(self).cuts += 1
            return super().__getitem__(at)

        def lower(self) -> str:
            return self

    assert plan.at(Counted("/x" * 8_000)) == []
    assert Counted.cuts < 5


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules.index, "_MOST_PLANNED", 10)
    index = Index(POLICY)
    for n in range(100):
        index.plan(Subject("bot"), f"h{n}.example", "GET")
        assert len(index._plans) <= 10
