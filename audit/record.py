"""The ledger's record: its one canonical form and the hash that links it to the one before.

Pure: no clock, no database. A record's hash is SHA-256 over a domain label and the RFC 8785 form of
all its other fields, `prev` among them, so that a change anywhere shows in every later hash.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from audit.errors import NotCanonical

type JSON = bool | int | str | Sequence[JSON] | Mapping[str, JSON] | None
"""What a record may hold. No floats: their text form differs between languages."""

GENESIS = "0" * 64
"""`prev` of the first record."""
HASH_LABEL = b"keybroker/ledger/v1\n"
MAX_DATA = 1024 * 1024
"""The largest `data`, in bytes of canonical JSON."""

_MAX_INT = 2**53 - 1  # RFC 7493 (I-JSON) 2.2: what every JSON reader keeps exactly
_MAX_DEPTH = 32
_TYPE = re.compile(r"[a-z]+(\.[a-z_]+)+")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_quote = json.encoder.encode_basestring


@dataclass(frozen=True, slots=True)
class Draft:
    """A record yet to be placed in the chain. `type` is `noun.event`, lower case."""

    type: str
    data: Mapping[str, JSON] = field(default_factory=dict)
    call: str | None = None
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One link of the chain."""

    seq: int
    """Counts from 1, without gaps."""
    time: str
    """RFC 3339, UTC, microseconds: 2026-11-22T16:00:00.000000Z."""
    type: str
    call: str | None
    agent: str | None
    data: Mapping[str, JSON]
    prev: str
    """Hash of the record before, hex; GENESIS for the first."""
    hash: str
    """Hex."""


def canonical_json(value: JSON) -> bytes:
    """The RFC 8785 form of `value`, in UTF-8.

    Raises NotCanonical for floats, integers beyond 2^53 - 1, keys that are not strings, lone
    surrogates, and nesting deeper than 32.
    """
    try:
        return _encode(_ordered(value, _MAX_DEPTH)).encode()
    except UnicodeEncodeError as error:
        raise NotCanonical("a string holds half of a surrogate pair") from error


def _ordered(value: JSON, depth: int) -> object:
    """`value` with every object's members in RFC 8785 3.2.3 order (by UTF-16 code units)."""
    if value is None or isinstance(value, str) or isinstance(value, bool):  # noqa: SIM101 - faster
        return value
    if isinstance(value, int):
        if not -_MAX_INT <= value <= _MAX_INT:
            raise NotCanonical("an integer is beyond 2^53 - 1")
        return value
    if depth == 0:
        raise NotCanonical("the value is nested too deep")
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101 - a dict is quickly told
        keys = list(value)
        for key in keys:
            if not isinstance(key, str):
                raise NotCanonical("a key is not a string")
        # Sorting by code point is the same for ASCII, and quicker.
        if "".join(keys).isascii():
            keys.sort()
        else:
            keys.sort(key=_utf16)
        return {
            key: item if type(item := value[key]) is str else _ordered(item, depth - 1)
            for key in keys
        }
    if isinstance(value, list) or isinstance(value, tuple):  # noqa: SIM101 - as above
        return [_ordered(item, depth - 1) for item in value]
    raise NotCanonical(f"a {type(value).__name__} has no place in a record")


def _text(value: str | None) -> str:
    return "null" if value is None else _quote(value)


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be")


def timestamp(moment: datetime) -> str:
    """`moment` (aware) as records write it."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # isoformat() takes a twentieth of the time of strftime(), for every transaction.
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def check(draft: Draft) -> bytes:
    """The canonical `data` of a draft that can be written as it is.

    Raises NotCanonical with the reason.
    """
    if _TYPE.fullmatch(draft.type) is None:
        raise NotCanonical(f"{draft.type!r} is not a record type")
    data = canonical_json(draft.data)
    if len(data) > MAX_DATA:
        raise NotCanonical(f"its data takes {len(data)} bytes, more than {MAX_DATA}")
    return data


def digest(
    *,
    seq: int,
    time: str,
    kind: str,
    call: str | None,
    agent: str | None,
    data: bytes,
    prev: str,
) -> str:
    """The hash, in hex, of the record with these fields; `kind` is its type, `data` canonical."""
    # The RFC 8785 form of the record without `hash`, written out so that `data` is encoded once.
    before = f'{{"agent":{_text(agent)},"call":{_text(call)},"data":'
    after = f',"prev":{_text(prev)},"seq":{seq},"time":{_text(time)},"type":{_text(kind)}}}'
    try:
        return hashlib.sha256(HASH_LABEL + before.encode() + data + after.encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise NotCanonical("a string holds half of a surrogate pair") from error


def seal(draft: Draft, seq: int, time: str, prev: str) -> Record:
    """`draft` as link number `seq` of the chain, after the record whose hash is `prev`.

    Raises NotCanonical.
    """
    return Record(
        seq=seq,
        time=time,
        type=draft.type,
        call=draft.call,
        agent=draft.agent,
        data=draft.data,
        prev=prev,
        hash=digest(
            seq=seq,
            time=time,
            kind=draft.type,
            call=draft.call,
            agent=draft.agent,
            data=check(draft),
            prev=prev,
        ),
    )
