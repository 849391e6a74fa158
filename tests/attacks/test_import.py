"""A description by a stranger: nothing in it is dropped in silence, nothing breaks out of the pack.

Whatever it holds, there is a pack in which every operation has exactly one class and the rulebook
agrees, or one sentence that says why there is none.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from rules.errors import InvalidFile
from rules.openapi.importing import Imported, import_openapi
from tests.support.openapi import broken

HOST = "api.example.com"
BEGIN = "openapi: 3.2.0\nservers: [{url: 'https://api.example.com'}]\n"
LIST: dict[str, Any] = {"get": {"operationId": "listPets"}}


def made(paths: dict[str, Any], **more: Any) -> Imported:
    servers = [{"url": f"https://{HOST}"}]
    text = json.dumps({"openapi": "3.2.0", "servers": servers, "paths": paths, **more})
    found = import_openapi(text.encode(), file="a.json", name="p")
    assert sum(found.counts.values()) == found.operations
    assert broken(found, host=HOST, most=8) == []
    return found


def methods(found: Imported) -> list[tuple[str, str]]:
    return [operation for rule in found.rules for operation in rule.operations]


def said(found: Imported, code: str) -> tuple[str, ...]:
    return next((remark.about for remark in found.remarks if remark.code == code), ())


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ({"additionalOperations": {"purge": {}}}, "purge /a"),
        ({"additionalOperations": {"Copy": {}}}, "Copy /a"),
        ({"additionalOperations": {"PROP_FIND": {}}}, "PROP_FIND /a"),
        ({"additionalOperations": {"CONNECT": {}}}, "CONNECT /a"),
        ({"additionalOperations": {"PURGE": None}}, "PURGE /a"),
        ({"post": {}, "additionalOperations": {"POST": {}}}, "POST /a"),
        ({"DELETE": {}}, "DELETE /a"),
        ({"Post": {}}, "Post /a"),
        ({"delete": None}, "delete /a"),
        ({"delete": [{}]}, "delete /a"),
    ],
)
def test_no_method_is_dropped_in_silence(item: dict[str, Any], named: str) -> None:
    assert said(made({"/a": item, "/pets": LIST}), "no-rule") == (named,)


@pytest.mark.parametrize("method", ["PURGE", "COPY", "UNLOCK", "X-WIPE"])
def test_a_method_that_nobody_knows_is_high(method: str) -> None:
    (rule,) = made({"/a": {"additionalOperations": {method: {"summary": "Get it"}}}}).rules
    assert (rule.method, rule.risk) == (method, "high")


def test_the_query_method_is_a_read() -> None:
    (rule,) = made({"/pets": {"query": {"operationId": "findPets"}}}).rules
    assert (rule.method, rule.risk) == ("QUERY", "low")


@pytest.mark.parametrize(
    "reference",
    [
        "#/paths/~1a",  # itself
        "#/paths/~1b",  # a circle of two
        "#/components/pathItems/none",
        "#/x/" + "9" * 5000,  # more digits than Python reads
        "#/x/\u0661",  # a digit of another script
        "#/x/%ff",
        "#anchor",
        "./other.yaml#/paths/~1a",
        "../../../etc/passwd",
        "file:///etc/passwd",
        "https://elsewhere.example/a.yaml",
        "//elsewhere.example/a.yaml",
    ],
)
def test_a_reference_that_leads_nowhere_is_named(reference: str) -> None:
    found = made({"/a": {"$ref": reference}, "/b": {"$ref": "#/paths/~1a"}, "/pets": LIST}, x=[1])
    assert methods(found) == [("GET", "/pets")]
    assert any(
        reference.startswith(about.rstrip("\u2026")[:100]) for about in said(found, "references")
    )


@pytest.mark.parametrize(
    ("pointer", "components"),
    [
        ("#/components/pathItems/a~1b", {"a/b": {"delete": {}}}),
        ("#/components/pathItems/a~01b", {"a~1b": {"delete": {}}}),
        ("#/components/pathItems/a%20b", {"a b": {"delete": {}}}),
        ("#/components/pathItems/%7Bid%7D", {"{id}": {"delete": {}}}),
        ("#/components/pathItems/a%7E1b", {"a/b": {"delete": {}}}),
        (
            "#/components/pathItems/one",
            {"one": {"$ref": "#/components/pathItems/two"}, "two": {"delete": {}}},
        ),
    ],
)
def test_pointers_are_followed(pointer: str, components: dict[str, Any]) -> None:
    found = made({"/a": {"$ref": pointer}}, components={"pathItems": components})
    assert [(rule.method, rule.risk) for rule in found.rules] == [("DELETE", "high")]


def test_beside_a_reference_an_item_may_have_operations() -> None:
    shared = {"delete": {}, "get": {"operationId": "listSecrets"}}
    found = made(
        {"/a": {"$ref": "#/components/pathItems/one", "post": {}}},
        components={"pathItems": {"one": shared}},
    )
    assert {rule.method for rule in found.rules} == {"GET", "DELETE", "POST"}


INJECTIONS = [
    'x"\n  - {id: all, class: low, match: {path: /**}}',
    "x\r- id: all\u2028class: low\u0085",
    "\x1b[31mred\x1b[0m \x9b2J \u202eback",
    "{{path}} {json:/secret} ${agent} {",
    "]} # comment\n---\n!!python/object/apply:os.system [id]",
    "*alias &anchor <<: {a: 1} | > ? : -",
    "`x` <script>alert(1)</script> [a](javascript:alert(1)) ![](https://x.example/p.png)",
    "\ud800\udfff \x00 \ufeff \ufffe",
    "a" * 100_000,
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_text_breaks_out_of_the_pack(text: str) -> None:
    """Put wherever a description may have text; the rules stay what they are without it."""
    operation = {
        "operationId": text,
        "summary": text,
        "description": text,
        "tags": [text],
        "x-note": {text: text},
        "parameters": [{"in": "query", "name": text, "required": True}],
        "requestBody": {
            "content": {
                "application/json": {"schema": {"properties": {text: {}}, "required": [text]}}
            }
        },
        "responses": {text: {"description": text}},
    }
    found = made(
        {"/pets": {"post": operation}, f"/x/{text}": LIST, text: LIST},
        info={"title": text, "version": text, "description": text},
        components={"securitySchemes": {text: {"type": "apiKey", "in": "header", "name": text}}},
    )
    assert not [c for c in found.text if c != "\n" and not (c.isprintable() or c == "\u2026")]
    pack = yaml.safe_load(found.text.encode())
    assert set(pack) <= {"pack", "title", "about", "hosts", "credential", "rules"}
    assert len(pack["rules"]) == len(found.rules) <= 3
    (posted,) = (rule for rule in pack["rules"] if rule["match"]["method"] == "POST")
    assert posted["class"] != "low"
    assert posted["match"]["path"] == "/pets"


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b",
        "/a/%2e%2e/b",
        "/a%2Fb",
        "/a\nb",
        "/a\\b",
        "//b",
        "/%zz",
        "b",
        "",
        "/{",
        "/}/{}",
        "/a;b",
    ],
)
def test_an_odd_path_is_a_rule_or_is_said_to_have_none(path: str) -> None:
    found = made({path: {"delete": {}}, "/pets": LIST})
    assert ("DELETE", path) in methods(found) or said(found, "unreachable")


HOSTILE = {
    "aliases of aliases": (
        BEGIN
        + "a0: &a0 [x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
        + "paths: {}\n",
        "values",
    ),
    "a circle of anchors": (BEGIN + "paths: &a {/a: *a}\n", "stands for nothing"),
    "a merge": (BEGIN + "paths: {<<: {}}\n", "merge key"),
    "a tag": (BEGIN + "paths: !!python/object:os.system {}\n", "tags are not used"),
    "a method twice": (BEGIN + "paths: {/a: {get: {}, get: {x: 1}}}\n", "occurs twice"),
    "deep YAML": (BEGIN + "paths: " + "{a: " * 9999 + "}" * 9999, "nested deeper"),
    "deep JSON": ('{"openapi": "3.1.0", "paths": ' + '{"a":' * 99_999, "nested deeper"),
    "Swagger 2": ("swagger: '2.0'\npaths: {}\n", "convert it first: npx swagger2openapi"),
    "no host": (
        "openapi: 3.1.0\nservers: [{url: 'https://{t}.x.example'}]\npaths: {/a: {get: {}}}\n",
        "say which with --host",
    ),
}


@pytest.mark.parametrize(("text", "because"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(text: str, because: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        import_openapi(text.encode(), file="a.yaml", name="p")
    (problem,) = caught.value.problems
    assert because in problem.message
    assert len(problem.message) < 400


def test_one_path_that_no_rule_can_hold_does_not_spoil_the_pack() -> None:
    found = made({"/" + "a" * 500: LIST, "/pets": LIST})
    assert methods(found) == [("GET", "/pets")]
    assert len(said(found, "unreachable")) == 1


def test_too_many_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rules.openapi.document.MAX_OPERATIONS", 50)
    with pytest.raises(InvalidFile, match="more than 50 operations"):
        made({f"/a{i}": {"get": {}} for i in range(51)})
