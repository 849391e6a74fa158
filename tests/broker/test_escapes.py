"""Views: what escapes stand for, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.escapes import HTML, JSON, MAX_ESCAPE, PERCENT, SYNTAXES, Syntax

ALL = frozenset(range(256))


def text(syntax: Syntax, source: bytes, final: bool = True) -> bytes:
    view = syntax.view(source, ALL, final=final)
    return view.text if view else source


@pytest.mark.parametrize(
    ("syntax", "source", "expected"),
    [
        (PERCENT, b"a%2Fb%2f%zz%", b"a/b/%zz%"),
        (JSON, rb"\u0041\x42\/\"\n\u00e9", 'AB/"\né'.encode()),
        (JSON, rb"\ud83d\ude00 \ud83d! \ude00", "😀 \\ud83d! \\ude00".encode()),
        (JSON, rb"\\u0041", rb"\A"),
        (HTML, b"&#65;&#x42;&#X0043;&amp;&lt;&gt;&quot;&apos;&#39;", b"ABC&<>\"''"),
        (HTML, b"&copy; &ampx; &#; &#x110000;", "&copy; &ampx; &#; \ufffd".encode()),
    ],
)
def test_reads(syntax: Syntax, source: bytes, expected: bytes) -> None:
    assert text(syntax, source) == expected


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_escape_begins_with_its_sign(syntax: Syntax) -> None:
    """A text without the sign is not looked at any closer."""
    for pattern in (syntax.escape.pattern, syntax.unfinished.pattern):
        assert pattern.lstrip(b"\\").startswith(syntax.sign.strip(b"\\"))
    assert syntax.escape.search(b"\0 25 u0041 #65; amp; Zz/") is None


def test_reads_only_what_could_matter() -> None:
    assert PERCENT.view(b"%20%0A", frozenset(b"abc"), final=True) is None
    view = PERCENT.view(b"%20%61", frozenset(b"abc"), final=True)
    assert view and view.text == b"%20a"


@pytest.mark.parametrize(
    ("syntax", "escape"),
    [
        (PERCENT, b"%2F"),
        (JSON, rb"\u00e9"),
        (JSON, rb"\ud83d\ude00"),
        (JSON, rb"\x4a"),
        (HTML, b"&#x00000041;"),
        (HTML, b"&#00000065;"),
        (HTML, b"&quot;"),
        (HTML, b"&apos;"),
        (HTML, b"&amp;"),
        (HTML, b"&gt;"),
        (HTML, b"&lt;"),
    ],
)
def test_waits_for_the_end_of_an_escape(syntax: Syntax, escape: bytes) -> None:
    assert len(escape) <= MAX_ESCAPE
    assert text(syntax, b"x" + escape, final=False) != b"x" + escape
    for size in range(1, len(escape)):
        view = syntax.view(b"x" * 20 + escape[:size], ALL, final=False)
        assert view and (view.text, view.cut) == (b"x" * 20, 20)
        assert syntax.view(b"x" + escape[:size] + b"!", frozenset(b"x"), final=False) is None


sources = st.lists(
    st.sampled_from(
        [b"a", b"%61", b"%", b"\\u0061", b"\\ud83d\\ude00", b"\\", b"&#97;", b"&", b"b"]
    ),
    max_size=30,
).map(b"".join)


@given(sources, st.booleans())
def test_there_and_back(source: bytes, final: bool) -> None:
    for syntax in SYNTAXES:
        view = syntax.view(source, ALL, final=final)
        if view is None:
            continue
        ends = [view.source_of(index) for index in range(len(view.text))]
        assert ends == sorted(ends)
        covered = b"".join(source[a:b] for a, b in dict.fromkeys(ends))
        assert covered == (source if view.cut is None else source[: view.cut])
        for count in range(1, len(view.text) + 1):
            fresh = syntax.view(source, ALL, final=final)
            assert fresh and fresh.begin_of_last(count) == view.begin_of_last(count)
            assert fresh.begin_of_last(count) == ends[-count][0]
        for at in range(len(source) + 1):
            expected = [i for i, (begin, _) in enumerate(ends) if begin >= at]
            if expected:
                fresh = syntax.view(source, ALL, final=final)
                assert fresh and fresh.index_of(at) == view.index_of(at) == expected[0]
