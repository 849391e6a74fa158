"""The OpenAPI document is true of the running program: schemathesis asks everything it describes,
rightly and wrongly, as an admin, as a viewer and without a token.

The seed is fixed, so that a failure is the same failure everywhere. What there is to be found (a
held call, sessions, tokens, people) is really there, under names that the run is told.
"""

from __future__ import annotations

import http.cookiejar
import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.support.program import Program, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

PASSWORD = "correct horse battery"
POLICY = """
version: 1
rules:
  - {id: open, agents: [bot], match: {host: "$HOST", path: "/echo/**"}, effect: allow}
  - {id: ask, agents: [bot], match: {host: "$HOST", path: "/held/**"}, effect: hold, risk: high}
"""
# The names of things that are there: most of the run should reach more than "not found".
CONFIG = """
[parameters]
"path.name" = "vera"
[[operations]]
include-path-regex = "^/api/v1/approvals/"
parameters = {{ "path.id" = "{approval}" }}
[[operations]]
include-path-regex = "^/api/v1/calls/"
parameters = {{ "path.id" = "{call}" }}
"""
EXAMPLES = 12
"""For each operation and phase; with the coverage phase some 2,000 requests in all."""


@dataclass(frozen=True)
class Stage:
    kb: Program
    admin: str
    approval: str
    call: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with (
        Upstream() as upstream,
        Program(tmp_path_factory.mktemp("openapi"), upstream, policy=POLICY) as kb,
    ):
        admin = kb.user("root", "admin")
        kb.user("vera", "viewer", PASSWORD)
        kb.user("spare", "admin", PASSWORD)
        bot = kb.agent("bot", "--hold-wait", "1s", "--pending-status", "202")
        assert kb.curl(bot, upstream.url + "/echo/x").status == 200
        assert kb.curl(bot, upstream.url + "/nowhere").status == 403
        assert kb.curl(bot, upstream.url + "/held/x").status == 202
        sign_in(kb, "vera")
        [card] = kb.pending(admin)

        def listed() -> bool:
            return len(kb.api(admin, "/api/v1/calls")[1]["calls"]) == 3

        wait_until(listed, what="three calls in the history")
        calls = kb.api(admin, "/api/v1/calls")[1]["calls"]
        yield Stage(kb, admin, card["id"], calls[0]["call"])


def sign_in(kb: Program, name: str) -> None:
    """As a browser does, so that there is a session to be listed."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
    )
    page = opener.open(f"{kb.admin_url}/login", timeout=20).read().decode()
    csrf = re.search(r'name="csrf" value="([^"]*)"', page)
    assert csrf is not None
    form = {"csrf": csrf[1], "name": name, "password": PASSWORD, "next": "/"}
    request = urllib.request.Request(
        f"{kb.admin_url}/login",
        urllib.parse.urlencode(form).encode(),
        {"Origin": kb.admin_url},
    )
    assert opener.open(request, timeout=20).status == 200


@dataclass(frozen=True)
class Run:
    """What came of one run of schemathesis."""

    status: int
    said: str
    answers: list[tuple[str, str, int, str]]
    """Method, path as the document has it, status and text."""

    def reached(self, *statuses: int) -> set[tuple[str, str]]:
        """Which operations answered with one of these."""
        return {(method, path) for method, path, status, _ in self.answers if status in statuses}


def schemathesis(
    stage: Stage,
    directory: Path,
    *options: str,
    token: str | None,
    document: str | None = None,
    examples: int = EXAMPLES,
) -> Run:
    """All checks in all phases but the stateful one, which would find the run's own token in a
    list, revoke it, and learn nothing more."""
    config, har = directory / "schemathesis.toml", directory / "run.har"
    config.write_text(CONFIG.format(approval=stage.approval, call=stage.call))
    where = document or f"{stage.kb.admin_url}/api/v1/openapi.json"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file", str(config), "run", where, "--url", stage.kb.admin_url,
        "--seed", "1", "--max-examples", str(examples), "--phases", "examples,coverage,fuzzing",
        "--checks", "all", "--request-timeout", "20", "--no-color", "--no-shrink",
        "--continue-on-failure", "--warnings", "off", "--report-har-path", str(har), *options,
    ]  # fmt: skip
    if token is not None:
        command += ["--header", f"Authorization: Bearer {token}"]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=100, check=False
    )
    entries = json.loads(har.read_text())["log"]["entries"]
    return Run(
        done.returncode,
        done.stdout + done.stderr,
        [
            (
                entry["request"]["method"],
                shape(urllib.parse.urlsplit(entry["request"]["url"]).path),
                entry["response"]["status"],
                entry["response"]["content"].get("text", ""),
            )
            for entry in entries
        ],
    )


def shape(path: str) -> str:
    """The path with names in the place of values."""
    path = re.sub(r"^(/api/v1/users/)[^/]+", r"\1{name}", path)
    return re.sub(r"^(/api/v1/(?:approvals|calls|users/\{name\}/\w+)/)[^/]+", r"\1{id}", path)


def described(stage: Stage) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """The document, and its operations by method and path."""
    _, document = stage.kb.api(None, "/api/v1/openapi.json")
    return document, {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def check_members(stage: Stage, run: Run) -> None:
    """Every JSON answer has exactly the members that are described: schemathesis overlooks more."""
    document, operations = described(stage)
    seen = 0
    for method, path, status, text in run.answers:
        operation = operations.get((method, path))
        media = operation and operation["responses"].get(str(status), {}).get("content", {})
        if status == 200 and media and "application/json" in media:
            schema = {**media["application/json"]["schema"], "components": document["components"]}
            jsonschema_rs.Draft202012Validator(schema).validate(json.loads(text))
            seen += 1
    assert seen > 10


def test_an_admin(stage: Stage, tmp_path: Path) -> None:
    run = schemathesis(stage, tmp_path, token=stage.admin)
    assert run.status == 0, run.said
    check_members(stage, run)
    # Not all of it was "not found": each operation but those that need one more thing succeeded.
    assert set(described(stage)[1]) - run.reached(200, 204) <= {
        ("POST", "/api/v1/approvals/{id}/votes"),  # a value to retype
        ("DELETE", "/api/v1/users/{name}/sessions/{id}"),  # an id that is nowhere told
        ("DELETE", "/api/v1/users/{name}/tokens/{id}"),
        ("GET", "/api/v1/openapi.json"),  # read once, before the run
    }
    # It was an admin to the end: nothing that was asked had taken that away.
    assert stage.kb.api(stage.admin, "/api/v1/me")[1]["role"] == "admin"


def test_a_viewer(stage: Stage, tmp_path: Path) -> None:
    vera = {"role": "viewer", "disabled": False}
    assert stage.kb.api(stage.admin, "/api/v1/users/vera", vera, "PATCH")[0] == 200
    token = stage.kb.json("user", "token", "vera")["token"]
    run = schemathesis(stage, tmp_path, token=token)
    assert run.status == 0, run.said
    check_members(stage, run)
    assert run.reached(403) >= {
        ("GET", "/api/v1/users"),
        ("PATCH", "/api/v1/users/{name}"),
        ("POST", "/api/v1/approvals/{id}/votes"),
    }
    assert ("GET", "/api/v1/users/{name}/tokens") in run.reached(200)
    assert not run.reached(200) & run.reached(403)


def test_nobody(stage: Stage, tmp_path: Path) -> None:
    run = schemathesis(stage, tmp_path, token=None, examples=2)  # nearly all end at the door
    assert run.status == 0, run.said
    operations = described(stage)[1]
    open_to_all = {name for name, one in operations.items() if "401" not in one["responses"]}
    assert run.reached(200, 204) & operations.keys() <= open_to_all


def test_a_false_document_is_noticed(stage: Stage, tmp_path: Path) -> None:
    """Else the runs above would show nothing."""
    document, _ = described(stage)
    document["components"]["schemas"]["User"]["properties"]["role"] = {"enum": ["king"]}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document))
    run = schemathesis(
        stage, tmp_path, "--include-path", "/api/v1/me", token=stage.admin, document=str(file)
    )
    assert run.status == 1
    assert "violates schema" in run.said


def test_the_ledger_is_whole_after_all_that(stage: Stage) -> None:
    stage.kb.verify()
    assert "Traceback" not in stage.kb.log.read_text()
