"""What one call takes of a limit: which number it asks for, and when that is in doubt."""

from __future__ import annotations

import json
from decimal import Decimal
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.counting import demands_of, doubt_about
from rules.errors import Unreadable
from rules.limits import UNREADABLE, Demand, Limit, parse_amount
from rules.reading.call import Reading
from rules.request import Request

FORM = "application/x-www-form-urlencoded"


def request(
    body: bytes = b"",
    kind: str | None = FORM,
    *,
    query: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Request:
    return Request(
        method="POST",
        scheme="https",
        host="api.example",
        port=443,
        path="/pay",
        query=query,
        headers=(*headers, *((("content-type", kind),) if kind else ())),
        body=body,
    )


def amount(place: str | None, call: Request) -> Decimal | None:
    """What is asked for; None if that is in doubt."""
    limits = [Limit(Decimal(10), 60, place)]
    [demand] = demands_of("r", limits, Reading(call))
    assert demand == Demand("r", limits[0], demand.amount)
    try:
        doubt = doubt_about(limits, Reading(call))
    except Unreadable as error:
        doubt = str(error)
    assert bool(doubt) is (demand.amount == UNREADABLE)
    return None if demand.amount == UNREADABLE else demand.amount


def of_form(body: str, place: str = "form:amount", query: str | None = None) -> Decimal | None:
    return amount(place, request(body.encode(), query=query))


def of_json(text: str, pointer: str = "/amount") -> Decimal | None:
    return amount(f"json:{pointer}", request(text.encode(), "application/json"))


def test_a_call_counts_as_one_whatever_is_in_it() -> None:
    assert amount(None, request(b"\xff", "application/json")) == 1


@pytest.mark.parametrize("text", ["0", "5", "12.50", "0.000000000000000001", "9" * 24])
def test_a_plain_decimal(text: str) -> None:
    assert of_form(f"amount={text}") == of_json(f'{{"amount": "{text}"}}') == Decimal(text)
    if len(text) < 24:  # more than a double keeps, as a JSON number: read in two ways
        assert of_json(f'{{"amount": {text}}}') == Decimal(text)


ODD = [
    *("", " ", "+5", "-5", "-0", "5.", ".5", "05", "00", "1e3", "1E3", "0x10", "0b1", "0o7"),
    *("1_000", "1,000", "1 000", "1.000.000", "5 ", " 5", "5\t", "٣", "५", "\uff15", "²", "½", "∞"),
    *(
        "NaN",
        "Infinity",
        "inf",
        "5%",
        "$5",
        "5€",
        "true",
        "null",
        "five",
        "9" * 25,
        "0." + "0" * 19,
    ),
]


@pytest.mark.parametrize("text", ODD)
def test_what_is_no_plain_decimal_is_in_doubt(text: str) -> None:
    assert of_form(f"amount={quote(text)}") is None
    assert of_json(json.dumps({"amount": text})) is None
    with pytest.raises(ValueError, match="plain decimal"):
        parse_amount(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e3", "1000"),
        ("1E+3", "1000"),
        ("1.5e1", "15"),
        ("1e-3", "0.001"),
        ("10.10", "10.1"),
        ("0e999", "0"),
        ("9e23", "9" + "0" * 23),
        ("0.30000000000000004", "0.30000000000000004"),
    ],
)
def test_json_numbers_are_taken_exactly(text: str, number: str) -> None:
    found = of_json(f'{{"amount": {text}}}')
    assert found is not None and format(found, "f") == number


@pytest.mark.parametrize(
    "text",
    [
        *("-1", "-0", "-1e3", "1e24", "1e-19", "1e999", "1e-999", "1e9999", "1" + "0" * 70),
        *("1e99999999999999999999", "true", "null", "[5]", '{"value": 5}', "0." + "1" * 70),
    ],
)
def test_other_json_is_in_doubt(text: str) -> None:
    assert of_json(f'{{"amount": {text}}}') is None


@pytest.mark.parametrize(
    "body",
    [
        "",
        "total=5",
        "amount=5&amount=5",
        "amount=5&amount=5000",
        "amount=5&Amount=5000",
        "amount=5&%20amount=5000",
        "amount=5&amount%20=5000",
        "amount=5&amount[]=5000",
        "amount=5&amount[x]=5000",
        "amount=5;amount=5000",
        "amount=5&x=%ff",
        "amount=%zz",
        "Amount=5",
        "amount[]=5",
    ],
)
def test_a_field_must_be_there_once_and_in_one_spelling(body: str) -> None:
    assert of_form(body) is None


def of_parts(*parts: str) -> Decimal | None:
    body = "".join(f"--b\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
    return amount("form:amount", request(f"{body}--b--\r\n".encode(), MULTIPART))


MULTIPART = "multipart/form-data; boundary=b"
PART = 'name="amount"\r\n\r\n5'


def test_a_field_of_a_multipart_form() -> None:
    assert of_parts(PART, 'name="note"\r\n\r\nhello') == 5
    assert of_parts(PART, 'name="Amount"\r\n\r\n6') is None
    assert of_parts(PART, PART) is None
    assert of_parts('name="amount"\r\n\r\n5 ') is None
    assert of_parts(PART, 'name="amount"; filename="f"\r\n\r\n6') is None


@pytest.mark.parametrize("other", ["my.amount", "my%20amount", "MY_amount", "my_amount[0]"])
def test_a_name_that_some_server_takes_for_the_field(other: str) -> None:
    """PHP writes `_` for dots and blanks: what would count there must not go by uncounted."""
    assert of_form("my_amount=1", "form:my_amount") == 1
    assert of_form(f"my_amount=1&{other}=5000", "form:my_amount") is None


def test_fields_with_brackets_of_their_own() -> None:
    assert of_form("charge[amount]=5&charge[id]=1", "form:charge[amount]") == 5
    assert of_form("charge[amount]=5&charge[amount][x]=9", "form:charge[amount]") is None


@pytest.mark.parametrize("query", ["amount=9", "AMOUNT=9", "amount[]=9", "a=1;amount=9", "x=%ff"])
def test_a_field_is_in_doubt_beside_the_like_in_the_query(query: str) -> None:
    assert of_form("amount=5", query=query) is None
    assert of_form("amount=5", query="currency=eur") == 5


def test_a_parameter_of_the_query() -> None:
    assert amount("query:n", request(query="n=7&m=8")) == 7
    for query in (None, "m=8", "n=7&n=7", "n=7&N=8", "n=7;m=8", "n=%2B7"):
        assert amount("query:n", request(query=query)) is None
    assert amount("query:n", request(b"n=9", query="n=7")) is None
    assert amount("query:n", request(b"\xff\x00", "application/octet-stream", query="n=7")) == 7


def test_a_header() -> None:
    assert amount("header:X-Cost", request(headers=(("x-cost", "7"),))) == 7
    assert amount("header:x-cost", request()) is None
    assert amount("header:x-cost", request(headers=(("x-cost", "7"), ("x-cost", "7")))) is None
    assert amount("header:x-cost", request(headers=(("x-cost", "7, 8"),))) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"amount": 5, "amount": 5000}',
        '{"amount": 5, "Amount": 5000}',
        '{"amount": 5, " amount": 5000}',
        '{"Amount": 5}',
        "[5]",
        "5",
        "{",
        '{"amount": 5} x',
        "\ufeff{}",
        '{"amount": NaN}',
    ],
)
def test_a_json_name_must_be_there_once_and_in_one_spelling(text: str) -> None:
    assert of_json(text) is None


def test_a_pointer_goes_down() -> None:
    text = '{"items": [{"price": {"a/b": "3.50"}}]}'
    assert of_json(text, "/items/0/price/a~1b") == Decimal("3.5")
    for pointer in ("/items/1/price", "/items/00/price/a~1b", "/items/-/price", "/items/0/price"):
        assert of_json(text, pointer) is None
    assert of_json('{"items": [{"price": 1}], "Items": []}', "/items/0/price") is None


def test_a_body_that_is_not_what_is_summed_up_is_in_doubt() -> None:
    for kind in (None, "text/plain", "application/json", f"{FORM}; charset=utf-16"):
        assert amount("form:amount", request(b"amount=5", kind)) is None
    for kind in (None, "text/plain", FORM):
        assert amount("json:/amount", request(b'{"amount": 5}', kind)) is None
    packed = request(b"amount=5", headers=(("content-encoding", "gzip"),))
    assert amount("form:amount", packed) is None


def test_deep_and_large_bodies_are_in_doubt() -> None:
    assert of_json("[" * 50_000) is None
    assert of_json('{"amount": ' + "1" * 1_000_000 + "}") is None
    assert of_form("amount=" + "1" * 1_000_000) is None
    assert of_form("&".join(["amount=1"] * 200_000)) is None


@given(st.binary(max_size=60), st.sampled_from([FORM, "application/json", "text/plain"]))
def test_whatever_the_body_is_there_is_an_amount(body: bytes, kind: str) -> None:
    for place in ("form:a", "json:/a", "query:a", "header:a"):
        found = amount(place, request(body, kind, query=body.decode("latin-1")))
        assert found is None or found >= 0
