"""The head's seal holds for one key, one number and one hash."""

from __future__ import annotations

import hashlib
import hmac

from audit.head import head_is_sealed, head_mac
from audit.record import GENESIS

KEY = b"k" * 32
TIP = "a" * 64


def test_the_seal_is_the_hmac_of_number_and_hash() -> None:
    text = b"keybroker/ledger/head/v1\n12\n" + TIP.encode() + b"\n"
    assert head_mac(KEY, 12, TIP) == hmac.new(KEY, text, hashlib.sha256).hexdigest()


def test_nothing_else_passes() -> None:
    mac = head_mac(KEY, 12, TIP)
    assert head_is_sealed(KEY, 12, TIP, mac)
    assert not head_is_sealed(KEY, 11, TIP, mac)
    assert not head_is_sealed(KEY, 12, "b" * 64, mac)
    assert not head_is_sealed(b"x" * 32, 12, TIP, mac)
    assert not head_is_sealed(KEY, 12, TIP, "")
    assert not head_is_sealed(KEY, 12, TIP, "é")


def test_only_an_empty_ledgers_head_is_without_a_seal() -> None:
    assert head_is_sealed(KEY, 0, GENESIS, "")
    assert not head_is_sealed(KEY, 0, GENESIS, head_mac(KEY, 0, GENESIS))
