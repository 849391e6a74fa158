"""Classes, each with its evidence; nothing that writes is low without proof."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.openapi.classify import DOUBTS, classify
from rules.openapi.document import Field, Operation
from rules.openapi.lexicon import ORDER

ANSWER = {"statuses": frozenset({"200"}), "answers": True}


def of(call: str, id: str = "", **more: Any) -> Operation:
    method, path = call.split()
    return Operation(method, path, id=id, **more)


def fields(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, f"json:/{name}", True) for name in names)


@pytest.mark.parametrize(
    ("operation", "risk", "kind", "reason"),
    [
        # reads
        (of("GET /pets", "listPets"), "low", "read", "GET"),
        (of("GET /pets/{id}"), "low", "read", "GET"),
        (of("HEAD /secrets/{id}", "headSecret"), "low", "read", "HEAD"),
        (of("GET /releases/{id}", "repos/get-release"), "low", "read", "GET"),
        (of("GET /actions/runs", "actions/list-runs"), "low", "read", "GET"),
        (of("GET /secrets", "listSecrets"), "medium", "confidential", 'it is about "secret"'),
        (of("GET /api-keys"), "medium", "confidential", 'it is about "api key"'),
        (
            of("GET /secrets/{id}", "getSecret", gives=frozenset({"secret"})),
            "high",
            "secret",
            'it is about "secret", and its answer has the field secret',
        ),
        (
            of("GET /apps/{id}", "getApp", gives=frozenset({"client_secret"})),
            "medium",
            "confidential",
            "its answer has the field client_secret",
        ),
        (
            of("GET /apps/{id}", "getApp", within=frozenset({"client_secret"})),
            "medium",
            "confidential",
            "its answer has the field client_secret",
        ),
        (of("POST /x", "createX", within=frozenset({"client_secret"})), "medium", "create", ""),
        (of("GET /secrets/public-key", "getPublicKey"), "low", "read", "GET"),
        (of("GET /secret-scanning/alerts", "listAlerts"), "low", "read", "GET"),
        (
            of("GET /customers", "listCustomers", items=frozenset({"id", "email"})),
            "medium",
            "personal",
            "it lists the field email of many",
        ),
        (
            of("GET /entries", "listEntries", items=frozenset({"date_of_birth"})),
            "medium",
            "personal",
            "it lists the field date_of_birth of many",
        ),
        (of("GET /commits", "listCommits", items=frozenset({"email"})), "low", "read", "GET"),
        (of("GET /users/{id}/export", "exportUser"), "medium", "export", 'the name says "export"'),
        (of("GET /admin/users"), "medium", "records", "its path is one of administration"),
        (of("GET /users/{id}/delete"), "medium", "delete", 'the name says "delete"'),
        (
            of("GET /pods/{name}/exec", "connectGetPodExec"),
            "high",
            "channel",
            'the name says "exec"',
        ),
        # POSTs that only search
        (of("POST /search", "searchPets", **ANSWER), "low", "search", "it answers 200 with data"),
        (of("POST /markdown", "render", **ANSWER), "low", "search", 'its path says "markdown"'),
        (of("POST /db/{id}/query", **ANSWER), "low", "search", 'its path says "query"'),
        (of("POST /accounts/get", **ANSWER), "low", "search", 'its path says "get"'),
        (of("POST /jobs:searchByUrl", **ANSWER), "low", "search", 'its path says "search"'),
        (of("POST /payments/search", "searchPayments", **ANSWER), "low", "search", "search"),
        (of("POST /transfer/list", "transferList", **ANSWER), "low", "search", '"list"'),
        (of("POST /markdown/raw", "render-raw", **ANSWER), "low", "search", '"markdown"'),
        (of("POST /groups-search", "searchGroups", **ANSWER), "low", "search", '"search"'),
        # and POSTs that only seem to, or that only words say it of
        (of("POST /items", "searchItems", **ANSWER), "medium", "change", "its path does not show"),
        (of("POST /items", "x", summary="List items", **ANSWER), "medium", "create", "POST"),
        (of("POST /refunds", "listRefunds", **ANSWER), "high", "money", '"refund"'),
        (of("POST /query", "query", **ANSWER), "medium", "change", "its path does not show"),
        (of("POST /api/v2/query", **ANSWER), "medium", "create", "POST"),
        (of("POST /list", **ANSWER), "medium", "create", "POST"),
        (of("POST /invoices/{id}/validate", **ANSWER), "high", "money", '"invoice"'),
        (of("POST /leads/{id}/convert", **ANSWER), "medium", "create", "POST"),
        (of("POST /find-and-modify", **ANSWER), "medium", "change", '"modify"'),
        (of("POST /answerCallbackQuery", **ANSWER), "medium", "create", "POST"),
        (of("POST /messages/{id}/read", **ANSWER), "medium", "create", "POST"),
        (of("POST /accounts/{a}/listKeys", **ANSWER), "high", "secret", "asks for keys"),
        (of("POST /workspaces/{w}/listWorkspaceKeys", **ANSWER), "high", "secret", "for keys"),
        (of("POST /sites/{s}/config/connectionstrings/list", **ANSWER), "high", "secret", ""),
        (of("POST /streams/getSessionURL", **ANSWER), "medium", "create", "POST"),
        (of("POST /v1/*search", **ANSWER), "medium", "create", "POST"),
        (of("POST /v1/search{", **ANSWER), "medium", "create", "POST"),
        (of("POST /search", "search"), "medium", "change", "does not show that it only reads"),
        (
            of("POST /search", "search", statuses=frozenset({"200", "202"}), answers=True),
            "medium",
            "change",
            "does not show that it only reads",
        ),
        (of("POST /views", "createView", **ANSWER), "medium", "create", 'says "create"'),
        (of("POST /search", "searchAndDelete", **ANSWER), "high", "delete", 'says "delete"'),
        (of("POST /tokens/search", "searchTokens", **ANSWER), "high", "secret", '"token"'),
        (of("POST /lists", "postLists", **ANSWER), "medium", "create", "POST"),
        (of("POST /lists", "lists", **ANSWER), "medium", "create", "POST"),
        (of("POST /lists", summary="Lists", **ANSWER), "medium", "create", "POST"),
        (of("POST /price-list", "priceList", **ANSWER), "medium", "create", "POST"),
        (of("POST /filter", **ANSWER), "medium", "create", "POST"),
        (of("POST /x.search", "x_conversations_search", **ANSWER), "low", "search", "search"),
        (of("PUT /search", "search", **ANSWER), "medium", "change", "PUT"),
        (
            of("POST /users/list", "users.list", items=frozenset({"email"}), **ANSWER),
            "medium",
            "personal",
            "it lists the field email of many",
        ),
        # writes
        (of("POST /pets", "createPet"), "medium", "create", 'the name says "create"'),
        (of("PATCH /pets/{id}", "updatePet"), "medium", "change", 'the name says "update"'),
        (of("PATCH /comments/{id}", "updateComment"), "medium", "change", "PATCH"),
        (of("POST /widgets", "PostWidgets"), "medium", "create", "POST"),
        (of("POST /refunds", "PostRefunds"), "high", "money", 'the name says "refund"'),
        (of("POST /x", "x", fields=fields("amount", "currency")), "high", "money", "a currency"),
        (of("POST /charges/{id}/capture"), "high", "money", 'the name says "capture"'),
        (of("POST /releases", "createRelease"), "high", "publish", 'the name says "release"'),
        (of("POST /messages/send"), "high", "send", 'the name says "send"'),
        (of("PUT /pulls/{n}/merge", "pulls/merge"), "high", "code", 'the name says "merge"'),
        (of("POST /deployments", "createDeployment"), "high", "code", 'it is about "deployment"'),
        (of("PUT /repos/{r}/collaborators/{u}", "add"), "high", "access", '"collaborator"'),
        (of("POST /invites", "inviteUser"), "high", "access", 'the name says "invite"'),
        (of("POST /user/keys", "createSshKey"), "high", "secret", 'it is about "ssh key"'),
        (of("POST /session", "login", gives=frozenset({"access_token"})), "high", "secret", "has"),
        (of("PATCH /me", "updateMe", fields=fields("password")), "high", "secret", "password"),
        (of("POST /hooks", "createHook"), "high", "guard", 'it is about "hook"'),
        (of("PUT /branches/{b}/protection", "set"), "high", "guard", 'it is about "protection"'),
        (of("PUT /admin/limits", "setLimits"), "high", "admin", "administration"),
        (of("POST /x", "x", tags=("Billing",)), "high", "money", 'its tag says "billing"'),
        (of("POST /v1/{name}:cancel"), "medium", "close", 'the name says "cancel"'),
        (of("POST /v1/{name}:setIamPolicy"), "high", "access", 'it is about "policy"'),
        (of("POST /runs/{id}/rerun", "rerun"), "medium", "run", 'the name says "rerun"'),
        (of("POST /teams/{t}/members/remove", "bulk-remove"), "high", "access", '"member"'),
        (of("PATCH /a", "updateA", text="It cannot be undone."), "high", "change", "cannot be"),
        (of("POST /v1/$batch", "createBatch"), "high", "carrier", 'its path ends in "batch"'),
        (of("POST /graphql", "queryGraphql", **ANSWER), "high", "carrier", "graphql"),
        (of("POST /batch/jobs", "createJob"), "medium", "create", 'the name says "create"'),
        # deletes
        (of("DELETE /pets/{id}", "deletePet"), "high", "delete", "DELETE"),
        (of("DELETE /repos/{r}/collaborators/{u}", "x"), "high", "access", '"collaborator"'),
        (of("DELETE /user/starred/{r}", "unstar"), "medium", "detach", 'about "starred"'),
        (of("DELETE /repos/{r}", "unstar"), "high", "delete", "DELETE"),
        (of("DELETE /repos/label*", "x"), "high", "delete", "DELETE"),
        (of("DELETE /networkWatchers/{n}"), "high", "delete", "DELETE"),
        (of("DELETE /jobs/{n}/unassign"), "medium", "detach", 'its path says "unassign"'),
        (of("DELETE /v1/subscriptions/{id}"), "high", "delete", "DELETE"),
        (of("DELETE /star/systems/{id}"), "high", "delete", "DELETE"),
        (of("DELETE /c/{c}/reactions/{id}", "deleteReaction"), "medium", "detach", '"reaction"'),
        (
            of("DELETE /i/{i}/x/{id}", "removeX", summary="Remove x from an i"),
            "high",
            "delete",
            "DELETE",
        ),
        (
            of("DELETE /orgs/{o}/members/{u}", "removeMember", summary="Remove from the org"),
            "high",
            "access",
            '"member"',
        ),
    ],
)  # fmt: skip
def test_every_class_has_its_evidence(
    operation: Operation, risk: str, kind: str, reason: str
) -> None:
    verdict = classify(operation)
    assert (verdict.risk, verdict.kind.name) == (risk, kind), verdict.reasons
    assert reason in "; ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("operation", "doubt"),
    [
        (of("POST /search", "search", **ANSWER), "read-by-post"),
        (of("POST /search", "search"), "search-unproven"),
        (of("GET /jobs/{id}/cancel"), "acts-by-get"),
        (of("GET /a", "getA", gives=frozenset({"password"})), "secret-in-answer"),
        (of("GET /commits", "listCommits", items=frozenset({"email"})), "contacts"),
        (of("POST /items", "searchItems", **ANSWER), "search-unproven"),
        (of("DELETE /star", "unstar"), "mild-delete"),
        (of("DELETE /a/{a}/b/{b}", "x", summary="Remove a b from an a"), "mild-unproven"),
        (of("POST /widgets", "PostWidgets"), "method-only"),
        (of("PATCH /repos/{r}", "update", fields=fields("visibility")), "visibility"),
    ],
)
def test_a_person_is_asked_to_look(operation: Operation, doubt: str) -> None:
    assert classify(operation).doubts == [doubt]
    assert DOUBTS[doubt].endswith(".")


TEXTS = st.text(alphabet="aB/{}:.-_ ?#é*", max_size=20) | st.sampled_from(
    [
        *("search", "deleteSecret", "/v1/{a}/merge", "list", "createToken", "GET", "unstar"),
        *("/a/search", "/public/keys", "/a/token", "/a/refunds/list", "/a/{b}/starred", "page"),
        *("/api/keys", "/a/{b}/cancel", "getCancel", "secret", "/tokens/{a}", "next", "scanning"),
    ]
)
OPERATIONS = st.builds(
    Operation,
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "COPY"]),
    path=TEXTS,
    id=TEXTS,
    summary=TEXTS,
    text=TEXTS,
    tags=st.lists(TEXTS, max_size=2).map(tuple),
    gives=st.frozensets(TEXTS, max_size=2),
    items=st.frozensets(TEXTS, max_size=2),
    statuses=st.frozensets(st.sampled_from(["200", "201", "204"])),
    answers=st.booleans(),
)


@given(OPERATIONS)
def test_every_operation_has_one_class_and_says_why(operation: Operation) -> None:
    verdict = classify(operation)
    assert verdict.risk in ORDER
    assert verdict.reasons
    assert set(verdict.doubts) <= DOUBTS.keys()
    assert classify(operation) == verdict
    if verdict.risk == "low":
        assert operation.method in ("GET", "HEAD") or (
            operation.method == "POST"
            and "read-by-post" in verdict.doubts
            and operation.answers
            and not operation.statuses & {"201", "204"}
        )


@given(OPERATIONS)
def test_words_only_make_a_class_stricter(operation: Operation) -> None:
    """Method, path and the form of the answer aside, nothing that is written lowers a class."""
    silent = replace(
        operation,
        id="",
        summary="",
        text="",
        tags=(),
        fields=(),
        gives=frozenset(),
        within=frozenset(),
        items=frozenset(),
    )
    assert ORDER[classify(operation).risk] >= ORDER[classify(silent).risk]
