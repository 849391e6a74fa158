"""Page sessions: begun at a log-in; ended by the person, by an admin, by idleness or by age.

A session's id names it in lists and opens nothing; only the hash of its token is stored. A session
of a disabled account is none.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

from audit.journal import Transaction
from audit.record import Draft
from broker.errors import NotEntitled, NotFound
from broker.model import OpenSession, Session, User
from broker.people import user_of
from broker.ports import NewId, RandomBytes
from broker.stores.sqlite import Store, to_moment, to_text
from broker.tokens import new_token, token_hash

LONGEST = 12 * 3600
"""Seconds a page session lasts at most."""
IDLE = 3600
"""Seconds without a request after which it ends."""
TOUCH = timedelta(seconds=60)
"""How exactly it is known when a session was last seen; each look would cost a write."""


class Sessions:
    """The register of page sessions."""

    def __init__(
        self, store: Store, *, pages_key: bytes, new_id: NewId, random: RandomBytes
    ) -> None:
        self._store = store
        self._pages_key = pages_key
        self._new_id = new_id
        self._random = random

    def start(
        self, user: User, *, longest: int = LONGEST, idle: int = IDLE, client: str = ""
    ) -> Session:
        """A new session of at most `longest` seconds, or `idle` without a request.

        Raises NotEntitled if the account was disabled meanwhile.
        """
        token, id = new_token("page", self._random), self._new_id("s")
        expires_at = self._store.clock() + timedelta(seconds=longest)

        def work(tx: Transaction) -> str:
            row = tx.db.execute(
                "SELECT disabled_at FROM users WHERE name = ?", (user.name,)
            ).fetchone()
            if row is None or row[0] is not None:
                raise NotEntitled(f"the account {user.name} is disabled")
            # What ended is in the ledger; here it would only pile up.
            tx.db.execute(
                "DELETE FROM sessions WHERE user = ? AND (ended_at IS NOT NULL OR expires_at <= ?)",
                (user.name, tx.time),
            )
            tx.db.execute(
                "INSERT INTO sessions"
                " (hash, user, created_at, expires_at, id, idle, last_seen_at, client)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    token_hash(token),
                    user.name,
                    tx.time,
                    to_text(expires_at),
                    id,
                    idle,
                    tx.time,
                    client,
                ),
            )
            return tx.time

        began = to_moment(self._store.write(work))
        return Session(token, self._csrf(token), user, expires_at, id, began)

    def get(self, token: str) -> Session | None:
        """The open session behind a cookie; None if it ended, idled, or its account is disabled."""
        row = (
            self._store.read()
            .execute(
                "SELECT s.id, s.idle, s.last_seen_at, s.expires_at, u.*"
                " FROM sessions s JOIN users u ON u.name = s.user"
                " WHERE s.hash = ? AND s.ended_at IS NULL AND u.disabled_at IS NULL",
                (token_hash(token),),
            )
            .fetchone()
        )
        if row is None:
            return None
        expires_at, seen = to_moment(row["expires_at"]), to_moment(row["last_seen_at"])
        if self._store.clock() >= min(expires_at, seen + timedelta(seconds=row["idle"])):
            return None
        return Session(token, self._csrf(token), user_of(row), expires_at, row["id"], seen)

    def seen(self, session: Session) -> None:
        """Its person is there: the idle clock starts afresh. Written at most once a minute."""
        now = self._store.clock()
        if session.last_seen_at is not None and now < session.last_seen_at + TOUCH:
            return
        # Not waited for: a page should open although the disk is full.
        self._store.submit(
            lambda tx: tx.db.execute(
                "UPDATE sessions SET last_seen_at = ? WHERE id = ? AND last_seen_at < ?",
                (tx.time, session.id, tx.time),
            )
        )

    def list(self, name: str) -> list[OpenSession]:
        """A person's open sessions, the last begun first."""
        now = self._store.clock()
        rows = self._store.read().execute(
            "SELECT s.* FROM sessions s JOIN users u ON u.name = s.user"
            " WHERE s.user = ? AND s.ended_at IS NULL AND s.expires_at > ?"
            " AND u.disabled_at IS NULL ORDER BY s.created_at DESC, s.id",
            (name, to_text(now)),
        )
        return [
            OpenSession(
                row["id"],
                row["user"],
                row["client"],
                to_moment(row["created_at"]),
                seen,
                to_moment(row["expires_at"]),
            )
            for row in rows
            if now < (seen := to_moment(row["last_seen_at"])) + timedelta(seconds=row["idle"])
        ]

    def end(self, token: str) -> None:
        """Logs out; nothing happens if the session is unknown or ended."""

        def work(tx: Transaction) -> None:
            row = tx.db.execute(
                "UPDATE sessions SET ended_at = ? WHERE hash = ? AND ended_at IS NULL"
                " RETURNING user",
                (tx.time, token_hash(token)),
            ).fetchone()
            if row is not None:
                tx.append(Draft("user.logout", {"user": row[0]}))

        self._store.write(work)

    def end_one(self, id: str, of: str, by: str) -> None:
        """Ends one session of the person `of`. Raises NotFound, also for somebody else's."""

        def work(tx: Transaction) -> None:
            ended = tx.db.execute(
                "UPDATE sessions SET ended_at = ? WHERE id = ? AND user = ? AND ended_at IS NULL",
                (tx.time, id, of),
            ).rowcount
            if not ended:
                raise NotFound(f"{of} has no open session of this id")
            tx.append(Draft("user.session_ended", {"user": of, "session": id, "by": by}))

        self._store.write(work)

    def end_all(self, name: str, by: str, *, keep: str | None = None) -> int:
        """Ends every session of a person but the one with the id `keep`; how many there were."""

        def work(tx: Transaction) -> int:
            ended = end_sessions(tx, name, keep=keep)
            if ended:
                others = keep is not None
                tx.append(
                    Draft("user.logout", {"user": name, "all": True, "others": others, "by": by})
                )
            return ended

        return self._store.write(work)

    def _csrf(self, token: str) -> str:
        return hmac.new(self._pages_key, token.encode(), hashlib.sha256).hexdigest()


def end_sessions(tx: Transaction, name: str, *, keep: str | None = None) -> int:
    """Within a transaction that records why."""
    return tx.db.execute(
        "UPDATE sessions SET ended_at = ? WHERE user = ? AND ended_at IS NULL AND id IS NOT ?",
        (tx.time, name, keep),
    ).rowcount
