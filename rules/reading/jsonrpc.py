"""JSON-RPC 2.0, and MCP in it: what a document asks for, message by message.

The source is the JSON-RPC 2.0 specification and MCP's streamable HTTP transport. A message has one
reading or none: servers written in Go take `Method` for `method`, so no member may be spelled
nearly like one of the protocol's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from rules.errors import Unreadable
from rules.reading.json import Json

MAX_MESSAGES = 1_000
"""Of one batch."""

_MEMBERS = ("jsonrpc", "id", "method", "params", "result", "error")
_TOOL_CALL = "tools/call"
_TOOL_MEMBERS = ("name", "arguments")


@dataclass(frozen=True, slots=True)
class Rpc:
    """One message: a request, a notification, or (with the method "") a response, which a client
    sends to what the server asked it."""

    method: str
    params: Json = field(repr=False)
    """An object, a list, or None."""

    @property
    def tool(self) -> str | None:
        """The tool that MCP's `tools/call` names; None for any other message."""
        if self.method != _TOOL_CALL or not isinstance(self.params, dict):
            return None
        name = self.params.get("name")
        return name if isinstance(name, str) else None

    @property
    def arguments(self) -> Json:
        """What the tool is called with, an object; None for any other message."""
        if self.method != _TOOL_CALL or not isinstance(self.params, dict):
            return None
        arguments = self.params.get("arguments")
        return {} if arguments is None else arguments


def read_jsonrpc(document: Json) -> tuple[Rpc, ...]:
    """The messages of a document, one or a batch, in order.

    Raises Unreadable for anything else, among it a `tools/call` that does not name its tool in the
    one way that MCP has.
    """
    if not isinstance(document, list):
        return (_read(document),)
    if not document:
        raise Unreadable("an empty batch")
    if len(document) > MAX_MESSAGES:
        raise Unreadable(f"a batch of more than {MAX_MESSAGES} messages")
    return tuple([_read(message) for message in document])


def _read(message: Json) -> Rpc:
    if not isinstance(message, dict):
        raise Unreadable("a message that is no object")
    refuse_lookalikes(message, _MEMBERS)
    answers = ("result" in message) + ("error" in message)
    if "method" not in message:
        if answers != 1 or "params" in message:
            raise Unreadable("a message that is neither a request nor a response")
        return Rpc("", None)
    if answers:
        raise Unreadable("a message that is both a request and a response")
    method, params = message["method"], message.get("params")
    if not isinstance(method, str) or not method:
        raise Unreadable("a method that is no text")
    if params is not None and not isinstance(params, dict | list):
        raise Unreadable("params that are neither an object nor a list")
    if fold(method, len(_TOOL_CALL)) == _TOOL_CALL:
        _check_tool_call(method, params)
    return Rpc(method, params)


def _check_tool_call(method: str, params: Json) -> None:
    if method != _TOOL_CALL:
        raise Unreadable(f"a method spelled nearly like {_TOOL_CALL}")
    if not isinstance(params, dict):
        raise Unreadable(f"a {_TOOL_CALL} without named params")
    refuse_lookalikes(params, _TOOL_MEMBERS)
    name = params.get("name")
    if not isinstance(name, str) or not name:
        raise Unreadable(f"a {_TOOL_CALL} that names no tool")
    if not isinstance(params.get("arguments", {}), dict | None):
        raise Unreadable(f"a {_TOOL_CALL} with arguments that are no object")


def refuse_lookalikes(members: Collection[str], known: Collection[str]) -> None:
    """Raises Unreadable if a member is one of `known` (lower case) in another spelling, which
    lenient servers take for it."""
    longest = max(map(len, known))
    for name in members:
        if name not in known and fold(name, longest) in known:
            raise Unreadable(f"a member spelled nearly like `{fold(name, longest)}`")


def fold(text: str, longest: int) -> str:
    """The text without letter case and outer space; empty if it is longer than what it could be
    taken for. Folding shortens no text, and megabytes of it take long."""
    text = text.strip()
    return text.casefold() if len(text) <= longest else ""
