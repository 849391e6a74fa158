"""Calls that go out: sent, completed, failed, unknown. Each is one durable transaction.

`sent` is durable before the first byte leaves; a sent call whose worker died becomes `unknown`
and is never sent again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from audit.commitment import SALT_BYTES, commit
from audit.journal import Transaction
from audit.record import JSON, Draft
from broker.approvals import Event
from broker.errors import Conflict, Refusal
from broker.holds import tried, what
from broker.model import Approval
from broker.ports import RandomBytes
from broker.secret import SecretVersion
from broker.stores import approvals as rows
from broker.stores import limits
from broker.stores.sqlite import Store
from rules.model import Credential, Decision
from rules.request import Request


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A call that may go out now, and everything the ledger says of it."""

    call: str
    agent: str
    request: Request
    """With the credentials' slots empty."""
    digest: bytes
    decision: Decision
    policy_version: int
    approval: Approval | None
    secrets: Sequence[tuple[Credential, SecretVersion]]
    address: str
    """The pinned IP address."""
    worker: str


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A request body that was passed on as it came. The commitment is hex."""

    commitment: str
    size: int
    whole: bool
    """False: the agent, the upstream or Keybroker broke it off."""

    def to_json(self) -> dict[str, JSON]:
        return {"body": self.commitment, "body_size": self.size, "body_whole": self.whole}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the response came out. Commitments are hex, sizes bytes, durations milliseconds."""

    status: int
    received: str
    delivered: str
    received_size: int
    delivered_size: int
    masked: int
    duration_ms: int
    first_byte_ms: int
    upload: Uploaded | None = None
    """Of a streamed call."""
    socket: Mapping[str, JSON] | None = None
    """Of a WebSocket: what went to and fro."""


class Sending:
    """The transactions on calls that go out."""

    def __init__(self, store: Store, *, random: RandomBytes) -> None:
        self._store = store
        self._random = random

    def sent(self, dispatch: Dispatch) -> Future[bytes]:
        """Records secrets read and "sent"; the future gives the salt for the response's
        commitments.

        It carries Conflict if the approval is no longer claimed by this call, and
        Refusal("agent_unauthenticated") if the agent was revoked meanwhile.
        """
        salt = self._random(SALT_BYTES)

        def work(tx: Transaction) -> bytes:
            approval = dispatch.approval
            _require_leave(tx, dispatch)
            request, body, size = self._commitments(dispatch, salt)
            secrets: list[JSON] = [
                {"name": credential.name, "ref": str(version.ref), "version": version.version}
                for credential, version in dispatch.secrets
            ]
            tx.db.execute(
                "INSERT INTO inflight VALUES (?, ?, ?, ?, ?)",
                (
                    dispatch.call,
                    dispatch.agent,
                    None if approval is None else approval.id,
                    dispatch.worker,
                    tx.time,
                ),
            )
            tx.keep_salt(dispatch.call, salt)
            decision = dispatch.decision
            if decision.limits:
                counted = dispatch.call if approval is None else approval.call
                now = self._store.clock()
                limits.sent(tx.db, counted, dispatch.agent, decision.limits, now)
            approval_id = None if approval is None else approval.id
            if secrets:
                tx.append(
                    Draft(
                        "secret.read",
                        {"secrets": secrets, "approval": approval_id},
                        call=dispatch.call,
                        agent=dispatch.agent,
                    )
                )
            tx.append(
                Draft(
                    "call.sent",
                    {
                        "what": what(dispatch.request),
                        "request": request,
                        "body": body,
                        "body_size": size,
                        "streamed": dispatch.request.unread,
                        "rules": [*decision.rules, *decision.allowed_by],
                        "policy": dispatch.policy_version,
                        "approval": approval_id,
                        "votes": []
                        if approval is None
                        else [v.user for v in approval.votes if v.decision == "approve"],
                        "secrets": secrets,
                        "address": dispatch.address,
                        "worker": dispatch.worker,
                        **tried(decision.shadow),
                    },
                    call=dispatch.call,
                    agent=dispatch.agent,
                )
            )
            return salt

        return self._store.submit(work)

    def completed(
        self, call: str, agent: str, outcome: Outcome, *, patient: bool = False
    ) -> Future[None]:
        """The response is over; an approval that the call used is used up.

        `patient`: it may be written with what comes next; until then the call is in flight.
        """
        data: dict[str, JSON] = {
            "status": outcome.status,
            "received": outcome.received,
            "delivered": outcome.delivered,
            "received_size": outcome.received_size,
            "delivered_size": outcome.delivered_size,
            "masked": outcome.masked,
            "duration_ms": outcome.duration_ms,
            "first_byte_ms": outcome.first_byte_ms,
            **(outcome.upload.to_json() if outcome.upload else {}),
            **({"frames": dict(outcome.socket)} if outcome.socket else {}),
        }
        draft = Draft("call.completed", data, call, agent)
        return self._store.submit(
            lambda tx: self._finish_in(tx, draft, "complete", None), patient=patient
        )

    def failed(
        self,
        call: str,
        agent: str,
        *,
        code: str,
        sentence: str,
        sent: bool,
        duration_ms: int,
        upload: Uploaded | None = None,
        socket: Mapping[str, JSON] | None = None,
    ) -> Future[None]:
        """No whole response. `sent` False: certainly no byte left, and the approval is not used
        up."""
        data: dict[str, JSON] = {
            "code": code,
            "sent": sent,
            "sentence": sentence,
            "duration_ms": duration_ms,
            **(upload.to_json() if upload else {}),
            **({"frames": dict(socket)} if socket else {}),
        }
        event: Event = "lose" if sent else "release"
        return self._finish(Draft("call.failed", data, call, agent), event, sentence)

    def denied(
        self,
        call: str,
        agent: str,
        about: Mapping[str, JSON] | None,
        refusal: Refusal,
    ) -> Future[None]:
        """Records that the call was refused and why; `about` is None if it had no canonical
        form."""
        approval = refusal.extra.get("approval")
        rule = refusal.extra.get("rule")
        data: dict[str, JSON] = {
            "what": about,
            "code": refusal.code,
            "sentence": refusal.detail,
            "rules": [rule] if rule else [],
            "policy": refusal.extra.get("policy"),
            "approval": approval["id"] if approval else None,
            **tried(refusal.shadow),
        }
        if "limit" in refusal.extra:
            data["limit"] = refusal.extra["limit"]
        draft = Draft("call.denied", data, call, agent)
        return self._store.submit(lambda tx: tx.append(draft))

    def recover(self, worker: str | None) -> int:
        """After a crash of `worker` (None: of all): sent calls without a result become unknown, and
        approvals that were claimed but not sent are given back, like what calls not sent had taken
        of limits. Returns how many calls.

        To be called only when that worker is certainly gone. Raises StoreUnavailable.
        """

        def work(tx: Transaction) -> int:
            lost = tx.db.execute(
                "SELECT call, agent FROM inflight WHERE ? IS NULL OR worker = ?", (worker, worker)
            ).fetchall()
            sentence = "the proxy stopped before the result arrived; the call is not sent again"
            for call, agent in lost:
                draft = Draft("call.unknown", {"sentence": sentence}, call, agent)
                self._finish_in(tx, draft, "lose", sentence)
            for approval in rows.listing(tx.db, "executing", -1):
                if worker is None or approval.executor == worker:
                    rows.advance(tx, approval, "release")
            limits.recover(tx.db, worker)
            return len(lost)

        return self._store.write(work)

    def _finish(self, draft: Draft, event: Event, reason: str | None) -> Future[None]:
        return self._store.submit(lambda tx: self._finish_in(tx, draft, event, reason))

    @staticmethod
    def _finish_in(tx: Transaction, draft: Draft, event: Event, reason: str | None) -> None:
        row = tx.db.execute(
            "DELETE FROM inflight WHERE call = ? RETURNING approval", (draft.call,)
        ).fetchone()
        if row is None:
            return  # it has its result already: a call gets one
        if row[0] is None:
            if event == "release" and draft.call is not None:
                limits.unsent(tx.db, draft.call, again=False)
        else:
            approval = rows.get(tx.db, row[0])
            if approval.executor_call == draft.call:
                rows.advance(tx, approval, event, reason=reason)
                if event == "release":
                    limits.unsent(tx.db, approval.call, again=True)
        tx.append(draft)

    @staticmethod
    def _commitments(dispatch: Dispatch, salt: bytes) -> tuple[str, str | None, int | None]:
        """To the request's digest and to its body, and the body's size; a held call keeps the
        commitments that were voted on, a streamed one gets that to its body with its result."""
        size = len(dispatch.request.body)
        if dispatch.approval is not None:
            card = dispatch.approval.card
            return card["request_commitment"], card["body_commitment"], size
        request = commit(salt, "request", dispatch.digest)
        if dispatch.request.unread:
            return request, None, dispatch.request.length
        return request, commit(salt, "body", dispatch.request.body), size


def _require_leave(tx: Transaction, dispatch: Dispatch) -> None:
    """The last look before "sent", in the same transaction: whatever was granted still holds."""
    row = tx.db.execute(
        "SELECT revoked_at FROM agents WHERE name = ?", (dispatch.agent,)
    ).fetchone()
    if row is None or row[0] is not None:
        raise Refusal("agent_unauthenticated", "The agent was revoked; nothing was sent.")
    if dispatch.approval is None:
        return
    found = rows.get(tx.db, dispatch.approval.id)
    if found.state != "executing" or found.executor_call != dispatch.call:
        raise Conflict(f"the approval {found.id} is not claimed by this call any more")
