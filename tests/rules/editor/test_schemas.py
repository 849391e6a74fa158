"""The schemas say what the loader says: over every policy there is, and of every unknown field."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from rules import packs
from rules.editor import schemas
from rules.editor.pieces import Json
from rules.errors import InvalidFile
from rules.include import INCLUDE
from rules.limit_schema import LIMIT
from rules.load import FIELDS, load_policy, starter_policy
from rules.matches import BODY, GRAPHQL, GRPC, JSONRPC, MATCH, MCP, SOURCE, TIME
from rules.operators import OPERATORS
from rules.pack import read_pack
from rules.schema import CREDENTIAL, RULE, TIER, VARIABLE
from rules.trial.cases import CASE, EXPECT, read_cases
from rules.trial.requests import BODIES, PLACES, REQUEST
from rules.yamlfile import parse_yaml

ROOT = Path(__file__).parents[3]
_FENCE = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)

POLICY = jsonschema_rs.Draft202012Validator(schemas.policy_schema())
TESTS = jsonschema_rs.Draft202012Validator(schemas.tests_schema())
PACK = jsonschema_rs.Draft202012Validator(schemas.pack_schema())


def test_they_are_schemas() -> None:
    for made in (schemas.policy_schema(), schemas.tests_schema(), schemas.pack_schema()):
        jsonschema_rs.meta.validate(made)
        assert made["$schema"].endswith("2020-12/schema")


def texts() -> Iterator[tuple[str, str]]:
    """Texts that may be policies: in the guides, in tests, and the starters."""
    for guide in sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]):
        for number, block in enumerate(_FENCE.findall(guide.read_text())):
            yield f"{guide.name}[{number}]", block
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and ("version: 1" in text or "- {as:" in text):
                yield f"{file.name}:{node.lineno}", text
    yield "solo", starter_policy(True)
    yield "team", starter_policy(False)


@cache
def accepted() -> tuple[tuple[str, Any], ...]:
    """The policies among them that the loader takes."""
    found = []
    for name, text in texts():
        try:
            load_policy(text, try_out=False)
        except InvalidFile:
            continue
        found.append((name, parse_yaml(text, "")[0]))
    return tuple(found)


def test_every_policy_that_loads_is_valid() -> None:
    assert len(accepted()) > 60
    for name, value in accepted():
        assert POLICY.is_valid(value), (name, [str(e) for e in POLICY.iter_errors(value)][:1])


def test_every_file_of_cases_in_the_guides_is_valid() -> None:
    found = 0
    for name, text in texts():
        try:
            read_cases(text, name)
        except InvalidFile:
            continue
        found += 1
        TESTS.validate(parse_yaml(text, "")[0])
    assert found >= 1


@pytest.mark.parametrize("name", packs.names())
def test_every_pack_is_valid(name: str) -> None:
    text = packs.text_of(name)
    assert text is not None
    PACK.validate(parse_yaml(text, name)[0])


# Each field of every table is here, so that each can be held against the loader.
WHOLE = """\
version: 1
mode: enforce
credentials:
  a: {secret: "kv/a#k", hosts: [a.example], inject: {header: X-Key, format: "k {secret}"},
      env: {name: A_KEY, shape: "k_{hex:32}"}}
  b: {secret: "kv/b#k", hosts: b.example, inject: {basic: {username: u}}, env: B_KEY}
approvers: {finance: [alice, bob]}
tiers:
  money: {quorum: [{group: finance, count: 1}], exclude: [owner], decide_within: 1h,
          execute_within: 5m, denials: 1, reason: required, confirm: retype, passkey: optional,
          grants: never, escalate: []}
include:
  - {pack: kubernetes, as: k, agents: [bot], use: [], with: {host: k.example}}
override:
  k.exec: {impact: null, undo: "yes"}
rules:
  - id: all
    agents: [bot]
    match:
      method: [GET, POST]
      host: ["a.example", "*.b.example:8443"]
      path: /v1/{x}/**
      scheme: https
      query: {a: {in: [x, 1]}, b: "1", c: 5}
      headers: {x-a: {not_in: [a], prefix: a, suffix: b, glob: "a*"}}
      json: {/a: {gt: 1, gte: 1, lt: 9.5, lte: 9}, /b: null, /c: {length: {lte: 5}}, /d: {length: 3}}
      form: {a: {exists: false}}
      body: {type: text/*, size: {lte: 64KiB, gt: 1}}
      graphql: {kind: mutation, fields: ["a*"]}
      jsonrpc: {method: a, params: {/0: 1}}
      mcp: {method: tools/call, tool: [a], arguments: {/a: true}}
      grpc: {service: a.B, method: "*"}
      upgrade: none
      time: {days: [mon, friday], from: "09:00", to: "17:00", zone: UTC}
      source: {via: proxy, run: false, tags: [ci]}
      when: call.method == "GET"
    except: [{path: /v1/x/**}, {body: {size: 5}}, {source: {run: t-00000000000000000000000000}},
             {source: {run: [t-00000000000000000000000000]}}]
    effect: hold
    risk: money
    summary: "{method} {form:a}"
    confirm: form:a
    impact: text
    undo: "no"
    use: []
    body: buffer
    limit: [{calls: 5, per: 1m, over: hold}, {sum: form:a, max: 10.5, per: 1d}]
    mode: shadow
    tests: {match: [], no_match: [{method: GET, path: /x}]}
  - {id: streams, agents: bot, match: {host: c.example}, effect: allow, body: stream, body_limit: 1GiB}
"""  # noqa: E501
CASES = """\
- name: n
  as: bot
  tags: [ci]
  at: "2026-03-02T09:30:00Z"
  repeat: 2
  request: {method: POST, url: "https://a.example/", target: /x, headers: {a: [b, 1], c: true},
            json: {a: 1}, via: gateway, run: true}
  expect: {effect: deny, risk: null, rule: null, rules: [], code: null, sentence: x}
- {as: bot, request: {method: GET, url: u, headers: [[a, b]], body: x, at: 2026-03-02}, expect: {rules: a}}
- {as: bot, request: {method: GET, url: u, form: [[a, 1]]}, expect: {code: policy_denied, rule: a}}
- {as: bot, request: {method: GET, url: u, body_base64: "", run: t-00000000000000000000000000}, expect: {effect: hold, risk: money}}
"""  # noqa: E501
SHOP = """\
pack: shop
title: Shop
about: Orders.
hosts: [api.shop.example]
parameters: {owner: {default: "*", about: Whose., kind: name}}
credential: {inject: bearer}
rules:
  - {id: a, class: high, match: {method: POST, path: "/${owner}"}, except: {query: {a: b}},
     summary: s, confirm: form:a, impact: i, undo: u, body: buffer, body_limit: null,
     limit: {calls: 1, per: 1m}, tests: {match: [{method: POST, path: /x}]}}
  - {id: b, class: low, rest: true, match: {method: GET}}
"""


def mappings(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The ways to every mapping in a value."""
    if isinstance(value, dict):
        yield path
    items: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for step, inner in items:
        yield from mappings(inner, (*path, step))


def with_field(value: Any, path: tuple[str | int, ...], name: str) -> Any:
    changed = copy.deepcopy(value)
    at = changed
    for step in path:
        at = at[step]
    at[name] = "x"
    return changed


def as_yaml(value: object) -> str:
    """In JSON, which is YAML, but for what the loader has no spelling for."""
    return json.dumps(value)


def refusals(text: str, read: Any) -> list[str]:
    try:
        read(text)
    except InvalidFile as invalid:
        return [problem.message for problem in invalid.problems]
    return []


LOADERS = {
    "policy": (WHOLE, POLICY, load_policy),
    "tests": (CASES, TESTS, lambda text: read_cases(text, "c.yaml")),
    "pack": (SHOP, PACK, lambda text: read_pack(text, "p.yaml")),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_the_whole_language_is_valid(kind: str) -> None:
    text, validator, _ = LOADERS[kind]
    validator.validate(parse_yaml(text.replace(", body_limit: null", ""), "")[0])


@pytest.mark.parametrize("kind", LOADERS)
def test_an_unknown_field_is_refused_by_both_or_by_neither(kind: str) -> None:
    text, validator, read = LOADERS[kind]
    value = parse_yaml(text.replace(", body_limit: null", ""), "")[0]
    known = 0
    for path in mappings(value):
        changed = with_field(value, path, "zzz")
        problems = refusals(as_yaml(changed), read)
        unknown = any(re.search(r'unknown (?:field|operator) "zzz"', one) for one in problems)
        if unknown:
            known += 1
            assert not validator.is_valid(changed), path
    assert known >= {"policy": 30, "tests": 9, "pack": 5}[kind]


def names_in(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(names_in, value))
    return set()


def test_the_examples_have_every_field_of_the_tables() -> None:
    policy = names_in(parse_yaml(WHOLE, "")[0])
    tables = (FIELDS, RULE, MATCH, TIER, CREDENTIAL, VARIABLE, LIMIT, OPERATORS, BODY, GRAPHQL,
              GRPC, JSONRPC, MCP, SOURCE, TIME)  # fmt: skip
    for table in tables:
        assert set(table) <= policy, table
    assert set(INCLUDE) - {"file"} <= policy
    cases = names_in(parse_yaml(CASES, "")[0])
    assert {*CASE, *EXPECT, *REQUEST} - {"path"} <= cases
    assert {*BODIES, *PLACES} <= set(REQUEST)


@pytest.mark.parametrize(
    "wrong",
    [
        "version: 2",
        "version: 1\nrules: [{id: a, agents: bot, match: {}, effect: alow}]",
        "version: 1\nrules: [{id: a, agents: [], match: {}, effect: allow}]",
        "version: 1\nrules: [{id: a, agents: bot, effect: allow}]",
        "version: 1\nrules: [{id: a, agents: bot, match: {json: {/a: {gt: x}}}, effect: allow}]",
        "version: 1\ntiers: {medium: {reason: maybe}}",
        "version: 1\ninclude: [{pack: a, file: ./a.yaml, agents: bot}]",
        "version: 1\ncredentials: {a: {secret: s, hosts: h}}",
    ],
)
def test_what_is_plainly_wrong_is_refused_by_both(wrong: str) -> None:
    assert refusals(wrong, load_policy)
    assert not POLICY.is_valid(parse_yaml(wrong, "")[0])


def with_fields(schema: Json) -> Iterator[tuple[str, Json]]:
    """The fields that stand in a schema, at any depth."""
    for name, field in schema.get("properties", {}).items():
        yield name, field
        yield from with_fields(field)
    inner = schema.get("additionalProperties") or {}
    for one in (*schema.get("anyOf", ()), *([inner] if inner else ())):
        yield from with_fields(one)


def test_every_field_of_a_match_and_every_operator_has_words_for_a_hover() -> None:
    fields = list(with_fields(schemas.policy_schema()["$defs"]["match"]))
    assert {"glob", "kind", "grpc", "from", "lte"} <= {name for name, _ in fields}
    bare = {name for name, field in fields if "description" not in field}
    assert bare == set()
