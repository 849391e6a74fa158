"""What can go wrong in setting up and running the program itself.

KeybrokerError (broker.errors)
└── Unusable          the workspace, a setting, a port or a part cannot be used as it is
    └── Unreadable    a file could not be read at all (the command line exits with 2)
"""

from __future__ import annotations

from broker.errors import KeybrokerError


class Unusable(KeybrokerError):
    """Something must be mended first; the sentence says what and how."""


class Unreadable(Unusable):
    """A file could not be read, so nothing can be said about what is in it."""
