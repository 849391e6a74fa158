"""API tokens of people: apart from page sessions, shown once, kept as hashes, ended one by one."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

from audit.journal import Transaction
from audit.record import Draft
from broker.errors import Conflict, InvalidInput, NotFound
from broker.model import ApiToken, User
from broker.people import no_user, user_of
from broker.ports import NewId, RandomBytes
from broker.stores.sqlite import Store, optional_moment, to_moment, to_text
from broker.tokens import new_token, token_hash

MOST = 100
"""Open tokens of one person."""
LONGEST_NAME = 60
TOUCH = timedelta(seconds=60)
"""How exactly it is known when a token was last used; each use would cost a write."""


class UserTokens:
    """The register of API tokens."""

    def __init__(self, store: Store, *, new_id: NewId, random: RandomBytes) -> None:
        self._store = store
        self._new_id = new_id
        self._random = random

    def new(self, name: str, by: str, *, label: str = "", lasts: timedelta | None = None) -> str:
        """A token for the API and the command line, in the name of the person `name`.

        `label` says what it is for; without `lasts` it is good until it is revoked. Raises
        NotFound, InvalidInput, Conflict if the account is disabled or has too many.
        """
        if len(label) > LONGEST_NAME or not label.isprintable():
            raise InvalidInput(
                f"the name of a token has at most {LONGEST_NAME} characters, all printable"
            )
        if lasts is not None and lasts <= timedelta(0):
            raise InvalidInput("a token must last for some time")
        token, id = new_token("user", self._random), self._new_id("t")
        expires_at = None if lasts is None else to_text(self._store.clock() + lasts)

        def work(tx: Transaction) -> None:
            row = tx.db.execute("SELECT disabled_at FROM users WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise NotFound(no_user(name))
            if row[0] is not None:
                raise Conflict(f"the user {name} is disabled")
            if len(_open(tx.db, name, tx.time)) >= MOST:
                raise Conflict(f"{name} has {MOST} open tokens: revoke one that is not used")
            tx.db.execute(
                "INSERT INTO user_tokens (id, user, hash, created_at, name, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (id, name, token_hash(token), tx.time, label, expires_at),
            )
            tx.append(
                Draft(
                    "user.token",
                    {"user": name, "by": by, "token": id, "name": label, "expires": expires_at},
                )
            )

        self._store.write(work)
        return token

    def user(self, token: str) -> User | None:
        """The person behind an API token; None if it or the account ended."""
        now = self._store.clock()
        row = (
            self._store.read()
            .execute(
                "SELECT t.id AS token_id, t.last_used_at, u.*"
                " FROM user_tokens t JOIN users u ON u.name = t.user"
                " WHERE t.hash = ? AND t.revoked_at IS NULL AND u.disabled_at IS NULL"
                " AND (t.expires_at IS NULL OR t.expires_at > ?)",
                (token_hash(token), to_text(now)),
            )
            .fetchone()
        )
        if row is None:
            return None
        used = optional_moment(row["last_used_at"])
        if used is None or now >= used + TOUCH:
            self._touch(row["token_id"])
        return user_of(row)

    def _touch(self, id: str) -> None:
        # Not waited for: who may act must not depend on it.
        self._store.submit(
            lambda tx: tx.db.execute(
                "UPDATE user_tokens SET last_used_at = ? WHERE id = ?", (tx.time, id)
            )
        )

    def list(self, name: str) -> list[ApiToken]:
        """A person's open tokens, the newest first."""
        return _open(self._store.read(), name, to_text(self._store.clock()))

    def revoke(self, id: str, of: str, by: str) -> None:
        """Ends one token of the person `of`, at once. Raises NotFound, also for somebody else's."""

        def work(tx: Transaction) -> None:
            revoked = tx.db.execute(
                "UPDATE user_tokens SET revoked_at = ?"
                " WHERE id = ? AND user = ? AND revoked_at IS NULL",
                (tx.time, id, of),
            ).rowcount
            if not revoked:
                raise NotFound(f"{of} has no open token of this id")
            tx.append(Draft("user.token_revoked", {"user": of, "token": id, "by": by}))

        self._store.write(work)


def _open(db: sqlite3.Connection, name: str, now: str) -> list[ApiToken]:
    rows = db.execute(
        "SELECT id, user, name, created_at, last_used_at, expires_at FROM user_tokens"
        " WHERE user = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)"
        " ORDER BY created_at DESC, id",
        (name, now),
    ).fetchall()
    return [
        ApiToken(
            row[0],
            row[1],
            row[2],
            to_moment(row[3]),
            optional_moment(row[4]),
            optional_moment(row[5]),
        )
        for row in rows
    ]
