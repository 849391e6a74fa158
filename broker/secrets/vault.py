"""VaultSource reads secrets on a call's path, from OpenBao and HashiCorp Vault alike.

No value is cached: a rotated secret is what the next read gives. Every read ends within its limit,
and while Vault as a whole is ill only one read at a time tries it, so that calls fail at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from broker.deadlines import Deadlines
from broker.errors import SecretUnavailable
from broker.secret import SecretVersion
from broker.secrets import kv
from broker.secrets.access import VaultAccess
from broker.secrets.api import Api
from broker.secrets.breaker import Breaker, Leave, Open
from broker.secrets.health import Meter, VaultHealth
from broker.secrets.http1 import Response
from broker.secrets.keeper import Direct, Entrance, Keeper, converse
from broker.secrets.line import CONNECT_TIMEOUT, Line
from broker.secrets.login import carry, is_good, leave
from broker.secrets.trouble import (
    ILL,
    NO_ANSWER,
    REDIRECTS,
    VaultUnavailable,
    kind_of,
    meaning_of,
    unreachable,
)
from rules.model import SecretRef

log = logging.getLogger(__name__)

LIMIT = 5.0
"""Seconds that one read may take in all, log-in and second try included."""
BULKHEAD = 32
"""Reads of one worker that may ask Vault at a time; others wait their turn, within their limit."""
_DIALERS = 4
_SETTLED = 60.0
"""Seconds after which a good token that is refused a read is replaced all the same: its role may
have been given more policies since."""
_STALE = 2.0
"""Seconds after which what is known of an engine is doubted when a read finds nothing."""
_LONGEST_WAIT = 10.0
"""Seconds for which an answer 429 can keep further reads from being tried."""


@dataclass(frozen=True, slots=True)
class _Lies:
    """Where a secret lies: its engine, its API path there, and since when that is known."""

    engine: kv.Engine
    path: str
    since: float


@dataclass(slots=True)
class _Place:
    """One Vault as it is reached now: the line, the token for it, what is known of its engines."""

    line: Line
    keeper: Keeper
    engines: dict[str, _Lies] = field(default_factory=dict)


class VaultSource:
    """Reads secrets from KV engines of either version: each read asks Vault, nothing is kept.

    `locate` says where Vault is; it is asked again when a connection fails, so that a server that
    came back elsewhere is found. A plain VaultAccess stays where it is. A read takes no longer than
    `limit` seconds. `entrance` makes the way in; by default the source logs in by itself. For one
    event loop; `close` is for when that is over.
    """

    def __init__(
        self,
        locate: VaultAccess | Callable[[], VaultAccess],
        *,
        limit: float = LIMIT,
        bulkhead: int = BULKHEAD,
        entrance: Callable[[VaultAccess, Line], Entrance] | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self._limit = limit
        self._bulkhead = bulkhead
        self._locate: Callable[[], VaultAccess] = locate if callable(locate) else lambda: locate
        self._entrance = entrance or (lambda access, line: Direct(access, line.ask))
        self._breaker = breaker or Breaker(clock=time.monotonic, now=_now)
        self._slots = asyncio.Semaphore(bulkhead)
        self._deadlines = Deadlines(limit)
        self._dialers = ThreadPoolExecutor(_DIALERS, thread_name_prefix="vault-dial")
        self._meter = Meter()
        self._place: _Place | None = None
        self._cause = ""
        self._not_before = 0.0
        self._closed = False

    async def read(self, ref: SecretRef) -> SecretVersion:
        """The newest version, read now, within the limit. Raises SecretUnavailable."""
        if self._closed:
            raise SecretUnavailable(f"The secret {ref} was not read: Keybroker is stopping.")
        self._meter.requests += 1
        try:
            leave_to_ask = self._breaker.enter()
        except Open:
            self._meter.short_circuited += 1
            raise SecretUnavailable(f"The secret {ref} was not read: {self._shut()}") from None
        try:
            version = await self._read_in_time(ref)
        except VaultUnavailable as error:
            self._failed(leave_to_ask, error)
            sentence = f"The secret {ref} could not be read: {error}"
            raise SecretUnavailable(sentence, late=error.kind in ("timeout", "busy")) from error
        except SecretUnavailable:
            self._well(leave_to_ask)
            raise
        except BaseException:
            self._breaker.given_up(leave_to_ask)
            raise
        self._well(leave_to_ask)
        return version

    def health(self) -> VaultHealth:
        """How it goes, as of now."""
        meter, place = self._meter, self._place
        ends_in = None if place is None else place.keeper.ends_in
        return VaultHealth(
            state=self._breaker.state,
            since=self._breaker.since,
            last_error=meter.last_error,
            last_error_at=meter.last_error_at,
            requests=meter.requests,
            failures=dict(meter.failures),
            short_circuited=meter.short_circuited,
            in_flight=meter.in_flight,
            waiting=meter.waiting,
            latency=meter.latency,
            log_ins=0 if place is None else place.keeper.log_ins,
            renewals=0 if place is None else place.keeper.renewals,
            token_ends_at=None if ends_in is None else _now() + timedelta(seconds=ends_in),
        )

    def close(self) -> None:
        """Gives the token back and closes the connections; reads after it are refused.

        Takes up to CONNECT_TIMEOUT seconds for each step where Vault hangs.
        """
        self._closed = True
        place, self._place = self._place, None
        if place is not None:
            self._let_go(place)
        self._dialers.shutdown(wait=False, cancel_futures=True)

    # --- outcomes ------------------------------------------------------------------------------

    def _failed(self, leave_to_ask: Leave, error: VaultUnavailable) -> None:
        self._meter.failed(error.kind, _now())
        if error.kind in ILL:
            self._cause = str(error)
            before = self._breaker.state
            self._breaker.failed(leave_to_ask)
            if self._breaker.state == "open" and before == "closed":
                log.error("vault: reads are refused at once from now on: %s", error)
        elif error.status is None:
            self._breaker.given_up(leave_to_ask)  # our own files, say: it tells nothing of Vault
        else:
            self._well(leave_to_ask)

    def _well(self, leave_to_ask: Leave) -> None:
        if leave_to_ask.trial:
            log.warning("vault: it serves again")
        self._breaker.succeeded(leave_to_ask)

    def _shut(self) -> str:
        since = self._breaker.since.strftime("%Y-%m-%d %H:%M:%S UTC")
        left = self._breaker.pause_left
        again = f"in {left:.0f} s" if left >= 1 else "now"
        return f"Vault has not served since {since} and is tried again {again}. {self._cause}"

    # --- the read ------------------------------------------------------------------------------

    async def _read_in_time(self, ref: SecretRef) -> SecretVersion:
        asked = False

        async def in_turn() -> SecretVersion:
            nonlocal asked
            meter = self._meter
            deadline = asyncio.get_running_loop().time() + self._limit
            meter.waiting += 1
            try:
                await self._slots.acquire()
            finally:
                meter.waiting -= 1
            asked = True
            begun = time.monotonic()
            meter.in_flight += 1
            try:
                return await self._unlimited(ref, deadline)
            finally:
                meter.in_flight -= 1
                meter.took(time.monotonic() - begun)
                self._slots.release()

        try:
            return await self._deadlines.within(in_turn())
        except TimeoutError:
            if asked:
                url = self._place.line.access.url if self._place is not None else "its place"
                raise VaultUnavailable(
                    f"{unreachable(url, NO_ANSWER)} It had {self._limit:g} s (`vault.timeout`).",
                    kind="timeout",
                ) from None
            raise VaultUnavailable(
                f"{self._bulkhead} other reads have been waiting for Vault for {self._limit:g} s.",
                kind="busy",
            ) from None

    async def _unlimited(self, ref: SecretRef, deadline: float) -> SecretVersion:
        """The read; where Vault limits the rate and there is time, once more after its pause."""
        for last in (False, True):
            if self._not_before:
                await self._pause_for_rate(deadline)
            try:
                return await self._moved_or_read(ref)
            except VaultUnavailable as error:
                if error.kind != "rate_limited" or last:
                    raise
        raise AssertionError("not reached")

    async def _pause_for_rate(self, deadline: float) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._not_before:
            return
        if self._not_before >= deadline:
            raise VaultUnavailable(
                f"Vault limits the rate of requests (429) and is asked again in "
                f"{self._not_before - now:.0f} s; raise its quota.",
                429,
            )
        # Not all at the same moment.
        spread = random.random() / 10  # noqa: S311 -- no secret
        await asyncio.sleep(self._not_before - now + spread)

    async def _moved_or_read(self, ref: SecretRef) -> SecretVersion:
        place = self._at(None)
        try:
            return await self._read(place, ref)
        except VaultUnavailable as error:
            if error.kind not in {"unreachable", "tls", "cut"}:
                raise
            again = self._at(place)
            if again is place:
                raise
        return await self._read(again, ref)

    async def _read(self, place: _Place, ref: SecretRef) -> SecretVersion:
        whole = kv.whole_of(ref)
        lies = await self._lies(place, ref, whole)
        response = await self._get(place, lies.path)
        if response.status == 404 and time.monotonic() - lies.since > _STALE:
            # Mounted anew, or turned into another version?
            place.engines.pop(whole, None)
            present = await self._lies(place, ref, whole)
            if present.engine != lies.engine:
                lies = present
                response = await self._get(place, lies.path)
        return kv.version_of(ref, lies.engine, response.status, response.body)

    async def _lies(self, place: _Place, ref: SecretRef, whole: str) -> _Lies:
        """Asked of Vault once; a path that cannot be asked for is refused before that."""
        known = place.engines.get(whole)
        if known is None:
            try:
                path = f"/v1/{kv.mounts_path(whole)}"
            except ValueError as error:
                raise SecretUnavailable(
                    f"The reference {ref} cannot be read: {error}; mend it in the policy."
                ) from error
            response = await self._get(place, path)
            if response.status != 200:
                raise VaultUnavailable(
                    f"Vault at {place.line.access.url} does not say which engine {whole} lies in "
                    f"({meaning_of(response.status)}); check that the mount exists and that the "
                    "broker's policy allows to read from it.",
                    response.status,
                )
            data = kv.parse(response.body).get("data")
            engine = kv.engine_of(whole, data if isinstance(data, dict) else {})
            known = _Lies(engine, engine.path("data", whole), time.monotonic())
            place.engines[whole] = known
        return known

    async def _get(self, place: _Place, path: str) -> Response:
        """One GET with a token that is good, as far as that can be had."""
        token = await place.keeper.token()
        response = self._sound(place, await place.line.get(path, token))
        if response.status != 403:
            return response
        # Revoked, run out, or the server was set up anew: once more with a fresh log-in. A policy
        # that does not allow it is no reason for one.
        if place.keeper.age < _SETTLED and await converse(is_good(token), place.line.ask):
            return response
        token = await place.keeper.other_than(token)
        return self._sound(place, await place.line.get(path, token))

    def _sound(self, place: _Place, response: Response) -> Response:
        """The answer, unless it tells that Vault as a whole does not serve."""
        status = response.status
        kind = "refused" if status < 300 else kind_of(status)
        if kind == "refused":
            return response
        url = place.line.access.url
        if kind == "redirected":
            raise VaultUnavailable(unreachable(url, REDIRECTS), status)
        if kind == "rate_limited":
            asked = response.headers.get(b"retry-after", b"")
            wait = min(float(asked) if asked.isdigit() else 1.0, _LONGEST_WAIT)
            self._not_before = asyncio.get_running_loop().time() + wait
        raise VaultUnavailable(
            f"Vault at {url} does not serve the read: {meaning_of(status)}.", status
        )

    # --- where it is ---------------------------------------------------------------------------

    def _at(self, failed: _Place | None) -> _Place:
        """The place in use; a new one at first, or if Vault is no longer where `failed` is."""
        if self._closed:
            raise VaultUnavailable("Keybroker is stopping.", kind="log_in")
        place = self._place
        if place is None or place is failed:
            access = self._locate()
            if place is None or access != place.line.access:
                line = Line(access, self._dialers)
                keeper = Keeper(self._entrance(access, line), limit=self._limit)
                if place is not None:
                    place.keeper.close()
                    place.line.close()
                place = self._place = _Place(line, keeper)
        return place

    @staticmethod
    def _let_go(place: _Place) -> None:
        grant = place.keeper.close()
        place.line.close()
        if grant is None or not grant.own:
            return
        try:
            api = Api(place.line.access, timeout=CONNECT_TIMEOUT)
            try:
                carry(leave(grant), api.answer)
            finally:
                api.close()
        except VaultUnavailable:
            return  # the token ends by itself when its lease does


def _now() -> datetime:
    return datetime.now(UTC)
