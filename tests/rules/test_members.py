"""Which fields an expression asks for: each of them, or any."""

from __future__ import annotations

import pytest

from rules.cel import compile_when
from rules.members import asked, in_doubt


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('call.form.a == "1"', {"a"}),
        ("call . form . a.size() > 3", {"a"}),
        ('call.form["a b"] == "1" || call.form[\'c\'] == "2"', {"a b", "c"}),
        ('has(call.form.a) && "b" in call.form', {"a", "b"}),
        ('!("b" in .call.form)', {"b"}),
        ('[call.form.a].exists(k, k == "1")', {"a"}),
        ('call.path == "/x" ? "a" in call.form : \'b\' in call.form', {"a", "b"}),
    ],
)
def test_names_that_are_asked_for(text: str, names: set[str]) -> None:
    assert compile_when(text)
    assert asked(text, "form") == names


@pytest.mark.parametrize(
    "text",
    [
        "size(call.form) == 1",
        'call.form.all(k, k == "a")',
        'call.form.exists(k, k == "a") && call.form.b == "1"',
        "call.form.size() == 1",
        'call.form == {"a": "1"}',
        "call.form[call.method] == '1'",
        'call.form["a" + "b"] == "1"',
        r'call.form["\x61"] == "1"',
        'call.form[r"a"] == "1"',
        'call.form["""a"""] == "1"',
        '"a" + "b" in call.form',
        '"a"in call.form',
        "call.method in call.form",
        '[call.form].exists(f, f.a == "1")',
        'call.`form`.all(k, k == "a")',
        'call.form // ["a"]\n .all(k, k == "a")',
        'call.form.all // (\n (k, k == "a")',
        '["a"][0] in call.form',
        '{"a": "b"}["a"] in call.form',
    ],
)
def test_what_may_ask_for_any(text: str) -> None:
    assert compile_when(text)
    assert asked(text, "form") is None


def test_what_some_server_takes_for_one_of_them() -> None:
    assert not in_doubt(["a", "A", "b[]"], {"a"}, (), ())
    assert in_doubt(["a[]"], {"a"}, (), ())
    assert in_doubt([], {"a"}, ["A"], ())
    assert in_doubt([], {"a"}, (), ["a"])
    assert not in_doubt(["a"], {"a"}, ["b"], ["c"])
    assert not in_doubt(["a", "b"], None, ["c"], ())
    assert in_doubt(["a", "b"], None, ["B"], ())
    assert in_doubt(["a", "b[c]"], None, (), ())
    assert in_doubt([], None, (), ["c"])


def test_many_names_are_in_doubt_at_once() -> None:
    names = [f"a{n}[b]" for n in range(50_000)]
    assert in_doubt(names, {"c", "d"}, names, ())
    assert not in_doubt(names[:100], {"c", "d"}, names[:100], ())
