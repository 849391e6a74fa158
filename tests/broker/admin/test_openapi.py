"""The OpenAPI document covers every route of the API, and nothing that is not there."""

from __future__ import annotations

from typing import Any

from broker.admin.api import STATES, WORDS, Api
from broker.admin.openapi import document
from broker.admin.openapi_schemas import SCHEMAS
from tests.broker.admin.fakes import FakeLedger, FakeMonitor, services

TABLE = Api(services(), FakeLedger(), FakeMonitor()).table()
DOCUMENT = document(TABLE, WORDS)
METHODS = {"get", "post", "put", "patch", "delete"}


def operations() -> dict[tuple[str, str], Any]:
    return {
        (method, path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def test_every_route_is_described_and_nothing_else() -> None:
    assert set(operations()) == {(entry.method.lower(), entry.path) for entry in TABLE}
    assert set(WORDS) == {(entry.method, entry.path) for entry in TABLE}


def test_every_reference_has_its_target() -> None:
    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if "$ref" in node else set()
            return own.union(*(references(value) for value in node.values()))
        if isinstance(node, list):
            return set().union(*(references(value) for value in node))
        return set()

    names = {reference.rpartition("/")[2] for reference in references(DOCUMENT)}
    assert names == set(SCHEMAS)


def test_who_may_enter_shows_in_the_answers() -> None:
    for entry in TABLE:
        operation = operations()[entry.method.lower(), entry.path]
        errors = set(operation["responses"])
        assert ("401" in errors) == (entry.who != "anyone")
        assert ("403" in errors) == (entry.who not in ("anyone", "person"))
        assert (operation.get("security") == []) == (entry.who == "anyone")
        assert errors & {"200", "204"}


def test_names_of_operations_are_unique() -> None:
    ids = [operation["operationId"] for operation in operations().values()]
    assert len(set(ids)) == len(ids)


def test_the_states_are_those_of_the_api() -> None:
    assert SCHEMAS["Approval"]["properties"]["state"]["enum"] == list(STATES)
