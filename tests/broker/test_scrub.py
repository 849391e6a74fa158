"""What leaves the scrubber holds no spelling of a secret, however it was spelled or cut."""

from __future__ import annotations

import base64
import html
import json
import random
from collections.abc import Sequence
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from broker.encodings import Decoder
from broker.escapes import SYNTAXES
from broker.scrub import MASK, MIN_LENGTH, SLICE, Scrubber, overlap, spellings
from tests.support.upstream_routes import REFLECTIONS

KEY = b"sk_live/51H8+xyz~Ab=="
PASSWORD = "pä ss\\wörd\"&<'😀>/%41".encode()


def scrub(values: Sequence[bytes], *chunks: bytes) -> bytes:
    scrubber = Scrubber(values)
    return b"".join(map(scrubber.feed, chunks)) + scrubber.finish()


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in pieces; each of `places` is taken modulo its length."""
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def mixed(value: bytes, seed: int) -> bytes:
    """`value`, some of its bytes percent-encoded, in any case."""
    luck = random.Random(seed)
    forms = [lambda b: bytes([b]), lambda b: b"%%%02x" % b, lambda b: b"%%%02X" % b]
    # A plain percent sign would change what follows it.
    return b"".join(luck.choice(forms[b == 37 :])(b) for b in value)


@pytest.mark.parametrize("value", [KEY, PASSWORD, b"abcd", b"binary\xff\x00\x80key"])
def test_masks_every_spelling(value: bytes) -> None:
    for spelling in spellings(value):
        masked = scrub([value], b"before " + spelling + b" after")
        assert masked.startswith(b"before " + MASK), spelling
        assert masked.endswith(b" after"), spelling


@pytest.mark.parametrize(
    "spelled",
    [
        KEY.decode(),
        quote(KEY, safe=""),
        quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
        "".join(f"%{b:02X}" for b in KEY),
        "".join(f"%{b:02x}" for b in KEY),
        KEY.hex(),
        KEY.hex().upper(),
        "".join(f"\\u{b:04x}" for b in KEY),
        "".join(f"\\u{b:04X}" for b in KEY),
        "".join(f"\\x{b:02x}" for b in KEY),
        KEY.decode().replace("/", "\\/"),
        "".join(f"&#{b};" for b in KEY),
        "".join(f"&#0{b};" for b in KEY),
        "".join(f"&#x{b:X};" for b in KEY),
        base64.b64encode(KEY).decode(),
        base64.urlsafe_b64encode(KEY).decode(),
        base64.b64encode(KEY).decode().rstrip("="),
        quote(base64.b64encode(KEY), safe=""),
        base64.b64encode(KEY).decode().replace("/", "\\/"),
        json.dumps(quote(KEY, safe="")),
    ],
)
def test_masks_whole(spelled: str) -> None:
    assert scrub([KEY], f"<{spelled.strip(chr(34))}>".encode()) == b"<" + MASK + b">"


@pytest.mark.parametrize(
    "spelled",
    [
        quote(PASSWORD, safe=""),
        quote_plus(PASSWORD),
        PASSWORD.decode().replace(" ", "+"),
        json.dumps(PASSWORD.decode())[1:-1],
        json.dumps(PASSWORD.decode(), ensure_ascii=False)[1:-1],
        html.escape(PASSWORD.decode()),
        html.escape(PASSWORD.decode()).replace("&#x27;", "&apos;"),
        "".join(f"&#{ord(c)};" for c in PASSWORD.decode()),
    ],
)
def test_masks_passwords_with_odd_characters(spelled: str) -> None:
    assert scrub([PASSWORD], f"<{spelled}>".encode()) == b"<" + MASK + b">"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_masks_base64_in_every_alignment(encode: object, before: int, after: int) -> None:
    assert callable(encode)
    text = encode(b"\xfbu:"[:before] + KEY + b"\xff..."[:after])
    masked = scrub([KEY], b"<" + text + b">")
    assert masked.count(MASK) == 1
    # What stays is the neighbours' and at most one character a side that also holds bits of KEY.
    head, tail = masked[1:-1].split(MASK)
    assert len(head) == (0, 2, 3, 4)[before]
    assert len(tail) <= 8 and (after or not tail)


def test_masks_basic_credentials() -> None:
    header = b"Basic " + base64.b64encode(b"user:" + KEY)
    assert scrub([KEY, b"user:" + KEY, header], b"Authorization: " + header) == (
        b"Authorization: " + MASK
    )
    assert scrub([KEY], header) == header[:13] + MASK  # `user:` and no bit of the secret stays


@given(seed=st.integers(), places=st.lists(st.integers(0), max_size=6))
def test_masks_any_mixture_of_plain_and_percent(seed: int, places: list[int]) -> None:
    data = b"?q=" + mixed(KEY, seed) + b"&r=1"
    assert scrub([KEY], *cut(data, places)) == b"?q=" + MASK + b"&r=1"


ALPHABET = [b"a", b"b", b"ab", b"abab", b"%61", b"%6", b"%", b"\\u0061", b"\\u00", b"\\", b"&#97;"]
ALPHABET += [b"&#x62;", b"&", b"6", b"0062", b"\\/", b"/", b"+", b" ", b"YWJ", b"hYmFi", b"="]
ALPHABET += [b"\xf0\x9f\x98\x80", b"\\ud83d", b"\\ude00", b"6162", b"616", MASK]
pieces = st.lists(st.sampled_from(ALPHABET), max_size=24).map(b"".join)
plain_values = st.sampled_from([b"abab", b"aaaa", b"ab/ab", b"a\\b a", b"0061a", "b😀a".encode()])
values = st.lists(st.one_of(plain_values, pieces), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(values, pieces, st.lists(st.integers(0), max_size=12))
def test_does_not_depend_on_chunks(secrets: list[bytes], data: bytes, places: list[int]) -> None:
    whole = scrub(secrets, data)
    assert scrub(secrets, *cut(data, places)) == whole
    assert scrub(secrets, *(data[i : i + 1] for i in range(len(data)))) == whole


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0), max_size=5))
def test_passes_everything_else_unchanged(data: bytes, places: list[int]) -> None:
    assert scrub([b"a secret not in there"], *cut(data, places)) == data


@settings(max_examples=100, deadline=None)
@given(st.one_of(plain_values, pieces), pieces, pieces)
def test_no_secret_gets_through(secret: bytes, before: bytes, after: bytes) -> None:
    assume(len(secret) >= MIN_LENGTH and MASK[:4] not in secret)
    assume(not any(syntax.escape.search(secret) for syntax in SYNTAXES))
    for spelling in spellings(secret):
        masked = scrub([secret], before + b"|" + spelling + b"|" + after)
        assert b"|" + spelling + b"|" not in masked
        assert MASK in masked


def test_an_escape_is_read_as_one_though_its_beginning_has_left() -> None:
    """`0041-` is held back as a possible beginning; it stays the end of an escaped `A`."""
    data = b"\\u0041-\\u0061bcA"
    assert scrub([b"0041-abcA"], data) == data
    assert scrub([b"0041-abcA"], data[:7], data[7:]) == data


def test_holds_back_only_what_can_begin_a_spelling() -> None:
    scrubber = Scrubber([KEY])
    event = b"data: a finished event\n\n"
    assert scrubber.feed(event) == event
    assert scrubber.feed(b"data: 100") == b"data: 100"
    assert scrubber.feed(b" sk_l") == b" "
    assert scrubber.feed(b"ater\n") == b"sk_later\n"
    assert scrubber.feed(b"x%73") == b"x"
    assert scrubber.feed(b"!\\u00") == b"%73!"
    assert scrubber.feed(b"41, R&") == b"\\u0041, R"
    assert scrubber.feed(b"D") == b"&D"
    assert scrubber.finish() == b""


def test_a_mask_leaves_as_soon_as_the_value_is_complete() -> None:
    scrubber = Scrubber([b"hunter22"])
    assert [scrubber.feed(b"%c" % letter) for letter in b"hunter22"] == [b""] * 7 + [MASK]


def test_holds_little_whatever_comes() -> None:
    """Memory stays flat: what is held back is bounded by the longest spelling."""
    scrubber = Scrubber([KEY])
    for chunk in (b"sk_live/", b"%73%6b", b"\\u0073", b"&#115;", b"\\", b"%", KEY[:-1]) * 5:
        scrubber.feed(chunk * 2000)
        assert len(scrubber._source) <= 12 * (len(KEY) + 1)


def test_large_chunks_are_cut_without_a_seam() -> None:
    data = b"".join(b"%d:" % i + KEY for i in range(3 * SLICE // len(KEY)))
    scrubber = Scrubber([KEY])
    masked = scrubber.feed(data) + scrubber.finish()
    assert masked == data.replace(KEY, MASK)
    assert scrubber.hits == data.count(KEY)


def test_of_overlapping_spellings_the_first_and_longest_is_masked() -> None:
    assert scrub([b"abcdefgh", b"cdefxyzw"], b"-abcdefgh-cdefxyzw-") == b"-%b-%b-" % (MASK, MASK)
    assert scrub([b"abcdef", b"defghi"], b"abcdefghi") == MASK + b"ghi"
    assert scrub([b"abcdxyz1", b"bcde"], b"abcde", b"f") == b"a" + MASK + b"f"


def test_short_values_are_not_looked_for() -> None:
    assert scrub([b"abc", b""], b"abc") == b"abc"
    assert Scrubber([b"abc"]).scrub_text("abc") == "abc"


def test_texts() -> None:
    scrubber = Scrubber([KEY, PASSWORD])
    text = f"Location: /next?t={quote(KEY, safe='')}&u=\udcff\udce9"
    masked = MASK.decode()
    assert scrubber.scrub_text(text) == f"Location: /next?t={masked}&u=\udcff\udce9"
    assert scrubber.scrub_text("\ud800" + KEY.decode()) == "\ud800" + masked
    assert scrubber.scrub_text("OK " + PASSWORD.decode()) == "OK " + masked
    assert scrubber.hits == 3


def test_texts_do_not_disturb_the_stream() -> None:
    scrubber = Scrubber([KEY])
    assert scrubber.feed(KEY[:9]) == b""
    scrubber.scrub_text(KEY.decode())
    assert scrubber.feed(KEY[9:]) + scrubber.finish() == MASK
    assert scrubber.hits == 2


READABLE = sorted(REFLECTIONS.keys() - {"br", "gzip-cut", "gzip-undeclared", "utf-16"})


@pytest.mark.parametrize("form", READABLE)
def test_masks_what_the_test_upstream_reflects(form: str) -> None:
    secret = "sk-Live_4eC39Hq/LyjWD+arjtT1"
    reply = REFLECTIONS[form](secret)
    headers = {name.lower(): value for name, value in reply.headers}
    scrubber, decoder = Scrubber([secret.encode()]), Decoder(headers.get("content-encoding"))
    body = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
    pieces = [piece for byte in body for piece in decoder.feed(bytes([byte]))]
    out = b"".join(map(scrubber.feed, [*pieces, *decoder.finish()])) + scrubber.finish()
    shown = [scrubber.scrub_text(text) for pair in reply.headers for text in pair]
    everything = out + "\n".join([*shown, scrubber.scrub_text(reply.reason)]).encode()
    assert scrubber.hits == 1
    assert not any(spelling in everything for spelling in spellings(secret.encode()))


def test_shows_no_value() -> None:
    assert "sk_live" not in repr(Scrubber([KEY]))


@given(st.text("ab", max_size=12), st.text("ab", min_size=1, max_size=9), st.integers(0, 12))
def test_overlap_is_the_longest(text: str, needle: str, start: int) -> None:
    start = min(start, len(text))
    sizes = range(min(len(needle) - 1, len(text) - start), 0, -1)
    expected = next((size for size in sizes if text.endswith(needle[:size])), 0)
    assert overlap(text.encode(), start, needle.encode()) == expected


def test_a_mask_may_be_as_long_as_what_it_covers() -> None:
    scrubber = Scrubber([b"sk_live_Canary"], keep_length=True)
    body = b"a sk_live_Canary " + base64.b64encode(b"sk_live_Canary" * 2) + b" sk%5Flive_Canary."
    out = scrubber.feed(body) + scrubber.finish()
    assert len(out) == len(body)
    assert out.startswith(b"a [keybroker:mas ") and out.endswith(b" [keybroker:maske.")
    assert scrubber.scrub_text("sk_live_Canary") == "[keybroker:masked]"


@given(
    st.lists(
        st.text(max_size=12) | st.sampled_from(spellings(KEY)).map(lambda b: b.decode("latin-1")),
        max_size=4,
    ),
    st.sampled_from(["", "x", "\n", "%", "\\", "&#", KEY.decode()]),
)
def test_texts_are_clean_when_each_of_them_is_left_as_it_is(texts: list[str], glue: str) -> None:
    texts = [glue + text + glue for text in texts]
    scrubber = Scrubber([KEY])
    left = [scrubber.scrub_text(text) == text for text in texts]
    if scrubber.is_clean(texts):
        assert all(left)
    else:
        assert not all(left) or "\n" in glue + "".join(texts)


def test_a_text_that_cannot_be_encoded_is_not_called_clean() -> None:
    assert not Scrubber([KEY]).is_clean(["\ud83d"])
    assert Scrubber([KEY]).is_clean(["\udc80", "plain", ""])
    assert Scrubber([]).is_clean(["anything"])


@pytest.mark.parametrize("wide", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("secret", ["sk_live_0123", "日本語の秘密", "pä$$wörd"])
def test_wide_spellings_are_masked_wherever_they_are_cut(secret: str, wide: str) -> None:
    """They are not looked for before a NUL comes; what may begin one waits all the same."""
    spelt = secret.encode(wide)
    for cut in range(1, len(spelt)):
        scrubber = Scrubber([secret.encode()])
        first = scrubber.feed(b"before " + spelt[:cut])
        assert first + scrubber.feed(spelt[cut:] + b" after") + scrubber.finish() == (
            b"before " + MASK + b" after"
        )


def test_a_secret_beyond_ascii_is_masked_in_what_came_off_the_wire() -> None:
    """A header's text has a character for each byte (ISO-8859-1), whatever the bytes mean."""
    secret = "p\u00e4ssw\u00f6rd-0123456"
    scrubber = Scrubber([secret.encode()])
    on_the_wire = f"echo {secret}".encode().decode("latin-1")
    assert not scrubber.is_clean([on_the_wire])
    assert scrubber.scrub_text(on_the_wire) == "echo [keybroker:masked]"
    assert scrubber.scrub_text(f"echo {secret}") == "echo [keybroker:masked]"
