"""What the shell offers while a command is typed: names that are in the workspace's store.

It reads the store and nothing else, quickly, and is silent whatever goes wrong: nobody asked it to
run. Secrets appear as references, as in the policy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Any

import click
from click.shell_completion import CompletionItem

from audit.schema import FREQUENT, RARE
from keybroker.cli.frame import App, inert

MOST = 200
"""Candidates that are offered; more are no help."""
LONGEST = 80
"""Characters of what stands beside one."""

type Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
type Source = Callable[[sqlite3.Connection, click.Context], Iterable[tuple[str, str | None]]]


def _from(source: Source) -> Complete:
    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        with suppress(Exception):
            app = context.find_object(App) or App()
            path = _database(app)
            with closing(sqlite3.connect(f"{path}?mode=ro", uri=True, timeout=0.1)) as db:
                return [
                    CompletionItem(value, help=said and _beside(said))
                    for value, said in source(db, context)
                    if value.startswith(incomplete)
                ][:MOST]
        return []

    return complete


def _beside(said: str) -> str:
    """What stands beside a candidate, maybe in an agent's words: the shells' formats are lines, and
    fish's has commas between its fields."""
    return inert(said).replace(",", " ")[:LONGEST]


def _database(app: App) -> str:
    from keybroker.workspace import Workspace, choose

    return Workspace(choose(app.option)).database.as_uri()


def _selected(sql: str) -> Source:
    def source(db: sqlite3.Connection, _: click.Context) -> Iterable[tuple[str, str | None]]:
        return [(row[0], row[1]) for row in db.execute(sql)]

    return source


def _of_person(sql: str) -> Source:
    """Of the person whose NAME was typed before; click does not always know it yet."""

    def source(db: sqlite3.Connection, context: click.Context) -> Iterable[tuple[str, str | None]]:
        name = context.params.get("name")
        return [(row[0], row[1]) for row in db.execute(sql, (name,))]

    return source


def _policy(db: sqlite3.Connection) -> dict[str, Any]:
    """The policy in force, as far as it can be told here."""
    import yaml

    text = db.execute("SELECT text FROM policies ORDER BY version DESC LIMIT 1").fetchone()[0]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = yaml.load(text, Loader=loader)  # noqa: S506 - a safe one, the quicker of two
    return found if isinstance(found, dict) else {}


def _rules(db: sqlite3.Connection, _: click.Context) -> Iterable[tuple[str, str | None]]:
    found = [(str(rule["id"]), str(rule.get("effect"))) for rule in _policy(db).get("rules") or ()]
    # Of what is included, those that were changed: all of it needs the policy loaded.
    return found + [(str(id), "override") for id in _policy(db).get("override") or ()]


def _secrets(db: sqlite3.Connection, _: click.Context) -> Iterable[tuple[str, str | None]]:
    credentials = _policy(db).get("credentials") or {}
    return [(str(one["secret"]), str(name)) for name, one in credentials.items()]


def _secret_paths(db: sqlite3.Connection, c: click.Context) -> Iterable[tuple[str, str | None]]:
    return dict.fromkeys((ref.partition("#")[0], None) for ref, _ in _secrets(db, c))


def _secret_fields(db: sqlite3.Connection, c: click.Context) -> Iterable[tuple[str, str | None]]:
    path = c.params.get("path")
    parts = (ref.partition("#") for ref, _ in _secrets(db, c))
    return dict.fromkeys((field, None) for where, _, field in parts if where == path)


_PENDING = (
    "SELECT id, agent || ': ' || json_extract(card, '$.summaries[0]') FROM approvals"
    " WHERE state = 'pending' ORDER BY opened_at DESC LIMIT 200"
)
_USERS = "SELECT name, role FROM users ORDER BY name"
# The next type after each, by the index: the ledger may be long. Those that every call leaves are
# not in it.
_TYPES = (
    f"WITH RECURSIVE t(type) AS (SELECT min(type) FROM ledger WHERE {RARE} UNION ALL SELECT"  # noqa: S608
    f" (SELECT min(type) FROM ledger WHERE {RARE} AND type > t.type) FROM t WHERE type IS NOT NULL)"
    " SELECT type, NULL FROM t WHERE type IS NOT NULL"
    f" UNION SELECT * FROM (VALUES {', '.join(f'({each!r}, NULL)' for each in FREQUENT)})"
    " ORDER BY 1"
)
_TOLD_OF = (
    "SELECT id, agent FROM (SELECT id, agent, opened_at FROM approvals"
    " ORDER BY opened_at DESC LIMIT 100) UNION ALL SELECT DISTINCT call, agent FROM"
    " (SELECT call, agent FROM ledger WHERE call IS NOT NULL ORDER BY seq DESC LIMIT 200)"
)

agents = _from(_selected("SELECT name, owner FROM agents WHERE revoked_at IS NULL ORDER BY name"))
users = _from(_selected(_USERS))
pending = _from(_selected(_PENDING))
approvals = _from(
    _selected("SELECT id, agent FROM approvals ORDER BY opened_at DESC LIMIT 200"),
)
told_of = _from(_selected(_TOLD_OF))
types = _from(_selected(_TYPES))
rules = _from(_rules)
secrets = _from(_secrets)
secret_paths = _from(_secret_paths)
secret_fields = _from(_secret_fields)
sessions = _from(
    _of_person(
        "SELECT id, client FROM sessions WHERE user = coalesce(?, user) AND ended_at IS NULL"
    ),
)
tokens = _from(
    _of_person(
        "SELECT id, name FROM user_tokens WHERE user = coalesce(?, user) AND revoked_at IS NULL"
    ),
)

BY_FIELD = {
    "agent": agents,
    "rule": rules,
    "approval": approvals,
    "reviewer": users,
    "secret": secrets,
}
"""For the options of `audit search`."""
