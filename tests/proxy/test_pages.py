"""The engine's own refusals are whole problem documents."""

from __future__ import annotations

import json

import pytest

from broker.errors import CODES
from proxy import pages


@pytest.mark.parametrize("code", CODES)
def test_every_code_makes_a_page(code: str) -> None:
    page = pages.page(code, "sentence")
    told = json.loads(page.raw_content or b"")
    assert page.status_code == told["status"] == CODES[code].status
    assert page.headers["content-type"] == "application/problem+json"
    assert page.headers["keybroker-code"] == told["code"] == code
    assert page.headers["keybroker-request-id"] == told["request_id"]
    assert page.headers["content-length"] == str(len(page.raw_content or b""))
    assert page.reason  # all that many clients show of a refused CONNECT
    assert ("proxy-authenticate" in page.headers) == (page.status_code == 407)
    assert told["detail"] == "sentence"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "request_ambiguous"),
        (413, "body_too_large"),
        (502, "upstream_unreachable"),
        (500, "upstream_unreachable"),
    ],
)
def test_pages_in_the_place_of_the_core_s_close_the_connection(status: int, code: str) -> None:
    page = pages.of_core(status)
    assert page.headers["keybroker-code"] == code
    assert page.headers["connection"] == "close"
