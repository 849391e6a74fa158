"""After the body comes only what no decision looked at."""

from __future__ import annotations

import pytest

from rules.errors import Ambiguous
from rules.trailers import MAX_TRAILERS, may_trail, read_trailers

NONE: frozenset[str] = frozenset()


def test_plain_trailers_are_taken_in_lower_case() -> None:
    raw = [(b"X-Checksum", b" abc "), (b"x-amz-checksum-crc32", b"AAAA")]
    assert read_trailers(raw, NONE) == (("x-checksum", "abc"), ("x-amz-checksum-crc32", "AAAA"))
    assert read_trailers([], NONE) == ()


@pytest.mark.parametrize(
    "name",
    ["Host", "Content-Length", "Transfer-Encoding", "Authorization", "Cookie", "Set-Cookie",
     "Content-Type", "Proxy-Authorization", "X-Forwarded-For", "X-HTTP-Method-Override", "Expect",
     "If-Match", "Keybroker-Reason", "TE", "Trailer", "Connection", "Upgrade", "X-Api-Key"],
)  # fmt: skip
def test_what_belongs_in_the_head_is_refused(name: str) -> None:
    assert not may_trail(name.lower())
    with pytest.raises(Ambiguous, match="belongs in the head"):
        read_trailers([(name.encode(), b"x")], NONE)


@pytest.mark.parametrize(
    "pair",
    [(b"x_y", b"1"), (b":path", b"/"), (b"", b"1"), (b"x y", b"1"), (b"x", b"a\r\nb"),
     (b"x", b"\xe9"), (b"x", b"\0")],
)  # fmt: skip
def test_odd_trailers_are_refused(pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(Ambiguous, match="odd"):
        read_trailers([pair], NONE)


def test_a_trailer_stands_in_one_place_only() -> None:
    with pytest.raises(Ambiguous, match="send it once"):
        read_trailers([(b"X-A", b"1"), (b"x-a", b"2")], NONE)
    with pytest.raises(Ambiguous, match="send it once"):
        read_trailers([(b"x-key", b"1")], frozenset({"x-key"}))


def test_trailers_are_bounded() -> None:
    with pytest.raises(Ambiguous, match="send less"):
        read_trailers([(b"x-%d" % n, b"") for n in range(MAX_TRAILERS + 1)], NONE)
    with pytest.raises(Ambiguous, match="send less"):
        read_trailers([(b"x", b"v" * 20_000)], NONE)
