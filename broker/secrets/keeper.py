"""Keeper holds one token for all reads of a worker: taken at first use, renewed before it ends,
replaced when it is refused.

One log-in at a time, however many wait for it. Renewal runs beside the reads and never dies of an
error; and should it not come about, the next read logs in by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Protocol

from broker.secrets.access import AppRole, JwtFile, TokenFile, VaultAccess
from broker.secrets.login import Ask, Conversation, Grant, Reply, enter, leave, renew
from broker.secrets.trouble import VaultUnavailable

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between looks at the file of a token, and the first pause after a refused log-in."""
LONGEST_PAUSE = 30.0
_SHORTEST_LEAD = 0.5

Asking = Callable[[Ask], Awaitable[Reply]]


class Entrance(Protocol):
    """A way into a Vault."""

    async def enter(self, refused: Grant | None) -> Grant:
        """A token, other than the refused one where that is possible. Raises VaultUnavailable."""
        ...

    async def renew(self, grant: Grant) -> Grant | None:
        """The same token for longer; None if it takes a new log-in. Raises VaultUnavailable."""
        ...

    async def leave(self, grant: Grant) -> None:
        """Gives a token of our own back. Raises VaultUnavailable."""
        ...

    def mark(self) -> object:
        """Something that is equal as long as `enter` would use the same: costs next to nothing."""
        ...

    @property
    def follows(self) -> bool:
        """Whether another mark means that there is another token to use."""
        ...


class Direct:
    """Logs in by itself, as the access says."""

    def __init__(self, access: VaultAccess, ask: Asking) -> None:
        self._access = access
        self._ask = ask
        auth = access.auth
        self._file = (
            auth.path
            if isinstance(auth, TokenFile | JwtFile)
            else auth.secret_id_file
            if isinstance(auth, AppRole)
            else None
        )

    async def enter(self, refused: Grant | None) -> Grant:
        return await converse(enter(self._access), self._ask)

    async def renew(self, grant: Grant) -> Grant | None:
        return await converse(renew(self._access, grant), self._ask)

    async def leave(self, grant: Grant) -> None:
        await converse(leave(grant), self._ask)

    def mark(self) -> object:
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            found = None
        return found and (found.st_mtime_ns, found.st_ino, found.st_size)

    @property
    def follows(self) -> bool:
        return isinstance(self._access.auth, TokenFile)


async def converse[T](conversation: Generator[Ask, Reply, T], ask: Asking) -> T:
    """Carries a conversation over the event loop; see `login.carry`."""
    try:
        question = next(conversation)
        while True:
            question = conversation.send(await ask(question))
    except StopIteration as end:
        result: T = end.value
        return result


class Keeper:
    """For one event loop. `clock` counts seconds; `spread` gives a number from 0 to 1."""

    def __init__(
        self,
        entrance: Entrance,
        *,
        limit: float,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        """A log-in may take `limit` seconds."""
        self._entrance = entrance
        self._limit = limit
        self._clock = clock
        self._spread = spread
        self._grant: Grant | None = None
        self._taken_at = 0.0
        self._ends_at: float | None = None
        self._mark: object = None
        self._looked_at = 0.0
        self._entering: asyncio.Task[Grant] | None = None
        self._tending: asyncio.Task[None] | None = None
        self._refusal: VaultUnavailable | None = None
        self._pause = LOOK
        self._paused_until = 0.0
        self.log_ins = 0
        self.renewals = 0

    @property
    def age(self) -> float:
        """Seconds since the token was taken."""
        return self._clock() - self._taken_at

    @property
    def ends_in(self) -> float | None:
        """Seconds until the token ends; None without one, or if that is not known."""
        if self._grant is None or self._ends_at is None:
            return None
        return self._ends_at - self._clock()

    async def token(self) -> str:
        """A token that has not run out. Raises VaultUnavailable."""
        grant, now = self._grant, self._clock()
        if grant is None or (self._ends_at is not None and now >= self._ends_at):
            return (await self._enter(grant, refused=False)).token
        if self._entrance.follows and now - self._looked_at >= LOOK and self._moved(now):
            return (await self._enter(grant, refused=False)).token
        return grant.token

    async def other_than(self, refused: str) -> str:
        """A token after that one was refused: a newer one, else a new log-in's."""
        grant = self._grant
        if grant is not None and grant.token != refused:
            return grant.token
        return (await self._enter(grant, refused=True)).token

    def close(self) -> Grant | None:
        """Ends the renewal; the token that is still to be given back. Not a coroutine: the loop
        may be gone."""
        for task in (self._tending, self._entering):
            if task is not None and not task.get_loop().is_closed():
                task.cancel()
        grant, self._grant = self._grant, None
        return grant

    def _moved(self, now: float) -> bool:
        self._looked_at = now
        return self._entrance.mark() != self._mark

    async def _enter(self, old: Grant | None, *, refused: bool) -> Grant:
        """Joins the log-in that is under way, or begins one."""
        if self._entering is None:
            self._wait_after_refusal()
            self._entering = asyncio.get_running_loop().create_task(self._take(old, refused))
            self._entering.add_done_callback(self._entered)
        # Shielded: a read that is given up must not end the log-in of all others.
        return await asyncio.shield(self._entering)

    def _entered(self, task: asyncio.Task[Grant]) -> None:
        self._entering = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody does any more, that is no news

    def _wait_after_refusal(self) -> None:
        """A log-in that was refused is not repeated by every read: it would lock accounts."""
        if self._refusal is None or self._clock() >= self._paused_until:
            return
        if self._entrance.mark() != self._mark:
            return
        raise VaultUnavailable(str(self._refusal), self._refusal.status, kind="log_in")

    async def _take(self, old: Grant | None, refused: bool) -> Grant:
        self._mark = self._entrance.mark()
        self._looked_at = self._clock()
        try:
            async with asyncio.timeout(self._limit):
                grant = await self._entrance.enter(old if refused else None)
        except TimeoutError:
            raise VaultUnavailable("Vault does not answer the log-in.", kind="timeout") from None
        except VaultUnavailable as error:
            if error.kind == "log_in":
                self._refusal = error
                self._paused_until = self._clock() + self._pause
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
            raise
        self._refusal, self._pause = None, LOOK
        self.log_ins += 1
        self._accept(grant)
        self._taken_at = self._clock()
        self._tend_anew(grant)
        if old is not None and old.token != grant.token:
            await self._leave(old)
        return grant

    def _accept(self, grant: Grant) -> None:
        self._grant = grant
        self._ends_at = self._clock() + grant.lease if grant.lease else None

    def _tend_anew(self, grant: Grant) -> None:
        if self._tending is not None:
            self._tending.cancel()
            self._tending = None
        if grant.lease and (grant.renewable or grant.own):
            self._tending = asyncio.get_running_loop().create_task(self._tend())

    async def _leave(self, grant: Grant) -> None:
        try:
            async with asyncio.timeout(self._limit):
                await self._entrance.leave(grant)
        except (VaultUnavailable, TimeoutError):
            return  # the token ends by itself when its lease does

    # --- renewal -------------------------------------------------------------------------------

    async def _tend(self) -> None:
        """Renews at two thirds of the lease, a little earlier by chance: many workers that began
        together must not all come back together."""
        lead = self._lead()
        while True:
            await asyncio.sleep(lead)
            grant = self._grant
            if grant is None or not grant.lease:
                return
            try:
                lead = await self._prolong(grant)
            except VaultUnavailable as error:
                log.warning("vault: the token was not renewed: %s", error)
                lead = self._soon()
            except Exception as error:  # noqa: BLE001 -- whatever it is, the next try comes
                log.error("vault: the renewal failed (%s); it is tried again", type(error).__name__)
                lead = self._soon()

    async def _prolong(self, grant: Grant) -> float:
        if grant.renewable:
            try:
                async with asyncio.timeout(self._limit):
                    longer = await self._entrance.renew(grant)
            except TimeoutError:
                raise VaultUnavailable("it does not answer in time", kind="timeout") from None
            if self._grant is not grant:
                return self._lead()  # replaced meanwhile
            if longer is not None:
                self.renewals += 1
                self._accept(longer)
                return self._lead()
        await self._enter(grant, refused=False)
        return self._lead()

    def _lead(self) -> float:
        """Seconds until the present token is to be renewed."""
        left = self.ends_in
        return _SHORTEST_LEAD if left is None else max(left * (0.6 + self._spread() / 15), 0.05)

    def _soon(self) -> float:
        left = self.ends_in or 0.0
        return min(max(left / 4, _SHORTEST_LEAD), LONGEST_PAUSE)


__all__ = ["Asking", "Conversation", "Direct", "Entrance", "Keeper", "converse"]
