"""The literals that are looked for, and which values need looking for."""

from __future__ import annotations

import base64

import pytest

from broker.spellings import Needle, minimal, needles, spellings


def test_values_inside_others_are_enough() -> None:
    assert minimal([b"Bearer abcd", b"abcd", b"user:abcd", b"other"]) == (b"abcd", b"other")
    assert minimal([b"abc", b"", b"Bearer abc"]) == (b"Bearer abc",)


def test_a_core_is_what_the_value_alone_decides() -> None:
    cores = {needle.core for needle in needles(b"secret")}
    for before in (b"", b"\x00", b"\xff", b"\x00\x00", b"\xff\xff"):
        for after in (b"", b"\x00", b"\xff", b"\xff\xff\xff"):
            text = base64.b64encode(before + b"secret" + after)
            assert any(core in text for core in cores)


def test_a_match_takes_the_rest_that_is_there() -> None:
    needle = Needle(b"YWJj", b"YWJjZA==")
    assert needle.extent(b"YWJjZA==", 0) == 8
    assert needle.extent(b"YWJjZA", 0) == 6
    assert needle.extent(b"-YWJjZX", 1) == 6
    assert needle.extent(b"YWJj", 0) == 4


def test_spellings_hold_the_usual_ones() -> None:
    found = spellings("pä/ 1".encode())
    for each in (
        "pä/ 1",
        "p%C3%A4%2F%201",
        "p%C3%A4%2F+1",
        "%70%c3%a4%2f%20%31",
        "70c3a42f2031",
        "70C3A42F2031",
        r"p\u00e4/ 1",
        r"p\u00e4\/ 1",
        r"\u0070\u00E4\u002F\u0020\u0031",
        "&#112;&#228;&#47;&#32;&#49;",
    ):
        assert each.encode() in found


@pytest.mark.parametrize("wide", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_the_wider_encodings_of_unicode_are_searched_for(wide: str) -> None:
    encoded = "sk_live".encode(wide)
    assert any(needle.core in encoded for needle in needles(b"sk_live"))


def test_a_value_that_is_no_text_has_spellings_too() -> None:
    assert b"%FF%00ab" in spellings(b"\xff\x00ab")
