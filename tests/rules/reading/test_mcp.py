"""MCP over HTTP: a header that repeats the body repeats it truly."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Unreadable
from rules.reading.json import read_json
from rules.reading.jsonrpc import Rpc
from rules.reading.mcp import read_mcp
from rules.request import Request

CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {
        "name": "query",
        "arguments": {"region": "eu", "dry": True, "limit": 10, "in": {"tenant": "ä"}, "l": ["x"]},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
    },
}
READ = {"id": 1, "method": "resources/read", "params": {"uri": "file:///a", "name": "b"}}


def read(document: Any, **headers: str) -> tuple[Rpc, ...]:
    lines = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    body = json.dumps(document).encode()
    request = Request("POST", "https", "mcp.example.com", 443, "/mcp", None, lines, body)
    return read_mcp(request, read_json(body))


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def test_headers_that_repeat_the_body() -> None:
    (rpc,) = read(
        CALL,
        mcp_protocol_version="2026-07-28",
        mcp_session_id="abc",
        mcp_method="tools/call",
        mcp_name="query",
        mcp_param_region="eu",
        mcp_param_dry="true",
        mcp_param_limit="10",
        mcp_param_tenant=encoded("ä"),
    )
    assert rpc.tool == "query"


def test_headers_may_be_missing() -> None:
    assert read(CALL) == read(CALL, mcp_session_id="abc", x_mcp_name="other", accept="*/*")
    assert len(read([CALL, CALL], mcp_protocol_version="2026-07-28")) == 2


def test_the_name_of_a_resource_is_its_uri() -> None:
    assert read(READ, mcp_method="resources/read", mcp_name="file:///a")
    with pytest.raises(Unreadable, match="mcp-name"):
        read(READ, mcp_name="b")


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp_method": "tools/list"},
        {"mcp_method": "Tools/Call"},
        {"mcp_method": ""},
        {"mcp_name": "other"},
        {"mcp_name": "Query"},
        {"mcp_name": ""},
        {"mcp_name": encoded("other")},
        {"mcp_name": "=?base64?cXVlcnk?="},
        {"mcp_name": "=?base64?/w==?="},
        {"mcp_name": "=?base64? cXVlcnk=?="},
        {"mcp_param_region": "us"},
        {"mcp_param_dry": "True"},
        {"mcp_param_limit": "11"},
        {"mcp_param_l": "x"},
        {"mcp_protocol_version": "2025-06-18"},
    ],
)
def test_a_header_that_says_something_else_is_unreadable(headers: dict[str, str]) -> None:
    with pytest.raises(Unreadable):
        read(CALL, **headers)


def test_a_batch_has_no_header_for_one_message() -> None:
    with pytest.raises(Unreadable, match="batch"):
        read([CALL], mcp_method="tools/call")


def test_a_response_repeats_nothing() -> None:
    response = {"id": 1, "result": {"name": "query"}}
    assert read(response) == (Rpc("", None),)
    with pytest.raises(Unreadable):
        read(response, mcp_name="query")
    with pytest.raises(Unreadable):
        read(response, mcp_method="tools/call")


NAMES = st.sampled_from(["mcp-method", "mcp-name", "mcp-param-a", "mcp-protocol-version", "mcp-x"])
VALUES = st.sampled_from(["tools/call", "a", "=?base64?YQ==?=", "=?base64??=", "=?base64?="])
PARAMS = st.dictionaries(
    st.sampled_from(["name", "uri", "arguments", "_meta"]),
    st.none() | VALUES | st.dictionaries(st.sampled_from("ab"), VALUES | st.booleans()),
)


@given(
    st.dictionaries(NAMES, VALUES | st.text()),
    st.sampled_from(["tools/call", "prompts/get", "resources/read", "ping"]),
    st.none() | st.lists(st.none()) | PARAMS,
)
def test_any_request_is_read_or_unreadable(
    headers: dict[str, str], method: str, params: Any
) -> None:
    message = {"method": method, "params": params}
    request = Request("POST", "https", "a.example", 443, "/", None, tuple(headers.items()), b"")
    try:
        assert len(read_mcp(request, message)) == 1
    except Unreadable:
        return
    assert headers.get("mcp-method", method) == method
