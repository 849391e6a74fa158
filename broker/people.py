"""People: accounts, passwords, page sessions, API tokens, and the one-time link for the first of
them.

Passwords are kept as argon2id hashes (RFC 9106), tokens as SHA-256 hashes. Every log-in and every
change is a record in the ledger.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from audit.journal import Transaction
from audit.record import Draft
from broker.errors import Conflict, InvalidInput, NotFound
from broker.model import Role, Session, User
from broker.ports import NewId, RandomBytes
from broker.stores.sqlite import Store, optional_moment, to_moment, to_text
from broker.tokens import check_name, new_token, token_hash

ROLES: tuple[Role, ...] = ("viewer", "approver", "admin")
SHORTEST_PASSWORD = 10
LINK_TTL = timedelta(hours=24)
SESSION_TTL = 12 * 3600
"""Seconds a page session lasts."""


def _no_user(name: str) -> str:
    return f"there is no user {name}: `keybroker user list` shows them"


class People:
    """The register of people."""

    def __init__(
        self,
        store: Store,
        *,
        pages_key: bytes,
        new_id: NewId,
        random: RandomBytes,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._store = store
        self._pages_key = pages_key
        self._new_id = new_id
        self._random = random
        self._hasher = hasher or PasswordHasher()
        self._nobody: str | None = None

    def add(self, name: str, role: str, password: str | None, by: str) -> User:
        """A new account. Raises InvalidInput, or Conflict if the name is taken.

        Without a password the person can act through an API token only.
        """
        check_name(name, "a user")
        if role not in ROLES:
            raise InvalidInput(f"role {role!r}: it can be {', '.join(ROLES)}")
        hashed = None if password is None else self._hash(password)

        def work(tx: Transaction) -> None:
            self._insert(tx, name, role, hashed, by)

        self._store.write(work)
        return self.get(name)

    def list(self) -> list[User]:
        """All accounts by name, disabled ones included."""
        rows = self._store.read().execute("SELECT * FROM users ORDER BY name")
        return [_user(row) for row in rows]

    def any(self) -> bool:
        """Whether there is an account at all."""
        return self._store.read().execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None

    def get(self, name: str) -> User:
        """Raises NotFound."""
        row = self._store.read().execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(_no_user(name))
        return _user(row)

    def set_password(self, name: str, password: str, by: str) -> None:
        """Replaces the password and ends the person's page sessions. Raises NotFound,
        InvalidInput."""
        hashed = self._hash(password)

        def work(tx: Transaction) -> None:
            changed = tx.db.execute(
                "UPDATE users SET password_hash = ? WHERE name = ?", (hashed, name)
            ).rowcount
            if not changed:
                raise NotFound(_no_user(name))
            self._end_sessions(tx, name)
            tx.append(Draft("user.password", {"user": name, "by": by}))

        self._store.write(work)

    def disable(self, name: str, by: str) -> None:
        """Ends the account, its sessions and tokens at once. Raises NotFound, Conflict."""

        def work(tx: Transaction) -> None:
            row = tx.db.execute("SELECT disabled_at FROM users WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise NotFound(_no_user(name))
            if row[0] is not None:
                raise Conflict(f"the user {name} is disabled already")
            tx.db.execute("UPDATE users SET disabled_at = ? WHERE name = ?", (tx.time, name))
            self._end_sessions(tx, name)
            tx.db.execute(
                "UPDATE user_tokens SET revoked_at = ? WHERE user = ? AND revoked_at IS NULL",
                (tx.time, name),
            )
            tx.append(Draft("user.disabled", {"user": name, "by": by}))

        self._store.write(work)

    def check_password(self, name: str, password: str) -> User | None:
        """The person, if the password is right and the account is open; both outcomes are recorded.

        Takes as long for an unknown name as for a wrong password.
        """
        row = self._store.read().execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
        usable = row is not None and row["password_hash"] and row["disabled_at"] is None
        try:
            right: bool = self._hasher.verify(
                row["password_hash"] if usable else self._decoy(), password
            )
        except (Argon2Error, InvalidHashError, UnicodeEncodeError):
            right = False
        if not (usable and right):
            # A mistyped password often lands in the name field: only known names are recorded.
            known = name if row is not None else None
            self._store.write(lambda tx: tx.append(Draft("user.login_failed", {"user": known})))
            return None
        self._store.write(
            lambda tx: tx.append(Draft("user.login", {"user": name, "method": "password"}))
        )
        return _user(row)

    def start_session(self, user: User, *, ttl: int = SESSION_TTL) -> Session:
        """A page session of `ttl` seconds."""
        token = new_token("page", self._random)
        expires_at = self._store.clock() + timedelta(seconds=ttl)
        self._store.write(
            lambda tx: tx.db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, NULL)",
                (token_hash(token), user.name, tx.time, to_text(expires_at)),
            )
        )
        return Session(token, self._csrf(token), user, expires_at)

    def session(self, token: str) -> Session | None:
        """The open session behind a cookie; None if it ended or the account is disabled."""
        row = (
            self._store.read()
            .execute(
                "SELECT s.expires_at AS session_expires_at, u.* FROM sessions s"
                " JOIN users u ON u.name = s.user"
                " WHERE s.hash = ? AND s.ended_at IS NULL AND u.disabled_at IS NULL",
                (token_hash(token),),
            )
            .fetchone()
        )
        if row is None:
            return None
        expires_at = to_moment(row["session_expires_at"])
        if self._store.clock() >= expires_at:
            return None
        return Session(token, self._csrf(token), _user(row), expires_at)

    def end_session(self, token: str) -> None:
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

    def end_all(self, name: str) -> None:
        """Ends every page session of a person."""

        def work(tx: Transaction) -> None:
            if self._end_sessions(tx, name):
                tx.append(Draft("user.logout", {"user": name, "all": True}))

        self._store.write(work)

    def new_api_token(self, name: str, by: str) -> str:
        """A token for the API and the command line, apart from page sessions. Raises NotFound,
        Conflict if the account is disabled."""
        if self.get(name).disabled_at is not None:
            raise Conflict(f"the user {name} is disabled")
        token = new_token("user", self._random)

        def work(tx: Transaction) -> None:
            tx.db.execute(
                "INSERT INTO user_tokens VALUES (?, ?, ?, ?, NULL)",
                (self._new_id("t"), name, token_hash(token), tx.time),
            )
            tx.append(Draft("user.token", {"user": name, "by": by}))

        self._store.write(work)
        return token

    def by_api_token(self, token: str) -> User | None:
        """The person behind an API token; None if it or the account ended."""
        row = (
            self._store.read()
            .execute(
                "SELECT u.* FROM user_tokens t JOIN users u ON u.name = t.user"
                " WHERE t.hash = ? AND t.revoked_at IS NULL AND u.disabled_at IS NULL",
                (token_hash(token),),
            )
            .fetchone()
        )
        return None if row is None else _user(row)

    def first_user_link(self) -> str:
        """A one-time token with which the first person makes their account; the one before it ends.

        Raises Conflict once there is an account.
        """
        token = new_token("setup", self._random)

        def work(tx: Transaction) -> None:
            if tx.db.execute("SELECT 1 FROM users LIMIT 1").fetchone():
                raise Conflict("there are users already: an admin adds further ones")
            tx.db.execute("UPDATE links SET used_at = ? WHERE used_at IS NULL", (tx.time,))
            expires_at = to_text(self._store.clock() + LINK_TTL)
            tx.db.execute(
                "INSERT INTO links VALUES (?, ?, ?, NULL)", (token_hash(token), tx.time, expires_at)
            )

        self._store.write(work)
        return token

    def link_is_open(self, token: str) -> bool:
        """Whether the link could still be redeemed; looking does not use it up."""
        row = (
            self._store.read()
            .execute(
                "SELECT expires_at FROM links WHERE hash = ? AND used_at IS NULL",
                (token_hash(token),),
            )
            .fetchone()
        )
        return row is not None and self._store.clock() < to_moment(row[0]) and not self.any()

    def redeem_link(self, token: str, name: str, password: str) -> User:
        """Makes the first account, an admin, and uses the link up. Raises InvalidInput (the link
        stays open) or NotFound (link unknown, used or expired)."""
        check_name(name, "a user")
        hashed = self._hash(password)

        def work(tx: Transaction) -> None:
            used = tx.db.execute(
                "UPDATE links SET used_at = ?"
                " WHERE hash = ? AND used_at IS NULL AND expires_at > ?",
                (tx.time, token_hash(token), tx.time),
            ).rowcount
            if not used or tx.db.execute("SELECT 1 FROM users LIMIT 1").fetchone():
                raise NotFound(
                    "this link was used or has expired: restart `keybroker up` for a new one"
                )
            self._insert(tx, name, "admin", hashed, "first-user-link")

        self._store.write(work)
        return self.get(name)

    def _insert(self, tx: Transaction, name: str, role: str, hashed: str | None, by: str) -> None:
        try:
            tx.db.execute(
                "INSERT INTO users VALUES (?, ?, ?, ?, NULL)", (name, role, hashed, tx.time)
            )
        except sqlite3.IntegrityError:
            raise Conflict(f"there is a user {name} already") from None
        tx.append(Draft("user.added", {"user": name, "role": role, "by": by}))

    def _hash(self, password: str) -> str:
        if len(password) < SHORTEST_PASSWORD:
            raise InvalidInput(
                f"the password is too short: {SHORTEST_PASSWORD} characters at least"
            )
        if len(password) > 1024:
            raise InvalidInput("the password is too long: 1024 characters at most")
        try:
            return self._hasher.hash(password)
        except UnicodeEncodeError as error:
            raise InvalidInput("the password holds half a character; choose another") from error

    def _decoy(self) -> str:
        """What is compared against when the user is unknown, so that the answer takes as long."""
        if self._nobody is None:
            self._nobody = self._hasher.hash(self._random(16).hex())
        return self._nobody

    def _csrf(self, token: str) -> str:
        return hmac.new(self._pages_key, token.encode(), hashlib.sha256).hexdigest()

    @staticmethod
    def _end_sessions(tx: Transaction, name: str) -> int:
        return tx.db.execute(
            "UPDATE sessions SET ended_at = ? WHERE user = ? AND ended_at IS NULL", (tx.time, name)
        ).rowcount


def _user(row: sqlite3.Row) -> User:
    return User(
        row["name"],
        row["role"],
        bool(row["password_hash"]),
        to_moment(row["created_at"]),
        optional_moment(row["disabled_at"]),
    )
