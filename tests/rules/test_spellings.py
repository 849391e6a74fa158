"""Spellings: one form of each word, or a sentence on what to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rules.model import SecretRef
from rules.spellings import (
    parse_agent,
    parse_format,
    parse_header,
    parse_method,
    parse_name,
    parse_run,
    parse_secret_ref,
    parse_slot,
)


def test_what_is_spelt_well() -> None:
    assert parse_name("bob@example.com") == "bob@example.com"
    assert parse_agent("bot-1") == "bot-1"
    assert parse_run("t-01kjpy53vjx8q2m4z7d9r0n6ce") == "t-01kjpy53vjx8q2m4z7d9r0n6ce"
    assert parse_agent("tag:finance") == "tag:finance"
    assert parse_secret_ref("kv/a/b#c") == SecretRef("kv", "a/b", "c")
    assert parse_method("PROPFIND") == "PROPFIND"
    assert parse_header("X-Api-Key") == "x-api-key"
    assert parse_slot("Authorization") == "authorization"
    assert parse_slot("Cookie") == "cookie"
    assert parse_format('Token token="{secret}"') == 'Token token="{secret}"'


@pytest.mark.parametrize(
    ("parse", "text", "sentence"),
    [
        (parse_name, "a b", '"a b" is not a name'),
        (parse_name, "-a", "is not a name"),
        (parse_name, "a:b", "is not a name"),
        (parse_name, "é", "is not a name"),
        (parse_run, "yes", '"yes" is neither true nor false, nor the id of a run'),
        (parse_run, "t-" + "0" * 25, "26 small letters"),
        (parse_run, "T-" + "A" * 26, "small letters"),
        (parse_run, "c-" + "0" * 26, "is neither"),
        (parse_agent, "*", "there is no rule for every agent"),
        (parse_agent, "tag:", "is not a name"),
        (parse_agent, "team:x", "is not a name"),
        (parse_secret_ref, "kv/a", "write MOUNT/PATH#FIELD"),
        (parse_secret_ref, "kv#a", "write MOUNT/PATH#FIELD"),
        (parse_secret_ref, "kv/../sys#a", "names no secret"),
        (parse_secret_ref, "kv//a#b", "names no secret"),
        (parse_secret_ref, "kv/a?x#b", "names no secret"),
        (parse_method, "get", "write capitals"),
        (parse_method, "*", "is not a method"),
        (parse_method, "TRACE", "TRACE is never forwarded"),
        (parse_method, "CONNECT", "CONNECT is never forwarded"),
        (parse_header, "x_key", "is not a header name"),
        (parse_header, ":path", "is not a header name"),
        (parse_header, "Host", "the header host is never forwarded as the agent sent it"),
        (parse_header, "Content-Length", "never forwarded"),
        (parse_header, "Proxy-Authorization", "never forwarded"),
        (parse_header, "Keybroker-Reason", "never forwarded"),
        (parse_slot, "Connection", "never forwarded"),
        (parse_slot, "Transfer-Encoding", "never forwarded"),
        (parse_slot, "Content-Type", "says how the message is read"),
        (parse_slot, "Accept-Encoding", "says how the message is read"),
        (parse_slot, "Sec-WebSocket-Key", "says how the message is read"),
        (parse_format, "Bearer", "exactly once"),
        (parse_format, "{secret}{secret}", "exactly once"),
        (parse_format, "{user}:{secret}", "no other braces"),
        (parse_format, "é{secret}", "plain ASCII"),
    ],
)
def test_what_is_not(parse: Callable[[str], object], text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("*", r"\*")):
        parse(text)
