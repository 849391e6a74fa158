"""Rules of a pack: stable ids, summaries that show what counts and no secret, what to look at."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.openapi.document import Field
from rules.openapi.importing import Imported, import_openapi
from rules.openapi.pack import Draft, telling, visible
from rules.visible import is_invisible
from rules.words import check_summary


def made(paths: dict[str, Any], name: str = "p") -> Imported:
    text = json.dumps({"openapi": "3.1.0", "paths": paths})
    return import_openapi(text.encode(), file="a.json", name=name, hosts=["api.example.com"])


def rule(method: str, path: str, operation: dict[str, Any]) -> Draft:
    (found,) = made({path: {method: operation}}).rules
    return found


def body(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"content": {kind: {"schema": schema}}}


def fields(*names: str, required: bool = True) -> list[Field]:
    return [Field(name, f"json:/{name}", required) for name in names]


@pytest.mark.parametrize(
    ("operation", "path", "id"),
    [
        ({"operationId": "repos/get-content"}, "/a", "repos-get-content"),
        ({"operationId": "listPets"}, "/a", "list-pets"),
        ({"operationId": "a.b_c"}, "/a", "a-b-c"),
        ({"operationId": "  ../é "}, "/a", "get-a"),
        ({}, "/v1/pets/{id}", "get-v1-pets-id"),
        ({"operationId": "x" * 200}, "/a", "x" * 48 + "-aa20c2"),
    ],
)
def test_ids_come_from_the_description(operation: dict[str, Any], path: str, id: str) -> None:
    found = rule("get", path, operation).id
    assert found == id
    assert re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", found) and len(found) <= 60


def test_ids_are_made_unique() -> None:
    found = made(
        {f"/{i}": {"get": {"operationId": n}} for i, n in enumerate(["a", "A", "a/", "a"])}
    )
    assert [r.id for r in found.rules] == ["a", "a-2", "a-3", "a-4"]


def test_a_summary_shows_where_and_the_fields_that_say_most() -> None:
    schema = {
        "properties": {n: {} for n in ("note", "currency", "amount", "charge", "email")},
        "required": ["charge", "amount", "currency"],
    }
    operation = {"summary": "Refund a charge.", "requestBody": body(schema)}
    found = rule("post", "/v1/{account}/refunds", operation)
    assert found.summary == (
        "Refund a charge: {path}, currency {json:/currency}, amount {json:/amount}, "
        "charge {json:/charge}"
    )
    form = {"summary": "Refund", "requestBody": body(schema, "application/x-www-form-urlencoded")}
    assert "amount {form:amount}" in rule("post", "/r", form).summary


@pytest.mark.parametrize(
    ("operation", "summary"),
    [
        ({"description": "<p>Create a refund.</p>\n<p>More.</p>"}, "Create a refund"),
        (
            {"description": '<p>Search for <a href="/x. y">charges</a> &amp; more'},
            "Search for charges & more",
        ),
        ({"summary": "List [rules](https://docs.example.com/a#b)<br/>"}, "List rules"),
        ({"summary": "Get <id> if a < b and c > d"}, "Get <id> if a < b and c > d"),
        ({"summary": "&#123;path&#125; x"}, "(path) x"),
        ({"summary": "<p></p>", "operationId": "read-it"}, "read-it"),
    ],
)
def test_a_summary_has_the_words_without_their_markup(
    operation: dict[str, Any], summary: str
) -> None:
    assert rule("get", "/a", operation).summary == summary


def test_an_amount_with_its_currency_inside_is_money() -> None:
    amount = {"type": "object", "properties": {"currency": {}, "value": {}}}
    schema = {"type": "object", "properties": {"amount": amount}}
    found = rule("post", "/submit", {"summary": "Submit it", "requestBody": body(schema)})
    assert (found.risk, found.impact) == ("high", "Money moves, or somebody has to pay.")
    del amount["properties"]["currency"]  # type: ignore[attr-defined]
    assert rule("post", "/submit", {"requestBody": body(schema)}).risk == "medium"


def test_the_most_telling_fields_are_chosen() -> None:
    assert [f.name for f in telling(fields("a", "b", "c", "d"))] == ["a", "b", "c"]
    assert [f.name for f in telling(fields("a", "b", "amount"))] == ["amount", "a", "b"]
    assert [f.name for f in telling(fields("a", "name", "to", "role", required=False))] == [
        "to",
        "role",
    ]
    assert telling(fields("body", "text", "content")) == []


def test_no_summary_shows_a_secret() -> None:
    hidden = ("password", "newPassword", "api_key", "client_secret", "webhookSecret", "authToken")
    assert telling(fields(*hidden)) == []
    schema = {"properties": {n: {} for n in hidden}, "required": list(hidden)}
    found = rule("post", "/a", {"summary": "Log in", "requestBody": body(schema)})
    assert found.summary == "Log in"


@pytest.mark.parametrize("name", ["a{b", "a}b", "a|b", "a b", 'a"b', "a\u202eb", "x" * 61, ""])
def test_odd_names_of_fields_are_left_out(name: str) -> None:
    assert telling(fields(name)) == []


@given(st.text(max_size=400), st.lists(st.text(max_size=40), max_size=4), st.text(max_size=30))
def test_whatever_a_description_says_a_summary_is_one(said: str, names: list[str], id: str) -> None:
    operation = {
        "summary": said,
        "operationId": id,
        "requestBody": body({"properties": {n: {} for n in names}, "required": names}),
    }
    found = rule("post", "/a/{b}", operation)
    check_summary(found.summary)
    assert 1 <= len(found.summary) <= 300
    assert found.summary == found.summary.strip()
    assert not any(is_invisible(c) for c in found.summary)
    assert re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", found.id) and len(found.id) <= 60


def test_what_can_be_deleted_again_says_so() -> None:
    found = made(
        {
            "/pets": {"post": {"operationId": "createPet"}},
            "/pets/{id}": {
                "delete": {"operationId": "deletePet"},
                "get": {"operationId": "getPet"},
                "patch": {"operationId": "updatePet", "description": "It is irreversible."},
            },
            "/notes": {"post": {"operationId": "createNote"}},
        }
    )
    undo = {r.id: r.undo for r in found.rules}
    assert undo == {
        "create-pet": "delete what was made",
        "delete-pet": "no",
        "get-pet": "",
        "update-pet": "no",
        "create-note": "take away what was added",
    }


def test_what_a_person_should_look_at_is_listed() -> None:
    found = made(
        {
            "/a/{no}": {"get": {"operationId": "getIt"}},
            "/a/{id}": {"get": {"operationId": "getSecret"}},
            "/b/{x}/star": {"delete": {"operationId": "unstar"}},
            "/b/y/{z}": {"delete": {"operationId": "deleteZ"}},
            "/c/({id}):undo": {"get": {"operationId": "getUndo"}},
            "/d/{filePath}": {"get": {"operationId": "getFile"}},
            "/e;f": {"get": {}},
            "/search": {
                "post": {"operationId": "search", "responses": {"200": {"content": {"a/b": {}}}}}
            },
        }
    )
    assert {r.code: r.about for r in found.remarks} == {
        "read-by-post": ("search",),
        "mild-delete": ("unstar",),
        "merged": ("get-secret (/a/{no}, /a/{id})",),
        "wider": ("get-undo (/c/({id}):undo)",),
        "overlap": ("unstar (/b/y/{z})",),
        "slashes": ("get-file (filePath)",),
        "unreachable": found.remarks[-1].about,
    }
    assert (
        "GET /e;f ('/e%3Bf' can match no path that Keybroker accepts" in found.remarks[-1].about[0]
    )
    assert found.counts == {"low": 3, "medium": 3, "high": 1, "none": 1}
    merged = next(r for r in found.rules if r.id == "get-secret")
    assert merged.operations == (("GET", "/a/{no}"), ("GET", "/a/{id}"))


def test_texts_are_made_visible() -> None:
    assert visible(" a\n b\u202e\x07c\u200b  d ") == "a bc d"
    assert visible("x" * 200) == "x" * 119 + "\u2026"
