"""Whatever an agent wrote is shown as what it is, and does nothing."""

import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.admin import inert

ANY_TEXT = st.text(st.characters(codec=None), max_size=60)


class Elements(HTMLParser):
    """Collects tags, and the text outside of what we add."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(ANY_TEXT)
def test_no_text_brings_an_element_or_an_unseen_character(text: str) -> None:
    markup = str(inert.visible(text))
    assert Elements(markup).tags <= {"span"}
    for char in markup:
        assert not inert.is_odd(char), unicodedata.name(char, hex(ord(char)))
    markup.encode()  # no lone surrogate survives: the page can be sent


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_itself(text: str) -> None:
    assert Elements(str(inert.visible(text))).text == text


@pytest.mark.parametrize(
    ("char", "shown"),
    [
        ("\u202e", "U+202E"),
        ("\u200b", "U+200B"),
        ("\u2066", "U+2066"),
        ("\x00", "U+0000"),
        ("\x1b", "U+001B"),
        ("\r", "U+000D"),
        ("\xa0", "U+00A0"),
        ("\u3164", "U+3164"),
        ("\ufe0f", "U+FE0F"),
        ("\ud800", "U+D800"),
        ("\U000e0041", "U+E0041"),
    ],
)
def test_what_cannot_be_seen_is_named(char: str, shown: str) -> None:
    assert shown in inert.visible(f"a{char}b")
    assert char not in inert.visible(f"a{char}b")


def test_runs_are_counted_rather_than_repeated() -> None:
    markup = inert.visible("\u200b" * 10_000)
    assert "U+200B\u00d710000" in markup
    assert len(markup) < 200


def test_marks_piled_on_one_letter_do_not_paint_over_the_page() -> None:
    markup = inert.visible("e" + "\u0301" * 50)
    assert "U+0301\u00d750" in markup
    assert "U+0301" not in inert.visible("e\u0301 n\u0303"), "ordinary accents stay"


def test_line_feeds_break_lines_only_where_lines_are_meant() -> None:
    assert inert.visible("a\nb", lines=True) == "a\nb"
    assert "U+000A" in inert.visible("a\nb")


def test_a_long_value_shows_both_ends_and_unfolds() -> None:
    markup = inert.clipped("head" + "x" * 5000 + "tail")
    assert markup.startswith("head")
    assert "tail<details" in markup
    assert "Show all 5,008 characters" in markup
    assert inert.clipped("short") == "short"


def test_a_huge_value_does_not_make_a_huge_page() -> None:
    markup = inert.clipped("x" * 3_000_000)
    assert len(markup) < 2 * inert.MOST_TEXT
    assert "more characters are not shown here" in markup


def test_hexdump_shows_offsets_bytes_and_text() -> None:
    assert inert.hexdump(b"PK\x03\x04<b>") == (
        "00000000  50 4b 03 04 3c 62 3e                             PK..<b>"
    )
    assert inert.hexdump(b"x" * 100, limit=32).count("\n") == 1
    assert inert.hexdump(b"") == ""
