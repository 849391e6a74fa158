"""Passwords as argon2id hashes (RFC 9106); the wrong one takes as long as the right one."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from broker.errors import InvalidInput
from broker.ports import RandomBytes

SHORTEST, LONGEST = 10, 1024
"""Characters."""


class Passwords:
    """Makes hashes and checks against them; keeps none."""

    def __init__(self, random: RandomBytes, hasher: PasswordHasher | None = None) -> None:
        self._random = random
        self._hasher = hasher or PasswordHasher()
        self._decoy: str | None = None

    def hash(self, password: str) -> str:
        """What to keep of it. Raises InvalidInput."""
        if len(password) < SHORTEST:
            raise InvalidInput(f"the password is too short: {SHORTEST} characters at least")
        if len(password) > LONGEST:
            raise InvalidInput(f"the password is too long: {LONGEST} characters at most")
        try:
            return self._hasher.hash(password)
        except UnicodeEncodeError as error:
            raise InvalidInput("the password holds half a character; choose another") from error

    def check(self, kept: str | None, password: str) -> bool:
        """Whether it is the one of which `kept` was made; against None it takes as long."""
        if self._decoy is None:
            self._decoy = self._hasher.hash(self._random(16).hex())
        try:
            right: bool = self._hasher.verify(kept or self._decoy, password)
        except (Argon2Error, InvalidHashError, UnicodeEncodeError):
            return False
        return right and bool(kept)
