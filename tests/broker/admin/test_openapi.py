"""The OpenAPI document covers every route of the API, and nothing that is not there."""

from starlette.routing import Route

from broker.admin.api import STATES, Api
from broker.admin.openapi import SCHEMAS, document
from tests.broker.admin.fakes import FakeLedger, services


def test_every_route_is_described() -> None:
    routes = {
        (route.path, method.lower())
        for route in Api(services(), FakeLedger()).routes()
        if isinstance(route, Route)
        for method in (route.methods or ())
        if method != "HEAD"
    }
    described = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert described == routes


def test_every_reference_has_its_target() -> None:
    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if "$ref" in node else set()
            return own.union(*(references(value) for value in node.values()))
        if isinstance(node, list):
            return set().union(*(references(value) for value in node))
        return set()

    names = {reference.rpartition("/")[2] for reference in references(document())}
    assert names <= set(SCHEMAS)


def test_the_states_are_those_of_the_api() -> None:
    assert SCHEMAS["Approval"]["properties"]["state"]["enum"] == list(STATES)


def test_paths_with_an_id_declare_it() -> None:
    for path, item in document()["paths"].items():
        for operation in item.values():
            declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert declared == ({"id"} if "{id}" in path else set())
            assert "200" in operation["responses"]
