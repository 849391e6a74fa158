"""The written pack: strict YAML that no description can break out of, for a person to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rules.openapi.importing import import_openapi
from rules.yamlfile import parse_yaml
from tests.support.openapi import expand

HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        "a: b",
        "# x",
        "x\n- id: evil\n  class: low",
        '"',
        "'",
        "*x",
        "&x",
        "true",
        "~",
        "\u2028- x",
        "{",
    ]
)


def written(document: dict[str, Any]) -> str:
    data = json.dumps(document).encode()
    return import_openapi(data, file="a.json", name="p", hosts=["api.example.com"]).text


def test_the_whole_of_a_small_pack() -> None:
    paths = {
        "/pets": {
            "get": {"operationId": "listPets", "summary": "List pets"},
            "post": {"operationId": "createPet", "summary": "Create a pet"},
        },
        "/pets/{id}": {
            "get": {"operationId": "getPet"},
            "delete": {"operationId": "deletePet", "summary": "Delete a pet"},
        },
        "/pets/star": {"delete": {"operationId": "unstarMine", "summary": "Unstar mine"}},
    }
    scheme = {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
    text = written(
        {
            "openapi": "3.1.0",
            "info": {"title": "Pet Store", "version": "1.2"},
            "servers": [{"url": "https://api.example.com/v1"}],
            "paths": paths,
            "components": {"securitySchemes": {"key": scheme}},
        }
    )
    assert text == (Path(__file__).parent / "pets.yaml").read_text()


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_description_writes_a_rule_of_its_own(
    title: str, summary: str, id: str, segment: str
) -> None:
    document = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": summary},
        "servers": [{"url": "https://other.example"}],
        "x-webhooks": {title: {}},
        "paths": {
            "/ok": {"post": {"operationId": id, "summary": summary, "tags": [title]}},
            f"/{segment}/x": {"get": {"summary": title, "description": segment}},
        },
    }
    text = written(document)
    pack: Any = parse_yaml(text, "p.yaml")[0]
    assert set(pack) <= {"pack", "title", "about", "hosts", "credential", "rules"}
    assert pack["hosts"] == ["api.example.com"]
    assert 1 <= len(pack["rules"]) <= 2
    assert pack["rules"][0]["class"] != "low"
    # Above the pack there is nothing but comments, whatever they repeat.
    head = text.split("\npack: ", 1)[0]
    assert all(line.startswith("#") for line in head.split("\n"))
    expand(text)


def test_a_rule_at_another_host_names_it() -> None:
    upload = {"operationId": "upload", "servers": [{"url": "https://up.example/base"}]}
    text = written(
        {
            "openapi": "3.1.0",
            "paths": {
                "/a/{x}": {"delete": upload},
                "/a/b": {"delete": {**upload, "operationId": "unstar"}},
            },
        }
    )
    pack: Any = parse_yaml(text, "p.yaml")[0]
    assert pack["rules"][0]["match"] == {
        "host": "up.example",
        "method": "DELETE",
        "path": "/base/a/{x}",
    }
    assert pack["rules"][0]["except"]["host"] == "up.example"
    assert pack["rules"][0]["tests"]["match"] == [
        {"method": "DELETE", "url": "https://up.example/base/a/x1"}
    ]
