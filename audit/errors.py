"""What can go wrong in audit/.

AuditError
├── NotCanonical         a value has no place in a record; a fault of the caller
├── LedgerUnavailable    the ledger cannot be written; nothing of the transaction counts
└── Unreadable           a ledger or an export cannot be read at all, so nothing is said about it
"""

from __future__ import annotations


class AuditError(Exception):
    """Base of all errors raised in audit/; `str(error)` is one sentence for a person."""


class NotCanonical(AuditError, ValueError):
    """A value lies outside of what records may hold (a float, a lone surrogate, too large ...)."""


class LedgerUnavailable(AuditError):
    """The ledger could not be written: whoever waits for it must send nothing."""


class Unreadable(AuditError):
    """The file is missing, is not a ledger, or is damaged beneath the level of records."""
