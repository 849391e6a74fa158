"""Fields of queries and forms, and whether there is only one reading of them."""

from __future__ import annotations

from rules.reading.forms import read_pairs


def test_pairs_tell_whether_they_are_clear() -> None:
    assert read_pairs("a=1&&b=2&c") == ((("a", "1"), ("b", "2"), ("c", "")), True)
    assert read_pairs("") == ((), True)
    assert read_pairs("a=1;b=2")[1] is False
    assert read_pairs("a=%f")[1] is False
