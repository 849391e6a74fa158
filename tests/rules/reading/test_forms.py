"""Fields of queries and forms, and whether there is only one reading of them."""

from __future__ import annotations

import pytest

from rules.errors import Unreadable
from rules.reading.forms import MAX_FIELDS, guess_fields, may_be, read_form, read_pairs


def test_pairs_tell_whether_they_are_clear() -> None:
    assert read_pairs("a=1&&b=2&c") == ((("a", "1"), ("b", "2"), ("c", "")), True)
    assert read_pairs("") == ((), True)
    assert read_pairs("a=1;b=2")[1] is False
    assert read_pairs("a=%f")[1] is False
    assert read_pairs("?a=1")[1] is False
    assert read_pairs("a=1&b=?")[1] is True
    assert read_pairs("&".join(["a"] * MAX_FIELDS))[1] is True
    assert read_pairs("&".join(["a"] * (MAX_FIELDS + 1)))[1] is False


def test_a_form_is_read() -> None:
    assert read_form(b"a=1+2&b=%C3%A9%0A&c=x y") == (("a", "1 2"), ("b", "é\n"), ("c", "x y"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"a=1;b=2", "two ways"),
        (b"a=%E9", "two ways"),
        (b"?a=1", "two ways"),
        (b"a&" * MAX_FIELDS, "too many"),
        (b"a=\xe9", "not percent-encoded"),
        (b'{"a": 1}', "looks like JSON"),
        (b'\r\n[{"a": 1}]', "looks like JSON"),
        (b"a=1\nb=2", "control"),
        (b"a=1\0", "control"),
        (b"a%00b=1", "control"),
    ],
)
def test_what_is_no_form_to_everybody(body: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_form(body)


@pytest.mark.parametrize(
    ("name", "wanted", "same"),
    [
        ("amount", "amount", True),
        ("Amount ", "amount", True),
        ("amount[]", "amount", True),
        ("amount[x]", "amount", True),
        ("amount", "amount[x]", True),
        ("amount[x", "amount[x]", True),
        ("amount[0]", "amount[]", True),
        ("amount[x][y]", "amount[x]", True),
        ("amount\0x", "amount", True),
        ("user.name", "user_name", True),
        ("userName", "user_name", True),
        ("!amount", "amount", True),
        ("card.number", "card", True),
        ("card.number", "card[number]", True),
        ("cards[0].number", "cards", True),
        ("cards[0].number", "cards[0][number]", True),
        ("card.number", "card.cvc", False),
        ("card.number", "number", False),
        ("items[unitPrice]", "items[unit_price]", True),
        ("user name", "user_name", True),
        ("user[name]", "user[email]", False),
        ("user[name][0]", "user[email][0]", False),
        ("[amount]", "amount", True),
        ("[amount][x]", "amount[x]", True),
        ("amount[x]y", "amount[x]", True),
        ("amount[[x]]", "amount", True),
        ("my[amount", "my_amount", True),
        ("amount]", "amount", True),
        ("[other]", "amount", False),
        ("users", "user", False),
        ("[]", "user", False),
        ("user-name", "user_name", False),
    ],
)
def test_names_that_are_one_to_somebody(name: str, wanted: str, same: bool) -> None:
    assert may_be(name, wanted) is same
    assert may_be(wanted, name) is same


def test_what_may_be_fields_is_found_whatever_is_around_it() -> None:
    assert guess_fields("", b"?a=1&b;c=%32&=3&d+e=") == (
        ("a", "1"),
        ("b;c", "2"),
        ("", "3"),
        ("d e", ""),
        ("b", ""),
        ("c", "2"),
    )
    assert guess_fields("image/png", b"\xff\xfe=1&a=\xff&b[\xff]=2") == (
        ("a", "\ufffd"),
        ("b[\ufffd]", "2"),
    )
    assert guess_fields("multipart/mixed; boundary=b", b"--b\r\n\r\na=1\r\n--b--") == ()


@pytest.mark.parametrize("filler", [b"&", b";", b"%41"])
def test_guessing_is_bounded(filler: bytes) -> None:
    with pytest.raises(Unreadable, match="too large"):
        guess_fields("", filler * 100_001)
