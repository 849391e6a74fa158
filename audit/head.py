"""The sealed head: which record is the last one, under a key that is not in the database.

A chain alone cannot show that its tail was cut or that it was written anew from the start; the MAC
over the last record's number and hash can. What a head cannot show is a whole older copy of the
file put in its place: that takes witnesses outside. Seam: a Merkle tree (RFC 9162) over the
records' hashes in `seq` order, and checkpoints of it signed with Ed25519 (C2SP tlog-checkpoint),
would be built from `ledger.hash` alone and stand beside this head, in the same transaction.
"""

from __future__ import annotations

import hmac
from functools import lru_cache

_LABEL = b"keybroker/ledger/head/v1\n"


@lru_cache(maxsize=4)  # the head that a transaction finds is mostly the one that the last made
def head_mac(key: bytes, seq: int, tip: str) -> str:
    """The MAC, in hex, of a ledger whose last record is number `seq` with hash `tip`."""
    return hmac.digest(key, _LABEL + f"{seq}\n{tip}\n".encode(), "sha256").hex()


def head_is_sealed(key: bytes, seq: int, tip: str, mac: str) -> bool:
    """Whether `mac` was made with `key` over this head. An empty ledger's head has no MAC yet."""
    if seq == 0:
        return mac == ""
    return hmac.compare_digest(head_mac(key, seq, tip).encode(), mac.encode())
