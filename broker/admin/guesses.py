"""Checks passwords, and slows down guessing without shutting people out who are known already.

Whoever guesses is counted three ways: for this name from this address, for the name, and for the
address. A browser in which this person logged in before carries a device cookie and is counted by
itself, as is an open session; so a stranger's guesses keep neither waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request

from broker.admin.ports import Services
from broker.admin.security import Refused, Site
from broker.admin.throttle import Throttle
from broker.model import Session, User

QUEUE = 32
"""Checks that may wait for a turn: each takes tens of megabytes and of milliseconds."""


class Guesses:
    """One for all forms that ask for a password."""

    def __init__(
        self,
        services: Services,
        site: Site,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services, self._site, self._monotonic = services, site, monotonic
        self._throttles: Mapping[str, Throttle] = {
            "pair": Throttle(),
            # Shared by everybody who means this name or comes from this address (a reverse proxy
            # makes all addresses one): patient, and never long, or it would be a lock to turn.
            "name": Throttle(free=20, longest=10.0),
            "address": Throttle(free=20, longest=10.0),
            "device": Throttle(),
            "session": Throttle(),
        }
        self._hashing = CapacityLimiter(2)
        self._known_hashing = CapacityLimiter(1)

    async def check(
        self, request: Request, name: str, password: str, session: Session | None = None
    ) -> User | None:
        """The user; None if the pair is wrong; Refused (429, 503) if too much was asked.

        `session`: the one in which it is asked once more.
        """
        keys = await self._keys(request, name, session)
        known = not keys.keys().isdisjoint({"device", "session"})
        now = self._monotonic()
        wait = max(self._throttles[kind].wait(key, now) for kind, key in keys.items())
        if wait:
            raise Refused(
                429,
                f"Too many wrong passwords. Try again in {wait} seconds.",
                headers={"retry-after": str(wait)},
            )
        limiter = self._known_hashing if known else self._hashing
        if limiter.statistics().tasks_waiting >= QUEUE:
            raise Refused(
                503, "Too many people log in at once. Try again.", headers={"retry-after": "5"}
            )
        for kind, key in keys.items():
            self._throttles[kind].begin((key,), now)
        found = await run_sync(
            partial(self._services.people.check_password, name, password), limiter=limiter
        )
        if found is not None:
            for kind, key in keys.items():
                if kind in ("name", "address"):
                    self._throttles[kind].forgive((key,))
                else:
                    self._throttles[kind].succeeded((key,))
        return found

    async def hash[T](self, work: Callable[[], T]) -> T:
        """Runs `work`, which hashes a password, when there is room for it."""
        return await run_sync(work, limiter=self._hashing)

    async def _keys(
        self, request: Request, name: str, session: Session | None
    ) -> Mapping[str, str]:
        if session is not None:
            return {"session": session.id}
        device = request.cookies.get(self._site.device_cookie)
        knows = self._services.devices.knows
        if device is not None and await run_sync(partial(knows, name, device)):
            return {"device": device}
        address, folded = request.client.host if request.client else "", name.casefold()[:200]
        return {"pair": f"{address} {folded}", "name": folded, "address": address}
