"""The path of a call, from arrival to forwarding. Read this first.

    arrive -> canonicalise -> decide -> [hold] -> fetch -> commit -> inject -> forward (Passage)

Deny is the starting state: whatever raises, hangs or returns nonsense on the way becomes a refusal,
and nothing leaves before "sent" is durable in the ledger. What happens after that is
broker.passage.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from audit.commitment import SALT_BYTES
from audit.errors import LedgerUnavailable
from broker import internal
from broker.agents import Agents
from broker.answers import Answer, problem
from broker.approvals import ENDED, resolve
from broker.cards import make_card
from broker.changes import Changes
from broker.digest import join_key, request_digest
from broker.errors import Conflict, Refusal, SecretUnavailable, StoreUnavailable
from broker.holds import Holds, Proposal, what
from broker.injectors import inject, place
from broker.model import Agent, Approval, Client
from broker.passage import Passage
from broker.policies import Policies
from broker.ports import Egress, NewId, Notifier, Route, SecretSource
from broker.refusals import denied_policy, held_answer, pending
from broker.sealing import StoredRequest
from broker.secret import SecretVersion
from broker.sending import Dispatch, Sending
from broker.tunnels import OpenTunnel, Tunnels
from rules.canonical import canonicalise
from rules.errors import Ambiguous
from rules.model import Credential, Decision, Policy, Subject
from rules.request import RawRequest, Request

log = logging.getLogger(__name__)

EFFECTS = frozenset({"allow", "hold", "deny", "tunnel"})
MOST_REDECISIONS = 5
"""How often one call may be decided anew because the policy changed while it was held."""
RECHECK = 1.0
"""Seconds after which a waiting call looks at the clocks and at its agent even if nothing
changed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    hold_wait: float = 25.0
    stage: float = 10.0
    """How long any one stage may take, the wait for people aside."""
    body: int = 10 * 1024 * 1024
    waiting: int = 1000
    """Calls of one agent that may wait for people at a time, in this worker."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the path needs; adapters and services are put together in keybroker.compose."""

    agents: Agents
    policies: Policies
    holds: Holds
    sending: Sending
    tunnels: Tunnels
    changes: Changes
    secrets: SecretSource
    egress: Egress
    internal: internal.Internal
    notifier: Notifier
    digest_key: bytes
    new_id: NewId
    worker: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the policy of one moment says of a request, and the request as it would go out."""

    decision: Decision
    version: int
    policy: Policy
    subject: Subject
    credentials: tuple[Credential, ...]
    outgoing: Request
    """The credentials' slots are empty."""
    digest: bytes


class Pipeline:
    """Decides calls and sees them through. One a worker; belongs to one event loop."""

    def __init__(self, parts: Parts, limits: Limits) -> None:
        self._parts = parts
        self._limits = limits
        self._waiting: dict[str, int] = {}
        self._draining = False

    # 1. arrive

    def authenticate(self, proxy_authorization: Sequence[str]) -> Client:
        """Who shows these Proxy-Authorization values.

        Raises Refusal("agent_unauthenticated"), or "ledger_unavailable" if the store cannot tell.
        """
        if len(proxy_authorization) > 1:
            raise _unknown_agent("There is more than one Proxy-Authorization header; send one.")
        name, token = _basic(proxy_authorization[0] if proxy_authorization else "")
        try:
            client = self._parts.agents.authenticate(name, token)
        except StoreUnavailable as error:
            log.error("no agent can be authenticated: %s", error)
            raise _ledger_unavailable() from error
        if client is None:
            raise _unknown_agent("The agent's name or token is wrong, expired or revoked.")
        return client

    async def handle(
        self, client: Client, raw: RawRequest, gone: asyncio.Event
    ) -> Answer | Passage:
        """Decides the call; waits for people where the policy asks. Never raises.

        `gone` is set when the agent hangs up. A Passage may be forwarded, once; an Answer is all
        that the agent gets.
        """
        call = ""
        seen: list[Request] = []
        try:
            call = self._parts.new_id("c")
            return await self._walk(call, client, raw, gone, seen)
        except Refusal as refusal:
            return await self._refuse(call, client.agent, seen[0] if seen else None, refusal)
        except (LedgerUnavailable, StoreUnavailable) as error:
            log.error("call %s: %s", call, error)
            return problem(_ledger_unavailable(), call or None)
        except Exception:
            log.exception("call %s failed", call)
            failure = Refusal("internal_error", "Keybroker failed on this call; nothing was sent.")
            return await self._refuse(call, client.agent, seen[0] if seen else None, failure)

    def refusal_answer(self, refusal: Refusal, call: str | None = None) -> Answer:
        """The refusal as the agent sees it."""
        return problem(refusal, call or self._parts.new_id("c"))

    def drain(self) -> None:
        """Calls that wait for people are told "pending" within a second, and no more wait."""
        self._draining = True

    async def _walk(
        self,
        call: str,
        client: Client,
        raw: RawRequest,
        gone: asyncio.Event,
        seen: list[Request],
    ) -> Answer | Passage:
        agent = self._agent(client)
        # 2. canonicalise
        try:
            request = canonicalise(raw)
        except Ambiguous as ambiguous:
            raise Refusal("request_ambiguous", ambiguous.sentence) from ambiguous
        if not isinstance(request, Request):
            raise TypeError("canonicalise returned no request")
        seen.append(request)
        if len(request.body) > self._limits.body:
            raise Refusal(
                "body_too_large",
                f"The body has {len(request.body)} bytes; {self._limits.body} are allowed.",
            )
        if request.host == internal.HOST:
            approval = internal.execution_of(request)
            if approval is None:
                return self._parts.internal.answer(call, agent, request)
            return await self._execute(call, client, approval)
        for _ in range(MOST_REDECISIONS):
            # 3. decide
            agent = self._agent(client)
            ruling = self._decide(agent, request)
            if ruling.decision.effect == "allow":
                return await self._send(call, agent, ruling, approval=None)
            # 4. hold
            passage = await self._hold(call, agent, client, ruling, request, gone)
            if passage is not None:
                return passage
        raise Refusal(
            "policy_denied",
            "The policy kept changing while this call was held; repeat it in a while.",
        )

    def _agent(self, client: Client) -> Agent:
        """The agent as it is now: a revocation takes effect on open connections too."""
        agent = self._parts.agents.current(client)
        if agent is None:
            raise _unknown_agent("The agent or its token has expired or was revoked.")
        if not isinstance(agent, Agent) or agent.name != client.agent:
            raise TypeError("the register of agents returned another agent")
        return agent

    # 3. decide

    def _decide(self, agent: Agent, request: Request) -> Ruling:
        """The ruling for `request`; raises Refusal unless it allows or holds."""
        published = self._parts.policies.current()
        if published is None:
            raise Refusal("policy_denied", "No policy is loaded, so every call is denied.")
        subject = Subject(agent.name, agent.tags, agent.owner)
        policy = published.rulebook.policy
        decision = published.rulebook.decide(subject, request)
        if not isinstance(decision, Decision) or decision.effect not in EFFECTS:
            raise TypeError("the rules returned no decision")
        if decision.effect not in ("allow", "hold"):
            raise denied_policy(decision)
        credentials = tuple(policy.credentials[name] for name in decision.credentials)
        if request.upgrade is not None and (credentials or decision.effect == "hold"):
            raise Refusal(
                "policy_denied",
                "WebSocket upgrades are not passed on where a credential is used or a person must"
                " approve. Use plain HTTPS calls for this host.",
            )
        outgoing = place(request, credentials)
        if not isinstance(outgoing, Request):
            raise TypeError("the injectors returned no request")
        digest = request_digest(self._parts.digest_key, outgoing, credentials)
        return Ruling(decision, published.version, policy, subject, credentials, outgoing, digest)

    # 4. hold

    async def _hold(
        self,
        call: str,
        agent: Agent,
        client: Client,
        ruling: Ruling,
        request: Request,
        gone: asyncio.Event,
    ) -> Passage | None:
        """Waits for people; then sends the request as stored. None: decide anew.

        Raises Refusal with what the agent is to know.
        """
        parts = self._parts
        # People are not asked about a call that could not go out anyway.
        await self._route(ruling.outgoing)
        proposal = Proposal(
            call=call,
            agent=agent.name,
            stored=StoredRequest(ruling.outgoing, request.headers),
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
        approval = await self._ledgered(parts.holds.open_or_join(proposal))
        if not isinstance(approval, Approval) or approval.agent != agent.name:
            raise TypeError("the store returned no approval of this agent")
        if approval.call == call:
            self._notify(approval)
        approval = await self._wait(approval.id, agent, client, request, gone)
        if approval.state == "superseded":
            return None
        return await self._claim_and_send(call, client, approval)

    async def _wait(
        self, id: str, agent: Agent, client: Client, request: Request, gone: asyncio.Event
    ) -> Approval:
        """Until the approval is approved or superseded; raises Refusal for every other end."""
        parts, loop = self._parts, asyncio.get_running_loop()
        patience = self._limits.hold_wait if agent.hold_wait is None else agent.hold_wait
        deadline = loop.time() + (0.0 if request.respond_async else patience)
        waiting = self._waiting.get(agent.name, 0)
        if waiting >= self._limits.waiting:
            raise Refusal(
                "too_many_pending",
                f"{waiting} of your calls wait for a decision; wait for some of them.",
                retry_after=30,
            )
        self._waiting[agent.name] = waiting + 1
        try:
            while True:
                since = parts.changes.now()
                approval = parts.holds.get(id)
                if parts.holds.is_due(approval):
                    approval = await self._ledgered(parts.holds.expire(id))
                remaining = deadline - loop.time()
                if approval.state == "approved" and not gone.is_set():
                    return approval
                if approval.state == "superseded":
                    return approval
                if approval.state not in ("pending", "approved"):
                    raise held_answer(approval)
                self._agent(client)
                if remaining <= 0 or gone.is_set() or self._draining:
                    raise pending(approval, agent, respond_async=request.respond_async)
                pause = min(remaining, RECHECK)
                await _either(parts.changes.wait_for(id, since, pause), gone, within=pause)
        finally:
            self._waiting[agent.name] -= 1
            if not self._waiting[agent.name]:
                del self._waiting[agent.name]

    async def _execute(self, call: str, client: Client, id: str) -> Answer | Passage:
        """Sends the stored request of an approved call, for an agent that asks for it by id."""
        agent = self._agent(client)
        approval = internal.own(self._parts.holds, agent, id)
        if approval.state == "pending":
            raise pending(approval, agent, respond_async=False)
        if approval.state != "approved":
            raise held_answer(approval)
        passage = await self._claim_and_send(call, client, approval)
        if passage is None:
            raise Refusal(
                "approval_expired",
                "The policy or the agent changed since this was approved; make the call again.",
                extra={"approval": internal.brief(self._parts.holds.get(id))},
            )
        return passage

    async def _claim_and_send(
        self, call: str, client: Client, approval: Approval
    ) -> Passage | None:
        """Takes the approval, if the policy still says what was approved, and sends what was
        stored.

        None: it no longer does, and the approval is superseded. Raises Refusal("approval_used")
        when another call was quicker, "approval_expired" when it is too late.
        """
        parts = self._parts
        agent = self._agent(client)
        stored = parts.holds.stored(approval.id)
        if stored is None:
            ended = parts.holds.get(approval.id)
            if ended.state == "superseded":
                return None
            if ended.state not in ENDED:
                raise StoreUnavailable(f"the stored request of {approval.id} is missing")
            raise held_answer(ended)
        try:
            ruling = self._decide(agent, stored.matched)
            basis = ruling.decision.basis
        except Refusal:
            ruling, basis = None, ""  # now denied: superseded, and decided anew by the caller
        try:
            claimed = await self._ledgered(
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
            return await self._send(call, agent, ruling, approval=claimed)
        except BaseException:
            # Nothing was sent (a passage would have been returned): the approval is not used up.
            released = self._give_back(approval.id, call)
            with suppress(Exception):
                # Shielded: giving up waiting for it must not take it off the queue.
                await self._within(asyncio.shield(asyncio.wrap_future(released)))
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

    # 5. fetch, 6. commit, 7. inject, 8. forward

    async def _send(
        self, call: str, agent: Agent, ruling: Ruling, approval: Approval | None
    ) -> Passage:
        parts, outgoing = self._parts, ruling.outgoing
        route = await self._route(outgoing)
        # 5. fetch
        filled = [(credential, await self._fetch(credential)) for credential in ruling.credentials]
        try:
            request, masked = inject(outgoing, filled)
        except SecretUnavailable as error:
            raise _no_secret(", ".join(ruling.decision.credentials), error) from error
        # 6. commit
        dispatch = Dispatch(
            call=call,
            agent=agent.name,
            request=outgoing,
            digest=ruling.digest,
            decision=ruling.decision,
            policy_version=ruling.version,
            approval=approval,
            secrets=filled,
            address=route.addresses[0],
            worker=parts.worker,
        )
        salt = await self._commit(dispatch)
        # 7. and 8.: the engine forwards what the passage holds
        try:
            return Passage(
                call, agent.name, request, masked=masked, salt=salt, sending=parts.sending
            )
        except BaseException:
            self._take_back(dispatch)
            raise

    async def _route(self, request: Request) -> Route:
        try:
            route = await self._within(self._parts.egress.check(request.host, request.port))
        except TimeoutError as error:
            raise Refusal(
                "upstream_unreachable",
                f"The address of {request.host} was not found in time; nothing was sent.",
            ) from error
        place = (request.host, request.port)
        if not isinstance(route, Route) or (route.host, route.port) != place or not route.addresses:
            raise TypeError("the egress guard returned no route to this place")
        return route

    async def _fetch(self, credential: Credential) -> SecretVersion:
        try:
            version = await self._within(self._parts.secrets.read(credential.secret))
        except (SecretUnavailable, TimeoutError) as error:
            raise _no_secret(credential.name, error) from error
        if not isinstance(version, SecretVersion) or version.ref != credential.secret:
            raise TypeError("the secret source returned another secret")
        return version

    async def _commit(self, dispatch: Dispatch) -> bytes:
        """Returns the salt of the call's commitments once "sent" is durable."""
        recorded = self._parts.sending.sent(dispatch)
        try:
            salt = await self._ledgered(recorded)
            if not isinstance(salt, bytes) or len(salt) < SALT_BYTES:
                raise TypeError("the ledger returned no salt")
        except BaseException:
            # "Sent" may become durable after it was given up waiting for.
            if isinstance(recorded, Future):
                recorded.add_done_callback(lambda _: self._take_back(dispatch))
            raise
        return salt

    def _take_back(self, dispatch: Dispatch) -> None:
        """Tells the ledger that nothing left, if it has the call as sent; never waits."""
        self._parts.sending.failed(
            dispatch.call,
            dispatch.agent,
            code="ledger_unavailable",
            sentence="the call was given up before anything was sent",
            sent=False,
            duration_ms=0,
        )

    # Tunnels: decided by host alone, passed on undecrypted

    async def tunnel(
        self, client: Client, host: str, port: int, sni: str | None
    ) -> OpenTunnel | None:
        """A tunnel that may be passed on undecrypted; None: intercept, and decide call by call.

        Never raises. The address is checked and pinned, and the tunnel is in the ledger.
        """
        try:
            agent = self._agent(client)
            published = self._parts.policies.current()
            if published is None or (sni is not None and sni.lower() != host):
                return None
            subject = Subject(agent.name, agent.tags, agent.owner)
            decision = published.rulebook.tunnel(subject, host, port)
            if not isinstance(decision, Decision) or decision.effect != "tunnel":
                return None
            route = await self._within(self._parts.egress.check(host, port))
            if not isinstance(route, Route) or not route.addresses:
                return None
            call = self._parts.new_id("c")
            return await self._within(
                self._parts.tunnels.open(
                    call, agent.name, host, port, route.addresses[0], decision, published.version
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the tunnel is not opened
            log.warning("no tunnel to %s:%d: %s", host, port, error)
            return None

    # Answers

    async def _refuse(
        self, call: str, agent: str, request: Request | None, refusal: Refusal
    ) -> Answer:
        """The answer for the agent, after the ledger has it; a call still pending is no denial."""
        if refusal.code != "approval_pending":
            try:
                await self._within(
                    asyncio.wrap_future(
                        self._parts.sending.denied(
                            call, agent, None if request is None else what(request), refusal
                        )
                    )
                )
            except Exception as error:  # noqa: BLE001 - said instead of the refusal itself
                log.error("call %s: the refusal could not be recorded: %s", call, error)
                return problem(_ledger_unavailable(), call or None)
        return problem(refusal, call or None)

    async def _ledgered[T](self, change: Future[T]) -> T:
        """What a change of the store gives once it is durable; raises LedgerUnavailable if that
        takes too long, and what the change raised."""
        try:
            return await self._within(asyncio.wrap_future(change))
        except TimeoutError as error:
            raise LedgerUnavailable("the ledger did not answer in time") from error

    async def _within[T](self, stage: Awaitable[T]) -> T:
        """The stage's result; raises TimeoutError when it takes longer than a stage may."""
        async with asyncio.timeout(self._limits.stage):
            return await stage


async def _either(change: Awaitable[object], gone: asyncio.Event, *, within: float) -> None:
    """Returns when `change` or `gone` came, or after `within` seconds; raises as `change` does."""
    changed = asyncio.ensure_future(change)
    left = asyncio.create_task(gone.wait())
    try:
        await asyncio.wait((changed, left), timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if changed.done():
            changed.result()
    finally:
        changed.cancel()
        left.cancel()
        await asyncio.wait((changed, left), timeout=within)


def _basic(value: str) -> tuple[str, str]:
    """Name and token of a Basic credential (RFC 7617); raises Refusal if it is none."""
    scheme, _, encoded = value.partition(" ")
    try:
        name, colon, token = (
            base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        )
    except ValueError:  # neither base64 nor UTF-8
        name = colon = token = ""
    if scheme.lower() != "basic" or not colon or not name or not token:
        raise _unknown_agent(
            "Set the proxy URL to http://AGENT:TOKEN@HOST:PORT with the agent's name and token."
        )
    return name, token


def _no_secret(name: str, error: Exception) -> Refusal:
    """The operator reads where the secret lies and what is wrong with it, the agent does not."""
    log.error("credential %s: %s", name, str(error) or "Vault did not answer in time")
    return Refusal(
        "secret_unavailable",
        f"The credential {name} could not be had; nothing was sent."
        " Tell whoever runs Keybroker, or try again later.",
    )


def _unknown_agent(detail: str) -> Refusal:
    return Refusal("agent_unauthenticated", detail)


def _ledger_unavailable() -> Refusal:
    return Refusal(
        "ledger_unavailable",
        "The audit log cannot be written at the moment, so nothing was sent. Try again later.",
        retry_after=5,
    )
