"""GraphQL documents: the reference implementation is the measure, and no document costs much."""

from __future__ import annotations

import pytest
from graphql import GraphQLError, OperationDefinitionNode, parse
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Unreadable
from rules.reading.document import MAX_DEPTH, MAX_TEXT, MAX_TOKENS, read_document


def fields(text: str) -> list[tuple[str, ...]]:
    document = read_document(text)
    return [document.fields(operation) for operation in document.operations]


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("{a}", ["a"]),
        ("query{a,b c}", ["a", "b", "c"]),
        ("query Q($x: [Int!]! = [1] @d) @e(f: 1) { a(x: $x) @skip(if: true) { b } }", ["a"]),
        ("{a a a(x:1)}", ["a"]),
        ("{x:a y:a}", ["a", "a"]),
        ("{a b:a}", ["a", "a"]),
        ("{deleteAll: viewer}", ["viewer"]),
        ("{... {a} ... on Q {b ... @include(if: false) {c}} d}", ["a", "b", "c", "d"]),
        ("{...F a} fragment F on Q {b ...G} fragment G on Q {c}", ["a", "b", "c"]),
        ("{...F ...F} fragment F on Q {b}", ["b"]),
        ("{a {...F}} fragment F on Q {b}", ["a"]),
        ("{a {...F}} fragment F on Q {b {...F}}", ["a"]),
        ("{a} fragment Unused on Q {b}", ["a"]),
        ('{a(x: "} b {")}', ["a"]),
        ('{a(x: """} b \\""" c "" { """)}', ["a"]),
        ('{a(x: "\\u0041\\u{1F600}\\n") b}', ["a", "b"]),
        ('{a(x: "\\ud83d\\uDE00\\u{10FFFF}\\u{000041}\\u{0}")}', ["a"]),
        ("{a(x: {y: [$v, ENUM, null, -1.5e+10, {}]}) b}", ["a", "b"]),
        ("\ufeff{a\ufeff}", ["a"]),
        ("{a # } b\n c}", ["a", "c"]),
        ("#x\r\n{a}#y", ["a"]),
        ("{query mutation on fragment: true}", ["query", "mutation", "on", "true"]),
        ("{__typename}", ["__typename"]),
    ],
)
def test_root_fields(text: str, roots: list[str]) -> None:
    assert fields(text) == [tuple(roots)]
    parse(text)


def test_operations() -> None:
    document = read_document("mutation M {a} query Q {b} subscription S {c}")
    assert [(o.kind, o.name) for o in document.operations] == [
        ("mutation", "M"),
        ("query", "Q"),
        ("subscription", "S"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "#",
        "a",
        "{",
        "{}",
        "{a",
        "{a}}",
        "{a} b",
        "{{a}}",
        "{a:}",
        "{a::b}",
        "{a()}",
        "{a(x)}",
        "{a(x:)}",
        "{a(x:1}",
        "{a(x:[1)}",
        "{a(x:$)}",
        "{a(x:01)}",
        "{a(x:1x)}",
        "{a(x:1.)}",
        "{a(x:-)}",
        "{a(x:.5)}",
        '{a(x:")}',
        '{a(x:"\n")}',
        '{a(x:"\\x41")}',
        '{a(x:"\\ud83d")}',
        '{a(x:"\\ude00\\ud83d")}',
        '{a(x:"\\u{D800}")}',
        '{a(x:"\\u{110000}")}',
        '{a(x:"\\u{}")}',
        '{a(x:"\\u{000000000000000000000110000}")}',
        '{a(x:"""")}',
        '{a(x:"""""")b""}',
        "{a @}",
        "{...}",
        "{...F}",
        "{... on {a}}",
        "{a..b}",
        "query",
        "query Q",
        "query Q() {a}",
        "query Q($a) {a}",
        "query Q($a: [Int) {a}",
        "Query {a}",
        "fragment F on Q {a}",
        "fragment on on Q {a} {b}",
        "fragment F($x: Int) on Q {a} {b}",
        "type Q {a: Int} {b}",
        "schema {query: Q} {b}",
        "extend type Q {a: Int} {b}",
        "{a} {b}",
        "{a} query Q {b}",
        "query Q {a} mutation Q {b}",
        "{...F} fragment F on Q {a} fragment F on Q {b}",
        "{...F} fragment F on Q {...F}",
        "{...F} fragment F on Q {...G} fragment G on Q {... {...F}}",
        "{a # \u2028 b\n}",
        "{a # \u2029 b\n}",
        "{a # \x85 b\n}",
        "{a # \x0c b\n}",
        "{a # \r b\n}",
        "{a\xa0b}",
        "{a\x0bb}",
        "{a\x00}",
        "{é}",
        "{\uff41}",
        "{a ! b}",
    ],
)
def test_what_has_no_one_reading(text: str) -> None:
    with pytest.raises(Unreadable):
        fields(text)


@pytest.mark.parametrize(
    "text",
    [
        "{" + "a{" * MAX_DEPTH + "b" + "}" * (MAX_DEPTH + 1),
        "{" + "...{" * MAX_DEPTH + "b" + "}" * (MAX_DEPTH + 1),
        "{a(x:" + "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2) + ")}",
        "{a(x:" + "{a:" * (MAX_DEPTH + 2) + "1" + "}" * (MAX_DEPTH + 2) + ")}",
        "query($a:" + "[" * (MAX_DEPTH + 2) + "A" + "]" * (MAX_DEPTH + 2) + "){a}",
        "{" + "a{" * 1_000_000,
        "{a(x:" + "[" * 450_000,
        "{" + "a " * MAX_TOKENS + "}",
        " " * MAX_TEXT + "{a}",
        "{a(x:" + '"' * 450_001,
    ],
    ids=str.__len__,
)
def test_too_much_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        read_document(text)


def test_much_is_read() -> None:
    deep = "{" + "a{" * (MAX_DEPTH - 1) + "b" + "}" * MAX_DEPTH
    assert fields(deep) == [("a",)]
    wide = "{" + "".join(f"a{n}:b " for n in range(3_000)) + "}"
    assert fields(wide) == [("b",) * 3_000]
    assert fields('{a(x:"' + "y" * 450_000 + '")}') == [("a",)]


def test_fragments_within_fragments_do_not_multiply() -> None:
    """Each is entered once, where following every spread would take 2^300 steps."""
    doubling = "".join(f"fragment F{n} on Q {{a{n} ...F{n + 1} ...F{n + 1}}}" for n in range(300))
    (found,) = fields("{...F0}" + doubling + "fragment F300 on Q {b}")
    assert len(found) == 301


def test_a_long_chain_of_fragments_is_followed() -> None:
    chain = "".join(f"fragment F{n} on Q {{...F{n + 1}}}" for n in range(1_000))
    assert fields("{...F0}" + chain + "fragment F1000 on Q {b}") == [("b",)]
    with pytest.raises(Unreadable, match="holds itself"):
        fields("{...F0}" + chain + "fragment F1000 on Q {...F0}")


TOKENS = r'''{ } ( ) [ ] : $ @ ! = ... on a b query F mutation fragment 1 -1.5 0 . "x" """y""" "
\ , # {a} ...F (x:1)'''
HEX = st.text("0123456789aAbBcCdDeEfF", max_size=7)
ESCAPES = st.builds("\\u{}".format, HEX) | st.builds("\\u{{{}}}".format, HEX)


@given(st.lists(ESCAPES, max_size=3).map("".join))
def test_escapes_are_those_of_the_reference(escapes: str) -> None:
    text = f'{{a(x: "{escapes}")}}'
    try:
        parse(text)
    except GraphQLError:
        with pytest.raises(Unreadable):
            fields(text)
    else:
        assert fields(text) == [("a",)]


WORDS = st.sampled_from(
    [*TOKENS.split(), " ", "\n", "\r", "#c\n", "fragment F on Q {a}", "\ufeff", "\u2028"]
)


@given(st.lists(WORDS, max_size=25).map(" ".join) | st.lists(WORDS, max_size=25).map("".join))
def test_nothing_is_read_that_the_reference_does_not_read(text: str) -> None:
    try:
        document = read_document(text)
    except Unreadable:
        return
    reference = parse(text, no_location=True)
    operations = [
        (node.operation.value, node.name and node.name.value)
        for node in reference.definitions
        if isinstance(node, OperationDefinitionNode)
    ]
    assert [(o.kind, o.name) for o in document.operations] == operations


@st.composite
def selections(draw: st.DrawFn, depth: int = 0) -> str:
    kinds = st.sampled_from(["field", "field", "alias", "inline", "spread", "nested"])
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(["a", "b", "on", "query", "_x9"]))
        extra = draw(st.sampled_from(["", ' (x: "}")', " @skip(if: $v)", '(y: {z: [1 """}"""]})']))
        match draw(kinds) if depth < 3 else "field":
            case "field":
                parts.append(name + extra)
            case "alias":
                parts.append(f"k:{name}{extra}")
            case "inline":
                parts.append("... on Q @include(if: true)" + draw(selections(depth + 1)))
            case "spread":
                parts.append("...F")
            case _:
                parts.append(name + extra + draw(selections(depth + 1)))
    return "{" + draw(st.sampled_from([" ", ",", "\n#}\n"])).join(parts) + "}"


@given(selections(), st.sampled_from(["", "query Q($v: [Int!] = 1)", "mutation"]))
def test_the_reference_collects_the_same_fields(body: str, head: str) -> None:
    text = f"{head}{body} fragment F on Q {{f ... {{g}}}}"
    (found,) = fields(text)
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(_reference(text)))


def _reference(text: str) -> list[str]:
    definitions = parse(text, no_location=True).definitions
    operation, fragment = definitions

    def collect(node: object, spread: bool) -> list[str]:
        here: list[str] = []
        later: list[str] = []
        for each in node.selection_set.selections:  # type: ignore[attr-defined]
            if each.kind == "field":
                here.append(each.name.value)
            elif each.kind == "inline_fragment":
                inner = collect(each, spread)
                here += [name for name in inner if name not in "fg"]
                later += [name for name in inner if name in "fg"]
            elif spread:
                later += collect(fragment, False)
        return here + later

    return collect(operation, True)


@given(st.text(max_size=40).map(lambda text: "{" + text + "}") | st.text())
def test_any_text_is_read_or_unreadable(text: str) -> None:
    try:
        fields(text)
    except Unreadable:
        return
    try:
        parse(text)
    except GraphQLError as error:
        raise AssertionError(text) from error
