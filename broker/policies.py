"""Published policies: numbered versions in the store. One loader publishes, every worker follows.

Only what `rules.load` accepts is published; a refused file changes nothing and is recorded.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

from audit.journal import Transaction
from audit.record import Draft
from broker.errors import StoreUnavailable
from broker.stores.sqlite import Store, bump
from rules.decide import Rulebook
from rules.errors import InvalidFile, Problem
from rules.include import Sources, included, shipped
from rules.load import load_policy
from rules.model import Policy
from rules.trying.shadow import Overlay

_PROBLEMS_KEPT = 50


@dataclass(frozen=True, slots=True)
class Published:
    """One version of the policy, ready to decide with."""

    version: int
    rulebook: Rulebook
    shadow: Overlay | None = None
    """What is only tried beside it: its rules in shadow, or a newer version that is all shadow."""


class Policies:
    """The versions. `current()` is in memory and free; `refresh()` follows the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._current: Published | None = None
        self._seen = -1
        self._loading = threading.Lock()

    def publish(
        self, text: str, by: str, file: str = "policy.yaml", sources: Sources | None = None
    ) -> tuple[int, tuple[Problem, ...]]:
        """Checks the text and makes it the next version; returns its number and the warnings.

        With it goes the text of all that it includes (`sources`; without, the packs of this
        program), so that a version means the same to every worker, whatever lies on the disk and
        whatever program reads it. What is equal to the present version is not published again. A
        bad one is recorded as policy.refused, and InvalidFile with every problem is raised; bad is
        also one that is all shadow where nothing is in force. Raises StoreUnavailable.
        """
        if sources is None:
            sources = Sources(shipped(included(text)[0]))
        digest = sources.digest(text)
        try:
            policy, warnings = load_policy(text, file, sources)
            if policy.shadow and self.in_force() is None:
                raise InvalidFile([Problem(file, 0, _NOTHING_BEFORE)])
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
                "INSERT INTO policies"
                " (version, text, sha256, published_at, published_by, included, shadow)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    version,
                    text,
                    digest,
                    tx.time,
                    by,
                    json.dumps(dict(sources.texts)),
                    int(policy.shadow),
                ),
            )
            bump(tx, "policies")
            tx.append(
                Draft(
                    "policy.published",
                    {
                        "version": version,
                        "sha256": digest,
                        "by": by,
                        "included": dict(sources.digests()),
                        "loosened": list(policy.loosened),
                        **({"mode": "shadow"} if policy.shadow else {}),
                        "shadow": [rule.id for rule in policy.shadows],
                    },
                )
            )
            return version

        return self._store.write(work), warnings

    def current(self) -> Published | None:
        """What is loaded; None before the first version. See `refresh`."""
        return self._current

    def version(self, number: int) -> Policy | None:
        """The policy of a version, None if there is none. Raises StoreUnavailable, also for one
        that this program cannot read."""
        row = (
            self._store.read()
            .execute("SELECT text, included FROM policies WHERE version = ?", (number,))
            .fetchone()
        )
        return None if row is None else _load(number, *row)

    def newest(self) -> int | None:
        """The number of the newest version, None before the first. Raises StoreUnavailable."""
        row = self._store.read().execute("SELECT max(version) FROM policies").fetchone()
        return None if row[0] is None else int(row[0])

    def refresh(self) -> Published | None:
        """Loads the newest version if it is not loaded yet; call it often, off the event loop.

        Raises StoreUnavailable, also for a version that this program cannot read; then what was
        loaded before stays.
        """
        with self._loading:
            seen = self._store.counter("policies")
            if seen != self._seen:
                newest = self.newest()
                if newest is not None:
                    self._current = self._publish(newest)
                self._seen = seen
            return self._current

    def _publish(self, newest: int) -> Published:
        """What is in force, and what is tried beside it, as of a version."""
        policy = self.version(newest)
        if policy is not None and not policy.shadow:
            return Published(newest, Rulebook(policy), Overlay.of_rules(policy))
        number = self.in_force()
        enforced = None if number is None else self.version(number)
        if policy is None or number is None or enforced is None:
            raise StoreUnavailable(
                f"version {newest} of the policy is all shadow: {_NOTHING_BEFORE}"
            )
        return Published(number, Rulebook(enforced), Overlay.of_file(policy, newest))

    def in_force(self) -> int | None:
        """The number of the newest version that is not all shadow. Raises StoreUnavailable."""
        found = self._store.read().execute("SELECT max(version) FROM policies WHERE shadow = 0")
        row = found.fetchone()
        return None if row[0] is None else int(row[0])


_NOTHING_BEFORE = (
    "mode: shadow leaves everything to the enforced version before it, and there is none, so every"
    " call would be denied: publish the file without it first, or write mode: shadow into rules"
)


def _load(version: int, text: str, included: str) -> Policy:
    try:
        policy, _ = load_policy(text, sources=Sources(json.loads(included)), try_out=False)
    except InvalidFile as invalid:
        raise StoreUnavailable(
            f"version {version} of the policy cannot be used here ({invalid.problems[0]}):"
            " was it published by a newer Keybroker?"
        ) from invalid
    return policy
