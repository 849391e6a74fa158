"""Explaining a call: the request that a client would make, odd spellings left as they stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.errors import Unusable
from keybroker.policy import explain_call, raw_request, subject_of
from rules.load import load_policy
from rules.model import Subject

POLICY, _ = load_policy("version: 1\nrules: []\n")


def test_https_goes_through_connect_and_http_in_absolute_form() -> None:
    tls = raw_request("POST", "https://a.example:8443/x?y=1", [("A", "b")], b"body")
    assert (tls.scheme, tls.connect, tls.sni) == ("https", ("a.example", 8443), "a.example")
    assert tls.authority is None
    assert tls.target == "/x?y=1"
    assert tls.headers == ((b"Host", b"a.example:8443"), (b"A", b"b"), (b"Content-Length", b"4"))
    clear = raw_request("GET", "http://a.example/", [], b"")
    assert (clear.scheme, clear.connect, clear.authority) == ("http", None, "a.example")


def test_an_address_has_no_server_name() -> None:
    assert raw_request("GET", "https://192.0.2.1/", [], b"").sni is None
    assert raw_request("GET", "https://[2001:db8::1]/", [], b"").sni is None


@pytest.mark.parametrize("path", ["/a/../b", "//a", "/%2e%2e/a", "/a;b", "/a\\b"])
def test_odd_paths_are_kept_so_that_they_are_refused(path: str) -> None:
    raw = raw_request("GET", "https://a.example" + path, [], b"")
    assert raw.target == path
    assert explain_call(POLICY, Subject("bot"), raw)["code"] == "request_ambiguous"


@pytest.mark.parametrize("url", ["a.example", "ftp://a.example/", "https://", "https://a:x/"])
def test_what_is_no_url_is_said_to_be_so(url: str) -> None:
    with pytest.raises(Unusable, match="is not a URL"):
        raw_request("GET", url, [], b"")


@given(st.text(max_size=60))
def test_any_text_is_explained_or_refused(text: str) -> None:
    try:
        raw = raw_request("GET", "https://" + text, [], b"")
    except Unusable:
        return
    assert explain_call(POLICY, Subject("bot"), raw)["effect"] == "deny"


def test_an_unknown_agent_has_no_tags() -> None:
    assert subject_of("bot", []) == Subject("bot")
