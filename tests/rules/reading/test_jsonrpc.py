"""JSON-RPC and MCP: every message counts, and each has one reading."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Unreadable
from rules.reading.json import read_json
from rules.reading.jsonrpc import MAX_MESSAGES, Rpc, read_jsonrpc


def message(method: object = "tools/list", **members: object) -> Any:
    return {"jsonrpc": "2.0", "id": "1", "method": method, **members}


def tool_call(**params: object) -> Any:
    return message("tools/call", params=params)


def test_a_request_a_notification_and_a_response() -> None:
    assert read_jsonrpc(message(params=["a"])) == (Rpc("tools/list", ["a"]),)
    assert read_jsonrpc({"jsonrpc": "2.0", "method": "notifications/initialized"}) == (
        Rpc("notifications/initialized", None),
    )
    assert read_jsonrpc({"jsonrpc": "2.0", "id": "1", "result": {}}) == (Rpc("", None),)
    assert read_jsonrpc({"jsonrpc": "2.0", "id": "1", "error": {"code": "1"}}) == (Rpc("", None),)


def test_a_batch_is_all_its_messages() -> None:
    batch = [message("a"), tool_call(name="b"), {"id": "7", "result": None}]
    assert [rpc.method for rpc in read_jsonrpc(batch)] == ["a", "tools/call", ""]


def test_the_tool_and_its_arguments() -> None:
    (rpc,) = read_jsonrpc(tool_call(name="delete_repo", arguments={"path": "/etc"}, _meta={}))
    assert rpc.tool == "delete_repo"
    assert rpc.arguments == {"path": "/etc"}


@pytest.mark.parametrize("params", [{"name": "x"}, {"name": "x", "arguments": None}])
def test_a_tool_without_arguments_is_called_with_none(params: Any) -> None:
    (rpc,) = read_jsonrpc(tool_call(**params))
    assert rpc.arguments == {}


def test_only_a_tool_call_has_a_tool() -> None:
    (rpc,) = read_jsonrpc(message("prompts/get", params={"name": "x", "arguments": {"a": "1"}}))
    assert rpc.tool is None
    assert rpc.arguments is None


@pytest.mark.parametrize(
    "document",
    [
        None,
        True,
        "text",
        {},
        [],
        [[message()]],
        [message(), None],
        [message(), {}],
        message(None),
        message(""),
        message({}),
        message(params="x"),
        message(params=True),
        message(result={}),
        message(error=None),
        {"id": "1", "result": {}, "error": {}},
        {"id": "1", "result": {}, "params": {}},
        message(Method="tools/call"),
        message(METHOD="tools/call"),
        {"Method": "tools/call", "id": "1"},
        message(**{"param\u017f": {}}),
        message(**{"params ": {}}),
        message(Result={}),
    ],
)
def test_what_has_no_one_reading(document: Any) -> None:
    with pytest.raises(Unreadable):
        read_jsonrpc(document)


@pytest.mark.parametrize(
    "call",
    [
        message("tools/call"),
        message("tools/call", params=["delete_repo", {}]),
        message("Tools/Call", params={"name": "x"}),
        message(" tools/call", params={"name": "x"}),
        tool_call(),
        tool_call(name=None),
        tool_call(name=""),
        tool_call(name=["x"]),
        tool_call(Name="x"),
        tool_call(name="x", Name="y"),
        tool_call(name="x", Arguments={}),
        tool_call(name="x", arguments=[]),
        tool_call(name="x", arguments="{}"),
    ],
)
def test_a_tool_call_names_its_tool_in_one_way(call: Any) -> None:
    with pytest.raises(Unreadable):
        read_jsonrpc(call)
    with pytest.raises(Unreadable):
        read_jsonrpc([message(), call])


@pytest.mark.parametrize("body", [b'{"method":5}', b'{"method":"tools/call","params":{"name":5}}'])
def test_a_number_is_no_name(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read_jsonrpc(read_json(body))


def test_a_batch_is_bounded() -> None:
    assert len(read_jsonrpc([message()] * MAX_MESSAGES)) == MAX_MESSAGES
    with pytest.raises(Unreadable, match="batch of more than"):
        read_jsonrpc([message()] * 100_000)


WORDS = st.sampled_from(
    ["jsonrpc", "id", "method", "params", "result", "name", "arguments", "Method", "tools/call", ""]
)
JSON = st.recursive(
    st.none() | st.booleans() | WORDS | st.text(),
    lambda each: st.lists(each) | st.dictionaries(WORDS | st.text(), each),
)


@given(JSON)
def test_any_document_is_read_or_unreadable(document: Any) -> None:
    try:
        messages = read_jsonrpc(document)
    except Unreadable:
        return
    assert len(messages) == (len(document) if isinstance(document, list) else 1)
    for rpc in messages:
        assert (rpc.tool is not None) == (rpc.method == "tools/call")
        assert (rpc.arguments is not None) == (rpc.method == "tools/call")
