"""How the words of a policy are spelt: names, secrets, methods, headers, formats.

Each reader returns the one form that is used from then on, or raises ValueError with a sentence.
Hosts and paths have their own modules.
"""

from __future__ import annotations

import re

from rules.model import SecretRef

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_SECRET = re.compile(
    r"(?P<mount>[A-Za-z0-9][A-Za-z0-9_-]*)/"
    r"(?P<path>[A-Za-z0-9_@+=.-]+(?:/[A-Za-z0-9_@+=.-]+)*)#(?P<field>[A-Za-z0-9_.-]+)"
)
_RUN_LENGTH = 26
_RUN = re.compile(rf"t-[0-9a-z]{{{_RUN_LENGTH}}}")
_HEADER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,126}[A-Za-z0-9])?")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
# Taken out of every request before it is matched and forwarded (RFC 9110 7.6.1 and what is the
# proxy's own), or made anew by the engine.
_UNREACHABLE = frozenset(
    [
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-real-ip",
    ]
)
_UNREACHABLE_PREFIXES = ("proxy-", "keybroker-", "x-forwarded-")
# A secret in one of these would change how the message is read.
_FRAMING = frozenset(
    ["accept-encoding", "content-encoding", "content-type", "content-range", "range"]
)


def parse_name(text: str) -> str:
    """A name of the policy: of an agent, person, group, tier, rule or credential."""
    if not _NAME.fullmatch(text):
        raise ValueError(f'"{text[:80]}" is not a name; use letters, digits and . _ @ + -')
    return text


def parse_agent(text: str) -> str:
    """An agent's name, or `tag:NAME`. Raises ValueError."""
    if text == "*":
        raise ValueError("there is no rule for every agent; name the agents, or give them a tag")
    parse_name(text.removeprefix("tag:"))
    return text


def parse_run(text: str) -> str:
    """The id of a run, as records show it. Raises ValueError for what no run can have: a rule that
    is to stop one must not miss it by a letter."""
    if not is_run(text):
        raise ValueError(
            f'"{text[:80]}" is neither true nor false, nor the id of a run:'
            f" t- and {_RUN_LENGTH} small letters and digits, as records show it"
        )
    return text


def is_run(text: str) -> bool:
    """Whether this can be the id of a run."""
    return _RUN.fullmatch(text) is not None


def parse_secret_ref(text: str) -> SecretRef:
    """`MOUNT/PATH#FIELD`. Raises ValueError."""
    found = _SECRET.fullmatch(text)
    if found is None or any(step in (".", "..") for step in found["path"].split("/")):
        raise ValueError(f'"{text[:80]}" names no secret; write MOUNT/PATH#FIELD: kv/stripe#key')
    return SecretRef(found["mount"], found["path"], found["field"])


def parse_method(text: str) -> str:
    """A method as requests carry it, in capitals. Raises ValueError."""
    if text in ("CONNECT", "TRACE", "TRACK"):
        raise ValueError(f"{text} is never forwarded, so no rule can match it")
    if text == "*":
        raise ValueError('"*" is not a method; leave the field out for every method')
    if not _METHOD.fullmatch(text):
        meant = text.upper() if _METHOD.fullmatch(text.upper()) else "GET"
        raise ValueError(f'"{text[:40]}" is not a method; write capitals, such as {meant}')
    return text


def parse_header(text: str) -> str:
    """A header name in lower case that requests can carry when they are matched."""
    name = text.lower()
    if not _HEADER.fullmatch(text):
        raise ValueError(f'"{text[:80]}" is not a header name; use letters, digits and hyphens')
    if name in _UNREACHABLE or name.startswith(_UNREACHABLE_PREFIXES):
        raise ValueError(f"the header {name} is never forwarded as the agent sent it")
    return name


def parse_slot(text: str) -> str:
    """A header that a credential may go into. Raises ValueError."""
    name = parse_header(text)
    if name in _FRAMING or name.startswith("sec-"):
        raise ValueError(f"the header {name} says how the message is read; it takes no secret")
    return name


def parse_format(text: str) -> str:
    """A header value with `{secret}` in it exactly once. Raises ValueError."""
    before, found, after = text.partition("{secret}")
    if not found or "{" in before + after or "}" in before + after:
        raise ValueError("write {secret} exactly once, and no other braces")
    if not (before + after).isascii():
        raise ValueError("a header value is plain ASCII")
    return text
