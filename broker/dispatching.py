"""5. fetch, 6. commit, 7. inject: the last stages before a call is forwarded.

The secret is read now, not earlier; "sent" is durable before a Passage exists; what goes wrong
after that tells the ledger that nothing left.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from time import monotonic

from audit.commitment import SALT_BYTES
from broker.errors import Refusal, SecretUnavailable
from broker.injectors import inject
from broker.judging import Judge, Ruling
from broker.model import Approval
from broker.parts import Parts, Stages
from broker.passage import Passage
from broker.ports import Route
from broker.secret import SecretVersion
from broker.sending import Dispatch
from broker.telemetry.journey import Journey
from rules.model import Credential
from rules.request import Request

log = logging.getLogger(__name__)


class Dispatcher:
    """Makes a ruling that lets a call out into a Passage."""

    def __init__(self, parts: Parts, stages: Stages, judge: Judge) -> None:
        self._parts = parts
        self._stages = stages
        self._judge = judge

    async def send(self, journey: Journey, ruling: Ruling, approval: Approval | None) -> Passage:
        """The call, committed to the ledger and with its credentials in place.

        Raises Refusal, LedgerUnavailable, Conflict (the approval is not this call's), or
        PolicyChanged; then nothing leaves, and the ledger says so.
        """
        parts, outgoing = self._parts, ruling.outgoing
        if outgoing.unread and (approval is not None or not ruling.decision.stream):
            raise ValueError("a body that nobody read may leave under a rule that streams only")
        journey.rules = (*ruling.decision.rules, *ruling.decision.allowed_by)
        journey.policy = ruling.version
        with journey.stage("route"):
            route = await self.route(outgoing)
        # 5. fetch
        filled = [(c, await self._fetch(journey, c)) for c in ruling.credentials]
        try:
            request, masked = inject(outgoing, filled)
        except SecretUnavailable as error:
            raise _no_secret(", ".join(ruling.decision.credentials), error) from error
        # 6. commit
        self._judge.confirm(ruling)
        dispatch = Dispatch(
            call=journey.call,
            agent=ruling.subject.name,
            request=outgoing,
            digest=ruling.digest,
            decision=ruling.decision,
            policy_version=ruling.version,
            approval=approval,
            secrets=filled,
            address=route.addresses[0],
            worker=parts.worker,
        )
        with journey.stage("commit"):
            salt = await self._commit(dispatch)
        # 7. and 8.: the engine forwards what the passage holds
        try:
            return Passage(
                journey.call,
                ruling.subject.name,
                request,
                masked=masked,
                salt=salt,
                sending=parts.sending,
                body_limit=ruling.decision.body_limit,
                journey=journey,
                approved=approval is not None,
            )
        except BaseException:
            self._take_back(dispatch)
            raise

    async def route(self, request: Request) -> Route:
        """The checked and pinned address; raises Refusal."""
        try:
            route = await self._stages.within(self._parts.egress.check(request.host, request.port))
        except TimeoutError as error:
            raise Refusal(
                "upstream_unreachable",
                f"The address of {request.host} was not found in time; nothing was sent.",
            ) from error
        place = (request.host, request.port)
        if not isinstance(route, Route) or (route.host, route.port) != place or not route.addresses:
            raise TypeError("the egress guard returned no route to this place")
        return route

    async def _fetch(self, journey: Journey, credential: Credential) -> SecretVersion:
        began, result = monotonic(), "failed"
        try:
            with journey.stage("fetch"):
                version = await self._stages.within(self._parts.secrets.read(credential.secret))
            result = "ok"
        except (SecretUnavailable, TimeoutError) as error:
            if isinstance(error, TimeoutError) or error.late:
                result = "timeout"
            raise _no_secret(credential.name, error) from error
        finally:
            self._parts.meters.vault_duration.observe(monotonic() - began, result)
        if not isinstance(version, SecretVersion) or version.ref != credential.secret:
            raise TypeError("the secret source returned another secret")
        return version

    async def _commit(self, dispatch: Dispatch) -> bytes:
        """Returns the salt of the call's commitments once "sent" is durable."""
        recorded = self._parts.sending.sent(dispatch)
        try:
            salt = await self._stages.ledgered(recorded)
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


def _no_secret(name: str, error: Exception) -> Refusal:
    """The operator reads where the secret lies and what is wrong with it, the agent does not."""
    log.error("credential %s: %s", name, str(error) or "Vault did not answer in time")
    return Refusal(
        "secret_unavailable",
        f"The credential {name} could not be had; nothing was sent."
        " Tell whoever runs Keybroker, or try again later.",
    )
