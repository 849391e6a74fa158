"""MCP over HTTP: the messages of a body, and the headers that repeat what they say.

Since revision 2026-07-28 a client mirrors method, name and some arguments into headers, by which
gateways choose a backend unread. Whoever reads the body must see that both say the same
(Streamable HTTP, "Server Validation"): else one decides by this and another acts by that.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from rules.errors import Unreadable
from rules.reading.json import Json, Number
from rules.reading.jsonrpc import Rpc, read_jsonrpc
from rules.request import Request

_PARAMETER = "mcp-param-"
_ANY_NAME = ("name", "uri")
_NAMES = {"tools/call": ("name",), "prompts/get": ("name",), "resources/read": ("uri",)}
_VERSION = "mcp-protocol-version"
_VERSION_IN_BODY = "io.modelcontextprotocol/protocolVersion"


def read_mcp(request: Request, document: Json) -> tuple[Rpc, ...]:
    """The messages of the request's body, which is `document`.

    Raises Unreadable as `read_jsonrpc` does, and where a header says otherwise. Headers that are
    missing are the server's to complain about: it has only the body to go by then.
    """
    messages = read_jsonrpc(document)
    headers = {name: value for name, value in request.headers if name.startswith("mcp-")}
    mirrors = {
        name: _decoded(value)
        for name, value in headers.items()
        if name in ("mcp-method", "mcp-name") or name.startswith(_PARAMETER)
    }
    if mirrors:
        if isinstance(document, list):
            raise Unreadable("a batch beside a header for one message")
        _check_mirrors(mirrors, messages[0])
    version = headers.get(_VERSION)
    if version is not None:
        for message in messages:
            _check_version(version, message.params)
    return messages


def _check_mirrors(mirrors: dict[str, str], message: Rpc) -> None:
    params = message.params if isinstance(message.params, dict) else {}
    # Which of the arguments a header mirrors stands in the tool's schema only.
    arguments = frozenset(_texts(message.arguments))
    for name, value in mirrors.items():
        if name == "mcp-method":
            same = value == message.method
        elif name == "mcp-name":
            same = value in [params.get(key) for key in _NAMES.get(message.method, _ANY_NAME)]
        else:
            same = value in arguments
        if not same:
            raise Unreadable(f"the header {name} says something else than the body")


def _check_version(version: str, params: Json) -> None:
    meta = params.get("_meta") if isinstance(params, dict) else None
    if isinstance(meta, dict) and meta.get(_VERSION_IN_BODY, version) != version:
        raise Unreadable(f"the header {_VERSION} says something else than the body")


def _decoded(value: str) -> str:
    """A header's value; what does not fit into one is in base64, in `=?base64?...?=`."""
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise Unreadable("a header that is not the base64 it says it is") from None


def _texts(value: Json) -> Iterator[str]:
    """All texts, numbers and truth values in `value`, as a header writes them."""
    match value:
        case bool():
            yield "true" if value else "false"
        case str():
            yield value
        case Number():
            yield value.text
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case _:
            # A header mirrors nothing within a list.
            return
