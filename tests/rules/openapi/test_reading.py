"""Descriptions as plain values: one reading or a refusal, within bounds, whoever wrote them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import InvalidFile, Problem
from rules.openapi import reading
from rules.openapi.reading import Plain, read_description

PLAIN = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=5).filter(lambda k: k != "<<"), inner)
    ),
    max_leaves=12,
)


def problem_of(data: bytes | str) -> tuple[int, str]:
    with pytest.raises(InvalidFile) as caught:
        read_description(data.encode() if isinstance(data, str) else data, "a.yaml")
    (problem,) = caught.value.problems
    assert problem.file == "a.yaml"
    return problem.line, problem.message


def test_yaml_is_read_as_descriptions_are_written() -> None:
    text = """
openapi: 3.0.3
paths:
  /a:
    get: {responses: {200: {description: "yes"}, default: {description: no}}}
    x-on: true
    x-none: ~
    x-number: 0x1F
    x-text: "true"
    x-tagged: !!str true
"""
    get = {"responses": {"200": {"description": "yes"}, "default": {"description": "no"}}}
    assert read_description(text.encode(), "a.yaml") == {
        "openapi": "3.0.3",
        "paths": {
            "/a": {
                "get": get,
                "x-on": True,
                "x-none": None,
                "x-number": "0x1F",
                "x-text": "true",
                "x-tagged": "true",
            }
        },
    }


def test_aliases_stand_for_what_they_name() -> None:
    text = "a: &list [1, {b: c}]\nd: *list\ne: &word x\nf: *word\n"
    assert read_description(text.encode(), "a.yaml") == {
        "a": ["1", {"b": "c"}],
        "d": ["1", {"b": "c"}],
        "e": "x",
        "f": "x",
    }


@given(PLAIN)
def test_json_and_yaml_are_the_same(value: Plain) -> None:
    """JSON as it is, and the same text in the YAML reader, which JSON is a part of."""
    whole: Plain = {"openapi": value}
    text = json.dumps(whole)
    assert read_description(text.encode(), "a.json") == whole
    if "\\ud" not in text:  # JSON's pairs of surrogates are no YAML
        assert read_description(b"---\n" + text.encode(), "a.yaml") == whole


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    problems: Sequence[Problem] = ()
    try:
        read_description(data, "a.yaml")
    except InvalidFile as error:
        problems = error.problems
    assert len(problems) <= 1


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' occurs twice in the mapping of line 1"),
        ("a:\n  200: x\n  '200': y\n", 3, "the key '200' occurs twice in the mapping of line 2"),
        ('{"a": {"get": 1, "put": 2, "get": 3}}', 0, "'get' occurs twice in one object"),
        ("a: [1, 2\nb: 3", 2, "not valid YAML"),
        ('{"a": 1,\n "b" 2}', 2, "not valid JSON: Expecting ':' delimiter (column 6)"),
        ("a: 1\n---\nb: 2\n", 2, "a second document starts here"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tags are not used"),
        ("a: !ruby/object x\n", 1, "tag '!ruby/object': tags are not used"),
        ("a: &a [*a]\n", 1, "alias *a stands for nothing that ends before it"),
        ("a: *b\n", 1, "alias *b stands for nothing that ends before it"),
        ("a: &x {b: c}\nd:\n  <<: *x\n", 3, "merge key <<: write the entries out instead"),
        ("? [a, b]\n: c\n", 1, "a key must be one word of text"),
        ("a: &x y\n*x : z\n", 2, "a key must be one word of text"),
        ("a: " + "[" * 300 + "]" * 300, 1, "nested deeper than 200 levels"),
        ("[" * 200_000, 0, "nested deeper than 200 levels"),
        (b"a: \xff\n", 1, "the file is not UTF-8 text"),
        (b"a: 1\nb: \xe4\n", 2, "the file is not UTF-8 text"),
        ("a: \x00\n", 0, "not valid YAML"),
    ],
)
def test_what_has_no_one_reading_is_refused(text: bytes | str, line: int, said: str) -> None:
    found, message = problem_of(text)
    assert said in message
    assert found == line


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    line, message = problem_of("\n".join(lines))
    assert line == 7
    assert "more than 4,000,000 values, aliases counted as what they stand for" in message


def test_what_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    assert "larger than 1 MiB" in problem_of(b" " * ((1 << 20) + 1))[1]
    monkeypatch.setattr(reading, "MAX_VALUES", 100)
    assert "more than 4,000,000 values" in problem_of("[" + "0," * 101 + "0]")[1]
    assert "more than 4,000,000 values" in problem_of("- a\n" * 101)[1]
    nested = "{" + ", ".join(f'"{i}": ""' for i in range(99)) + "}"
    assert "more than 4,000,000 values" in problem_of(f'{{"a": {nested}, "b": 1}}')[1]


def test_progress_is_told() -> None:
    told: list[float] = []
    read_description(b"- a\n" * 50_000, "a.yaml", told.append)
    assert told == sorted(told)
    assert len(told) >= 2 and told[0] >= 0 and told[-1] <= 1
