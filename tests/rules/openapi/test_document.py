"""Operations as a description has them: references, parameters, bodies, answers, servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.openapi.document import Document, Field, Operation, Unfit, split_server
from rules.openapi.reading import read_description


def document(text: str) -> Document:
    return Document.of(read_description(text.encode(), "a.yaml"))


def only(text: str) -> Operation:
    (found,) = document(text).operations()
    return found


HEAD = "openapi: 3.1.0\ninfo: {title: T, version: 1}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swagger: '2.0'\npaths: {}", "this is Swagger 2.0.*convert it first: npx swagger2openapi"),
        ("a: b", "no `openapi:` field"),
        ("[1]", "holds no mapping"),
        ("", "holds no mapping"),
        ("openapi: 4.0.0\npaths: {}", "OpenAPI '4.0.0' is not known here"),
        ("openapi: 3.1.0", "no `paths:`"),
        ("openapi: 3.1.0\npaths: [a]", "no `paths:`"),
    ],
)
def test_what_is_no_description_is_refused_with_what_to_do(text: str, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        document(text)


def test_an_operation_with_all_its_parts() -> None:
    found = only(
        HEAD
        + """
paths:
  /a/{id}/{path}:
    summary: of the path
    servers: [{url: "https://path.example"}]
    parameters:
      - {name: limit, in: query, required: true}
      - {name: page, in: query}
      - {name: path, in: path, x-multi-segment: true}
    post:
      operationId: addA
      tags: [as, 7]
      summary: Add an a
      description: Long
      parameters: [{name: limit, in: query}, {$ref: "#/components/parameters/P"}]
      requestBody: {$ref: "#/components/requestBodies/B"}
      responses:
        200: {content: {application/json: {schema: {$ref: "#/components/schemas/List"}}}}
        404: {content: {application/json: {schema: {properties: {message: {}}}}}}
      callbacks: {done: {}}
    trace: {}
components:
  parameters:
    P: {name: kind, in: query, required: true}
  requestBodies:
    B: {content: {application/json: {schema: {$ref: "#/components/schemas/A"}}}}
  schemas:
    A:
      required: [name]
      properties: {name: {type: string}, "a/b~c": {type: string}}
      allOf: [{properties: {size: {}}, required: [size]}]
      anyOf: [{properties: {other: {}}, required: [other]}]
    List:
      properties:
        total: {properties: {sum: {}}}
        data: {type: array, items: {$ref: "#/components/schemas/A"}}
"""
    )
    assert found == Operation(
        method="POST",
        path="/a/{id}/{path}",
        id="addA",
        summary="Add an a",
        text="Long",
        tags=("as", "7"),
        fields=(
            Field("name", "json:/name", True),
            Field("a/b~c", "json:/a~1b~0c", False),
            Field("size", "json:/size", True),
            Field("other", "json:/other", False),
            Field("limit", "query:limit", False),
            Field("page", "query:page", False),
            Field("kind", "query:kind", True),
        ),
        gives=frozenset({"total", "data", "name", "a/b~c", "size", "other"}),
        within=frozenset({"sum"}),
        items=frozenset({"name", "a/b~c", "size", "other"}),
        statuses=frozenset({"200", "404"}),
        answers=True,
        deep=frozenset({"path"}),
        servers=("https://path.example",),
    )


def test_what_is_left_out_is_counted() -> None:
    found = document(
        HEAD
        + """
webhooks: {a: {}, b: {}}
paths:
  x-note: {get: {}}
  /a: {get: {callbacks: {c: {}}}, trace: {}, x-get: {}, parameters: []}
  /b: {query: {}, additionalOperations: {COPY: {}, TRACE: {}, get: {}, QUERY: {}}}
"""
    )
    assert [(o.method, o.path) for o in found.operations()] == [
        ("GET", "/a"),
        ("QUERY", "/b"),
        ("COPY", "/b"),
    ]
    assert (found.webhooks, found.callbacks, found.traces) == (2, 1, 1)


def test_nothing_is_fetched_and_what_would_be_is_named() -> None:
    found = document(
        HEAD
        + """
paths:
  /a: {$ref: "https://elsewhere.example/a.yaml"}
  /b: {$ref: "b.yaml#/b"}
  /c:
    $ref: "#/components/pathItems/C"
    summary: own
  /d: {get: {parameters: [{$ref: "#/nowhere"}, {$ref: "#anchor"}]}}
components:
  pathItems: {C: {get: {}}}
"""
    )
    assert [(o.path, o.summary) for o in found.operations()] == [("/c", "own"), ("/d", "")]
    assert list(found.remote) == [
        "https://elsewhere.example/a.yaml",
        "b.yaml#/b",
        "#/nowhere",
        "#anchor",
    ]


def test_references_in_a_circle_end() -> None:
    found = only(
        HEAD
        + """
paths:
  /a:
    post:
      requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/T"}}}}
      responses: {200: {$ref: "#/components/responses/R"}}
components:
  responses: {R: {$ref: "#/components/responses/R"}}
  schemas:
    T:
      properties: {child: {$ref: "#/components/schemas/T"}}
      allOf: [{$ref: "#/components/schemas/T"}]
"""
    )
    assert [f.name for f in found.fields] == ["child"]
    assert found.gives == frozenset()


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("application/vnd.api+json; charset=utf-8", ["json:/a"]),
        ("'*/*'", ["json:/a"]),
        ("application/x-www-form-urlencoded", ["form:a"]),
        ("multipart/form-data", [""]),
        ("text/plain", []),
    ],
)
def test_fields_have_places_where_the_body_has_some(kind: str, places: list[str]) -> None:
    body = f"{{content: {{{kind!s}: {{schema: {{properties: {{a: {{}}}}}}}}}}}}"
    body = body.replace(kind, kind if kind.startswith("'") else f"'{kind}'")
    found = only(f"{HEAD}paths: {{/a: {{post: {{requestBody: {body}}}}}}}")
    assert [f.place for f in found.fields] == places


def test_servers_have_their_variables_filled_in() -> None:
    found = document(
        HEAD
        + """
servers:
  - url: https://{region}.api.example/{version}
    variables: {region: {default: eu}, version: {default: v2, enum: [v1, v2]}}
  - {url: /relative}
paths: {}
"""
    )
    assert found.servers == ("https://eu.api.example/v2", "/relative")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://API.example:8443/v1/", ("https", "api.example:8443", "/v1")),
        ("/v1", ("", "", "/v1")),
        ("//api.example", ("", "api.example", "")),
        ("Your API URL", ("", "", "")),
        ("https://[", ("", "", "")),
    ],
)
def test_servers_are_taken_apart(url: str, parts: tuple[str, str, str]) -> None:
    assert split_server(url) == parts


_NAMES = [
    "$ref", "get", "post", "parameters", "name", "in", "requestBody", "content", "application/json",
    "schema", "properties", "allOf", "items", "responses", "200", "servers", "url", "variables",
    "default", "/a",
]  # fmt: skip
NODES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.sampled_from(["", "#", "#/paths", "#/paths/~1a", "x", "query"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(NODES, NODES)
def test_no_description_raises_but_unfit(paths: Any, components: Any) -> None:
    try:
        found = Document.of({"openapi": "3.0.0", "paths": paths, "components": components})
    except Unfit:
        return
    for operation in found.operations():
        assert operation.method.isupper()
    assert found.schemes is not None
