"""People: accounts, roles, and the one-time links that set a password, kept as SHA-256 hashes.

Every log-in and every change is a record in the ledger. An account is never removed, since its name
stands in records.
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta

from audit.journal import Transaction
from audit.record import Draft
from broker.errors import Conflict, InvalidInput, NotFound
from broker.model import Role, User
from broker.passwords import Passwords
from broker.ports import RandomBytes
from broker.stores.sqlite import Store, optional_moment, to_moment, to_text
from broker.tokens import check_name, new_token, token_hash

ROLES: tuple[Role, ...] = ("viewer", "approver", "admin")
LINK_TTL = timedelta(hours=24)
"""How long the link for the first user may be used."""
RESET_TTL = timedelta(hours=1)
"""How long a link for a new password may be used."""


def no_user(name: str) -> str:
    return f"there is no user {name}: `keybroker user list` shows them"


class People:
    """The register of people."""

    def __init__(
        self,
        store: Store,
        *,
        passwords: Passwords,
        random: RandomBytes,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._random = random

    def add(self, name: str, role: str, password: str | None, by: str) -> User:
        """A new account. Raises InvalidInput, or Conflict if the name is taken.

        Without a password the person can act through an API token only.
        """
        check_name(name, "a user")
        if role not in ROLES:
            raise InvalidInput(f"role {role!r}: it can be {', '.join(ROLES)}")
        hashed = None if password is None else self._passwords.hash(password)

        def work(tx: Transaction) -> None:
            self._insert(tx, name, role, hashed, by)

        self._store.write(work)
        return self.get(name)

    def list(self) -> list[User]:
        """All accounts by name, disabled ones included."""
        rows = self._store.read().execute("SELECT * FROM users ORDER BY name")
        return [user_of(row) for row in rows]

    def any(self) -> bool:
        """Whether there is an account at all."""
        return self._store.read().execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None

    def get(self, name: str) -> User:
        """Raises NotFound."""
        row = self._store.read().execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(no_user(name))
        return user_of(row)

    def set_password(self, name: str, password: str, by: str) -> None:
        """Replaces the password and ends the person's page sessions. Raises NotFound,
        InvalidInput."""
        hashed = self._passwords.hash(password)

        def work(tx: Transaction) -> None:
            _account(tx, name)
            self._set_password(tx, name, hashed, by)

        self._store.write(work)

    def _set_password(self, tx: Transaction, name: str, hashed: str, by: str) -> None:
        tx.db.execute("UPDATE users SET password_hash = ? WHERE name = ?", (hashed, name))
        self._close(tx, name)
        tx.append(Draft("user.password", {"user": name, "by": by}))

    def set_role(self, name: str, role: str, by: str) -> User:
        """Gives the account another role; counts from the next look at it on.

        Raises NotFound, InvalidInput, Conflict for the last admin.
        """
        if role not in ROLES:
            raise InvalidInput(f"role {role!r}: it can be {', '.join(ROLES)}")

        def work(tx: Transaction) -> None:
            was, disabled_at = _account(tx, name)
            if was == role:
                return
            _spare(tx, name, was, disabled_at)
            tx.db.execute("UPDATE users SET role = ? WHERE name = ?", (role, name))
            if was == "viewer":
                self._votes_anew(tx, name)
            tx.append(Draft("user.role", {"user": name, "role": role, "was": was, "by": by}))

        self._store.write(work)
        return self.get(name)

    def disable(self, name: str, by: str) -> None:
        """Ends the account, its sessions, tokens and links at once.

        Raises NotFound, Conflict if it is disabled already or the last admin's.
        """

        def work(tx: Transaction) -> None:
            role, disabled_at = _account(tx, name)
            if disabled_at is not None:
                raise Conflict(f"the user {name} is disabled already")
            _spare(tx, name, role, disabled_at)
            tx.db.execute("UPDATE users SET disabled_at = ? WHERE name = ?", (tx.time, name))
            self._close(tx, name)
            tx.db.execute(
                "UPDATE user_tokens SET revoked_at = ? WHERE user = ? AND revoked_at IS NULL",
                (tx.time, name),
            )
            tx.append(Draft("user.disabled", {"user": name, "by": by}))

        self._store.write(work)

    def enable(self, name: str, by: str) -> None:
        """Opens a disabled account again, with its password; what was ended stays ended, and votes
        from before stay void. Raises NotFound, Conflict."""

        def work(tx: Transaction) -> None:
            if _account(tx, name)[1] is None:
                raise Conflict(f"the user {name} is not disabled")
            tx.db.execute("UPDATE users SET disabled_at = NULL WHERE name = ?", (name,))
            self._votes_anew(tx, name)
            tx.append(Draft("user.enabled", {"user": name, "by": by}))

        self._store.write(work)

    def _votes_anew(self, tx: Transaction, name: str) -> None:
        # An approval that was void for a while must not come to life by itself.
        tx.db.execute("UPDATE users SET votes_from = ? WHERE name = ?", (tx.time, name))

    def check_password(self, name: str, password: str) -> User | None:
        """The person, if the password is right and the account is open; both outcomes are recorded.

        Takes as long for an unknown name as for a wrong password.
        """
        row = self._store.read().execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
        usable = row is not None and row["disabled_at"] is None
        kept = row["password_hash"] if usable else None
        if not self._passwords.check(kept, password):
            # A mistyped password often lands in the name field: only known names are recorded.
            known = name if row is not None else None
            self._store.write(lambda tx: tx.append(Draft("user.login_failed", {"user": known})))
            return None
        self._store.write(
            lambda tx: tx.append(Draft("user.login", {"user": name, "method": "password"}))
        )
        return user_of(row)

    # Links

    def first_user_link(self) -> str:
        """A one-time token with which the first person makes their account; the one before it ends.

        Raises Conflict once there is an account.
        """
        token = new_token("setup", self._random)

        def work(tx: Transaction) -> None:
            if tx.db.execute("SELECT 1 FROM users LIMIT 1").fetchone():
                raise Conflict("there are users already: an admin adds further ones")
            tx.db.execute("UPDATE links SET used_at = ? WHERE used_at IS NULL", (tx.time,))
            self._insert_link(tx, token, LINK_TTL, None)

        self._store.write(work)
        return token

    def link_is_open(self, token: str) -> bool:
        """Whether the link could still be redeemed; looking does not use it up."""
        row = (
            self._store.read()
            .execute(
                "SELECT expires_at FROM links WHERE hash = ? AND used_at IS NULL AND user IS NULL",
                (token_hash(token),),
            )
            .fetchone()
        )
        return row is not None and self._store.clock() < to_moment(row[0]) and not self.any()

    def redeem_link(self, token: str, name: str, password: str) -> User:
        """Makes the first account, an admin, and uses the link up. Raises InvalidInput (the link
        stays open) or NotFound (link unknown, used or expired)."""
        check_name(name, "a user")
        hashed = self._passwords.hash(password)

        def work(tx: Transaction) -> None:
            used = tx.db.execute(
                "UPDATE links SET used_at = ?"
                " WHERE hash = ? AND used_at IS NULL AND expires_at > ? AND user IS NULL",
                (tx.time, token_hash(token), tx.time),
            ).rowcount
            if not used or tx.db.execute("SELECT 1 FROM users LIMIT 1").fetchone():
                raise NotFound(
                    "this link was used or has expired: restart `keybroker up` for a new one"
                )
            self._insert(tx, name, "admin", hashed, "first-user-link")

        self._store.write(work)
        return self.get(name)

    def reset(self, name: str, by: str) -> str:
        """Takes the password away and ends the sessions; a one-time token with which the person
        sets a new one within RESET_TTL. API tokens stay.

        Raises NotFound, Conflict if the account is disabled.
        """
        token = new_token("reset", self._random)

        def work(tx: Transaction) -> None:
            if _account(tx, name)[1] is not None:
                raise Conflict(f"the user {name} is disabled: `keybroker user enable {name}` first")
            tx.db.execute("UPDATE users SET password_hash = NULL WHERE name = ?", (name,))
            self._close(tx, name)
            self._insert_link(tx, token, RESET_TTL, name)
            tx.append(Draft("user.reset", {"user": name, "by": by}))

        self._store.write(work)
        return token

    def reset_of(self, token: str) -> str | None:
        """Whose password this link sets; None if it was used or has expired. Asking does not use
        it up."""
        row = (
            self._store.read()
            .execute(
                "SELECT l.user, l.expires_at FROM links l JOIN users u ON u.name = l.user"
                " WHERE l.hash = ? AND l.used_at IS NULL AND u.disabled_at IS NULL",
                (token_hash(token),),
            )
            .fetchone()
        )
        if row is None or self._store.clock() >= to_moment(row[1]):
            return None
        return str(row[0])

    def redeem_reset(self, token: str, password: str) -> User:
        """Sets the password and uses the link up. Raises InvalidInput (the link stays open) or
        NotFound (link unknown, used or expired)."""
        hashed = self._passwords.hash(password)

        def work(tx: Transaction) -> str:
            row = tx.db.execute(
                "UPDATE links SET used_at = ?"
                " WHERE hash = ? AND used_at IS NULL AND expires_at > ? AND user IS NOT NULL"
                " RETURNING user",
                (tx.time, token_hash(token), tx.time),
            ).fetchone()
            if row is None or _account(tx, row[0])[1] is not None:
                raise NotFound("this link was used or has expired: ask for a new one")
            self._set_password(tx, row[0], hashed, "reset-link")
            return str(row[0])

        return self.get(self._store.write(work))

    def _insert_link(self, tx: Transaction, token: str, ttl: timedelta, user: str | None) -> None:
        expires_at = to_text(self._store.clock() + ttl)
        tx.db.execute(
            "INSERT INTO links (hash, created_at, expires_at, user) VALUES (?, ?, ?, ?)",
            (token_hash(token), tx.time, expires_at, user),
        )

    def _insert(self, tx: Transaction, name: str, role: str, hashed: str | None, by: str) -> None:
        try:
            tx.db.execute(
                "INSERT INTO users (name, role, password_hash, created_at) VALUES (?, ?, ?, ?)",
                (name, role, hashed, tx.time),
            )
        except sqlite3.IntegrityError:
            raise Conflict(f"there is a user {name} already") from None
        tx.append(Draft("user.added", {"user": name, "role": role, "by": by}))

    @staticmethod
    def _close(tx: Transaction, name: str) -> None:
        """Ends what would let the person in without a password."""
        tx.db.execute(
            "UPDATE sessions SET ended_at = ? WHERE user = ? AND ended_at IS NULL", (tx.time, name)
        )
        tx.db.execute(
            "UPDATE links SET used_at = ? WHERE user = ? AND used_at IS NULL", (tx.time, name)
        )


def _account(tx: Transaction, name: str) -> sqlite3.Row:
    """(role, disabled_at) of an account. Raises NotFound."""
    row: sqlite3.Row | None = tx.db.execute(
        "SELECT role, disabled_at FROM users WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        raise NotFound(no_user(name))
    return row


def _spare(tx: Transaction, name: str, role: str, disabled_at: str | None) -> None:
    """Raises Conflict if `name` is the last who can administer."""
    if role != "admin" or disabled_at is not None:
        return
    others = tx.db.execute(
        "SELECT 1 FROM users WHERE role = 'admin' AND disabled_at IS NULL AND name <> ? LIMIT 1",
        (name,),
    ).fetchone()
    if others is None:
        raise Conflict(
            f"{name} is the last admin: give somebody else the role first"
            " (`keybroker user role OTHER admin`)"
        )


def user_of(row: sqlite3.Row) -> User:
    """The person in a row of the table `users`."""
    return User(
        row["name"],
        row["role"],
        bool(row["password_hash"]),
        to_moment(row["created_at"]),
        optional_moment(row["disabled_at"]),
    )
