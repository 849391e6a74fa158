"""Agents and their tokens. A revocation holds from the next call on, in every process."""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from audit.journal import Transaction
from audit.record import Draft
from broker.errors import Conflict, InvalidInput, NotFound
from broker.model import Agent, Client
from broker.ports import NewId, RandomBytes
from broker.stores.sqlite import Store, bump, optional_moment, to_moment, to_text
from broker.tokens import check_name, new_token, token_hash

PENDING_STATUSES = (503, 429, 202)
LONGEST_HOLD = 3600.0
"""Seconds; above this a client has long given up."""

_NOBODY = token_hash("")


@dataclass(frozen=True, slots=True)
class _Token:
    id: str
    agent: str
    hash: bytes
    purpose: str
    expires_at: datetime | None
    note: str | None


@dataclass(frozen=True, slots=True)
class _Directory:
    """All agents and their valid tokens, as of one state of the store."""

    version: int
    agents: dict[str, Agent]
    tokens: dict[str, _Token]
    by_agent: dict[str, list[_Token]]


def _taken(tx: Transaction, name: str) -> str:
    row = tx.db.execute("SELECT revoked_at FROM agents WHERE name = ?", (name,)).fetchone()
    if row is not None and row[0] is not None:
        return f"the agent {name} was revoked, and its name is not given again: choose another"
    return (
        f"there is an agent {name} already: choose another name, or give it a new token with"
        f" `keybroker agent rotate {name}`"
    )


class Agents:
    """The register of agents; quick to ask on every call, since it is kept in memory while nothing
    changes."""

    def __init__(self, store: Store, *, new_id: NewId, random: RandomBytes) -> None:
        self._store = store
        self._new_id = new_id
        self._random = random
        self._known: _Directory | None = None

    def add(
        self,
        name: str,
        *,
        owner: str | None = None,
        tags: Iterable[str] = (),
        hold_wait: float | None = None,
        pending_status: int = 503,
        expires_at: datetime | None = None,
        by: str,
    ) -> tuple[Agent, str]:
        """A new agent and its token, which is not kept and cannot be shown again.

        Raises InvalidInput for an impossible value, Conflict if the name is taken (also by an agent
        that was revoked: the ledger knows agents by name).
        """
        check_name(name, "an agent")
        if owner is not None:
            check_name(owner, "an owner")
        labels = sorted({check_name(tag, "a tag") for tag in tags})
        if pending_status not in PENDING_STATUSES:
            raise InvalidInput(f"pending status {pending_status}: it can be 503, 429 or 202")
        if hold_wait is not None and not 0 <= hold_wait <= LONGEST_HOLD:
            raise InvalidInput(f"hold wait {hold_wait:g}s: it can be 0s to {LONGEST_HOLD:g}s")
        now = self._store.clock()
        if expires_at is not None and expires_at <= now:
            raise InvalidInput("the expiry lies in the past")
        token = new_token("agent", self._random)
        agent = Agent(
            name, owner, frozenset(labels), hold_wait, pending_status, now, expires_at, None
        )

        def work(tx: Transaction) -> None:
            try:
                tx.db.execute(
                    "INSERT INTO agents VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                    (
                        name,
                        owner,
                        json.dumps(labels),
                        hold_wait,
                        pending_status,
                        to_text(now),
                        None if expires_at is None else to_text(expires_at),
                    ),
                )
            except sqlite3.IntegrityError:
                raise Conflict(_taken(tx, name)) from None
            self._insert_token(tx, name, token, "standing", None, None)
            bump(tx, "agents")
            data = {"agent": name, "owner": owner, "tags": labels, "by": by}
            if expires_at is not None:
                data["expires"] = to_text(expires_at)
            tx.append(Draft("agent.added", data, agent=name))

        self._store.write(work)
        return agent, token

    def rotate(self, name: str, by: str) -> str:
        """A new standing token; the earlier ones end at once. Raises NotFound, Conflict if
        revoked."""
        token = new_token("agent", self._random)

        def work(tx: Transaction) -> None:
            self._require_active(tx, name)
            self._end_tokens(tx, name)
            self._insert_token(tx, name, token, "standing", None, None)
            bump(tx, "agents")
            tx.append(Draft("agent.rotated", {"agent": name, "by": by}, agent=name))

        self._store.write(work)
        return token

    def run_token(self, name: str, *, ttl: int, by: str, note: str | None = None) -> str:
        """A token for one run that lasts `ttl` seconds; `note` is the operator's word on why."""
        token = new_token("run", self._random)
        expires_at = self._store.clock() + timedelta(seconds=ttl)

        def work(tx: Transaction) -> None:
            self._require_active(tx, name)
            run = self._insert_token(tx, name, token, "run", note, expires_at)
            bump(tx, "agents")
            expires = to_text(expires_at)
            data = {"agent": name, "by": by, "run": run, "expires": expires, "note": note}
            tx.append(Draft("agent.token", data, agent=name))

        self._store.write(work)
        return token

    def end_token(self, name: str, token: str, by: str) -> None:
        """Ends one token; nothing happens if it is unknown or ended."""

        def work(tx: Transaction) -> None:
            ended = tx.db.execute(
                "UPDATE agent_tokens SET revoked_at = ?"
                " WHERE agent = ? AND hash = ? AND revoked_at IS NULL RETURNING id, purpose",
                (tx.time, name, token_hash(token)),
            ).fetchone()
            if ended is not None:
                bump(tx, "agents")
                id_, purpose = ended
                data = {"agent": name, "by": by, "run": id_ if purpose == "run" else None}
                tx.append(Draft("agent.token_ended", data, agent=name))

        self._store.write(work)

    def revoke(self, name: str, by: str) -> None:
        """Ends the agent for good, from its next call on. Raises NotFound, Conflict if it was."""

        def work(tx: Transaction) -> None:
            self._require_active(tx, name)
            tx.db.execute("UPDATE agents SET revoked_at = ? WHERE name = ?", (tx.time, name))
            self._end_tokens(tx, name)
            bump(tx, "agents")
            tx.append(Draft("agent.revoked", {"agent": name, "by": by}, agent=name))

        self._store.write(work)

    def list(self) -> list[Agent]:
        """All agents, revoked ones included, by name."""
        return sorted(self._directory().agents.values(), key=lambda agent: agent.name)

    def get(self, name: str) -> Agent:
        """Raises NotFound."""
        agent = self._directory().agents.get(name)
        if agent is None:
            raise NotFound(f"there is no agent {name}: `keybroker agent list` shows them")
        return agent

    def authenticate(self, name: str, token: str) -> Client | None:
        """Who shows this token, or None. Takes as long for an unknown name as for a wrong token."""
        directory = self._directory()
        shown = token_hash(token)
        found: _Token | None = None
        for candidate in directory.by_agent.get(name, []):
            if hmac.compare_digest(candidate.hash, shown):
                found = candidate
        if found is None:
            hmac.compare_digest(_NOBODY, shown)
            return None
        client = Client(name, found.id)
        return client if self.current(client) is not None else None

    def current(self, client: Client) -> Agent | None:
        """The agent behind an authenticated connection as it is now; None once it or its token
        ended."""
        directory = self._directory()
        token = directory.tokens.get(client.token_id)
        agent = directory.agents.get(client.agent)
        if token is None or agent is None or token.agent != agent.name:
            return None
        now = self._store.clock()
        for limit in (token.expires_at, agent.expires_at):
            if limit is not None and now >= limit:
                return None
        return agent if agent.revoked_at is None else None

    def run_of(self, client: Client) -> str | None:
        """Id of the run that this token was made for, as of the last look; None if for none."""
        known = self._known
        token = None if known is None else known.tokens.get(client.token_id)
        return client.token_id if token is not None and token.purpose == "run" else None

    def run_note(self, client: Client) -> str | None:
        """What the operator said when starting the run that this token belongs to."""
        token = self._directory().tokens.get(client.token_id)
        return None if token is None else token.note

    def _directory(self) -> _Directory:
        version = self._store.counter("agents")
        known = self._known
        if known is None or known.version != version:
            known = self._known = self._load(version)
        return known

    def _load(self, version: int) -> _Directory:
        db = self._store.read()
        agents = {
            row["name"]: Agent(
                row["name"],
                row["owner"],
                frozenset(json.loads(row["tags"])),
                row["hold_wait"],
                row["pending_status"],
                to_moment(row["created_at"]),
                optional_moment(row["expires_at"]),
                optional_moment(row["revoked_at"]),
            )
            for row in db.execute("SELECT * FROM agents")
        }
        tokens = [
            _Token(
                row["id"],
                row["agent"],
                row["hash"],
                row["purpose"],
                optional_moment(row["expires_at"]),
                row["note"],
            )
            for row in db.execute("SELECT * FROM agent_tokens WHERE revoked_at IS NULL")
        ]
        by_agent: dict[str, list[_Token]] = {}
        for token in tokens:
            by_agent.setdefault(token.agent, []).append(token)
        return _Directory(version, agents, {token.id: token for token in tokens}, by_agent)

    def _insert_token(
        self,
        tx: Transaction,
        agent: str,
        token: str,
        purpose: str,
        note: str | None,
        expires_at: datetime | None,
    ) -> str:
        """The token's id."""
        id_ = self._new_id("t")
        tx.db.execute(
            "INSERT INTO agent_tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                id_,
                agent,
                token_hash(token),
                purpose,
                note,
                tx.time,
                None if expires_at is None else to_text(expires_at),
            ),
        )
        return id_

    @staticmethod
    def _end_tokens(tx: Transaction, agent: str) -> None:
        tx.db.execute(
            "UPDATE agent_tokens SET revoked_at = ? WHERE agent = ? AND revoked_at IS NULL",
            (tx.time, agent),
        )

    @staticmethod
    def _require_active(tx: Transaction, name: str) -> None:
        row = tx.db.execute("SELECT revoked_at FROM agents WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(f"there is no agent {name}: `keybroker agent list` shows them")
        if row[0] is not None:
            raise Conflict(f"the agent {name} was revoked")
