"""Packs from OpenAPI descriptions: the whole of GitHub's, and a small one up to real calls."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rules.openapi.importing import Imported, import_openapi
from tests.support.openapi import broken
from tests.support.program import Program
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

GITHUB = (
    Path(__file__).parents[2]
    / ".clients/node/node_modules/@octokit/openapi/generated/api.github.com.json"
)
"""What scripts/ensure-clients puts there."""
METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}
CLASSES = {
    "repos/delete": "high",
    "repos/transfer": "high",
    "repos/add-collaborator": "high",
    "repos/create-release": "high",
    "repos/create-deploy-key": "high",
    "repos/update-branch-protection": "high",
    "pulls/merge": "high",
    "actions/create-or-update-repo-secret": "high",
    "actions/create-registration-token-for-repo": "high",
    "orgs/create-invitation": "high",
    "issues/create": "medium",
    "issues/update": "medium",
    "pulls/create": "medium",
    "actions/create-workflow-dispatch": "medium",
    "actions/list-repo-secrets": "medium",
    "activity/unstar-repo-for-authenticated-user": "medium",
    "markdown/render-raw": "low",
    "repos/get": "low",
    "repos/get-content": "low",
    "issues/list-for-repo": "low",
    "pulls/check-if-merged": "low",
    "search/code": "low",
}
"""What anybody who knows GitHub would say."""


@pytest.fixture(scope="module")
def github() -> Imported:
    return import_openapi(GITHUB.read_bytes(), file="github.json", name="github")


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Counted apart from the import."""
    document = json.loads(GITHUB.read_text())
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def test_every_operation_of_github_is_in_exactly_one_rule(github: Imported) -> None:
    described = operations()
    assert len(described) > 700
    placed = Counter(operation for rule in github.rules for operation in rule.operations)
    assert placed == Counter(described.keys())
    assert sum(github.counts.values()) == github.operations == len(described)


def test_every_call_of_github_has_exactly_one_class(github: Imported) -> None:
    assert broken(github, host="api.github.com") == []


def test_classes_are_those_that_a_person_would_give(github: Imported) -> None:
    ids = {call: operation["operationId"] for call, operation in operations().items()}
    found = {ids[call]: rule.risk for rule in github.rules for call in rule.operations}
    assert {name: found[name] for name in CLASSES} == CLASSES


def test_a_policy_with_the_pack_has_nothing_to_complain_of(
    tmp_path: Path, github: Imported
) -> None:
    with Upstream() as upstream:
        kb = Program(tmp_path, upstream)
        kb.init()
        told = kb.json("policy", "import", "openapi", str(GITHUB), "-o", f"{tmp_path}/github.yaml")
        assert told["classes"] == github.counts
        policy = tmp_path / "policy.yaml"
        policy.write_text("version: 1\ninclude: [{file: ./github.yaml, agents: [bot]}]\n")
        checked = kb.json("policy", "check", str(policy))
        assert checked["valid"]
        assert [f for f in checked["findings"] if f["severity"] == "error"] == []


def test_from_a_description_to_real_calls(tmp_path: Path) -> None:
    """Allowed, held, and denied, by a pack that nobody edited; a spelling of the held one too."""
    description = """
openapi: 3.1.0
info: {title: Echo, version: 1}
paths:
  /echo/{id}:
    get: {operationId: getEcho}
    post: {operationId: searchEcho, responses: {200: {content: {text/plain: {}}}}}
  /echo/all: {post: {operationId: deleteAll}}
"""
    with Upstream() as upstream:
        kb = Program(tmp_path, upstream, hold_wait="1s")
        kb.init()
        pack = kb.workspace / "echo.yaml"
        place = f"localhost:{upstream.port}"
        kb.cli("policy", "import", "openapi", "-", "--host", place, "-o", str(pack),
               stdin=description)  # fmt: skip
        kb.write_policy("version: 1\ninclude: [{file: ./echo.yaml, agents: [bot]}]\n")
        bot = kb.agent("bot")
        kb.start()
        try:
            assert kb.curl(bot, f"{upstream.url}/echo/1").status == 200
            # That it searches is said by its name only, which makes nothing milder.
            for path in ("/echo/1", "/echo/all", "/echo/ALL", "/echo/all/"):
                held = kb.curl(bot, upstream.url + path, "-d", "x=1")
                assert (held.status, held.code) == (503, "approval_pending"), path
            denied = kb.curl(bot, f"{upstream.url}/echo/1", "-X", "DELETE")
            assert (denied.status, denied.code) == (403, "policy_denied")
        finally:
            kb.stop()
