"""4. hold: calls that wait for people, and the one of them that takes the approval.

The approval and the sealed request are stored before anybody is told. What is sent after the vote
is the request as stored, if the policy still says what was approved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from audit.errors import LedgerUnavailable
from broker import internal
from broker.approvals import ENDED, resolve
from broker.cards import make_card
from broker.digest import join_key, request_digest
from broker.dispatching import Dispatcher
from broker.errors import Conflict, OverLimit, Refusal, StoreUnavailable
from broker.holds import Proposal
from broker.judging import Judge, PolicyChanged, Ruling
from broker.model import Agent, Approval, Client
from broker.parts import Limits, Parts, Stages
from broker.passage import Passage
from broker.refusals import held_answer, over_limit, pending
from broker.sealing import StoredRequest
from broker.telemetry.journey import Journey
from rules.request import Request, Via

RECHECK = 1.0
"""Seconds between two rounds that look at the clocks and the agents of all that wait."""
LOOK = 60.0
"""Seconds after which a waiting call looks at its approval even if nothing woke it."""


@dataclass(eq=False, slots=True)
class _Sleeper:
    """One call that waits for people."""

    client: Client
    approval: Approval
    """As it was when the call went to sleep."""
    alarm: asyncio.Future[None]


class WaitingRoom:
    """Where held calls wait. One a worker; belongs to one event loop."""

    def __init__(
        self,
        parts: Parts,
        limits: Limits,
        stages: Stages,
        judge: Judge,
        dispatcher: Dispatcher,
    ) -> None:
        self._parts = parts
        self._limits = limits
        self._stages = stages
        self._judge = judge
        self._dispatcher = dispatcher
        self.waiting: dict[str, int] = {}
        """How many calls of each agent wait at the moment."""
        self._sleepers: set[_Sleeper] = set()
        self._watchman: asyncio.Task[None] | None = None
        self._draining = False

    def drain(self) -> None:
        """Calls that wait are told "pending" within a second, and no more wait."""
        self._draining = True

    async def hold(
        self,
        journey: Journey,
        agent: Agent,
        client: Client,
        ruling: Ruling,
        gone: asyncio.Event,
    ) -> Passage | None:
        """Waits for people; then sends the request as stored. None: decide anew.

        Raises Refusal with what the agent is to know.
        """
        parts = self._parts
        # People are not asked about a call that could not go out anyway.
        await self._dispatcher.route(ruling.outgoing)
        proposal = Proposal(
            call=journey.call,
            agent=agent.name,
            stored=StoredRequest(ruling.outgoing, ruling.matched.headers),
            digest=ruling.digest,
            join_key=join_key(parts.digest_key, agent.name, ruling.outgoing, ruling.credentials),
            decision=ruling.decision,
            policy_version=ruling.version,
            requirement=resolve(ruling.policy, ruling.decision.tiers, ruling.subject),
            card=make_card(
                agent,
                ruling.outgoing,
                ruling.decision,
                ruling.policy,
                ruling.credentials,
                parts.agents.run_note(client),
            ),
            credentials=[(c.name, str(c.secret)) for c in ruling.credentials],
        )
        try:
            approval = await self._stages.ledgered(parts.holds.open_or_join(proposal))
        except OverLimit as beyond:
            decision = ruling.rulebook.over(ruling.decision, beyond.over, ruling.matched)
            shadow = ruling.decision.shadow
            raise over_limit(decision, beyond.over, ruling.version, shadow) from beyond
        if not isinstance(approval, Approval) or approval.agent != agent.name:
            raise TypeError("the store returned no approval of this agent")
        journey.approval = approval.id
        if approval.call == journey.call:
            self._notify(approval)
        with journey.stage("hold"):
            approval = await self._wait(approval.id, agent, client, ruling.matched, gone)
        if approval.state == "superseded":
            return None
        return await self._claim_and_send(journey, client, approval)

    async def _wait(
        self, id: str, agent: Agent, client: Client, request: Request, gone: asyncio.Event
    ) -> Approval:
        """Until the approval is approved or superseded; raises Refusal for every other end."""
        parts, loop = self._parts, asyncio.get_running_loop()
        patience = self._limits.hold_wait if agent.hold_wait is None else agent.hold_wait
        deadline = loop.time() + (0.0 if request.respond_async else patience)
        waiting = self.waiting.get(agent.name, 0)
        if waiting >= self._limits.waiting:
            raise Refusal(
                "too_many_pending",
                f"{waiting} of your calls wait for a decision; wait for some of them.",
                retry_after=30,
            )
        self.waiting[agent.name] = waiting + 1
        parts.meters.calls_held.add()
        try:
            while True:
                since = parts.changes.now()
                approval = parts.holds.get(id)
                if parts.holds.is_due(approval):
                    approval = await self._stages.ledgered(parts.holds.expire(id))
                remaining = deadline - loop.time()
                if approval.state == "approved" and not gone.is_set():
                    return approval
                if approval.state == "superseded":
                    return approval
                if approval.state not in ("pending", "approved"):
                    raise held_answer(approval)
                self._judge.agent(client)
                if remaining <= 0 or gone.is_set() or self._draining:
                    raise pending(
                        approval, agent, respond_async=request.respond_async, via=request.via
                    )
                await self._sleep(
                    _Sleeper(client, approval, loop.create_future()),
                    since,
                    gone,
                    within=min(remaining, LOOK),
                )
        finally:
            parts.meters.calls_held.add(by=-1)
            self.waiting[agent.name] -= 1
            if not self.waiting[agent.name]:
                del self.waiting[agent.name]

    async def _sleep(
        self, sleeper: _Sleeper, since: int, gone: asyncio.Event, *, within: float
    ) -> None:
        """Until there may be a reason to look again; `within` is in seconds."""
        self._sleepers.add(sleeper)
        if self._watchman is None or self._watchman.done():
            self._watchman = asyncio.create_task(self._go_round())
        change = self._parts.changes.wait_for(sleeper.approval.id, since, within)
        try:
            await _either(change, gone, sleeper.alarm, within=within)
        finally:
            self._sleepers.discard(sleeper)

    async def _go_round(self) -> None:
        """Wakes those for whom a clock ran out, or whose agent ended: one look for all, so that
        thousands of them wait for next to nothing."""
        while self._sleepers:
            await asyncio.sleep(RECHECK)
            good: dict[Client, bool] = {}
            for sleeper in tuple(self._sleepers):
                if sleeper.client not in good:
                    good[sleeper.client] = self._is_good(sleeper.client)
                due = self._parts.holds.is_due(sleeper.approval)
                if (self._draining or due or not good[sleeper.client]) and not sleeper.alarm.done():
                    sleeper.alarm.set_result(None)

    def _is_good(self, client: Client) -> bool:
        try:
            self._judge.agent(client)
        except Exception:  # noqa: BLE001 - the call itself finds out, and says so
            return False
        return True

    async def execute(
        self, journey: Journey, client: Client, id: str, via: Via = "proxy"
    ) -> Passage:
        """The stored request of an approved call, for an agent that asks for it by id.

        Raises Refusal for every other state, and for another agent's approval.
        """
        agent = self._judge.agent(client)
        approval = internal.own(self._parts.holds, agent, id)
        journey.approval = approval.id
        if approval.state == "pending":
            raise pending(approval, agent, respond_async=False, via=via)
        if approval.state != "approved":
            raise held_answer(approval)
        stored = self._parts.holds.stored(id)
        if stored is not None and stored.matched.upgrade is not None:
            raise Refusal(
                "request_ambiguous",
                "A WebSocket cannot be opened by its approval's id; ask for it again, and the"
                " approval counts.",
            )
        passage = await self._claim_and_send(journey, client, approval)
        if passage is None:
            raise Refusal(
                "approval_expired",
                "The policy or the agent changed since this was approved; make the call again.",
                extra={"approval": internal.brief(self._parts.holds.get(id))},
            )
        return passage

    async def _claim_and_send(
        self, journey: Journey, client: Client, approval: Approval
    ) -> Passage | None:
        """Takes the approval, if the policy still says what was approved, and sends what was
        stored.

        None: it no longer does, and the approval is superseded. Raises Refusal("approval_used")
        when another call was quicker, "approval_expired" when it is too late.
        """
        parts, call = self._parts, journey.call
        agent = self._judge.agent(client)
        stored = parts.holds.stored(approval.id)
        if stored is None:
            ended = parts.holds.get(approval.id)
            if ended.state == "superseded":
                return None
            if ended.state not in ENDED:
                raise StoreUnavailable(f"the stored request of {approval.id} is missing")
            raise held_answer(ended)
        if approval.call != call:
            theirs = (v for n, v in stored.outgoing.headers if n == "traceparent")
            journey.opener = (approval.call, tuple(theirs))
        try:
            ruling = self._judge.rule(agent, stored.matched)
            basis = ruling.decision.basis
        except Refusal:
            ruling, basis = None, ""  # now denied: superseded, and decided anew by the caller
        try:
            claimed = await self._stages.ledgered(
                parts.holds.claim(approval.id, basis=basis, worker=parts.worker, call=call)
            )
            if not isinstance(claimed, Approval) or claimed.id != approval.id:
                raise TypeError("the store returned another approval")
        except Conflict:
            raise held_answer(parts.holds.get(approval.id)) from None
        except BaseException:
            # The claim may still be written: then it is given back, later in the same queue.
            self._give_back(approval.id, call)
            raise
        if claimed.state == "expired":
            raise held_answer(claimed)
        if claimed.state != "executing" or ruling is None:
            return None
        try:
            # What was voted on and what goes out are the same bytes, or nothing goes out.
            outgoing = stored.outgoing
            digest = request_digest(parts.digest_key, outgoing, ruling.credentials)
            if digest != approval.digest or outgoing != ruling.outgoing:
                raise StoreUnavailable(
                    f"the stored request of {approval.id} is not the one voted on"
                )
            return await self._dispatcher.send(journey, ruling, approval=claimed)
        except BaseException as error:
            # Nothing was sent (a passage would have been returned): the approval is not used up.
            released = self._give_back(approval.id, call)
            with suppress(Exception):
                # Shielded: giving up waiting for it must not take it off the queue.
                await self._stages.within(asyncio.shield(asyncio.wrap_future(released)))
            if isinstance(error, PolicyChanged):
                return None
            raise

    def _give_back(self, approval: str, call: str) -> Future[None]:
        """Releases the claim of a call that was not sent; tries again until the store takes it.

        A claim that stayed would block the approval for as long as this worker lives.
        """
        loop = asyncio.get_running_loop()
        released = self._parts.holds.release(approval, call)

        def look(done: Future[None]) -> None:
            if not done.cancelled() and isinstance(done.exception(), LedgerUnavailable):
                with suppress(RuntimeError):  # the loop is over, and recovery releases it
                    loop.call_soon_threadsafe(
                        loop.call_later, RECHECK, self._give_back, approval, call
                    )

        released.add_done_callback(look)
        return released

    def _notify(self, approval: Approval) -> None:
        with suppress(Exception):
            self._parts.notifier.opened(
                approval.id,
                "; ".join(approval.card["summaries"]),
                approval.agent,
                approval.card["risk"],
            )


async def _either(
    change: Awaitable[object], gone: asyncio.Event, alarm: asyncio.Future[None], *, within: float
) -> None:
    """Returns when one of them came, or after `within` seconds; raises as `change` does."""
    changed = asyncio.ensure_future(change)
    left = asyncio.create_task(gone.wait())
    try:
        await asyncio.wait(
            (changed, left, alarm), timeout=within, return_when=asyncio.FIRST_COMPLETED
        )
        if changed.done():
            changed.result()
    finally:
        changed.cancel()
        left.cancel()
        await asyncio.wait((changed, left), timeout=within)
