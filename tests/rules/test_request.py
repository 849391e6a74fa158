"""The canonical request: its URL, its digest bytes and its stored form lose and confuse nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.request import Request, authority

BASE = Request(
    method="POST",
    scheme="https",
    host="api.stripe.com",
    port=443,
    path="/v1/refunds",
    query=None,
    headers=(("accept", "*/*"), ("x-a", "1"), ("x-a", "2")),
    body=b"amount=1",
)

# Few and short values, so that two drawn requests are often alike in most fields.
TEXT = st.text(alphabet="aB:/?\n\0é", max_size=3)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST", "GETPOST"]),
    scheme=st.sampled_from(["http", "https"]),
    host=TEXT,
    port=st.sampled_from([80, 443, 8]),
    path=TEXT,
    query=st.none() | TEXT,
    headers=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    body=st.binary(max_size=3),
    upgrade=st.sampled_from([None, "websocket"]),
)


@pytest.mark.parametrize(
    ("change", "url"),
    [
        ({}, "https://api.stripe.com/v1/refunds"),
        ({"port": 8443}, "https://api.stripe.com:8443/v1/refunds"),
        ({"scheme": "http"}, "http://api.stripe.com:443/v1/refunds"),
        ({"scheme": "http", "port": 80}, "http://api.stripe.com/v1/refunds"),
        ({"host": "::1"}, "https://[::1]/v1/refunds"),
        ({"host": "::1", "port": 8443}, "https://[::1]:8443/v1/refunds"),
        ({"query": ""}, "https://api.stripe.com/v1/refunds?"),
        ({"query": "a=b"}, "https://api.stripe.com/v1/refunds?a=b"),
    ],
)
def test_the_url_names_the_port_only_where_it_is_not_the_default(
    change: dict[str, object], url: str
) -> None:
    assert replace(BASE, **change).url == url  # type: ignore[arg-type]


def test_headers_are_found_by_lower_case_name() -> None:
    assert BASE.values("x-a") == ("1", "2")
    assert BASE.header("x-a") == "1, 2"
    assert BASE.header("accept") == "*/*"
    assert BASE.header("x-b") is None
    assert BASE.values("x-b") == ()


@given(REQUESTS, REQUESTS)
def test_two_requests_encode_alike_only_if_they_are_alike(one: Request, other: Request) -> None:
    assert (one.encode() == other.encode()) == (one == other)


@given(REQUESTS, st.data())
def test_a_change_of_any_field_that_goes_upstream_changes_the_encoding(
    request: Request, data: st.DataObject
) -> None:
    names = ["method", "scheme", "host", "port", "path", "query", "headers", "body", "upgrade"]
    name = data.draw(st.sampled_from(names))
    changed = replace(request, **{name: getattr(data.draw(REQUESTS), name)})
    assert (request.encode() == changed.encode()) == (request == changed)


def test_neighbouring_fields_cannot_lend_each_other_bytes() -> None:
    pairs = [
        ({"path": "/a", "query": "b"}, {"path": "/a?b", "query": None}),
        ({"query": None}, {"query": ""}),
        ({"headers": (("a", "b"),)}, {"headers": (("a", ""), ("b", ""))}),
        ({"headers": (("a", "bc"),)}, {"headers": (("ab", "c"),)}),
        ({"headers": (("a", "b"), ("c", "d"))}, {"headers": (("c", "d"), ("a", "b"))}),
        ({"headers": (), "body": b"x"}, {"headers": (("x", ""),), "body": b""}),
    ]
    for one, other in pairs:
        assert (
            replace(BASE, **one).encode()  # type: ignore[arg-type]
            != replace(BASE, **other).encode()  # type: ignore[arg-type]
        )


def test_the_claim_is_no_part_of_what_is_digested() -> None:
    """It never leaves, and a retry may word it anew."""
    assert replace(BASE, claim="because").encode() == BASE.encode()
    assert replace(BASE, respond_async=True).encode() == BASE.encode()


def test_headers_can_be_left_out_of_the_encoding() -> None:
    volatile = frozenset({"x-a"})
    without = replace(BASE, headers=(("accept", "*/*"),))
    assert BASE.encode(without=volatile) == without.encode()
    assert BASE.encode(without=volatile) != BASE.encode()


@given(REQUESTS, st.none() | TEXT)
def test_the_stored_form_gives_the_request_back(request: Request, claim: str | None) -> None:
    stored = replace(request, claim=claim)
    assert Request.from_json(stored.to_json()) == stored


def test_the_representation_shows_no_body() -> None:
    assert "amount" not in repr(BASE)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "written"),
    [
        ("https", "a.example", 443, "a.example"),
        ("https", "a.example", 80, "a.example:80"),
        ("http", "a.example", 80, "a.example"),
        ("https", "::1", 443, "[::1]"),
        ("https", "::1", 8443, "[::1]:8443"),
        ("https", "a.example", None, "a.example"),
    ],
)
def test_the_port_is_named_unless_it_is_the_usual_one(
    scheme: str, host: str, port: int | None, written: str
) -> None:
    assert authority(scheme, host, port) == written


def test_an_unread_body_counts_by_its_announced_length_and_is_never_stored() -> None:
    request = Request("PUT", "https", "a.example", 443, "/x", None, (), b"", unread=True, length=7)
    others = [
        replace(request, length=None),
        replace(request, length=8),
        replace(request, unread=False, length=None, body=b"7"),
        replace(request, unread=False, length=None),
    ]
    assert request.encode() not in {other.encode() for other in others}
    with pytest.raises(ValueError, match="never read"):
        request.to_json()
