"""What the admin surface needs from the broker: duties, in prose. Fakes for tests stand here.

All methods but `Changes.wait` are synchronous and may block on the store for a moment; they are
called from worker threads. Errors are those of broker.errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from audit.filters import Filter
from audit.history import CallSummary, Found
from broker.model import Agent, ApiToken, Choice, OpenSession, Session, User

__all__ = ["CallSummary", "Found"]

MOST_HELD = 1000
"""Held calls that are listed and counted; far more than people can look at."""

type Json = Mapping[str, Any]
"""A JSON object as the REST API shows it. Whatever an agent wrote in it is not to be trusted."""


class People(Protocol):
    """Accounts, passwords and one-time links. Every act here is recorded in the ledger by it."""

    def any(self) -> bool:
        """Is there any account yet?"""
        ...

    def list(self) -> Sequence[User]:
        """All accounts by name."""
        ...

    def get(self, name: str) -> User:
        """Raises NotFound."""
        ...

    def check_password(self, name: str, password: str) -> User | None:
        """The user whose password this is (argon2); None in the same time for any other pair."""
        ...

    def set_password(self, name: str, password: str, by: str) -> None:
        """A new password; ends all sessions of `name`. Raises InvalidInput."""
        ...

    def set_role(self, name: str, role: str, by: str) -> User:
        """Raises NotFound, InvalidInput, Conflict for the last admin."""
        ...

    def disable(self, name: str, by: str) -> None:
        """Ends the account, its sessions and tokens at once. Raises NotFound, Conflict."""
        ...

    def enable(self, name: str, by: str) -> None:
        """Opens it again. Raises NotFound, Conflict."""
        ...

    def link_is_open(self, token: str) -> bool:
        """May this one-time link still make the first user? Asking does not use it up."""
        ...

    def redeem_link(self, token: str, name: str, password: str) -> User:
        """Makes the first user, an admin, and uses the link up.

        Raises NotFound (link unknown, used or expired), InvalidInput (name or password).
        """
        ...

    def reset_of(self, token: str) -> str | None:
        """Whose new password this one-time link sets. Asking does not use it up."""
        ...

    def redeem_reset(self, token: str, password: str) -> User:
        """Sets the password, ends all sessions and uses the link up.

        Raises NotFound (link unknown, used or expired), InvalidInput.
        """
        ...


class Devices(Protocol):
    """Browsers in which somebody logged in before."""

    def new(self, name: str) -> str:
        """A token for the browser in which `name` has just logged in. It lets nobody in."""
        ...

    def knows(self, name: str, token: str) -> bool:
        """Whether `name` logged in from there before."""
        ...


class Sessions(Protocol):
    """Page sessions."""

    def start(self, user: User, *, longest: int, idle: int, client: str) -> Session:
        """A fresh session, never an old id again; `longest` and `idle` are seconds."""
        ...

    def get(self, token: str) -> Session | None:
        """The session, unless it expired, idled, ended, or its user is disabled."""
        ...

    def seen(self, session: Session) -> None:
        """Its person did something just now."""
        ...

    def list(self, name: str) -> Sequence[OpenSession]:
        """The open sessions of `name`, the last begun first."""
        ...

    def end(self, token: str) -> None:
        """Ends it everywhere, at once. An unknown token is no error."""
        ...

    def end_one(self, id: str, of: str, by: str) -> None:
        """Ends one session of the person `of`. Raises NotFound, also for somebody else's."""
        ...

    def end_all(self, name: str, by: str, *, keep: str | None = None) -> int:
        """Ends every session of `name` but the one with the id `keep`."""
        ...


class Tokens(Protocol):
    """API tokens of people."""

    def new(self, name: str, by: str, *, label: str = "", lasts: timedelta | None = None) -> str:
        """A new API token of the user `name`; only its hash is kept. Raises InvalidInput,
        Conflict."""
        ...

    def user(self, token: str) -> User | None:
        """Whose token this is; None if nobody's, ended, or if its user is disabled."""
        ...

    def list(self, name: str) -> Sequence[ApiToken]:
        """The open tokens of `name`, the newest first; never their values."""
        ...

    def revoke(self, id: str, of: str, by: str) -> None:
        """Ends one token of the person `of`. Raises NotFound, also for somebody else's."""
        ...


class Desk(Protocol):
    """Held calls, as people see and decide them."""

    def list(self, state: str | None = None, limit: int = 100, /) -> Sequence[Json]:
        """Cards without the request; `state` None means all of them, newest first."""
        ...

    def card(self, approval: str, viewer: User | None, /) -> Json:
        """The card of one approval, with what `viewer` may do about it. Raises NotFound."""
        ...

    def vote(
        self,
        approval: str,
        user: User,
        decision: Choice,
        /,
        *,
        reason: str | None,
        confirm: str | None,
        via: str,
    ) -> Json:
        """Records the vote durably, then returns the card.

        Raises NotFound, NotEntitled, Conflict (decided, stale, voted already), Unconfirmed.
        """
        ...


class Agents(Protocol):
    def list(self) -> Sequence[Agent]:
        """All agents, revoked ones too."""
        ...


class Changes(Protocol):
    async def wait(self, since: int, seconds: float, /) -> int:
        """The counter of approvals' changes, as soon as it differs from `since`.

        After `seconds` without a change it returns the counter as it is.
        """
        ...


class Services(Protocol):
    @property
    def people(self) -> People: ...
    @property
    def devices(self) -> Devices: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def tokens(self) -> Tokens: ...
    @property
    def desk(self) -> Desk: ...
    @property
    def agents(self) -> Agents: ...
    @property
    def changes(self) -> Changes: ...


class Record(Protocol):
    """One ledger record."""

    @property
    def seq(self) -> int: ...
    @property
    def time(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def call(self) -> str | None: ...
    @property
    def agent(self) -> str | None: ...
    @property
    def data(self) -> Json: ...
    @property
    def prev(self) -> str: ...
    @property
    def hash(self) -> str: ...


class Ledger(Protocol):
    """The read side of the audit log."""

    def calls(self, wanted: Filter, *, limit: int, before: int | None) -> Found:
        """Calls that began before the record `before`, newest first, and where to go on."""
        ...

    def show(self, call: str) -> Sequence[Record]:
        """All records of one call, oldest first; empty if there are none."""
        ...


class Monitor(Protocol):
    """What the running program shows of itself."""

    @property
    def guarded(self) -> bool:
        """Whether the metrics are for people with an API token only."""
        ...

    async def metrics(self) -> str:
        """The page of metrics, in Prometheus's text format. Counts only, no names of anybody."""
        ...

    async def checks(self) -> Mapping[str, str | None]:
        """By check: None if all is well, else a sentence for operators. Bounded; never raises."""
        ...
