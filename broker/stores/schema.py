"""The store's schema, as numbered migrations. One SQLite file holds the state and the ledger.

A migration is never edited once released: the next change is the next migration.
"""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database, Migrations

from audit.schema import LEDGER_V1, LEDGER_V2

migrations = Migrations("keybroker")

VERSIONS = frozenset(
    {"v1", "v2_people", "v3_vault", "v4_burden", "v5_lean", "v6_included", "v7_limits", "v8_shadow"}
)
"""The names of all migrations; a store that has others is newer than this program."""

STATE_V1 = """
CREATE TABLE agents (
  name TEXT PRIMARY KEY,
  owner TEXT,
  tags TEXT NOT NULL,                -- JSON list
  hold_wait REAL,                    -- seconds; NULL: the proxy's setting
  pending_status INTEGER NOT NULL,
  created_at TEXT NOT NULL,
  expires_at TEXT,
  revoked_at TEXT
) STRICT;

CREATE TABLE agent_tokens (
  id TEXT PRIMARY KEY,
  agent TEXT NOT NULL REFERENCES agents(name),
  hash BLOB NOT NULL UNIQUE,         -- SHA-256; the tokens are random, so no salt is needed
  purpose TEXT NOT NULL,             -- 'standing', or 'run' with the operator's words
  note TEXT,
  created_at TEXT NOT NULL,
  expires_at TEXT,
  revoked_at TEXT
) STRICT;
CREATE INDEX agent_tokens_agent ON agent_tokens(agent);

CREATE TABLE users (
  name TEXT PRIMARY KEY,
  role TEXT NOT NULL,
  password_hash TEXT,                -- argon2id
  created_at TEXT NOT NULL,
  disabled_at TEXT
) STRICT;

CREATE TABLE user_tokens (
  id TEXT PRIMARY KEY,
  user TEXT NOT NULL REFERENCES users(name),
  hash BLOB NOT NULL UNIQUE,
  created_at TEXT NOT NULL,
  revoked_at TEXT
) STRICT;

CREATE TABLE sessions (
  hash BLOB PRIMARY KEY,
  user TEXT NOT NULL REFERENCES users(name),
  created_at TEXT NOT NULL,
  expires_at TEXT NOT NULL,
  ended_at TEXT
) STRICT;

CREATE TABLE links (
  hash BLOB PRIMARY KEY,             -- one-time links for the first user
  created_at TEXT NOT NULL,
  expires_at TEXT NOT NULL,
  used_at TEXT
) STRICT;

CREATE TABLE policies (
  version INTEGER PRIMARY KEY,
  text TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  published_at TEXT NOT NULL,
  published_by TEXT NOT NULL
) STRICT;

CREATE TABLE approvals (
  id TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  agent TEXT NOT NULL,
  call TEXT NOT NULL,
  join_key BLOB NOT NULL,
  digest BLOB NOT NULL,
  basis TEXT NOT NULL,
  policy_version INTEGER NOT NULL,
  requirement TEXT NOT NULL,         -- JSON
  card TEXT NOT NULL,                -- JSON: what reviewers are shown besides the sealed request
  confirm_value TEXT,                -- cleared when the approval ends
  stored_bytes INTEGER NOT NULL,
  opened_at TEXT NOT NULL,
  decide_by TEXT NOT NULL,
  decided_at TEXT,
  execute_by TEXT,
  ended_at TEXT,
  ended_reason TEXT,
  executor TEXT,                     -- the worker that claimed it
  executor_call TEXT,
  changed INTEGER NOT NULL           -- the counter 'approvals' at its last change
) STRICT;
CREATE INDEX approvals_join ON approvals(agent, join_key, opened_at);
CREATE INDEX approvals_state ON approvals(state);
CREATE INDEX approvals_changed ON approvals(changed);

CREATE TABLE requests (
  approval TEXT PRIMARY KEY REFERENCES approvals(id),
  sealed BLOB NOT NULL               -- deleted when the approval ends
) STRICT;

CREATE TABLE votes (
  approval TEXT NOT NULL REFERENCES approvals(id),
  user TEXT NOT NULL,
  role TEXT NOT NULL,
  groups TEXT NOT NULL,              -- JSON list
  decision TEXT NOT NULL,
  reason TEXT,
  at TEXT NOT NULL,
  PRIMARY KEY (approval, user)       -- one person, one vote
) STRICT;

CREATE TABLE inflight (
  call TEXT PRIMARY KEY,             -- sent, and no result yet
  agent TEXT NOT NULL,
  approval TEXT,
  worker TEXT NOT NULL,
  sent_at TEXT NOT NULL
) STRICT;

CREATE TABLE counters (
  topic TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT;
INSERT INTO counters VALUES ('agents', 0), ('approvals', 0), ('policies', 0);
"""


PEOPLE_V2 = """
-- When voting was given back: votes from before are void.
ALTER TABLE users ADD COLUMN votes_from TEXT;

ALTER TABLE user_tokens ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE user_tokens ADD COLUMN expires_at TEXT;
ALTER TABLE user_tokens ADD COLUMN last_used_at TEXT;
CREATE INDEX user_tokens_user ON user_tokens(user);

ALTER TABLE sessions ADD COLUMN id TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN idle INTEGER NOT NULL DEFAULT 3600;  -- seconds
ALTER TABLE sessions ADD COLUMN last_seen_at TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN client TEXT NOT NULL DEFAULT '';
UPDATE sessions SET id = 's-' || lower(hex(randomblob(13))), last_seen_at = created_at;
CREATE UNIQUE INDEX sessions_id ON sessions(id);
CREATE INDEX sessions_user ON sessions(user);

-- Whose new password it sets; NULL: the first user.
ALTER TABLE links ADD COLUMN user TEXT REFERENCES users(name);
"""

VAULT_V3 = """
-- The token for Vault where only one process can log in; one row at most.
CREATE TABLE vault_token (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  serial INTEGER NOT NULL,
  sealed BLOB,                       -- NULL: there is none
  trouble TEXT,                      -- why there is none
  refused INTEGER NOT NULL           -- the newest serial that Vault refused
) STRICT;

CREATE TABLE vault_wrappings (
  mac BLOB PRIMARY KEY,              -- of a wrapping token that was used here
  begun_at TEXT NOT NULL,
  outcome TEXT                       -- 'unwrapped' or 'refused'; NULL: stopped in between
) STRICT;

INSERT INTO counters VALUES ('vault', 0);
"""

BURDEN_V4 = """
-- What an agent has held is counted for every call that is held; all it ever had is many more.
CREATE INDEX approvals_burden ON approvals(agent, stored_bytes)
  WHERE state IN ('pending', 'approved', 'executing');
"""

INFLIGHT_V5 = """
-- Without the table beside its index, of which every call wrote both.
CREATE TABLE inflight_v5 (
  call TEXT PRIMARY KEY,             -- sent, and no result yet
  agent TEXT NOT NULL,
  approval TEXT,
  worker TEXT NOT NULL,
  sent_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO inflight_v5 SELECT * FROM inflight;
DROP TABLE inflight;
ALTER TABLE inflight_v5 RENAME TO inflight;
"""


LIMITS_V7 = """
-- One limit of one rule, for one agent.
CREATE TABLE limit_counters (
  id INTEGER PRIMARY KEY,
  agent TEXT NOT NULL,
  rule TEXT NOT NULL,
  place TEXT NOT NULL,               -- of the number that is summed up; '': calls are counted
  per INTEGER NOT NULL,              -- seconds
  used TEXT NOT NULL,                -- a plain decimal: the amounts of all its uses, added up
  UNIQUE (agent, rule, place, per)
) STRICT;

CREATE TABLE limit_uses (
  call TEXT NOT NULL,                -- of a held call: the one that opened its approval
  counter INTEGER NOT NULL REFERENCES limit_counters(id),
  amount TEXT NOT NULL,              -- a plain decimal
  sent_at INTEGER,                   -- microseconds since 1970; NULL: not sent, it always counts
  worker TEXT,                       -- that is about to send it
  PRIMARY KEY (call, counter)
) STRICT, WITHOUT ROWID;
CREATE INDEX limit_uses_sent ON limit_uses(counter, sent_at, amount);
CREATE INDEX limit_uses_worker ON limit_uses(worker) WHERE worker IS NOT NULL;
"""


@migrations()
def v1(db: Database) -> None:
    """The first schema."""
    for script in (LEDGER_V1, STATE_V1):
        for statement in _statements(script):
            db.conn.execute(statement)


@migrations()
def v2_people(db: Database) -> None:
    """Sessions that can be listed and end when idle, tokens with names and ends, reset links."""
    for statement in _statements(PEOPLE_V2):
        db.conn.execute(statement)


@migrations()
def v3_vault(db: Database) -> None:
    """A token for Vault that processes share, and the wrapping tokens that were used."""
    for statement in _statements(VAULT_V3):
        db.conn.execute(statement)


@migrations()
def v4_burden(db: Database) -> None:
    """An index over what is held."""
    for statement in _statements(BURDEN_V4):
        db.conn.execute(statement)


@migrations()
def v5_lean(db: Database) -> None:
    """What each call writes, on fewer pages."""
    for script in (LEDGER_V2, INFLIGHT_V5):
        for statement in _statements(script):
            db.conn.execute(statement)


@migrations()
def v6_included(db: Database) -> None:
    """What a version of the policy includes: the texts by name, as JSON."""
    db.conn.execute("ALTER TABLE policies ADD COLUMN included TEXT NOT NULL DEFAULT '{}'")


@migrations()
def v7_limits(db: Database) -> None:
    """What was used of limits."""
    for statement in _statements(LIMITS_V7):
        db.conn.execute(statement)


@migrations()
def v8_shadow(db: Database) -> None:
    """Whether a version of the policy is only tried."""
    db.conn.execute("ALTER TABLE policies ADD COLUMN shadow INTEGER NOT NULL DEFAULT 0")


def _statements(script: str) -> list[str]:
    """The script's statements; executescript() would commit the transaction around them."""
    statements, current = [], ""
    for line in script.splitlines():
        current += line + "\n"
        if current.strip() and sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
