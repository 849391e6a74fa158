"""Small in-memory stand-ins at the admin surface's ports, and one filled with believable cards."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import urlencode

from audit.filters import Filter
from audit.history import CallSummary, Found
from broker.admin.ports import Record
from broker.errors import Conflict, InvalidInput, NotEntitled, NotFound, Unconfirmed
from broker.model import Agent, ApiToken, Choice, OpenSession, Role, Session, User

EPOCH = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
PASSWORD = "correct horse battery"


def user(name: str, role: Role = "approver") -> User:
    return User(name, role, True, EPOCH, None)


@dataclass
class FakePeople:
    users: dict[str, User] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    resets: dict[str, str] = field(default_factory=dict)
    link: str | None = None
    checks: int = 0

    def put(self, name: str, role: Role = "approver", password: str = PASSWORD) -> User:
        self.users[name] = user(name, role)
        self.passwords[name] = password
        return self.users[name]

    def any(self) -> bool:
        return bool(self.users)

    def check_password(self, name: str, password: str) -> User | None:
        self.checks += 1
        return self.users[name] if self.passwords.get(name) == password else None

    def list(self) -> Sequence[User]:
        return sorted(self.users.values(), key=lambda user: user.name)

    def get(self, name: str) -> User:
        if name not in self.users:
            raise NotFound(f"there is no user {name}")
        return self.users[name]

    def set_password(self, name: str, password: str, by: str) -> None:
        self.passwords[name] = password

    def set_role(self, name: str, role: str, by: str) -> User:
        self.users[name] = replace(self.get(name), role=cast("Role", role))
        return self.users[name]

    def disable(self, name: str, by: str) -> None:
        self.users[name] = replace(self.get(name), disabled_at=EPOCH)

    def enable(self, name: str, by: str) -> None:
        self.users[name] = replace(self.get(name), disabled_at=None)

    def reset_of(self, token: str) -> str | None:
        return self.resets.get(token)

    def redeem_reset(self, token: str, password: str) -> User:
        if token not in self.resets:
            raise NotFound("this link was used or has expired")
        if len(password) < 10:
            raise InvalidInput("the password is too short: 10 characters at least")
        name = self.resets.pop(token)
        self.passwords[name] = password
        return self.users[name]

    def link_is_open(self, token: str) -> bool:
        return self.link is not None and token == self.link and not self.users

    def redeem_link(self, token: str, name: str, password: str) -> User:
        if not self.link_is_open(token):
            raise NotFound("this link was used or has expired")
        if len(password) < 10:
            raise InvalidInput("the password is too short: 10 characters at least")
        self.link = None
        return self.put(name, "admin", password)


class FakeDevices:
    def new(self, name: str) -> str:
        return f"device-of-{name}"

    def knows(self, name: str, token: str) -> bool:
        return token == f"device-of-{name}"


@dataclass
class FakeSessions:
    open: dict[str, Session] = field(default_factory=dict)
    saw: list[str] = field(default_factory=list)

    def start(self, user: User, *, longest: int = 60, idle: int = 60, client: str = "") -> Session:
        session = Session(
            secrets.token_urlsafe(24),
            secrets.token_urlsafe(24),
            user,
            datetime.now(UTC) + timedelta(seconds=longest),
            "s-" + secrets.token_hex(8),
            EPOCH,
        )
        self.open[session.token] = session
        return session

    def get(self, token: str) -> Session | None:
        return self.open.get(token)

    def seen(self, session: Session) -> None:
        self.saw.append(session.id)

    def list(self, name: str) -> Sequence[OpenSession]:
        return [
            OpenSession(s.id, name, "Firefox on Linux", EPOCH, EPOCH, s.expires_at)
            for s in self.open.values()
            if s.user.name == name
        ]

    def end(self, token: str) -> None:
        self.open.pop(token, None)

    def end_one(self, id: str, of: str, by: str) -> None:
        found = [t for t, s in self.open.items() if s.id == id and s.user.name == of]
        if not found:
            raise NotFound("there is no such session")
        del self.open[found[0]]

    def end_all(self, name: str, by: str, *, keep: str | None = None) -> int:
        before = len(self.open)
        self.open = {t: s for t, s in self.open.items() if s.user.name != name or s.id == keep}
        return before - len(self.open)


@dataclass
class FakeTokens:
    people: FakePeople
    open: dict[str, str] = field(default_factory=dict)

    def new(self, name: str, by: str, *, label: str = "", lasts: timedelta | None = None) -> str:
        token = "kbu_" + secrets.token_urlsafe(24)
        self.open[token] = name
        return token

    def user(self, token: str) -> User | None:
        return self.people.users.get(self.open.get(token, ""))

    def list(self, name: str) -> Sequence[ApiToken]:
        return [
            ApiToken(f"t-{n}", name, "", EPOCH, None, None)
            for n, owner in enumerate(self.open.values())
            if owner == name
        ]

    def revoke(self, id: str, of: str, by: str) -> None:
        for n, (token, owner) in enumerate(self.open.items()):
            if f"t-{n}" == id and owner == of:
                del self.open[token]
                return
        raise NotFound("there is no such token")


@dataclass
class FakeChanges:
    counter: int = 0

    def bump(self) -> None:
        self.counter += 1

    async def wait(self, since: int, timeout: float) -> int:
        until = time.monotonic() + timeout
        while self.counter == since and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return self.counter


@dataclass
class FakeDesk:
    changes: FakeChanges
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[tuple[str, str, str, str | None, str | None, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, card: dict[str, Any]) -> dict[str, Any]:
        self.cards[card["id"]] = card
        self.changes.bump()
        return card

    def list(self, state: str | None = None, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        return [
            {**card, "request": None, "now": now()}
            for card in self.cards.values()
            if state in (None, card["state"])
        ][:limit]

    def card(self, approval: str, viewer: User | None) -> Mapping[str, Any]:
        if approval not in self.cards:
            raise NotFound("there is no such approval")
        card = self.cards[approval]
        you = {"may_vote": True, "why": ""}
        if viewer is not None and viewer.role == "viewer":
            you = {"may_vote": False, "why": "A viewer can look, but not vote."}
        elif viewer is not None and any(vote["user"] == viewer.name for vote in card["votes"]):
            you = {"may_vote": False, "why": "You have voted on this call."}
        return {**card, "now": now(), "you": you}

    def vote(
        self,
        approval: str,
        user: User,
        decision: Choice,
        *,
        reason: str | None,
        confirm: str | None,
        via: str,
    ) -> Mapping[str, Any]:
        with self.lock:
            card = dict(self.card(approval, user))
            if user.role == "viewer":
                raise NotEntitled("a viewer cannot vote")
            if card["state"] != "pending" or not card["you"]["may_vote"]:
                raise Conflict("this call is decided, or you have voted on it")
            if decision == "approve" and card["confirm"] and confirm != card["x_value"]:
                raise Unconfirmed("retype the amount exactly as the card shows it")
            self.seen.append((approval, user.name, decision, reason, confirm, via))
            vote = {"user": user.name, "decision": decision, "reason": reason, "at": now()}
            stored = self.cards[approval]
            stored["votes"] = [*stored["votes"], vote]
            approvals = sum(v["decision"] == "approve" for v in stored["votes"])
            if decision == "deny" or approvals >= stored["x_needed"]:
                stored["state"] = "denied" if decision == "deny" else "approved"
                stored["needs"] = ""
                stored["resolution"] = {
                    "state": stored["state"],
                    "by": [v["user"] for v in stored["votes"]],
                    "reason": reason,
                    "at": now(),
                }
            else:
                stored["needs"] = "One more person must approve."
        self.changes.bump()
        return self.card(approval, user)


@dataclass(frozen=True)
class FakeRecord:
    seq: int
    time: str
    type: str
    call: str | None
    agent: str | None
    data: Mapping[str, Any]
    prev: str = "0" * 64
    hash: str = "5be1a9c07f" * 6 + "aaaa"


@dataclass
class FakeLedger:
    made: list[CallSummary] = field(default_factory=list)
    asked: list[Filter] = field(default_factory=list)
    behind: int = 0
    records: list[FakeRecord] = field(default_factory=list)

    def calls(self, wanted: Filter, *, limit: int, before: int | None) -> Found:
        self.asked.append(wanted)
        found = [
            call
            for call in sorted(self.made, key=lambda c: -c.seq)
            if wanted.agent in (None, call.agent)
            and wanted.outcome in (None, call.outcome)
            and wanted.host in (None, call.host)
            and (before is None or call.seq < before)
        ]
        following = found[limit - 1].seq if len(found) > limit else None
        return Found(tuple(found[:limit]), following, self.behind)

    def show(self, call: str) -> Sequence[Record]:
        return [record for record in self.records if record.call == call]


@dataclass
class FakeMonitor:
    guarded: bool = False
    found: dict[str, str | None] = field(default_factory=lambda: {"store": None, "vault": None})

    async def metrics(self) -> str:
        return "# TYPE keybroker_policy_version gauge\nkeybroker_policy_version 3\n"

    async def checks(self) -> Mapping[str, str | None]:
        return self.found


@dataclass
class FakeAgents:
    names: tuple[str, ...] = ("billing-bot", "crm-sync")

    def list(self) -> Sequence[Agent]:
        return [Agent(n, "alice", frozenset(), None, 503, EPOCH, None, None) for n in self.names]


@dataclass
class FakeServices:
    people: FakePeople
    devices: FakeDevices
    sessions: FakeSessions
    tokens: FakeTokens
    desk: FakeDesk
    agents: FakeAgents
    changes: FakeChanges


def services() -> FakeServices:
    changes = FakeChanges()
    people = FakePeople()
    return FakeServices(
        people,
        FakeDevices(),
        FakeSessions(),
        FakeTokens(people),
        FakeDesk(changes),
        FakeAgents(),
        changes,
    )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def later(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def refund(name: str = "ap_01", *, seconds: float = 840, **changes: Any) -> dict[str, Any]:
    """A high-risk card with a field to retype."""
    form = {"charge": "ch_3QK2mT", "amount": "249900", "reason": "requested_by_customer"}
    body = urlencode(form).encode()
    card: dict[str, Any] = {
        "id": name,
        "state": "pending",
        "agent": "billing-bot",
        "owner": "alice",
        "risk": "high",
        "tiers": ["high"],
        "summaries": ["Refund 249900 on charge ch_3QK2mT"],
        "impacts": ["Money leaves the account and cannot be called back."],
        "rules": [
            {
                "id": "stripe-refund",
                "sentence": "POST api.stripe.com/v1/refunds is held for two people.",
            }
        ],
        "policy_version": 7,
        "opened_at": now(),
        "decide_by": later(seconds),
        "execute_by": None,
        "now": now(),
        "what": {
            "method": "POST",
            "scheme": "https",
            "host": "api.stripe.com",
            "port": 443,
            "path": "/v1/refunds",
            "run": "t-01kjpy53vjx8q2m4z7d9r0n6ce",
        },
        "request": {
            "method": "POST",
            "url": "https://api.stripe.com/v1/refunds?expand=charge",
            "host": "api.stripe.com",
            "port": 443,
            "path": "/v1/refunds",
            "query": "expand=charge",
            "headers": [
                ["content-type", "application/x-www-form-urlencoded"],
                ["user-agent", "python-httpx/0.28.1"],
                ["idempotency-key", "7b1c0f52-3f0e-4c86-9f7e-1f6a2f6c7c11"],
                ["accept-encoding", "identity"],
            ],
            "body_base64": base64.b64encode(body).decode(),
            "body_size": len(body),
            "body_text": body.decode(),
            "fields": [[name, value] for name, value in form.items()],
            "files": [],
        },
        "credentials": [
            {
                "name": "stripe",
                "secret": "kv/stripe#api_key",
                "header": "authorization",
                "preview": "Bearer {stripe}",
                "hosts": ["api.stripe.com"],
            }
        ],
        "claim": "The customer wrote twice, the order never came. Support approved this already.",
        "requirement": {
            "tiers": [{"tier": "high", "quorum": [{"group": "any", "count": 2, "members": None}]}],
            "excluded": ["alice"],
            "denials": 1,
            "reason": "optional",
            "confirm": "retype",
            "decide_within": 900,
            "execute_within": 300,
        },
        "confirm": {"place": "form:amount", "hint": "Retype form:amount to approve."},
        "votes": [],
        "needs": "Two people must approve.",
        "notes": [],
        "resolution": None,
        "request_commitment": "ab" * 32,
        "x_value": "249900",
        "x_needed": 2,
    }
    return {**card, **changes}


def contact(name: str = "ap_02", *, seconds: float = 500, **changes: Any) -> dict[str, Any]:
    """A medium-risk card with a JSON body and nothing to retype."""
    body = json.dumps({"contact": {"email": "jo@example.org", "stage": "lost"}}).encode()
    card = refund(name, seconds=seconds)
    card |= {
        "agent": "crm-sync",
        "owner": "bob",
        "risk": "medium",
        "tiers": ["medium"],
        "summaries": ["Move jo@example.org to the stage lost"],
        "impacts": ["The sales team stops working on this contact."],
        "rules": [{"id": "crm-write", "sentence": "PATCH eu.crm.example:8443 needs a check."}],
        "what": {
            "method": "PATCH",
            "scheme": "https",
            "host": "eu.crm.example",
            "port": 8443,
            "path": "/v2/contacts/9917",
        },
        "request": {
            "method": "PATCH",
            "url": "https://eu.crm.example:8443/v2/contacts/9917",
            "host": "eu.crm.example",
            "port": 8443,
            "path": "/v2/contacts/9917",
            "query": None,
            "headers": [["content-type", "application/json"]],
            "body_base64": base64.b64encode(body).decode(),
            "body_size": len(body),
            "body_text": body.decode(),
            "fields": [["/contact/email", "jo@example.org"], ["/contact/stage", "lost"]],
            "files": [],
        },
        "credentials": [
            {
                "name": "crm",
                "secret": "kv/crm#key",
                "header": "x-api-key",
                "preview": "{crm}",
                "hosts": ["*.crm.example:8443"],
            }
        ],
        "claim": None,
        "requirement": {
            "tiers": [
                {"tier": "medium", "quorum": [{"group": "any", "count": 1, "members": None}]}
            ],
            "excluded": [],
            "denials": 1,
            "reason": "optional",
            "confirm": "none",
            "decide_within": 900,
            "execute_within": 300,
        },
        "confirm": None,
        "needs": "One person must approve.",
        "x_needed": 1,
    }
    return {**card, **changes}


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>"
    '"><svg onload=alert(3)> {{7*7}} https://evil.example/ '
    "pay \u202etxt.exe\u202c \u200b\u200b\u2066 \x00\x1b[31m "
    "e\u0301\u0302\u0303\u0304\u0305\u0306 \u3164"
)


def hostile(name: str = "ap_bad") -> dict[str, Any]:
    """Everything an agent can write, written with ill will."""
    card = refund(name)
    long = "A" * 30_000 + HOSTILE
    body = (HOSTILE + "\n" + "x" * 5000).encode()
    card |= {
        "summaries": [HOSTILE, long],
        "claim": HOSTILE + long,
        "notes": ["An identical call expired before."],
        "confirm": {"place": "form:amount", "hint": HOSTILE},
    }
    card["what"] = {**card["what"], "path": "/v1/" + "seg/" * 300}
    card["request"] = {
        **card["request"],
        "path": "/v1/" + "seg/" * 300,
        "query": "q=" + "%E2%80%AE" * 3 + "&r=<b>",
        "headers": [["x-" + "n" * 300, long], ["x-html", HOSTILE]],
        "body_base64": base64.b64encode(body).decode(),
        "body_size": len(body),
        "body_text": body.decode(),
        "fields": [[HOSTILE, HOSTILE], ["amount", long], ["lone", "\ud800"]],
        "files": [
            {
                "name": HOSTILE,
                "filename": HOSTILE,
                "type": "text/html",
                "size": 1234567,
                "sha256": "0f" * 32,
            }
        ],
    }
    return card


def history() -> FakeLedger:
    """Sixty calls with every kind of ending, and the records of one."""
    kinds: list[tuple[str, str | None, int | None, int | None]] = [
        ("completed", None, 200, 182),
        ("denied", "policy_denied", None, None),
        ("pending", "approval_pending", None, None),
        ("failed", "upstream_unreachable", None, 3021),
        ("unknown", None, None, None),
    ]
    made = []
    for n in range(60):
        outcome, code, status, took = kinds[n % len(kinds)]
        bot = n % 2 == 0
        made.append(
            CallSummary(
                f"c_{n:03}",
                "billing-bot" if bot else "crm-sync",
                f"2026-11-22T09:{n:02}:07.120000Z",
                "POST" if bot else "GET",
                "https",
                "api.stripe.com" if bot else "eu.crm.example",
                443 if bot else 8443,
                "/v1/refunds" if bot else f"/v2/contacts/{n}",
                outcome,
                code,
                status,
                ("stripe-refund",),
                "ap_01" if bot else None,
                "high" if bot else None,
                took,
                n * 3 + 1,
            )
        )
    what = {
        "method": "POST",
        "scheme": "https",
        "host": "api.stripe.com",
        "port": 443,
        "path": "/v1/refunds",
        "via": "gateway",
        "run": "t-01kjpy53vjx8q2m4z7d9r0n6ce",
    }
    common = {"call": "c_058", "agent": "billing-bot"}
    records = [
        FakeRecord(
            175,
            "2026-11-22T09:58:07.120000Z",
            "approval.opened",
            **common,
            data={
                "approval": "ap_01",
                "what": what,
                "request": "ab" * 32,
                "risk": "high",
                "rules": ["stripe-refund"],
                "policy": 7,
                "claim_given": True,
            },
        ),
        FakeRecord(
            176,
            "2026-11-22T09:58:40.000000Z",
            "approval.voted",
            **common,
            data={
                "approval": "ap_01",
                "user": "dave",
                "role": "approver",
                "decision": "approve",
                "reason": "checked the order",
            },
        ),
        FakeRecord(
            177,
            "2026-11-22T09:58:41.000000Z",
            "call.sent",
            **common,
            data={
                "what": what,
                "request": "ab" * 32,
                "body_size": 66,
                "secrets": [{"name": "stripe", "ref": "kv/stripe#api_key", "version": 3}],
                "votes": ["dave", "erin"],
            },
        ),
        FakeRecord(
            178,
            "2026-11-22T09:58:41.182000Z",
            "call.completed",
            **common,
            data={"status": 200, "received_size": 612, "masked": 0, "duration_ms": 182},
        ),
    ]
    return FakeLedger(made, [], 0, records)


def with_state(card: dict[str, Any], state: str, **changes: Any) -> dict[str, Any]:
    return {**card, "state": state, **changes}


def demote(services: FakeServices, name: str) -> None:
    people = services.people
    people.users[name] = replace(people.users[name], role="viewer")
