"""Sections: values or problems, never exceptions, and every problem where it stands."""

from __future__ import annotations

from rules.source import Section, Source
from rules.yamlfile import parse_yaml

TEXT = "a:\n  b: x\n  c:\n    - 1\n    - y\n"


def section(*path: str | int, label: str = "") -> Section:
    return Section(Source("f", parse_yaml(TEXT, "f")[1]), path, label)


def said(at: Section) -> list[str]:
    return [str(problem) for problem in at.source.problems]


def test_problems_stand_where_the_value_does() -> None:
    at = section("a", label="part")
    at.at("b").error("no")
    at.at("c", 1).warn("hm", "no-effect")
    at.unknown("thing", "alpah", ["alpha"])
    assert said(at) == [
        "f:2: error: part: no",
        "f:5: warning: part: hm",
        'f:1: error: part: unknown thing "alpah" (did you mean "alpha"?)',
    ]
    assert [p.code for p in at.source.problems] == ["invalid-value", "no-effect", "unknown-thing"]
    assert [p.line for p in at.source.errors()] == [1, 2]
    assert [p.line for p in at.source.warnings()] == [5]


def test_an_unknown_name_without_a_near_one_is_told_what_there_is() -> None:
    at = section("a")
    at.unknown("thing", "x", ["alpha", "beta"])
    at.unknown("thing", "x", [])
    at.unknown("thing", "x", map(str, range(100, 120)))
    at.unknown("thing", "x", ["alpha"], "; make one")
    at.unknown("thing", "alpah", ["alpha"], "; make one")
    assert [line.removeprefix("f:1: error: unknown thing ") for line in said(at)] == [
        '"x"; known: alpha, beta',
        '"x"; there is none',
        '"x"',
        '"x"; make one',
        '"alpah" (did you mean "alpha"?)',
    ]
    at.at("c", 1).mapping("word")
    section_of_list = Section(at.source, (0,))
    section_of_list.mapping("word")
    assert said(at)[-1] == 'f:1: error: this must be a mapping, not the word "word"'


def test_text_hides_nothing_and_has_a_length() -> None:
    at = section("a", "b")
    assert at.text(" x\n") == "x"
    assert [at.text(v) for v in ("", "a\u202eb", "a\nb", "x" * 501, 7, None, ["x"])] == [None] * 7
    assert said(at) == [
        "f:2: error: b must have 1 to 500 characters",
        "f:2: error: b holds the invisible character '\\u202e'",
        "f:2: error: b holds the invisible character '\\n'",
        "f:2: error: b must have 1 to 500 characters",
        "f:2: error: b must be text, not the number 7; put it in quotes",
        "f:2: error: b must be text, and is empty",
        "f:2: error: b must be text, not a list",
    ]


def test_one_or_several() -> None:
    at = section("a", "c")
    assert at.several("x", str) == ("x",)
    assert at.several(["x", "y", "x"], str) == ("x", "y")
    assert said(at) == []
    assert at.several([1, "y"], str) == ("y",)
    assert at.several([], str) == ()
    assert at.several(None, str) == ()
    assert said(at)[0] == "f:4: error: c must be text, not the number 1; put it in quotes"
    assert said(at)[1:] == ["f:3: error: c is empty; leave the field out or fill it in"] * 2


def test_choices_and_counts() -> None:
    at = section("a", "b")
    assert at.choice("on", ("on", "off")) == "on"
    assert at.count(3) == 3
    assert at.choice("onn", ("on", "off")) is None
    assert at.choice(True, ("on", "off")) is None
    assert [at.count(v) for v in (0, -1, True, 1.5, "3", 101)] == [None] * 6
    assert said(at)[0] == 'f:2: error: b must be on or off (did you mean "on"?)'
    assert said(at)[2] == "f:2: error: b must be a whole number from 1 to 100"


def test_mappings() -> None:
    at = section("a", "b")
    assert at.mapping(None) == {}
    assert at.mapping({"x": 1}, ("x",)) == {"x": 1}
    assert at.mapping(False) is None
    assert said(at) == ["f:2: error: b must be a mapping, not false"]


def test_hints_stop_when_there_are_many() -> None:
    """A file of ten thousand mistakes is refused in seconds, not minutes."""
    at = section("a")
    for _ in range(60):
        at.unknown("thing", "alpah", ["alpha"])
    assert "did you mean" in said(at)[49]
    assert "did you mean" not in said(at)[50]
