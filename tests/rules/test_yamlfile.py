"""Strict YAML: plain values with lines, everything odd refused at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from rules.errors import InvalidFile
from rules.yamlfile import (
    Lines,
    did_you_mean,
    parse_duration,
    parse_size,
    parse_yaml,
    problems_of,
)


def refused(text: str) -> list[str]:
    """What parse_yaml says of a bad text, one line each."""
    with pytest.raises(InvalidFile) as caught:
        parse_yaml(text, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_values_are_plain() -> None:
    value, _ = parse_yaml(
        "a: 1\nb: [true, False, null, ~, -7, 2.5, 1e3]\nc: {d: \"1\", e: 'x', f: }\n", "f"
    )
    assert value == {
        "a": 1,
        "b": [True, False, None, None, -7, 2.5, 1000.0],
        "c": {"d": "1", "e": "x", "f": None},
    }


@pytest.mark.parametrize(
    "word",
    ["yes", "no", "on", "off", "2024-01-02", "1:30", "1_000", "0.0.0.0/8", "kv/a#b", "-", "."],
)
def test_words_of_older_yaml_are_text(word: str) -> None:
    """YAML 1.1 made booleans, dates and base-60 numbers of these."""
    if word == "-":
        word = "-x"
    assert parse_yaml(f"a: {word}", "f")[0] == {"a": word}


def test_a_control_character_is_told_with_its_line() -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_yaml("a: 1\nb: \0\n", "f")
    [problem] = caught.value.problems
    assert str(problem).startswith("f:2: error: not valid YAML: ")


def test_an_empty_file_is_none() -> None:
    assert parse_yaml("", "f")[0] is None
    assert parse_yaml("# nothing\n", "f")[0] is None


def test_lines_lead_to_the_key_or_its_nearest_parent() -> None:
    _, lines = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - y: 2\n      z: 3\n", "f")
    assert lines.at(()) == 1
    assert lines.at(("a", "b")) == 2
    assert lines.at(("a", "c")) == 3
    assert lines.at(("a", "c", 1)) == 5
    assert lines.at(("a", "c", 1, "z")) == 6
    assert lines.at(("a", "c", 9, "q")) == 3
    assert lines.at(("nowhere",)) == 1
    assert Lines().at(("a", 0)) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", 'f.yaml:3: error: duplicate key "a", first given in line 1'),
        ("a: {b: 1}\na: 3", 'f.yaml:2: error: duplicate key "a", first given in line 1'),
        ("a: &x 1", "f.yaml:1: error: anchor &x: anchors are not used here"),
        ("a: !!str 1", "f.yaml:1: error: tag tag:yaml.org,2002:str: tags are not used here"),
        ("a: !!python/name:os.system x", "tags are not used here"),
        ("---\na: 1\n---\nb: 2", "f.yaml:3: error: a second document starts here"),
        ("%YAML 1.2\n---\na: 1", "directives (%) are not used here"),
        ("<<: {a: 1}", "merge key <<"),
        ("1: a", "the key 1 is not text; put it in quotes"),
        ("true: a", "the key true is not text; put it in quotes"),
        ("~: a", "the key null is not text; put it in quotes"),
        ("? [a]\n: b", "a key must be one word of text"),
        ("a: 012", "012 can be read in several ways; put it in quotes"),
        ("a: " + "9" * 5000, "can be read in several ways"),
        ("a: 0x1F", "0x1F is not a plain number; put it in quotes"),
        ("a: 1e999", "1e999 is too large a number"),
        ("a: 999999999999999.99", "999999999999999.99 has more digits than are kept"),
        ("a: 1e-400", "1e-400 has more digits than are kept"),
        ("a: 1e-99999999999999999999", "has more digits than are kept"),
        ("a: .nan", ".nan is not a plain number"),
        ("a: [1, 2", "',' or ']' (while parsing a flow sequence that begins in line 1)"),
        ("a:\n\t- b", "f.yaml:2: error: not valid YAML: found character that cannot start any"),
        ("a:\n\t- b", "; indent with blanks, not tabs"),
        ("a: `b`", "; put it in quotes"),
        ("a: *.example.com", "; put text that begins with * in quotes"),
        ("a: Refund: 5", "; put text with a colon and a blank in it in quotes"),
        ("a: \x00", "not valid YAML"),
        ("a: \ud800", "not valid YAML: surrogates not allowed"),
        ("[" * 33 + "]" * 33, "nested deeper than 32 levels"),
        ("[" * 100_000, "nested deeper than 32 levels"),
        ("x" * (16 * 1024 * 1024 + 1), "f.yaml: error: the file is larger than 16 MiB"),
    ],
)
def test_what_is_odd_is_refused(text: str, sentence: str) -> None:
    assert any(sentence in line for line in refused(text)), refused(text)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\r", "\u202e", "\u2066", "\u200f"])
def test_nothing_hides_behind_a_comment(mark: str) -> None:
    """To the parser a line may end where a reader, or a review, sees the comment go on."""
    text = f"a: 1\r\n# text{mark}b: 2\nc: &x 3\n"
    assert refused(text) == [
        f"f.yaml:2: error: the character {mark!a} hides what stands behind it; take it out"
    ]
    assert parse_yaml("# \u05d0\r\na: \u05d0\r\n", "f")[0] == {"a": "\u05d0"}


def test_all_problems_come_at_once_in_file_order() -> None:
    text = "a: &x 1\nb: *x\nb: 2\nc: 010\n1: {d: !t 1}\n"
    assert [line.split(":")[1] for line in refused(text)] == ["1", "2", "3", "4", "5", "5"]


def test_a_quoted_merge_key_is_a_key() -> None:
    assert parse_yaml('"<<": 1', "f")[0] == {"<<": 1}


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!<?|>'\"# \n\t0129.%,\\"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        _, lines = parse_yaml(text, "f")
    except InvalidFile:
        return
    assert lines.at(("a", 0)) >= 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("25s", 25), ("15m", 900), ("1h", 3600), ("2d", 172_800)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "1.5h", "1h30m", "-5m", "5 m", "\u0665m", 900, None]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("512B", 512), ("64KiB", 65536), ("10MiB", 10 << 20), ("1GiB", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "10", "10MB", "1.5MiB", "10 MiB", 10])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_did_you_mean_names_the_nearest_or_nothing() -> None:
    assert did_you_mean("agnets", ["agents", "match"]) == ' (did you mean "agents"?)'
    assert did_you_mean("stripe", ["Stripe"]) == ' (did you mean "Stripe"?)'
    assert did_you_mean("qqq", ["agents", "match"]) == ""


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    port: int
    host: str = ""

    @field_validator("host")
    @classmethod
    def lower(cls, value: str) -> str:
        if value != value.lower():
            raise ValueError("Write the host in lower case")
        return value


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    proxy: Inner | None = None
    many: list[Inner] = []
    named: dict[str, Inner] = {}


def test_pydantic_problems_have_lines_and_hints() -> None:
    text = (
        "proxi: {}\nproxy:\n  prot: 1\n  host: ABC\n"
        "many:\n  - port: x\n    hosst: a\nnamed: {a: {prt: 1, port: 1}}\n"
    )
    value, lines = parse_yaml(text, "s.yaml")
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)
    assert [str(p) for p in problems_of(caught.value, lines, "s.yaml", Outer)] == [
        's.yaml:1: error: unknown field "proxi" (did you mean "proxy"?)',
        's.yaml:2: error: "proxy.port" is missing',
        's.yaml:3: error: unknown field "proxy.prot" (did you mean "port"?)',
        "s.yaml:4: error: proxy.host: write the host in lower case",
        "s.yaml:6: error: many.0.port: input should be a valid integer, "
        "unable to parse string as an integer",
        's.yaml:7: error: unknown field "many.0.hosst" (did you mean "host"?)',
        's.yaml:8: error: unknown field "named.a.prt" (did you mean "port"?)',
    ]
    without = problems_of(caught.value, lines, "s.yaml")
    assert without[0].message == 'unknown field "proxi"'
