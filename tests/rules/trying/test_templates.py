"""Templates: what varies by evidence becomes a variable, and every path stays covered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.paths import parse_template
from rules.trying.templates import MOST_DEPTH, Tally, Templates

DAY = "2026-11-22T09:00:00.000000Z"


def found(*paths: str, labels: dict[str, str] | None = None) -> list[str]:
    templates: Templates[str] = Templates()
    for path in paths:
        templates.add(path, (labels or {}).get(path, "same"), Tally(1, DAY, DAY))
    return sorted(template for template, _, _ in templates.found())


@pytest.mark.parametrize(
    ("paths", "templates"),
    [
        (["/"], ["/"]),
        (["/v1/charges", "/v1/refunds"], ["/v1/charges", "/v1/refunds"]),
        (["/v1/charges/ch_1a2b3c4d"], ["/v1/charges/ch_1a2b3c4d"]),  # one value varies not
        (["/v1/charges/ch_1a2b3c4d", "/v1/charges/ch_9z8y7x6w"], ["/v1/charges/{id}"]),
        (
            ["/users/1", "/users/2/keys/7", "/users/3/keys/9"],
            ["/users/{id}", "/users/{id}/keys/{id2}"],
        ),
        (["/users/1", "/users/2", "/users/me"], ["/users/me", "/users/{id}"]),
        (["/2/tweets", "/1/tweets"], ["/1/tweets", "/2/tweets"]),  # versions
        ([f"/users/{name}" for name in "abcdefgh"], ["/users/{id}"]),
        ([f"/{name}" for name in "abcdefghij"], [f"/{name}" for name in "abcdefghij"]),
        ([f"/v1/{name}" for name in "abcdefghij"], [f"/v1/{name}" for name in "abcdefghij"]),
        (
            [f"/repos/{name}" + "/x" * (name == "a") for name in "abcdefgh"],
            ["/repos/a/x"] + [f"/repos/{name}" for name in "bcdefgh"],
        ),
        (["/files/a*b"], ["/files/{id}"]),  # which a template cannot hold
        (["/files/" + "x" * 200], ["/files/{id}"]),
        (["/a/", "/a"], ["/a", "/a/"]),
        (["/p/acme%2Fsite/issues"], ["/p/{+id}/issues"]),
        (["/p/7/issues", "/p/acme%2Fsite/issues"], ["/p/{+id}/issues"]),
        (["/p/acme%2Fsite/f/a%2Fb", "/p/9/f/c"], ["/p/{+id}/f/c", "/p/{+id}/f/{+id2}"]),
        (["/a" * 60], ["/a" * MOST_DEPTH + "/**"]),
    ],
)
def test_segments_vary_by_evidence(paths: list[str], templates: list[str]) -> None:
    assert found(*paths) == sorted(templates)


def test_many_values_cost_little_more_than_few() -> None:
    """Where each were looked up in all of the others, these would take many minutes."""
    assert found(*[f"/charges/{number}" for number in range(60_000)]) == ["/charges/{id}"]


def test_a_tree_that_is_walked_is_told_in_one_line() -> None:
    paths = [
        f"/repos/acme/site/contents/{a}{'/' + b if b else ''}{'/' + c if c else ''}"
        for a in ("src", "docs", "lib", "test")
        for b in ("", "one", "two", "three")
        for c in (("", "x", "y") if b else ("",))
    ]
    assert found(*paths) == ["/repos/acme/site/contents/**"]


def test_what_is_treated_otherwise_is_not_thrown_together() -> None:
    labels = {"/users/1": "held", "/users/2": "allowed", "/users/3": "allowed"}
    assert found(*labels, labels=labels) == sorted(labels)
    odd = {"/users/a*": "held", "/users/2": "allowed"}
    assert found(*odd, labels=odd) == ["/users/2"]


def test_counts_and_times_are_added_up() -> None:
    templates: Templates[str] = Templates()
    for n, time in enumerate(["2026-11-22T10", "2026-11-22T08", "2026-11-22T09"]):
        templates.add(f"/users/{n}", "", Tally(n + 1, time, time))
    ((template, _, tally),) = templates.found()
    assert (template, tally) == ("/users/{id}", Tally(6, "2026-11-22T08", "2026-11-22T10"))


SEGMENTS = st.sampled_from(
    [
        "v1",
        "users",
        "repos",
        "a",
        "b",
        "1",
        "22",
        "deadbeef",
        "x_1a2b3c4d",
        "A",
        "a*",
        "%7B",
        "",
        "x%2Fy",
    ]
) | st.text("abc123", min_size=1, max_size=130)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=60).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(PATHS.filter(lambda path: "//" not in path), min_size=1, max_size=40))
def test_every_path_is_covered_and_every_template_is_one(paths: list[str]) -> None:
    templates = [parse_template(text) for text in found(*paths)]
    for path in paths:
        if "%2F" not in path or path.count("/") <= MOST_DEPTH:
            assert any(template.matches(path) for template in templates)
