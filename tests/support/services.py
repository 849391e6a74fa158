"""The broker's services over a file of their own, with a movable clock and fakes at the ports.

Store, journal and sealing are the real ones. Randomness is real too; time is not.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest
from argon2 import PasswordHasher

from audit.errors import LedgerUnavailable
from audit.reading import open_ledger
from audit.verify import verify
from broker.agents import Agents
from broker.answers import Answer
from broker.changes import Changes
from broker.desk import Desk
from broker.devices import Devices
from broker.errors import SecretUnavailable
from broker.holds import Holds, Limits
from broker.internal import Internal
from broker.keys import Keys
from broker.limits import Usage
from broker.model import Client, Role, User
from broker.parts import Limits as PipelineLimits
from broker.parts import Parts
from broker.passage import Passage
from broker.passwords import Passwords
from broker.people import People
from broker.pipeline import Pipeline
from broker.placeholders import Placeholders
from broker.policies import Policies
from broker.ports import Route
from broker.sealing import Sealer
from broker.secret import Secret, SecretVersion
from broker.sending import Sending
from broker.services import Services
from broker.sessions import Sessions
from broker.stores.sqlite import Store
from broker.telemetry.journey import Journey, counted
from broker.telemetry.meters import Meters
from broker.tunnels import Tunnels
from broker.user_tokens import UserTokens
from broker.voting import Votes
from rules.model import SecretRef
from rules.request import RawRequest

START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
ROOT = b"r" * 32
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
CANARY = "kbcanary-7f3a9c5e1d2b4f60"
"""The one secret value that the fake source has. Nothing but the forwarded request may hold it."""
ADDRESS = "203.0.113.7"
CA_PEM = b"-----BEGIN CERTIFICATE-----\nfor tests\n-----END CERTIFICATE-----\n"

POLICY = """\
version: 1
credentials:
  stripe: {secret: "kv/stripe#api_key", hosts: [api.stripe.com], inject: bearer}
approvers: {finance: [alice, bob], security: [dave]}
tiers:
  medium: {quorum: [{group: any, count: 1}], exclude: [owner]}
  high: {quorum: [{group: any, count: 2}], exclude: [owner], confirm: retype, reason: required}
  both: {quorum: [{group: finance, count: 1}, {group: security, count: 1}], denials: 2}
rules:
  - id: read
    agents: [bot]
    match: {method: GET, host: api.stripe.com, path: /v1/**}
    effect: allow
    use: [stripe]
  - id: refund
    agents: [bot, second]
    match: {method: POST, host: api.stripe.com, path: /v1/refunds}
    effect: hold
    risk: medium
    summary: "Refund {form:amount}"
    impact: Money leaves the account.
    use: [stripe]
  - id: payout
    agents: [bot]
    match: {method: POST, host: api.stripe.com, path: /v1/payouts}
    effect: hold
    risk: high
    confirm: form:amount
    use: [stripe]
  - id: shared
    agents: [bot]
    match: {method: POST, host: api.stripe.com, path: /v1/both}
    effect: hold
    risk: both
  - id: no-delete
    agents: [bot]
    match: {method: DELETE, host: api.stripe.com}
    effect: deny
    summary: nothing is deleted here
  - id: open
    agents: [bot]
    match: {host: open.example}
    effect: allow
  - id: pass
    agents: [bot]
    match: {host: pass.example}
    effect: tunnel
"""


class Clock:
    """Goes a microsecond a look, so that no two moments are equal, and further when told to."""

    def __init__(self) -> None:
        self._now = START
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            self._now += timedelta(microseconds=1)
            return self._now

    def forward(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=seconds)


class Ids:
    """Ids that count: `a-0001`."""

    def __init__(self, start: int = 1) -> None:
        self._count = itertools.count(start)

    def __call__(self, prefix: str) -> str:
        return f"{prefix}-{next(self._count):04}"


class FakeSecrets:
    """A secret source with one value for every reference; `error` makes it fail."""

    def __init__(self) -> None:
        self.value = CANARY
        self.version = 3
        self.error: Exception | None = None
        self.delay = 0.0
        self.reads: list[SecretRef] = []
        self.before: Callable[[], None] = lambda: None
        """Called in the middle of a read."""

    async def read(self, ref: SecretRef) -> SecretVersion:
        self.reads.append(ref)
        await asyncio.sleep(self.delay)
        self.before()
        if self.error is not None:
            raise self.error
        return SecretVersion(ref, self.version, Secret(self.value))

    def fail(self) -> None:
        self.error = SecretUnavailable("the secret kv/stripe#api_key could not be read: sealed")


class FakeEgress:
    """Every host has one address; `error` makes it refuse."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[tuple[str, int]] = []

    async def check(self, host: str, port: int) -> Route:
        self.asked.append((host, port))
        if self.error is not None:
            raise self.error
        return Route(host, port, (ADDRESS,))


@dataclass
class FakeNotifier:
    told: list[tuple[str, str, str, str]] = field(default_factory=list)
    error: Exception | None = None

    def opened(self, approval_id: str, summary: str, agent: str, risk: str) -> None:
        self.told.append((approval_id, summary, agent, risk))
        if self.error is not None:
            raise self.error


def open_services(
    path: Path, clock: Clock, *, limits: Limits | None = None, ids: Ids | None = None
) -> Services:
    """The services over the store at `path`: each call is as good as another process."""
    keys = Keys.derive(ROOT)
    new_id = ids or Ids()
    store = Store(path, clock=clock, head_key=keys.ledger_head, create=True)
    agents = Agents(store, new_id=new_id, random=token_bytes)
    policies = Policies(store)
    holds = Holds(
        store,
        Sealer(keys.sealing, token_bytes),
        new_id=new_id,
        random=token_bytes,
        limits=limits or Limits(),
    )
    return Services(
        keys=keys,
        store=store,
        agents=agents,
        people=People(store, passwords=Passwords(token_bytes, QUICK), random=token_bytes),
        devices=Devices(store, pages_key=keys.pages, random=token_bytes),
        sessions=Sessions(store, pages_key=keys.pages, new_id=new_id, random=token_bytes),
        tokens=UserTokens(store, new_id=new_id, random=token_bytes),
        policies=policies,
        placeholders=Placeholders(keys.placeholders),
        holds=holds,
        sending=Sending(store, random=token_bytes),
        usage=Usage(store),
        tunnels=Tunnels(store),
        desk=Desk(clock, holds, Votes(store), agents, policies),
        changes=Changes(store),
    )


PEOPLE: dict[str, Role] = {
    "alice": "approver",
    "bob": "approver",
    "carol": "admin",
    "dave": "approver",
    "victor": "viewer",
}


@dataclass(frozen=True)
class Template:
    """A closed workspace with the agent `bot` of alice's, PEOPLE and POLICY, to make copies of."""

    path: Path
    token: str

    @classmethod
    def make(cls, path: Path) -> Template:
        services = open_services(path, Clock())
        _, token = services.agents.add("bot", owner="alice", by="cli:test")
        for name, role in PEOPLE.items():
            services.people.add(name, role, None, "cli:test")
        services.policies.publish(POLICY, "cli:test")
        services.close()
        return cls(path, token)


class World:
    """One workspace, and what stands at its ports."""

    def __init__(self, path: Path, template: Template, *, limits: Limits | None = None) -> None:
        shutil.copyfile(template.path, path)
        self.path = path
        self.token = template.token
        self.clock = Clock()
        self.clock.forward(1)
        self.ids = Ids(1000)
        self.limits = limits
        self._opened: list[Services] = []
        self.services = self.open()
        self.secrets = FakeSecrets()
        self.egress = FakeEgress()
        self.notifier = FakeNotifier()
        self.meters = Meters()
        self.journeys: list[Journey] = []
        self.people: dict[str, User] = {user.name: user for user in self.services.people.list()}
        self.services.policies.refresh()

    def open(self) -> Services:
        """The services once more, over the same file: what another process has."""
        services = open_services(self.path, self.clock, limits=self.limits, ids=self.ids)
        self._opened.append(services)
        return services

    def settle(self) -> None:
        """Returns once what was handed to the store without waiting is written."""
        self.services.store.write(lambda _: None)

    def publish(self, text: str) -> int:
        version, _ = self.services.policies.publish(text, "cli:test")
        for services in self._opened:
            services.policies.refresh()
        return version

    def client(self, name: str = "bot", token: str | None = None) -> Client:
        client = self.services.agents.authenticate(name, self.token if token is None else token)
        assert client is not None
        return client

    def parts(self, services: Services | None = None, *, worker: str = "w1") -> Parts:
        used = services or self.services
        used.policies.refresh()
        return Parts(
            agents=used.agents,
            policies=used.policies,
            holds=used.holds,
            sending=used.sending,
            usage=used.usage,
            tunnels=used.tunnels,
            changes=used.changes,
            secrets=self.secrets,
            egress=self.egress,
            internal=Internal(used.holds, used.policies, used.placeholders, CA_PEM),
            notifier=self.notifier,
            digest_key=used.keys.digest,
            placeholders=used.placeholders,
            new_id=self.ids,
            worker=worker,
            meters=self.meters,
            clock=self.clock,
            listeners=(counted(self.meters), self.journeys.append),
        )

    def pipeline(
        self,
        services: Services | None = None,
        *,
        worker: str = "w1",
        hold_wait: float = 5.0,
        stage: float = 5.0,
        body: int = 1000,
        waiting: int = 1000,
    ) -> Pipeline:
        limits = PipelineLimits(hold_wait=hold_wait, stage=stage, body=body, waiting=waiting)
        return Pipeline(self.parts(services, worker=worker), limits)

    def vote(
        self,
        approval: str,
        user: str = "bob",
        decision: Any = "approve",
        *,
        reason: str | None = None,
        confirm: str | None = None,
        services: Services | None = None,
    ) -> dict[str, Any]:
        return (services or self.services).desk.vote(
            approval, self.people[user], decision, reason=reason, confirm=confirm, via="api"
        )

    def pending(self) -> list[str]:
        return [card["id"] for card in self.services.desk.list("pending")]

    def records(self, *types: str) -> list[dict[str, Any]]:
        """The ledger's records of these types (all, without any), oldest first."""
        # What waits in the journal for company is written with this, unless the store is locked.
        with suppress(LedgerUnavailable, TimeoutError):
            self.services.store.submit(lambda _: None).result(0.2)
        with closing(open_ledger(self.path)) as db:
            rows = db.execute("SELECT seq, type, call, agent, data FROM ledger ORDER BY seq")
            return [
                {"seq": seq, "type": kind, "call": call, "agent": agent, **json.loads(data)}
                for seq, kind, call, agent, data in rows
                if not types or kind in types
            ]

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What the store has, past all services."""
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(query, parameters).fetchall()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else keeps the database locked."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                db.execute("ROLLBACK")

    def files(self) -> bytes:
        """Every byte that the store has on disk."""
        return b"".join(p.read_bytes() for p in sorted(self.path.parent.iterdir()) if p.is_file())

    def close(self) -> None:
        for services in self._opened:
            services.close()

    def check(self) -> None:
        """The ledger verifies, and nothing on disk has the canary in any plain spelling."""
        verdict = verify(self.path, head_key=self.services.keys.ledger_head)
        assert verdict.ok, verdict.faults
        on_disk = self.files()
        for spelling in (
            CANARY.encode(),
            base64.b64encode(CANARY.encode()),
            CANARY.encode().hex().encode(),
        ):
            assert spelling not in on_disk


def raw(
    method: str = "GET",
    path: str = "/v1/charges",
    *,
    host: str = "api.stripe.com",
    body: bytes = b"",
    headers: tuple[tuple[str, str], ...] = (),
) -> RawRequest:
    """A request as an engine reads it from a tunnel."""
    fields = [("Host", host), *headers]
    if body:
        fields += [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", str(len(body))),
        ]
    return RawRequest(
        scheme="https",
        connect=(host, 443),
        sni=host,
        authority=None,
        method=method,
        target=path,
        headers=tuple((n.encode(), v.encode()) for n, v in fields),
        body=body,
    )


def internal(method: str, path: str) -> RawRequest:
    """A plain request to keybroker.internal."""
    host = "keybroker.internal"
    return RawRequest(
        scheme="http",
        connect=None,
        sni=None,
        authority=host,
        method=method,
        target=path,
        headers=((b"Host", host.encode()),),
        body=b"",
    )


def refund(amount: int = 5, **options: Any) -> RawRequest:
    """A held call of tier medium."""
    return raw("POST", "/v1/refunds", body=f"amount={amount}".encode(), **options)


def payout(amount: int = 900, **options: Any) -> RawRequest:
    """A held call of tier high."""
    return raw("POST", "/v1/payouts", body=f"amount={amount}".encode(), **options)


def problem_of(outcome: Answer | Passage) -> dict[str, Any]:
    """The problem document of an answer."""
    assert isinstance(outcome, Answer), outcome
    document: dict[str, Any] = json.loads(outcome.body)
    headers = dict(outcome.headers)
    assert headers["keybroker-code"] == document["code"]
    assert document["status"] == outcome.status
    return document


async def until(condition: Callable[[], Any], within: float = 5.0) -> Any:
    """What `condition` gives once it is true; looks often, fails after `within` seconds."""
    async with asyncio.timeout(within):
        while not (found := condition()):
            await asyncio.sleep(0.005)
        return found


async def complete(passage: Passage, body: bytes = b"ok", status: int = 200) -> bytes:
    """The response comes, whole; returns what the agent gets of its body."""
    passage.head(status, "OK", [("content-type", "text/plain")])
    delivered = passage.feed(body) + passage.finish()
    await passage.completed()
    return delivered


def run[T](work: Awaitable[T]) -> T:
    """For tests that are not coroutines themselves."""

    async def inner() -> T:
        return await work

    return asyncio.run(inner())


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Made once: every commit is a wait for the disk."""
    return Template.make(tmp_path_factory.mktemp("template") / "keybroker.db")


@pytest.fixture
def world(tmp_path: Path, template: Template) -> Iterator[World]:
    """A world for one test; at its end the ledger verifies and nothing on disk has the secret."""
    state = tmp_path / "state"
    state.mkdir()
    world = World(state / "keybroker.db", template)
    yield world
    world.close()
    world.check()
