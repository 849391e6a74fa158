"""Keybroker's own answers."""

from __future__ import annotations

import json

import pytest

from broker.answers import document, pem, problem
from broker.errors import CODES, Refusal


@pytest.mark.parametrize("code", CODES)
def test_a_problem_says_everything_of_the_contract(code: str) -> None:
    answer = problem(Refusal(code, "Because.", extra={"rule": "r"}), "c-1")
    headers = dict(answer.headers)
    assert answer.status == CODES[code].status
    assert headers["content-type"] == "application/problem+json"
    assert headers["keybroker-code"] == code
    assert headers["keybroker-request-id"] == "c-1"
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": CODES[code].title,
        "status": CODES[code].status,
        "detail": "Because.",
        "message": "Because.",
        "code": code,
        "request_id": "c-1",
        "rule": "r",
    }
    assert ("proxy-authenticate" in headers) == (code == "agent_unauthenticated")


def test_who_is_refused_as_by_an_origin_gets_an_origins_challenge() -> None:
    headers = dict(problem(Refusal("agent_unauthenticated", "x", status=401), None).headers)
    assert headers["www-authenticate"].startswith("Bearer ")
    assert "proxy-authenticate" not in headers


def test_a_refusals_own_status_headers_and_patience_go_out() -> None:
    refusal = Refusal(
        "approval_pending", "x", status=202, retry_after=5, headers=(("location", "u"),)
    )
    headers = dict(problem(refusal, None).headers)
    assert (headers["retry-after"], headers["location"]) == ("5", "u")
    assert json.loads(problem(refusal, None).body)["status"] == 202


def test_without_a_call_there_is_no_request_id() -> None:
    answer = problem(Refusal("internal_error", "x"), None)
    assert "keybroker-request-id" not in dict(answer.headers)
    assert "request_id" not in json.loads(answer.body)


def test_documents_and_certificates_carry_the_call() -> None:
    answer = document({"a": 1}, "c-1")
    assert json.loads(answer.body) == {"a": 1}
    assert answer.status == 200
    for one in (answer, pem(b"PEM", "c-1")):
        headers = dict(one.headers)
        assert headers["keybroker-request-id"] == "c-1"
        assert headers["keybroker-code"] == "ok"
    assert pem(b"PEM", "c-1").body == b"PEM"
    assert dict(pem(b"", "c-1").headers)["content-type"] == "application/pem-certificate-chain"
