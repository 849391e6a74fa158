"""The services of one workspace, opened together: what the command line, the workers and the admin
page share. It reads the workspace's key and opens its store, nothing else."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from audit.journal import Watch
from broker.agents import Agents
from broker.changes import Changes
from broker.desk import Desk
from broker.devices import Devices
from broker.errors import StoreUnavailable
from broker.holds import Holds, Limits
from broker.keys import ROOT_KEY_BYTES, Keys
from broker.limits import Usage
from broker.passwords import Passwords
from broker.people import People
from broker.placeholders import Placeholders
from broker.policies import Policies
from broker.sealing import Sealer
from broker.sending import Sending
from broker.sessions import Sessions
from broker.stores.sqlite import Store
from broker.tunnels import Tunnels
from broker.user_tokens import UserTokens
from broker.voting import Votes

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32."""
_PAIRS = tuple(first + second for first in _DIGITS for second in _DIGITS)


def utc_now() -> datetime:
    """The present in UTC."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """`PREFIX-` and 26 characters: 48 bits of milliseconds, 80 of randomness (like a ULID)."""
    value = int(time.time() * 1000) << 80 | int.from_bytes(secrets.token_bytes(10))
    # 26 digits of five bits, by two: before the value stand two zeros.
    return f"{prefix}-{''.join([_PAIRS[value >> at & 1023] for at in range(120, -1, -10)])}"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything over one store. Close it when done."""

    keys: Keys
    store: Store
    agents: Agents
    people: People
    devices: Devices
    sessions: Sessions
    tokens: UserTokens
    policies: Policies
    placeholders: Placeholders
    holds: Holds
    sending: Sending
    usage: Usage
    tunnels: Tunnels
    desk: Desk
    changes: Changes

    def recover(self, worker: str | None) -> int:
        """See Sending.recover: after `worker` (None: every one) died, how many calls are
        unknown."""
        return self.sending.recover(worker)

    def close(self) -> None:
        """Writes what is waiting and closes the store."""
        self.store.close()


def open_services(
    workspace: Path, limits: Limits | None = None, watch: Watch | None = None
) -> Services:
    """The services of the workspace in this directory (made by `create_state`).

    `watch` is told how the ledger's writer does.

    Raises StoreUnavailable with a sentence if the key or the store cannot be used.
    """
    state = workspace / "state"
    keys = Keys.derive(_read_root_key(state / "workspace.key"))
    store = Store(state / "keybroker.db", clock=utc_now, head_key=keys.ledger_head, watch=watch)
    sealer = Sealer(keys.sealing, secrets.token_bytes)
    agents = Agents(store, new_id=new_id, random=secrets.token_bytes)
    policies = Policies(store)
    holds = Holds(
        store, sealer, new_id=new_id, random=secrets.token_bytes, limits=limits or Limits()
    )
    return Services(
        keys=keys,
        store=store,
        agents=agents,
        people=People(store, passwords=Passwords(secrets.token_bytes), random=secrets.token_bytes),
        devices=Devices(store, pages_key=keys.pages, random=secrets.token_bytes),
        sessions=Sessions(store, pages_key=keys.pages, new_id=new_id, random=secrets.token_bytes),
        tokens=UserTokens(store, new_id=new_id, random=secrets.token_bytes),
        policies=policies,
        placeholders=Placeholders(keys.placeholders),
        holds=holds,
        sending=Sending(store, random=secrets.token_bytes),
        usage=Usage(store),
        tunnels=Tunnels(store),
        desk=Desk(utc_now, holds, Votes(store), agents, policies),
        changes=Changes(store),
    )


def create_state(workspace: Path) -> None:
    """Makes the root key and the store in the workspace's `state` directory, once.

    Raises FileExistsError rather than replace a key, StoreUnavailable if the store cannot be made.
    """
    state = workspace / "state"
    root = secrets.token_bytes(ROOT_KEY_BYTES)
    descriptor = os.open(state / "workspace.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(root)
        file.flush()
        os.fsync(file.fileno())
    head_key = Keys.derive(root).ledger_head
    Store(state / "keybroker.db", clock=utc_now, head_key=head_key, create=True).close()


def _read_root_key(path: Path) -> bytes:
    try:
        root = path.read_bytes()
    except OSError as error:
        raise StoreUnavailable(
            f"the workspace key {path} cannot be read ({error.strerror}): run `keybroker init`,"
            " or run as the user who did"
        ) from error
    if len(root) != ROOT_KEY_BYTES:
        raise StoreUnavailable(
            f"the workspace key {path} is damaged: put it back from a backup;"
            " without it held requests cannot be opened"
        )
    return root
