"""Each call falls under one class, however the described paths overlap."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.openapi import routes
from rules.openapi.document import Operation, Unfit
from rules.openapi.importing import import_openapi
from rules.openapi.lexicon import Risk
from rules.openapi.routes import Route, arrange, template_of
from tests.support.openapi import broken


@pytest.mark.parametrize(
    ("path", "template", "wider"),
    [
        ("/a/{id}/b", "/a/{id}/b", False),
        ("/a/{pet-id}/{pet_id}", "/a/{pet_id}/*", False),
        ("/a/{}", "/a/*", False),
        ("/a/{1x}", "/a/*", False),
        ("/files/{path}", "/files/**", False),  # says that it may hold slashes
        ("/files/{path}/raw", "/files/{path}/raw", False),
        ("/v1/{+name}", "/v1/**", False),
        ("/v1/{proxy+}", "/v1/**", False),
        ("/v1/{name*}", "/v1/**", False),
        ("/a/{id}.json", "/a/{id}.json", False),
        ("/{id}/{id}.tar.gz", "/{id}/{p1}.tar.gz", False),
        ("/p1/{p1}/{-}:x", "/p1/{p1}/{_}:x", False),
        ("/a/{id}.", "/a/*", True),
        ("/a/{x}...{y}", "/a/*", True),
        ("/v1/{name}:cancel", "/v1/{name}:cancel", False),
        ("/users('{id}')", "/*", True),
        ("/a/*", "/a/*", True),
        ("/a/{id", "/a/*", True),
        ("/a?Action=x", "/a", True),
        ("/#X-Target=y", "/", True),
        ("/a b/é", "/a%20b/%C3%A9", False),
        ("/a%20b", "/a%20b", False),
        ("/a/", "/a/", False),
        ("/", "/", False),
    ],
)
def test_paths_become_templates(path: str, template: str, wider: bool) -> None:
    found, more = template_of(path, "", ["path"])
    assert (found.text, more) == (template, wider)


def test_the_servers_base_path_stands_before_it() -> None:
    assert template_of("/a", "/v1/x", [])[0].text == "/v1/x/a"


@pytest.mark.parametrize("path", ["a", "", "/a//b", "/a/../b", "/a;b", "/a\\b", "/%2F", "/\x00"])
def test_a_path_that_no_call_can_have_is_refused(path: str) -> None:
    with pytest.raises(ValueError):
        template_of(path, "", [])


def route(path: str, risk: Risk, method: str = "POST", host: str = "") -> Route:
    template, _ = template_of(path, "", [])
    return Route(method, host, [template], [Operation(method, path)], [path], risk)


def excepts(*given: Route) -> dict[str, list[str]]:
    return {r.templates[0].text: [e.templates[0].text for e in r.excepts] for r in arrange(given)}


def test_a_special_case_is_taken_out_of_the_general_one() -> None:
    assert excepts(route("/a/{x}", "low"), route("/a/b", "high")) == {
        "/a/{x}": ["/a/b"],
        "/a/b": [],
    }
    assert excepts(route("/a/b", "medium"), route("/a/{x}", "high")) == {
        "/a/b": [],
        "/a/{x}": ["/a/b"],
    }
    assert excepts(route("/{+x}", "high"), route("/a", "low")) == {"/**": ["/a"], "/a": []}


def test_two_that_are_allowed_are_left_as_they_are() -> None:
    assert excepts(route("/a/{x}", "low"), route("/a/b", "low")) == {"/a/{x}": [], "/a/b": []}


def test_what_is_excepted_already_is_not_excepted_again() -> None:
    found = excepts(route("/{a}/{b}", "high"), route("/x/{b}", "low"), route("/x/y", "medium"))
    assert found == {"/{a}/{b}": ["/x/{b}"], "/x/{b}": ["/x/y"], "/x/y": []}
    # To the letter the first of these does not cover the second.
    found = excepts(route("/{a}/{b}", "high"), route("/X/{b}", "low"), route("/x/y", "medium"))
    assert found["/{a}/{b}"] == ["/x/y", "/X/{b}"]
    found = excepts(route("/a/{b+}", "medium"), route("/{x}/", "high"), route("/a", "high"))
    assert found["/a/**"] == ["/a", "/{x}/"]


def test_what_servers_may_choose_between_goes_to_the_stricter() -> None:
    one, other = route("/a/{x}/c", "low"), route("/a/b/{y}", "high")
    assert excepts(one, other) == {"/a/{x}/c": ["/a/b/{y}"], "/a/b/{y}": []}
    assert one.torn == [other]
    assert (one.risk, other.risk) == ("low", "high")


def test_what_cannot_be_told_apart_is_one_route_with_the_strictest_class() -> None:
    given = [route(p, r) for p, r in (("/a/{x}", "low"), ("/A/{y}/", "high"), ("/a/{z}", "medium"))]  # type: ignore[arg-type]
    (found,) = arrange(given)
    assert found.risk == "high"
    assert [t.text for t in found.templates] == ["/a/{x}", "/A/{y}/"]
    assert found.paths == ["/a/{x}", "/A/{y}/", "/a/{z}"]


def test_how_a_segment_ends_tells_routes_apart() -> None:
    given = [route(f"/a/{{x}}{end}", "high") for end in (":start", ":stop", ".gz", ".tar.gz", "")]
    assert excepts(*given) == {
        "/a/{x}:start": [],
        "/a/{x}:stop": [],
        "/a/{x}.gz": ["/a/{x}.tar.gz"],
        "/a/{x}.tar.gz": [],
        "/a/{x}": ["/a/{x}:start", "/a/{x}:stop", "/a/{x}.gz"],
    }
    assert len(arrange([route("/a/{x}.JSON", "low"), route("/a/{y}.json", "low")])) == 1


def test_a_circle_gets_one_class() -> None:
    """The first is a special case of the second; the third is stricter than the first, and less
    strict than the second: each would leave /a/b/c/d to the next."""
    given = [
        route("/a/b/{x}/d", "low"),
        route("/a/{x}/{y}/d", "high"),
        route("/a/{x}/c/{y}", "medium"),
    ]
    found = arrange(given)
    assert [r.risk for r in found] == ["high", "high", "high"]
    assert [len(r.raised) for r in found] == [1, 0, 1]


def test_other_methods_and_hosts_are_apart() -> None:
    given = [
        route("/a/{x}", "low", "GET"),
        route("/a/b", "high"),
        route("/a/c", "high", "GET", "h.x"),
    ]
    assert all(not r.excepts for r in arrange(given))


def test_paths_that_take_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_STEPS", 1000)
    given = [route(f"/{{a}}/x{i}/{{c}}/y{i}", "low") for i in range(40)]
    given += [route(f"/z{i}/{{b}}/{{c}}/{{d}}", "low") for i in range(40)]
    with pytest.raises(Unfit, match="overlap in too many ways"):
        arrange(given)


SEGMENTS = st.sampled_from(
    ["a", "b", "A", "{x}", "{x}.json", "{z}.JSON", "a.json", "{y}:act", "a:act", "a b", "{x}-1"]
)
PATHS = st.builds(
    lambda parts, end: "/" + "/".join([*parts, *end]),
    st.lists(SEGMENTS, min_size=1, max_size=4),
    st.sampled_from([[], [], [], ["{deep+}"], [""]]),
)
METHODS = st.dictionaries(
    st.sampled_from(["get", "post", "delete"]),
    st.sampled_from(
        [
            {"operationId": "create"},
            {"operationId": "deleteIt"},
            {"operationId": "search", "responses": {"200": {"content": {"a/b": {}}}}},
            {"operationId": "getSecret"},
            {"operationId": "unstar"},
        ]
    ),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(PATHS, METHODS, min_size=1, max_size=9))
def test_every_call_of_any_description_has_one_class(paths: dict[str, Any]) -> None:
    """Asked of the real rulebook, with calls that are as near to each other as can be."""
    text = json.dumps({"openapi": "3.1.0", "paths": paths})
    made = import_openapi(text.encode(), file="a.json", name="p", hosts=["api.example.com"])
    assert sum(made.counts.values()) == made.operations
    assert broken(made, host="api.example.com", most=8) == []
