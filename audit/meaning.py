"""What the records say, beyond being intact: did every call that went out have leave to?

A story is told record by record, in order; each is checked against what came before. Total:
whatever a record holds, the answer is faults, never an exception. Memory grows with what is open
(approvals, calls under way), not with the ledger: what has ended moves to a scratch file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from audit.quorum import VOTING_ROLES, OddRequirement, Requirement, read_requirement
from audit.record import JSON, Record


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a ledger, and where."""

    seq: int
    """The record at fault; 0 is the ledger as a whole."""
    kind: str
    """Of the chain: form, hash, chain, gap, origin, head, guard. Of the meaning: data, approval,
    vote, quorum, commitment, used, result, revoked, secret."""
    sentence: str


@dataclass(slots=True)
class _Approval:
    """An approval that has not ended."""

    agent: str | None
    request: str
    what: JSON
    requirement: Requirement | None
    calls: list[str] = field(default_factory=list)
    voted: set[str] = field(default_factory=set)
    approvers: set[str] = field(default_factory=set)
    """Those whose approval counts."""
    approved: bool = False
    sent_by: str | None = None
    """The call that is being executed under it."""


class _Odd(Exception):
    """The record at hand has a fault that stops its further examination."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


class Ended:
    """Remembers what has ended, and how, in a temporary file that SQLite deletes by itself."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE ended (id TEXT PRIMARY KEY, how TEXT) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def add(self, id_: str, how: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO ended VALUES (?, ?)", (id_, how))

    def how(self, id_: str) -> str | None:
        """How it ended; None if it has not, or never was."""
        row = self._db.execute("SELECT how FROM ended WHERE id = ?", (id_,)).fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        self._db.close()


class Story:
    """Takes in records in order and says what is wrong with each. A context manager."""

    def __init__(self) -> None:
        self._approvals: dict[str, _Approval] = {}
        self._held: dict[str, str] = {}
        """Call -> the approval it waits for."""
        self._sent: dict[str, str | None] = {}
        """Call under way -> its approval."""
        self._streamed: set[str] = set()
        """Calls under way whose body is committed to by their result."""
        self._revoked: set[str] = set()
        self._ended_approvals = Ended()
        self._ended_calls = Ended()
        self._faults: list[Fault] = []
        self._tellers: Mapping[str, Callable[[Record], None]] = {
            "approval.opened": self._opened,
            "approval.joined": self._joined,
            "approval.voted": self._voted,
            "approval.resolved": self._resolved,
            "secret.read": self._secret_read,
            "call.sent": self._call_sent,
            "call.completed": self._result,
            "call.failed": self._result,
            "call.unknown": self._result,
            "agent.added": self._agent_added,
            "agent.revoked": self._agent_revoked,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended_approvals.close()
        self._ended_calls.close()

    @property
    def under_way(self) -> int:
        """How many calls were sent and have no result yet."""
        return len(self._sent)

    def tell(self, record: Record) -> list[Fault]:
        """What is wrong with this record, after all that came before it."""
        teller = self._tellers.get(record.type)
        if teller is None:
            return []
        self._faults = []
        try:
            teller(record)
        except _Odd as odd:
            self._fault(record, odd.kind, odd.sentence)
        return self._faults

    def _fault(self, record: Record, kind: str, sentence: str) -> None:
        self._faults.append(Fault(record.seq, kind, sentence))

    # Approvals

    def _opened(self, record: Record) -> None:
        id_ = _text(record, "approval")
        call = _call(record)
        if id_ in self._approvals or self._ended_approvals.how(id_) is not None:
            raise _Odd("approval", f"approval {id_} is opened a second time")
        approval = _Approval(
            record.agent, _text(record, "request"), record.data.get("what"), None, [call]
        )
        self._approvals[id_] = approval
        self._held[call] = id_
        try:
            approval.requirement = read_requirement(record.data.get("requirement"))
        except OddRequirement as odd:
            raise _Odd("data", f"approval {id_}: {odd}") from odd

    def _joined(self, record: Record) -> None:
        id_ = _text(record, "approval")
        call = _call(record)
        approval = self._approvals.get(id_)
        if approval is None:
            # One that has ended may be joined: a denial is remembered for a while.
            if self._ended_approvals.how(id_) is None:
                raise _Odd("approval", f"call {call} joins approval {id_}, which was never opened")
            return
        if approval.agent != record.agent:
            raise _Odd("approval", f"call {call} joins approval {id_} of another agent")
        approval.calls.append(call)
        self._held[call] = id_

    def _voted(self, record: Record) -> None:
        id_, user = _text(record, "approval"), _text(record, "user")
        decision = _text(record, "decision")
        approval = self._live(id_, "vote", f"{user} votes on approval {id_}")
        if approval.approved:
            raise _Odd("vote", f"{user} votes on approval {id_} after it was resolved")
        if user in approval.voted:
            raise _Odd("vote", f"{user} votes on approval {id_} a second time")
        approval.voted.add(user)
        requirement = approval.requirement
        if requirement is None:
            return  # said when it was opened
        if user in requirement.excluded:
            raise _Odd("vote", f"{user} is excluded from approval {id_} and votes on it")
        if record.data.get("role") not in VOTING_ROLES:
            raise _Odd("vote", f"{user} votes on approval {id_} without a role that may")
        if _text(record, "request") != approval.request:
            raise _Odd("commitment", f"{user} voted on another request than approval {id_} holds")
        if decision == "deny":
            return
        if decision != "approve":
            raise _Odd("data", f"{user}'s vote on approval {id_} is neither approve nor deny")
        if requirement.retype and record.data.get("confirmed") is not True:
            raise _Odd("vote", f"{user} approves {id_} without the retyping it asks for")
        if requirement.reason_required and not record.data.get("reason"):
            raise _Odd("vote", f"{user} approves {id_} without the reason it asks for")
        approval.approvers.add(user)

    def _resolved(self, record: Record) -> None:
        id_, state = _text(record, "approval"), _text(record, "state")
        approval = self._live(id_, "approval", f"approval {id_} is resolved as {state}")
        if state in ("denied", "expired", "superseded"):
            # An approval may still run out or be overtaken after it was granted, not be denied.
            if approval.approved and state == "denied":
                self._fault(record, "approval", f"approval {id_} is denied after it was approved")
            if approval.sent_by is not None:
                self._fault(record, "approval", f"approval {id_} is {state} while it is executed")
            self._end(id_, approval, state)
            return
        if state != "approved":
            raise _Odd("data", f"approval {id_} is resolved as {state}, which is no state")
        if approval.approved:
            raise _Odd("approval", f"approval {id_} is approved a second time")
        approval.approved = True
        by = _names(record, "by")
        if not by <= approval.approvers:
            strangers = ", ".join(sorted(by - approval.approvers))
            self._fault(
                record,
                "vote",
                f"approval {id_} names {strangers}, of whom it has no vote that counts",
            )
        lacking = approval.requirement and approval.requirement.lacks(approval.approvers)
        if lacking:
            self._fault(
                record,
                "quorum",
                f"approval {id_} is approved without the votes it needs: {'; '.join(lacking)}",
            )

    def _live(self, id_: str, kind: str, doing: str) -> _Approval:
        """The approval if it has not ended; else a fault that says why it cannot be used."""
        approval = self._approvals.get(id_)
        if approval is None:
            how = self._ended_approvals.how(id_)
            if how is None:
                raise _Odd(kind, f"{doing}, which was never opened")
            raise _Odd(kind, f"{doing}, which had ended: {how}")
        return approval

    def _end(self, id_: str, approval: _Approval, how: str) -> None:
        del self._approvals[id_]
        for call in approval.calls:
            if self._held.get(call) == id_:
                del self._held[call]
        self._ended_approvals.add(id_, how)

    # Calls

    def _secret_read(self, record: Record) -> None:
        id_ = record.data.get("approval")
        if id_ is None:
            return
        id_ = _text(record, "approval")
        approval = self._live(id_, "secret", f"a secret is read for approval {id_}")
        if not approval.approved:
            raise _Odd("secret", f"a secret is read for approval {id_} before it was approved")

    def _call_sent(self, record: Record) -> None:
        call = _call(record)
        if call in self._sent or self._ended_calls.how(call) is not None:
            raise _Odd("used", f"call {call} is sent a second time")
        self._sent[call] = None
        if record.data.get("streamed") is True:
            self._streamed.add(call)
            if record.data.get("approval") is not None:
                self._fault(
                    record, "approval", f"call {call} is sent unread, so nobody approved it"
                )
        elif not isinstance(record.data.get("body"), str):
            self._fault(record, "commitment", f"call {call} does not commit to its body")
        if record.agent in self._revoked:
            self._fault(
                record, "revoked", f"call {call} is sent for {record.agent}, which was revoked"
            )
        if record.data.get("approval") is not None:
            self._sent_under(record, call, _text(record, "approval"))
        elif call in self._held:
            self._fault(
                record,
                "approval",
                f"call {call} is held under approval {self._held[call]} and sent without it",
            )
        elif _names(record, "votes"):
            self._fault(record, "vote", f"call {call} names votes but no approval")

    def _sent_under(self, record: Record, call: str, id_: str) -> None:
        approval = self._approvals.get(id_)
        if approval is None:
            how = self._ended_approvals.how(id_)
            if how is not None and how.startswith("used"):
                raise _Odd("used", f"call {call} is sent under approval {id_} again: {how}")
            approval = self._live(id_, "approval", f"call {call} is sent under approval {id_}")
        if approval.sent_by is not None:
            raise _Odd(
                "used",
                f"call {call} is sent under approval {id_}, which call {approval.sent_by} is using",
            )
        approval.sent_by = call
        self._sent[call] = id_
        if not approval.approved:
            self._fault(
                record, "approval", f"call {call} is sent while approval {id_} is not approved"
            )
        if approval.agent != record.agent:
            self._fault(
                record, "approval", f"call {call} is sent under approval {id_} of another agent"
            )
        if (
            record.data.get("request") != approval.request
            or record.data.get("what") != approval.what
        ):
            self._fault(
                record,
                "commitment",
                f"call {call} is not the request that approval {id_} was opened for",
            )
        strangers = _names(record, "votes") - approval.approvers
        if strangers:
            self._fault(
                record,
                "vote",
                f"call {call} names {', '.join(sorted(strangers))},"
                f" of whom approval {id_} has no vote that counts",
            )

    def _result(self, record: Record) -> None:
        call = _call(record)
        if call not in self._sent:
            how = self._ended_calls.how(call)
            why = "was never sent" if how is None else f"has its result ({how})"
            raise _Odd("result", f"{record.type} of call {call}, which {why}")
        id_ = self._sent.pop(call)
        self._ended_calls.add(call, record.type)
        self._check_streamed(record, call)
        approval = None if id_ is None else self._approvals.get(id_)
        if id_ is None or approval is None:
            return
        if record.type == "call.failed" and record.data.get("sent") is False:
            approval.sent_by = None  # certainly no byte left: the approval is not used up
        else:
            self._end(id_, approval, f"used by call {call}")

    def _check_streamed(self, record: Record, call: str) -> None:
        """The body that was not known when the call was sent is committed to by its result."""
        streamed = call in self._streamed
        self._streamed.discard(call)
        if not streamed or record.type == "call.unknown":
            return
        size = record.data.get("body_size")
        if record.type == "call.failed" and record.data.get("sent") is False:
            return  # no byte left
        if not isinstance(record.data.get("body"), str) or not isinstance(size, int):
            self._fault(
                record, "commitment", f"{record.type} of call {call} does not commit to its body"
            )

    # Agents

    def _agent_added(self, record: Record) -> None:
        self._revoked.discard(_text(record, "agent"))

    def _agent_revoked(self, record: Record) -> None:
        self._revoked.add(_text(record, "agent"))


def _call(record: Record) -> str:
    if record.call is None:
        raise _Odd("data", f"{record.type} does not say which call it belongs to")
    return record.call


def _text(record: Record, key: str) -> str:
    value = record.data.get(key)
    if not isinstance(value, str):
        raise _Odd("data", f"{record.type} lacks {key}")
    return value


def _names(record: Record, key: str) -> set[str]:
    value = record.data.get(key) or ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise _Odd("data", f"{record.type} has no list of names in {key}")
    return {str(name) for name in value}
