"""CEL: checked at load, true or false only for certain, and cheap whatever the agent sends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.cel import MAX_LENGTH, NAMES, compile_when
from rules.errors import Unreadable
from rules.reading.json import Number, read_json
from rules.request import Request
from rules.variables import MAX_NODES, Variables

NOW = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)


def holds(
    text: str,
    body: bytes | None = None,
    *,
    query: list[tuple[str, str]] | None = None,
    form: list[tuple[str, str]] | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    clear: bool = True,
    wide: bool = False,
) -> bool | None:
    request = Request("POST", "https", "api.example.com", 443, "/v1/refunds", None, headers, b"")
    return compile_when(text).holds(
        Variables(
            request,
            query=lambda: (query or [], clear),
            form=lambda: form or [],
            json=lambda: None if body is None else read_json(body),
            agent="billing-bot",
            tags={"finance", "eu"},
            at=NOW,
        ),
        wide=wide,
    )


@pytest.mark.parametrize(
    "text",
    [
        'call.method == "POST" && call.scheme == "https" && call.port == 443',
        'call.host.endsWith(".example.com") && call.path.matches("^/v[0-9]+/refunds$")',
        'call.agent == "billing-bot" && "finance" in call.tags && size(call.tags) == 2',
        'call.time.getHours("Europe/Berlin") == 14'
        ' && call.time > timestamp("2026-01-01T00:00:00Z")'
        " && call.time.getDayOfWeek() == 3",
        'call.query.a == "1" && has(call.query.a) && !has(call.query.c) && size(call.query) == 2',
        'call.headers["x-env"] == "test" && double(call.form.amount) < 10.5',
        'call.json.amount > 100 && call.json.currency == "eur" && call.json.ok && !call.json.no',
        "call.json.items.all(i, i.price >= 0.5) && call.json.items[1].price == 2",
        "call.json.none == null && !has(call.json.other)",
        "call .\n method != 'GET' // as it is",
        '[{"metod": 1}].all(call, call.metod == 1)',
        "(1 / 0 == 1) || true",
    ],
)
def test_what_a_call_has(text: str) -> None:
    body = b"""{"amount": 500, "currency": "eur", "ok": true, "no": false, "none": null,
        "items": [{"price": 0.5}, {"price": 2.0}]}"""
    query, form = [("a", "1"), ("b", "")], [("amount", "10")]
    assert holds(text, body, query=query, form=form, headers=(("x-env", "test"),)) is True
    assert (
        holds(f"!({text}\n)", body, query=query, form=form, headers=(("x-env", "test"),)) is False
    )


def test_which_variables_are_read() -> None:
    when = compile_when('call.method == "json" && call.query.form == "1"')
    assert when.names == {"method", "query"}
    assert not when.reads_body
    assert compile_when("call.json.a == 1").reads_body
    assert compile_when("call . // form\n form.a == '1'").names == {"form"}
    assert compile_when("call.`json`.a == 1").reads_body
    assert compile_when("true").names == frozenset()
    assert repr(when) == repr(compile_when(when.text))
    assert when == compile_when(when.text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is wrong at"),
        ("call.metod == 'GET'", r'names "call.metod" at column 5.*did you mean call.method\?'),
        ('call["method"] == "GET"', "names .call."),
        ("call == 1", "names .call."),
        ("method == 'GET'", r"did you mean call.method\?"),
        ("json.amount > 1", r"did you mean call.json\?"),
        ("nothing", "there are call.agent"),
        ("call.json.a.unknown() == 1", "names .unknown."),
        ("call.port == '443'", "no matching overload"),
        ("call.headers['a'] == 1", "no matching overload"),
        ("call.agent + 1 == 'x'", "no matching overload"),
        ("call.method == 'GET' &&", "is wrong at column"),
        ("\n call.method ==", "line 2"),
        ("call.method", "gives string"),
        ("call.json", "gives dyn"),
        ("call.json.flag", "gives dyn.*== true"),
        ("'true'", "gives string"),
        ("1", "gives int"),
        ("call.tags", "gives list"),
        ("has(call.json)", r"write has\(call.json.NAME\)"),
        ("has( call . query ) || true", "asks for no member"),
        ("call.path.matches(call.query.a)", "write its patterns out"),
        ("call.path.matches('a' + call.query.a)", "write its patterns out"),
        ("call.path.matches(('a'))", "write its patterns out"),
        ("matches(call.path, 'a')", "write its patterns out"),
        ("call.json.all(x, x.matches('a{1,500}'))", "counts repetitions"),
        ("call.method == 'G\u200bET'", "cannot be seen"),
        ("call.method == '\ud800'", "cannot be seen"),
        ("call.method == '\0'", "cannot be seen"),
        ("call.method == '" + "x" * MAX_LENGTH + "'", "longer than"),
        ("(" * 900 + "true" + ")" * 900, "nested too deeply|is wrong"),
        ("call.json" + ".a" * 900 + " == 1", "nested too deeply|is wrong"),
    ],
)
def test_what_is_refused_at_load(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        compile_when(text)


@pytest.mark.parametrize(
    "text",
    [
        "call.json.other == 1",
        "call.json.amount == 5 && call.json.other == 1",
        "call.json.text > 1",
        "call.json.text || false",
        "!call.json.text",
        "call.json.text && true",
        "call.json.amount.inner == 1",
        "call.json.list[99] == 1",
        "call.json.amount + 9223372036854775807 > 0",
        "1 / (call.json.amount - 5) == 1",
        "call.json.text.matches('(')",
        "call.json.amount.matches('5')",
        "int(call.json.text) == 1",
        "timestamp(call.json.text) == call.time",
        "call.query.a == '1'",
        "call.json.list.all(x, call.json.list.all(y, call.json.list.all(z, x < y + z + 9999)))",
    ],
)
def test_an_error_is_a_doubt_and_never_the_truth(text: str) -> None:
    """The library gives errors as values: text, which is true in Python."""
    body = b'{"amount": 5, "text": "x", "list": %s}' % str([1] * 30).encode()
    assert holds(text, body) is None


def test_what_cannot_be_read_is_a_doubt() -> None:
    def unreadable() -> Any:
        raise Unreadable("it is")

    request = Request("POST", "https", "a.example", 443, "/", None, (), b"{")
    variables = Variables(
        request, query=unreadable, form=unreadable, json=unreadable, agent="a", tags=(), at=NOW
    )
    for name in ("query", "form", "json"):
        assert compile_when(f"has(call.{name}.x)").holds(variables, wide=False) is None
        assert compile_when(f"!has(call.{name}.x)").holds(variables, wide=False) is None
        # What does not hang on it is certain.
        assert (
            compile_when(f"has(call.{name}.x) && call.port == 1").holds(variables, wide=False)
            is False
        )
    assert holds("has(call.query.a)", query=[("a", "1")], clear=False) is None


def test_a_call_without_a_body_has_no_members() -> None:
    assert holds("has(call.json.a) || has(call.form.a)") is False
    assert holds("call.json.a == 1") is None
    assert holds("has(call.json.a)", b"null") is False


def test_a_name_given_twice_is_any_of_its_values() -> None:
    twice = [("a", "1"), ("b", "x"), ("a", "2")]
    for read in ("query", "form"):
        given: Any = {read: twice}
        assert holds(f'call.{read}.b == "x"', **given) is True
        assert holds(f'call.{read}.a == "1"', **given) is None
        assert holds(f'call.{read}.a == "3"', **given) is False
        assert holds(f'call.{read}.a != "3"', **given) is True
        assert holds(f'call.{read}.a in ["1", "2"]', **given) is True
        assert holds(f"has(call.{read}.a)", **given) is True
    many = [("a", str(n)) for n in range(17)]
    assert holds("has(call.query.a)", query=many) is None


def test_a_header_given_twice_is_a_list_or_one_of_it() -> None:
    lines = (("accept", "a"), ("accept", "b"), ("x-env", "test"))
    assert holds('call.headers.accept == "a"', headers=lines) is None
    assert holds('call.headers.accept == "a, b"', headers=lines) is None
    assert holds('call.headers.accept == "c"', headers=lines) is False
    assert holds('call.headers["x-env"] == "test"', headers=lines) is True


def test_another_letter_case_may_be_the_name_that_is_asked_for() -> None:
    assert holds("has(call.json.dryRun)", b'{"DryRun": true}') is None
    assert holds("call.json.amount > 100", b'{"Amount": 500}') is None
    assert holds("call.json.amount < 100", b'{"amount": 5, "AMOUNT": 500}') is None
    assert holds("call.json.amount < 100", b'{"amount": 5, "AMOUNT": 6, "Other": 1}') is True
    assert holds('call.json["a b"] == 1', b'{"a b": 1, "A B": 2}') is None
    assert holds("has(call.query.admin)", query=[("Admin", "1")]) is None
    assert holds('call.form.amount == "5"', form=[("amount", "5"), ("Amount", "6")]) is None
    assert holds('call.form.amount == "5"', form=[("amount", "5"), ("Amount", "5")]) is True


def test_types_that_a_lenient_reader_does_not_heed() -> None:
    for text, body in [
        ("call.json.amount == 5", b'{"amount": "5"}'),
        ("call.json.ok == true", b'{"ok": "True"}'),
        ('call.json.amount == "5"', b'{"amount": 5}'),
        ('call.json.ok == "true"', b'{"ok": true}'),
        ("has(call.json.a) && call.json.list.exists(x, x == 5)", b'{"a": 1, "list": ["5.0"]}'),
    ]:
        assert holds(text, body) is False
        assert holds(text, body, wide=True) is None
    assert holds("call.json.amount > 100", b'{"amount": 5}', wide=True) is False
    assert holds("call.json.amount == 5", b'{"amount": "6", "x": "5"}', wide=True) is False
    assert holds("call.json.amount == 5", b'{"amount": 5}', wide=True) is True


def test_integers_that_doubles_do_not_keep() -> None:
    body = b'{"id": 9007199254740993, "amount": 5}'
    assert holds("call.json.amount == 5", body) is True
    assert holds("call.json.id == 9007199254740993", body) is None
    assert holds("call.json.id == 9007199254740992", body) is None
    assert holds("call.json.id > 5", body) is True
    assert holds("call.json.id < 5", body) is False
    for odd in (b"9223372036854775808", b"-99999999999999999999999", b"0.1000000000000000055"):
        assert holds("call.json.a == 1", b'{"a": 1, "b": %s}' % odd) in (True, None)
    assert holds("call.json > 1.0", b"0.10000000000000000555") is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (b"1.0", "call.json == 1"),
        (b"1e2", "call.json == 100"),
        (b"-0", "call.json == 0"),
        (b"9223372036854774784", "call.json == 9223372036854774784"),
        (b"1e300", "call.json > 9223372036854775807"),
        (b"0.1", "call.json == 0.1"),
    ],
)
def test_numbers_compare_by_value(number: bytes, text: str) -> None:
    assert holds(text, number) is True


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("call.json.l.all(x, !(x + 1 in call.json.l))", b'{"l": [%s]}' % b",".join([b"1"] * 9_000)),
        ("call.json.l.all(x, call.json.l == call.json.l)", b'{"l": [%s1]}' % (b"1," * 9_000)),
        (
            "call.json.l.all(x, (call.json.s + call.json.s) != 'a')",
            b'{"l": [%s1], "s": "%s"}' % (b"1," * 5_000, b"x" * 5_000_000),
        ),
        ("call.json.all(x, x.matches('(a|b)*c'))", b'["%s"]' % (b'","' * 9_000)),
        ("call.json[0] == 1", b"[%s1]" % (b"1," * MAX_NODES)),
    ],
    ids=["in", "equal", "concatenate", "pattern", "large"],
)
def test_what_costs_too_much_is_a_doubt(text: str, body: bytes) -> None:
    assert holds(text, body) is None


def test_much_is_read() -> None:
    large = b'{"items": [%s], "text": "%s"}' % (
        b",".join(b'{"amount": %d}' % n for n in range(1_000)),
        b"x" * 3_000_000,
    )
    assert holds("call.json.items[999].amount == 999 && call.json.text != ''", large) is True
    items = b"[%s]" % b",".join(b'{"amount": %d}' % n for n in range(1_000))
    assert holds("call.json.all(each, each.amount < 1000)", items) is True


WORDS = """call.json call.query call.json.a call.json.b call.form.a call.tags call.port call.time ==
    != && || ! ( ) [ ] { } . , + - < > in a b 1 -5 0.5 "x" 'y' null true false has( size( .all(x, x
    .exists(k, matches( string( int( ? : call . json"""
PIECES = st.sampled_from(WORDS.split())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.text()
    | st.integers().map(lambda n: Number(str(n)))
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda n: Number(repr(n))),
    lambda each: st.lists(each) | st.dictionaries(st.sampled_from("abAB") | st.text(), each),
)
FIELDS = st.lists(st.tuples(st.sampled_from("abA") | st.text(), st.text()), max_size=6)


@given(st.lists(PIECES, max_size=12).map(" ".join) | st.text())
def test_any_text_is_an_expression_or_a_sentence(text: str) -> None:
    try:
        when = compile_when(text)
    except ValueError as error:
        assert str(error).startswith(("the expression", "has(call."))  # noqa: PT017
    else:
        assert when.names <= NAMES


EXPRESSIONS = st.sampled_from(
    [
        "call.json.a > 5",
        "call.json.a == call.json.b",
        "has(call.json.a) && call.json.a == 'x'",
        "call.json.all(x, x == 'a' || call.json[x] == 1)",
        "size(call.json) > 1 || call.query.a == 'x'",
        "call.form.exists(k, call.form[k].contains(call.query.a))",
        "call.json in [1, 'a', null] || string(call.json.a) + call.form.b == ''",
        "call.headers.a == call.form.a ? call.json.a : call.json.b == 2",
    ]
)


@given(EXPRESSIONS, JSON, FIELDS, FIELDS, FIELDS)
def test_any_call_has_an_answer(
    text: str,
    document: Any,
    query: list[tuple[str, str]],
    form: list[tuple[str, str]],
    headers: list[tuple[str, str]],
) -> None:
    request = Request("GET", "https", "a.example", 443, "/", None, tuple(headers), b"")
    variables = Variables(
        request,
        query=lambda: (query, True),
        form=lambda: form,
        json=lambda: document,
        agent="a",
        tags=(),
        at=NOW,
    )
    try:
        when = compile_when(text)
    except ValueError:
        when = compile_when(f"({text}) == true")
    narrow, wide = (when.holds(variables, wide=wide) for wide in (False, True))
    assert narrow in (True, False, None)
    # What may match narrowly matches widely.
    assert wide is not False or narrow is False
