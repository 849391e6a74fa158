"""Published policies: numbered versions in the store. One loader publishes, every worker follows.

Only what `rules.load` accepts is published; a refused file changes nothing and is recorded.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

from audit.journal import Transaction
from audit.record import Draft
from broker.errors import StoreUnavailable
from broker.stores.sqlite import Store, bump
from rules.decide import Rulebook
from rules.errors import InvalidFile, Problem
from rules.load import load_policy

_PROBLEMS_KEPT = 50


@dataclass(frozen=True, slots=True)
class Published:
    """One version of the policy, ready to decide with."""

    version: int
    rulebook: Rulebook


class Policies:
    """The versions. `current()` is in memory and free; `refresh()` follows the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._current: Published | None = None
        self._seen = -1
        self._loading = threading.Lock()

    def publish(
        self, text: str, by: str, file: str = "policy.yaml"
    ) -> tuple[int, tuple[Problem, ...]]:
        """Checks the text and makes it the next version; returns its number and the warnings.

        A text equal to the present version is not published again. A bad one is recorded as
        policy.refused, and InvalidFile with every problem is raised. Raises StoreUnavailable.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        try:
            _, warnings = load_policy(text, file)
        except InvalidFile as invalid:
            problems = [str(problem) for problem in invalid.problems[:_PROBLEMS_KEPT]]
            data = {"sha256": digest, "problems": problems, "by": by}
            self._store.write(lambda tx: tx.append(Draft("policy.refused", data)))
            raise

        def work(tx: Transaction) -> int:
            row = tx.db.execute(
                "SELECT version, sha256 FROM policies ORDER BY version DESC LIMIT 1"
            ).fetchone()
            if row is not None and row[1] == digest:
                return int(row[0])
            version = 1 if row is None else int(row[0]) + 1
            tx.db.execute(
                "INSERT INTO policies VALUES (?, ?, ?, ?, ?)", (version, text, digest, tx.time, by)
            )
            bump(tx, "policies")
            tx.append(Draft("policy.published", {"version": version, "sha256": digest, "by": by}))
            return version

        return self._store.write(work), warnings

    def current(self) -> Published | None:
        """What is loaded; None before the first version. See `refresh`."""
        return self._current

    def refresh(self) -> Published | None:
        """Loads the newest version if it is not loaded yet; call it often, off the event loop.

        Raises StoreUnavailable, also for a version that this program cannot read; then what was
        loaded before stays.
        """
        with self._loading:
            seen = self._store.counter("policies")
            if seen != self._seen:
                row = (
                    self._store.read()
                    .execute("SELECT version, text FROM policies ORDER BY version DESC LIMIT 1")
                    .fetchone()
                )
                if row is not None:
                    self._current = _load(row["version"], row["text"])
                self._seen = seen
            return self._current


def _load(version: int, text: str) -> Published:
    try:
        policy, _ = load_policy(text)
    except InvalidFile as invalid:
        raise StoreUnavailable(
            f"version {version} of the policy cannot be used here ({invalid.problems[0]}):"
            " was it published by a newer Keybroker?"
        ) from invalid
    return Published(version, Rulebook(policy))
