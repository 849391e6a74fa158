"""GraphQL over HTTP: whatever a request may run is read, or nothing is."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import encode_multipart_formdata

from rules.errors import Unreadable
from rules.reading.document import MAX_TEXT, MAX_TOKENS
from rules.reading.graphql import MAX_OPERATIONS, GraphQL, read_graphql
from rules.reading.json import read_json
from rules.request import Request

A = GraphQL("query", None, ("a",))


def get(query: str | None, *, body: bytes = b"", method: str = "GET") -> Request:
    return Request(method, "https", "api.example.com", 443, "/graphql", query, (), body)


def post(
    body: bytes = b"", kind: str = "application/json", query: str | None = None, **more: Any
) -> Request:
    headers = (("content-type", kind),)
    return Request(
        "POST", "https", "api.example.com", 443, "/graphql", query, headers, body, **more
    )


def read(document: Any, query: str | None = None) -> tuple[GraphQL, ...]:
    return read_graphql(post(query=query), document)


def test_a_post() -> None:
    text = "mutation Merge($id: ID!) { m: mergePullRequest(input: {id: $id}) { id } }"
    assert read({"query": text, "variables": {"id": "1"}, "operationName": "Merge"}) == (
        GraphQL("mutation", "Merge", ("mergePullRequest",)),
    )
    assert read({"query": "{a}", "operationName": None, "variables": None}) == (A,)


def test_the_operation_name_picks() -> None:
    text = "query Q {a} mutation M {deleteAll}"
    (first,) = read({"query": text, "operationName": "Q"})
    assert first == GraphQL("query", "Q", ("a",))
    (second,) = read({"query": text, "operationName": "M"})
    assert second == GraphQL("mutation", "M", ("deleteAll",))


def test_a_batch_is_all_its_operations() -> None:
    assert read([{"query": "{a}"}, {"query": "mutation {b c}"}]) == (
        A,
        GraphQL("mutation", None, ("b", "c")),
    )


def test_a_get_is_read_as_what_it_says() -> None:
    assert read_graphql(get("query={a}&variables=%7B%7D&key=1"), None) == (A,)
    text = quote("mutation M { deleteAll }")
    assert read_graphql(get(f"operationName=M&query={text}"), None) == (
        GraphQL("mutation", "M", ("deleteAll",)),
    )
    assert read_graphql(get("query=query+Q+%7Ba%7D"), None) == (GraphQL("query", "Q", ("a",)),)


def test_a_body_that_is_the_text() -> None:
    for kind in ("application/graphql", "Application/GraphQL; charset=UTF-8"):
        assert read_graphql(post(b"{a}", kind), None) == (A,)


def test_a_hash_beside_its_text() -> None:
    hashed = hashlib.sha256(b"{a}").hexdigest()
    persisted = {"version": "1", "sha256Hash": hashed}
    assert read({"query": "{a}", "extensions": {"persistedQuery": persisted}}) == (A,)
    with pytest.raises(Unreadable, match="not its text"):
        read({"query": "{b}", "extensions": {"persistedQuery": persisted}})


@pytest.mark.parametrize(
    "document",
    [
        True,
        "{a}",
        [],
        {},
        [None],
        [[{"query": "{a}"}]],
        [{"query": "{a}"}, {}],
        {"query": None},
        {"query": ""},
        {"query": ["{a}"]},
        {"query": {"a": "{a}"}},
        {"query": "{a"},
        {"query": "{a}", "operationName": "B"},
        {"query": "query A {a}", "operationName": "a"},
        {"query": "query A {a}", "operationName": ["A"]},
        {"query": "query A {a} query B {b}"},
        {"query": "query A {a} query B {b}", "operationName": None},
        {"query": "query A {a} query B {b}", "operationName": ""},
        {"query": "query A {a} query A {b}", "operationName": "A"},
        {"query": "{a}", "Query": "{b}"},
        {"query": "{a}", "QUERY": "{b}"},
        {"Query": "{a}"},
        {"query": "query A {a}", "operationname": "B"},
        {"query": "{a}", "id": "abc"},
        {"query": "{a}", "documentId": "abc"},
        {"query": "{a}", "doc_id": "1"},
        {"documentId": "sha256:abc"},
        {"extensions": {"persistedQuery": {"version": "1", "sha256Hash": "abc"}}},
        {"query": "{a}", "extensions": {"persistedQuery": {"sha256Hash": None}}},
        {"query": "{a}", "extensions": {"persistedQuery": None}},
        {"query": "{a}", "extensions": {"PersistedQuery": {"sha256Hash": "abc"}}},
        {"query": "{a}", "extensions": "{}"},
        {"query": "{a}", "extensions": []},
    ],
)
def test_what_has_no_one_reading(document: Any) -> None:
    with pytest.raises(Unreadable):
        read(document)
    if isinstance(document, dict):
        with pytest.raises(Unreadable):
            read([{"query": "{a}"}, document])


def test_an_empty_name_picks_the_only_operation() -> None:
    assert read({"query": "query A {a}", "operationName": ""}) == (GraphQL("query", "A", ("a",)),)


@pytest.mark.parametrize(
    "query",
    [
        "query={b}",
        "operationName=B",
        "variables={}",
        "extensions={}",
        "Query={b}",
        "query[]={b}",
        "query%5B%5D={b}",
        "%71uery={b}",
        " query={b}",
        "query.x={b}",
        "id=abc",
        "documentId=abc",
        "x=%ff&%ff=1",
    ],
)
def test_a_post_with_graphql_in_its_url_is_unreadable(query: str) -> None:
    with pytest.raises(Unreadable):
        read({"query": "{a}"}, query)


def test_a_post_with_something_else_in_its_url() -> None:
    assert read({"query": "{a}"}, "api-version=2&x") == (A,)


@pytest.mark.parametrize(
    "query",
    [
        None,
        "",
        "query=",
        "query",
        "q={a}",
        "query={a}&query={b}",
        "query={a}&%71uery={b}",
        "query={a}&Query={b}",
        "query={a}&query[]={b}",
        "query={a}&documentId=x",
        "query={a}&extensions=%7B%7D",
        "query=%ff",
        "query={a",
    ],
)
def test_a_get_that_has_no_one_reading(query: str | None) -> None:
    with pytest.raises(Unreadable):
        read_graphql(get(query), None)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "QUERY"])
def test_other_methods_are_unreadable(method: str) -> None:
    with pytest.raises(Unreadable, match="GET or POST"):
        read_graphql(get("query={a}", method=method), {"query": "{a}"})


def test_bodies_that_are_not_graphql() -> None:
    for request in (
        get("query={a}", body=b"{b}"),
        post(b"query={a}", "application/x-www-form-urlencoded"),
        post(b"{a}", "text/plain"),
        post(b"{a}", "application/graphql; charset=utf-16"),
        post(b"\xff", "application/graphql"),
        post(b"", "application/graphql"),
        post(unread=True),
    ):
        with pytest.raises(Unreadable):
            read_graphql(request, None)
    with pytest.raises(Unreadable, match="unread"):
        read_graphql(post(unread=True), {"query": "{a}"})


def test_an_encoded_body_is_unreadable() -> None:
    headers = (("content-type", "application/graphql"), ("content-encoding", "gzip"))
    request = Request("POST", "https", "a.example", 443, "/", None, headers, b"{a}")
    with pytest.raises(Unreadable):
        read_graphql(request, None)


def test_a_number_is_no_text() -> None:
    with pytest.raises(Unreadable):
        read(read_json(b'{"query": 1}'))
    with pytest.raises(Unreadable):
        read(read_json(b'{"query": "{a}", "operationName": 1}'))


def test_a_batch_is_bounded() -> None:
    assert len(read([{"query": "{a}"}] * MAX_OPERATIONS)) == MAX_OPERATIONS
    with pytest.raises(Unreadable, match="batch of more than"):
        read([{"query": "{a}"}] * 100_000)
    half = "{" + "a " * (MAX_TOKENS // 2) + "}"
    with pytest.raises(Unreadable, match="too many words"):
        read([{"query": half}] * 2)
    with pytest.raises(Unreadable, match="too long"):
        read([{"query": "{a}" + " " * (MAX_TEXT // 2)}] * 2)


def upload(*parts: tuple[str, str | tuple[str, str]], query: str | None = None) -> Any:
    body, kind = encode_multipart_formdata(list(parts))
    return read_graphql(post(body, kind, query), None)


def test_an_upload() -> None:
    operations = '{"query": "mutation($f: Upload!) {put(file: $f) {id}}", "variables": {"f": null}}'
    one, file = ("map", '{"0": ["variables.f"]}'), ("0", ("a.txt", "x"))
    (found,) = upload(("operations", operations), one, file)
    assert found == GraphQL("mutation", None, ("put",))
    batch = ("operations", f'[{{"query": "{{a}}"}}, {operations}]')
    found = upload(batch, ("map", '{"0": ["1.variables.f.0"]}'), file)
    assert [operation.fields for operation in found] == [("a",), ("put",)]
    assert upload(("operations", '{"query": "{a}"}'), ("map", "{}")) == (A,)
    with pytest.raises(Unreadable, match="both in the query"):
        upload(("operations", operations), one, file, query="query={b}")


OPERATIONS = ("operations", '{"query": "{a}"}')


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [OPERATIONS],
        [("query", "{a}")],
        [("map", "{}"), OPERATIONS],
        [OPERATIONS, OPERATIONS, ("map", "{}")],
        [OPERATIONS, ("map", "{}"), OPERATIONS],
        [OPERATIONS, ("map", "{}"), ("0", "x")],
        [OPERATIONS, ("map", '{"0": ["variables.f"]}')],
        [OPERATIONS, ("map", '{"0": ["variables.f"]}'), ("0", "x"), ("0", "y")],
        [OPERATIONS, ("map", '{"0": ["query"]}'), ("0", "{b}")],
        [OPERATIONS, ("map", '{"0": ["0.query"]}'), ("0", "{b}")],
        [OPERATIONS, ("map", '{"0": ["variables"]}'), ("0", "x")],
        [OPERATIONS, ("map", '{"0": ["variables.f", "operationName"]}'), ("0", "x")],
        [OPERATIONS, ("map", '{"0": "variables.f"}'), ("0", "x")],
        [OPERATIONS, ("map", '{"0": [1]}'), ("0", "x")],
        [OPERATIONS, ("map", '["variables.f"]'), ("0", "x")],
        [OPERATIONS, ("map", "")],
        [("operations", ("a.json", '{"query": "{a}"}')), ("map", "{}")],
        [("operations", "{a}"), ("map", "{}")],
        [("operations", '{"query": "{a}", "query": "{b}"}'), ("map", "{}")],
    ],
)
def test_an_upload_that_has_no_one_reading(parts: Any) -> None:
    with pytest.raises(Unreadable):
        upload(*parts)


NAMES = st.sampled_from(["query", "operationName", "variables", "extensions", "Query", "id"])
TEXTS = st.sampled_from(["{a}", "query A {a} query B {b}", "A", "", "{a", "mutation{b}"])
JSON = st.recursive(
    st.none() | st.booleans() | TEXTS | st.text(),
    lambda each: st.lists(each) | st.dictionaries(NAMES | st.text(), each),
)


@given(JSON, st.none() | st.text() | st.sampled_from(["query={a}", "x=1"]), st.booleans())
def test_any_request_is_read_or_unreadable(document: Any, query: str | None, by_get: bool) -> None:
    try:
        found = read_graphql(get(query) if by_get else post(query=query), document)
    except Unreadable:
        return
    assert found
    assert all(operation.fields for operation in found)
