"""The path of a call, from arrival to forwarding. Read this first.

    arrive -> canonicalise -> decide -> [limit] -> [hold] -> fetch -> commit -> inject -> forward
              rules.canonical  judging   limiting   waiting   dispatching                 (Passage)

A call is decided once its body is there (`handle`), or on its head alone where a rule says
`body: stream` and nothing else needs the body (`begin`).

Deny is the starting state: whatever raises, hangs or returns nonsense on the way becomes a refusal,
and nothing leaves before "sent" is durable in the ledger.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from contextlib import suppress

from audit.errors import LedgerUnavailable
from broker import internal
from broker.answers import Answer, problem
from broker.dispatching import Dispatcher
from broker.errors import Refusal, StoreUnavailable
from broker.holds import what
from broker.judging import Judge, PolicyChanged, Ruling
from broker.limiting import Turnstile
from broker.model import Client
from broker.parts import Limits, Parts, Stages, outcome
from broker.passage import Passage
from broker.ports import Route
from broker.refusals import as_origin, ledger_unavailable, unknown_agent
from broker.telemetry.journey import Journey
from broker.telemetry.logs import Fact, about
from broker.tunnels import OpenTunnel
from broker.waiting import WaitingRoom
from rules.canonical import canonicalise, needs_body
from rules.errors import Ambiguous
from rules.model import Decision
from rules.request import RawRequest, Request

log = logging.getLogger(__name__)

MOST_REDECISIONS = 5
"""How often one call may be decided anew because the policy changed meanwhile."""


class Pipeline:
    """Decides calls and sees them through. One a worker; belongs to one event loop."""

    def __init__(self, parts: Parts, limits: Limits) -> None:
        self._parts = parts
        self._limits = limits
        self._stages = Stages(limits.stage)
        self._judge = Judge(parts)
        self._dispatcher = Dispatcher(parts, self._stages, self._judge)
        self._turnstile = Turnstile(parts, self._stages, self._judge, self._dispatcher)
        self.waiting_room = WaitingRoom(parts, limits, self._stages, self._judge, self._dispatcher)

    # 1. arrive

    def authenticate(self, proxy_authorization: Sequence[str]) -> Client:
        """Who shows these Proxy-Authorization values.

        Raises Refusal("agent_unauthenticated"), or "ledger_unavailable" if the store cannot tell.
        """
        if len(proxy_authorization) > 1:
            raise unknown_agent("There is more than one Proxy-Authorization header; send one.")
        return self.identify(*_basic(proxy_authorization[0] if proxy_authorization else ""))

    def identify(self, name: str, token: str) -> Client:
        """Who shows this name and token. Raises as `authenticate` does."""
        try:
            client = self._parts.agents.authenticate(name, token)
        except StoreUnavailable as error:
            log.error("no agent can be authenticated: %s", error)
            raise ledger_unavailable() from error
        if client is None:
            raise unknown_agent("The agent's name or token is wrong, expired or revoked.")
        return client

    def knows(self, client: Client) -> bool:
        """Whether the agent and its token are still good; False if the store cannot tell."""
        try:
            return self._parts.agents.current(client) is not None
        except Exception as error:  # noqa: BLE001 - in doubt nothing goes on
            log.error("the agent %s cannot be looked up: %s", client.agent, error)
            return False

    def streams(self) -> bool:
        """Whether some rule lets bodies leave before they are whole; in doubt it says so."""
        try:
            return self._judge.streams()
        except Exception:  # noqa: BLE001 - `begin` finds out, and refuses
            return True

    async def handle(
        self, client: Client, raw: RawRequest, gone: asyncio.Event
    ) -> Answer | Passage:
        """Decides the call; waits for people where the policy asks. Never raises.

        `gone` is set when the agent hangs up. A Passage may be forwarded, once; an Answer is all
        that the agent gets.
        """
        journey = Journey("", client.agent, self._parts.listeners, raw=raw)
        try:
            journey.call = self._parts.new_id("c")
            return await self._walk(journey, client, raw, gone)
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer is a refusal
            if gone.is_set() and isinstance(error, Refusal) and error.code == "approval_pending":
                journey.end("abandoned")  # nobody is there to be told that it waits
            return await self._answer_to(error, journey, raw)
        except BaseException:  # the agent left, or this worker stops
            journey.end("abandoned")
            raise

    async def begin(self, client: Client, raw: RawRequest) -> Answer | Passage | None:
        """Decides the call on its head, before its body has come, if nothing needs the body.

        None: it is needed; to be called again, with `handle`, once it is there. Never raises.
        """
        journey = Journey("", client.agent, self._parts.listeners, raw=raw)
        try:
            with journey.stage("decide"):
                ruling = self._rule_unread(client, raw)
            if ruling is None:
                return None
        except Exception as error:  # noqa: BLE001 - said by `handle`, which will find the same
            log.debug("a head could not be decided alone: %s", type(error).__name__)
            return None
        try:
            journey.request = ruling.matched
            journey.shadow = ruling.decision.shadow
            journey.call = self._parts.new_id("c")
            _check_length(ruling.matched.length, ruling.decision.body_limit)
            ruling = await self._turnstile.admit(journey, ruling)
            if ruling.decision.effect != "allow":
                return None  # people are shown the whole of what they decide on
            return await self._turnstile.send(journey, ruling)
        except PolicyChanged:
            return None
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer is a refusal
            return await self._answer_to(error, journey, raw)
        except BaseException:  # the agent left, or this worker stops
            journey.end("abandoned")
            raise

    def _rule_unread(self, client: Client, raw: RawRequest) -> Ruling | None:
        """The ruling, if it allows the call and lets its body pass unread."""
        if not raw.unread or not self._judge.streams():
            return None
        request = self._canonical(client, raw)
        if request.host == internal.HOST or needs_body(request):
            return None
        ruling = self._judge.rule(self._judge.agent(client), request)
        decision = ruling.decision
        return ruling if decision.effect == "allow" and decision.stream else None

    def _canonical(self, client: Client, raw: RawRequest) -> Request:
        """The request in its one form, and when and from which run it came."""
        parts = self._parts
        run = parts.agents.run_of(client)
        return canonicalise(raw, moment=parts.clock(), run=run, slashes=True)

    async def _answer_to(self, error: Exception, journey: Journey, raw: RawRequest) -> Answer:
        """What the agent is told of whatever kept its call from leaving."""
        match error:
            case Refusal():
                if raw.gateway is not None:
                    as_origin(error)
                return await self._refuse(journey, error)
            case LedgerUnavailable() | StoreUnavailable():
                log.error("call %s: %s", journey.call, error, extra=_about(journey))
                return _refused(journey, ledger_unavailable())
            case _:
                log.error("call %s failed", journey.call, exc_info=error, extra=_about(journey))
                failure = Refusal(
                    "internal_error", "Keybroker failed on this call; nothing was sent."
                )
                return await self._refuse(journey, failure)

    def refusal_answer(self, refusal: Refusal, call: str | None = None) -> Answer:
        """The refusal of a call that never came to `handle`, as the agent sees it."""
        journey = Journey(call or self._parts.new_id("c"), "", self._parts.listeners)
        return _refused(journey, refusal)

    def drain(self) -> None:
        """Calls that wait for people are told "pending" within a second, and no more wait."""
        self.waiting_room.drain()

    async def _walk(
        self,
        journey: Journey,
        client: Client,
        raw: RawRequest,
        gone: asyncio.Event,
    ) -> Answer | Passage:
        agent = self._judge.agent(client)
        # 2. canonicalise
        try:
            request = self._canonical(client, raw)
        except Ambiguous as ambiguous:
            raise Refusal("request_ambiguous", ambiguous.sentence) from ambiguous
        if not isinstance(request, Request):
            raise TypeError("canonicalise returned no request")
        journey.request = request
        if len(request.body) > self._limits.body:
            raise Refusal(
                "body_too_large",
                f"The body has {len(request.body)} bytes; {self._limits.body} are allowed.",
            )
        if request.host == internal.HOST:
            approval = internal.execution_of(request)
            if approval is None:
                answer = self._parts.internal.answer(journey.call, agent, request)
                journey.end("answered", status=answer.status)
                return answer
            return await self.waiting_room.execute(journey, client, approval, request.via)
        for _ in range(MOST_REDECISIONS):
            # 3. decide
            with journey.stage("decide"):
                ruling = self._judge.rule(agent, request)
            journey.shadow = ruling.decision.shadow
            if ruling.decision.limits:
                ruling = await self._turnstile.admit(journey, ruling)
            if ruling.decision.effect == "allow":
                # 5. fetch, 6. commit, 7. inject; the engine forwards what the passage holds
                with suppress(PolicyChanged):
                    return await self._turnstile.send(journey, ruling)
            else:
                # 4. hold, and then the same
                passage = await self.waiting_room.hold(journey, agent, client, ruling, gone)
                if passage is not None:
                    return passage
            agent = self._judge.agent(client)
        raise Refusal(
            "policy_denied",
            "The policy kept changing while this call was decided; repeat it in a while.",
        )

    # Tunnels: decided by host alone, passed on undecrypted

    async def tunnel(
        self, client: Client, host: str, port: int, sni: str | None
    ) -> OpenTunnel | None:
        """A tunnel that may be passed on undecrypted; None: intercept, and decide call by call.

        Never raises. The address is checked and pinned, and the tunnel is in the ledger.
        """
        try:
            agent = self._judge.agent(client)
            published = self._parts.policies.current()
            if published is None or (sni is not None and sni.lower() != host):
                return None
            subject = agent.subject
            decision = published.rulebook.tunnel(subject, host, port)
            if not isinstance(decision, Decision) or decision.effect != "tunnel":
                return None
            route = await self._stages.within(self._parts.egress.check(host, port))
            if not isinstance(route, Route) or not route.addresses:
                return None
            call = self._parts.new_id("c")
            return await self._stages.within(
                self._parts.tunnels.open(
                    call, agent.name, host, port, route.addresses[0], decision, published.version
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the tunnel is not opened
            log.warning("no tunnel to %s:%d: %s", host, port, error)
            return None

    # Answers

    async def _refuse(self, journey: Journey, refusal: Refusal) -> Answer:
        """The answer for the agent, after the ledger has it; a call still pending is no denial."""
        if refusal.code != "approval_pending":
            try:
                about = None if journey.request is None else what(journey.request)
                recorded = self._parts.sending.denied(journey.call, journey.agent, about, refusal)
                await self._stages.within(outcome(recorded))
            except Exception as error:  # noqa: BLE001 - said instead of the refusal itself
                log.error(
                    "call %s: the refusal could not be recorded: %s",
                    journey.call,
                    error,
                    extra=_about(journey),
                )
                refusal = ledger_unavailable()
        return _refused(journey, refusal)


def _about(journey: Journey) -> dict[str, dict[str, Fact]]:
    return about("call.failed", call=journey.call, agent=journey.agent)


def _refused(journey: Journey, refusal: Refusal) -> Answer:
    """The refusal as the agent sees it, and the end of the call's journey."""
    answer = problem(refusal, journey.call or None)
    outcome = "pending" if refusal.code == "approval_pending" else "denied"
    journey.note_refusal(refusal)
    journey.end(outcome, refusal.code, answer.status)
    return answer


def _check_length(length: int | None, limit: int | None) -> None:
    """Raises Refusal if a body announces more than its rule allows."""
    if length is not None and limit is not None and length > limit:
        raise Refusal("body_too_large", f"The body has {length} bytes; the rule allows {limit}.")


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
        raise unknown_agent(
            "Set the proxy URL to http://AGENT:TOKEN@HOST:PORT with the agent's name and token."
        )
    return name, token
