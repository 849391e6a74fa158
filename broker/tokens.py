"""Bearer tokens: random, shown once, stored as hashes. Pure but for the randomness it is given."""

from __future__ import annotations

import base64
import hashlib
import re

from broker.errors import InvalidInput
from broker.ports import RandomBytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


def new_token(kind: str, random: RandomBytes) -> str:
    """A token of 256 random bits, from `[A-Za-z0-9_-]` so that it fits into any URL."""
    return f"kb_{kind}_" + base64.urlsafe_b64encode(random(32)).decode().rstrip("=")


def token_hash(token: str) -> bytes:
    """What is stored of a token. It is random, so a plain SHA-256 cannot be searched."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def check_name(name: str, what: str) -> str:
    """Returns `name`; raises InvalidInput unless it is a plain name. `what`: "agent", "user"."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no name for {what}: use 1 to 63 of A-Z a-z 0-9 . _ @ -,"
            " beginning with a letter or digit"
        )
    return name
