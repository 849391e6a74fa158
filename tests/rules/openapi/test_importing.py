"""The whole way: hosts and base paths, credentials, what is left out and said, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from rules.errors import InvalidFile
from rules.openapi import importing
from rules.openapi.importing import Imported, import_openapi, pack_name

PATHS = {"/pets": {"get": {"operationId": "listPets"}}}


def made(*hosts: str, **document: Any) -> Imported:
    data = json.dumps({"openapi": "3.1.0", "paths": PATHS, **document}).encode()
    return import_openapi(data, file="a.json", name="p", hosts=hosts)


def servers(*urls: str) -> list[dict[str, str]]:
    return [{"url": url} for url in urls]


def refusal(*hosts: str, **document: Any) -> str:
    with pytest.raises(InvalidFile) as caught:
        made(*hosts, **document)
    (problem,) = caught.value.problems
    assert problem.file == "a.json"
    return problem.message


def places(found: Imported) -> list[tuple[str, tuple[str, ...]]]:
    return [(rule.host, rule.paths) for rule in found.rules]


def remarks(found: Imported) -> dict[str, str]:
    return {remark.code: remark.sentence for remark in found.remarks}


def hosts_of(found: Imported) -> list[str]:
    hosts: list[str] = yaml.safe_load(found.text)["hosts"]
    return hosts


def test_without_a_host_the_first_server_counts() -> None:
    found = made(servers=servers("http://x.example", "https://a.example/v1", "https://b.example"))
    assert hosts_of(found) == ["a.example"]
    assert places(found) == [("", ("/v1/pets",))]
    assert "also served at others: b.example" in remarks(found)["servers"]


def test_a_host_chooses_among_the_servers() -> None:
    urls = servers("https://a.example/v1", "https://b.example/v2", "https://b.example/v3/")
    found = made("b.example", servers=urls)
    assert places(found) == [("", ("/v2/pets",)), ("", ("/v3/pets",))]
    assert [rule.id for rule in found.rules] == ["list-pets", "list-pets-2"]
    assert found.operations == 1
    assert found.counts == {"low": 1, "medium": 0, "high": 0}


@pytest.mark.parametrize("url", ["/v1", "https://elsewhere.example/v1", "//elsewhere.example/v1"])
def test_a_host_that_no_server_names_takes_the_first_ones_paths(url: str) -> None:
    found = made("git.corp.example:8443", servers=servers(url))
    assert places(found) == [("", ("/v1/pets",))]
    assert ("servers" in remarks(found)) == ("elsewhere" in url)


def test_no_servers_are_the_root() -> None:
    assert places(made("*.example.com", "example.com")) == [("", ("/pets",))]


def test_an_operation_may_have_servers_of_its_own() -> None:
    def at(url: str) -> list[tuple[str, tuple[str, ...]]]:
        paths = {"/up": {"post": {"servers": servers(url)}}}
        return places(
            made("a.example", "*.in.example", servers=servers("https://b.example/v1"), paths=paths)
        )

    assert at("https://up.example/x") == [("up.example", ("/x/up",))]
    assert at("https://a.example/x") == [("", ("/x/up",))]
    assert at("https://one.in.example") == [("", ("/up",))]
    assert at("https://b.example/v2") == [("", ("/v2/up",))]
    assert at("/v3") == [("", ("/v3/up",))]


@pytest.mark.parametrize("url", ["http://up.example", "https://{region}.up.example/x"])
def test_an_operation_that_is_elsewhere_alone_gets_no_rule_here(url: str) -> None:
    paths = {"/up": {"get": {"servers": servers(url)}}, "/pets": {"get": {}}}
    found = made("a.example", servers=servers("https://a.example"), paths=paths)
    assert places(found) == [("", ("/pets",))]
    (about,) = [remark.about for remark in found.remarks if remark.code == "unreachable"]
    assert about[0].startswith("GET /up (only at http")


def test_another_server_of_the_description_is_another_host() -> None:
    paths = {"/up": {"get": {"servers": servers("https://b.example")}}, "/pets": {"get": {}}}
    found = made(servers=servers("https://a.example", "https://b.example"), paths=paths)
    assert places(found) == [("b.example", ("/up",)), ("", ("/pets",))]


@pytest.mark.parametrize(
    ("scheme", "inject"),
    [
        ({"type": "http", "scheme": "Bearer"}, "bearer"),
        ({"type": "oauth2", "flows": {}}, "bearer"),
        ({"type": "apiKey", "in": "header", "name": "X-Key"}, {"header": "X-Key"}),
        ({"type": "apiKey", "in": "header", "name": "Authorization"}, "bearer"),
        ({"type": "apiKey", "in": "query", "name": "key"}, None),
        ({"type": "apiKey", "in": "header", "name": "Content-Type"}, None),
        ({"type": "http", "scheme": "basic"}, None),
    ],
)
def test_how_credentials_go_in(scheme: dict[str, Any], inject: Any) -> None:
    found = made("a.example", components={"securitySchemes": {"s": scheme}})
    pack = yaml.safe_load(found.text)
    assert pack.get("credential") == (None if inject is None else {"inject": inject})
    assert ("credential" in remarks(found)) == (inject is None)


def test_what_is_left_out_is_said() -> None:
    found = made(
        "a.example",
        webhooks={"a": {}},
        paths={
            **PATHS,
            "/a": {"$ref": "other.yaml#/a"},
            "/b": {"trace": {}, "post": {"callbacks": {"c": {}, "d": {}}}},
        },
    )
    said = remarks(found)
    assert said["incoming"].startswith("1 webhooks and 2 callbacks are left out")
    assert "TRACE is never forwarded" in said["trace"]
    assert "nothing was fetched" in said["references"]
    (references,) = (r for r in found.remarks if r.code == "references")
    assert references.about == ("other.yaml#/a",)
    assert found.operations == 2


def test_many_references_are_named_in_part() -> None:
    paths = {**PATHS, **{f"/{i}": {"$ref": f"x{i}.yaml"} for i in range(30)}}
    (references,) = (r for r in made("a.example", paths=paths).remarks if r.code == "references")
    assert len(references.about) == 21
    assert references.about[-1] == "and 10 more"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"servers": servers("http://a.example", "/x")}, "name no https host; say which with --h"),
        ({}, r"its servers (none) name no https host"),
        ({"swagger": "2.0"}, "convert it first"),
        ({"servers": servers("https://a.example"), "paths": {}}, "has no operations"),
        (
            {"servers": servers("https://a.example"), "paths": {"/a": {"$ref": "x.yaml"}}},
            "bundle FILE",
        ),
        ({"servers": servers("https://a.example//x")}, "no call can have the paths of its oper"),
        (
            {"servers": servers(*(f"https://a.example/v{i}" for i in range(9)))},
            "more than 8 base paths",
        ),
    ],
)
def test_what_makes_no_pack_is_refused_with_what_to_do(document: Any, said: str) -> None:
    assert said in refusal(**document)


def test_too_many_rules_for_a_policy_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MAX_CHARACTERS", 100)
    assert "its 1 rules are more than a policy file may hold" in refusal("a.example")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GitHub v3 REST API", "github-v3-rest-api"),
        ("api.github.com", "api-github-com"),
        ("--é--", ""),
        ("x" * 50, "x" * 40),
        ("2checkout_API", "checkout-api"),
    ],
)
def test_names_of_packs(text: str, name: str) -> None:
    assert pack_name(text) == name
    assert pack_name(name) == name


@pytest.mark.parametrize(
    ("method", "path", "risk"),
    [
        ("post", "/v1/({name}):search", "medium"),
        ("post", "/v1/{name}:search", "low"),
        ("post", "/v1/{name}/search", "low"),
        ("delete", "/v1/x/{id}.json/star?a=b", "high"),
        ("delete", "/v1/x/{id}/star", "medium"),
        ("get", "/v1/{name}.json", "low"),
    ],
)
def test_a_rule_wider_than_its_operation_is_not_milder_than_its_method(
    method: str, path: str, risk: str
) -> None:
    answer = {"responses": {"200": {"content": {"application/json": {}}}}}
    found = made("a.example", paths={path: {method: answer}})
    assert [rule.risk for rule in found.rules] == [risk]
