"""Every vector of tests/vectors/canonical.json: the canonical form to the letter, or the reason."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from rules.canonical import canonicalise
from rules.errors import Ambiguous
from tests.support.vectors import Vector, load_vectors

VECTORS = load_vectors()
REASONS = {
    "version": "HTTP version",
    "trailers": "has trailers",
    "method-case": "case-sensitive",
    "method-odd": "The method .* is odd",
    "method-never": "never forwarded",
    "target-long": "longer than 16384",
    "target-asterisk": "names no resource",
    "path-start": "must begin with `/`",
    "path-empty-segment": "holds `//`",
    "path-dot-segment": r"`\.` or `\.\.` segment",
    "path-escape-case": "write the escape in capitals",
    "path-escape-needless": "where no escape is needed",
    "path-escape-broken": "path holds a `%` that starts no escape",
    "path-encoded-slash": "an encoded slash",
    "path-encoded-backslash": "an encoded backslash",
    "path-encoded-semicolon": "an encoded `;`",
    "path-double-encoding": "doubly encoded",
    "path-control": "The path holds .*control (byte|character)",
    "path-semicolon": "The path holds `;`",
    "path-backslash": "holds a backslash",
    "path-fragment": "The path holds `#`",
    "path-raw": "The path holds .* as it is; write",
    "path-utf8": "path's percent escapes are not UTF-8",
    "path-unicode-form": "composed form",
    "path-look-alike": "look-alike",
    "query-fragment": "The query holds `#`",
    "query-raw": "The query holds .* as it is; write",
    "query-control": "The query holds the control byte",
    "query-escape-broken": "query holds a `%` that starts no escape",
    "query-nul": "encoded NUL",
    "query-utf8": "query's percent escapes are not UTF-8",
    "host-empty": "host is empty",
    "host-dot-at-end": "ends in a dot",
    "host-label": "empty label",
    "host-blank": "holds a space or control byte",
    "host-percent": "is percent-encoded",
    "host-not-ascii": "xn-- form",
    "host-odd": "is no host name",
    "host-long": "longer than 253",
    "host-ipv4": "looks like an IPv4 address",
    "host-ipv4-mapped": "IPv4-mapped",
    "host-ipv6": "one pair of brackets|neither a name nor an IPv6",
    "host-ipv6-form": "RFC 5952",
    "authority-colons": "several colons",
    "authority-odd": r"write \[ADDRESS\]",
    "userinfo": "user information",
    "port": "The port .* is odd",
    "connect-port": "The CONNECT port",
    "destination": "name the same host and port everywhere",
    "no-host": "no Host header",
    "no-authority": "no :authority",
    "no-tunnel": "open one with CONNECT",
    "clear-text-in-tunnel": "clear text inside a CONNECT tunnel",
    "tls-without-tunnel": "came over TLS",
    "origin-form": "names a path only",
    "scheme": "neither http nor https",
    "gateway": "name it nowhere else",
    "framing-both": "both Content-Length and Transfer-Encoding",
    "framing-coding": "not exactly `chunked`",
    "framing-length": "no plain decimal number",
    "framing-mismatch": "does not match the body",
    "framing-version": "has no place in",
    "expect": "asks for more than `100-continue`",
    "header-name": "The header name .* is odd",
    "header-underscore": "holds `_`",
    "header-blank-first": "white space or has no name",
    "header-line-break": "holds a line break",
    "header-control": "holds a control byte",
    "header-not-ascii": "The header .* is not ASCII",
    "header-twice": "stands twice",
    "headers-many": "more than 200 header lines",
    "headers-large": "larger than 65536 bytes",
    "connection": "belongs to the upstream",
    "connection-odd": "no list of header names",
    "upgrade": "Upgrade header",
    "websocket": "A WebSocket is opened",
    "prefer": "quote that does not end",
    "media-type": "not one media type",
    "media-type-twice": "Content-Type gives .* twice",
    "body-compressed": "is compressed",
    "body-charset": "is not in UTF-8",
    "body-untyped": "does not say what it is",
    "part-name": "name comes in pieces",
    "json-unreadable": "JSON body cannot be read",
    "override-header": "The header .* would override the request",
    "override-query": "The query parameter .* would override the request",
    "override-form": "The form parameter .* would override the request",
    "override-json": "The JSON parameter .* would override the request",
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_a_request_has_one_form_or_none(vector: Vector) -> None:
    if vector.why is None:
        assert canonicalise(vector.raw) == vector.canonical
        return
    with pytest.raises(Ambiguous) as caught:
        canonicalise(vector.raw)
    assert re.search(REASONS[vector.why], caught.value.sentence), caught.value.sentence


def test_the_vectors_are_many_and_their_reasons_known() -> None:
    assert len(VECTORS) >= 300
    assert max(Counter(vector.id for vector in VECTORS).values()) == 1
    assert {vector.why for vector in VECTORS} == {None, *REASONS}
    assert len([vector for vector in VECTORS if vector.canonical is not None]) > 100
