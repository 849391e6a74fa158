"""The ledger's tables, and the triggers by which the database itself refuses to change the past.

The store applies this in a migration; once released a version's text never changes. Triggers stop
mistakes and careless hands, not whoever can write the file: for those there is verify().
"""

from __future__ import annotations

from audit.record import GENESIS

# INSERT OR REPLACE deletes the row in its way without firing DELETE triggers (unless
# recursive_triggers is on), so the insert itself is guarded: only the next link may be inserted.
# For the same reason there is no UNIQUE column besides the keys that these triggers watch.
LEDGER_V1 = f"""
CREATE TABLE ledger (
  seq   INTEGER PRIMARY KEY,
  time  TEXT NOT NULL,
  type  TEXT NOT NULL,
  call  TEXT,
  agent TEXT,
  data  TEXT NOT NULL,
  prev  TEXT NOT NULL,
  hash  TEXT NOT NULL
) STRICT;

CREATE INDEX ledger_call ON ledger (call) WHERE call IS NOT NULL;
CREATE INDEX ledger_agent ON ledger (agent) WHERE agent IS NOT NULL;
CREATE INDEX ledger_type ON ledger (type);
CREATE INDEX ledger_time ON ledger (time);
CREATE INDEX ledger_approval ON ledger (json_extract(data, '$.approval'))
  WHERE json_extract(data, '$.approval') IS NOT NULL;

CREATE TRIGGER ledger_insert BEFORE INSERT ON ledger
WHEN new.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM ledger)
  OR new.prev IS NOT
    coalesce((SELECT hash FROM ledger ORDER BY seq DESC LIMIT 1), '{GENESIS}')
BEGIN SELECT raise(ABORT, 'the ledger takes only the next link of its chain'); END;

CREATE TRIGGER ledger_update BEFORE UPDATE ON ledger
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER ledger_delete BEFORE DELETE ON ledger
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

CREATE TABLE ledger_salts (
  subject TEXT PRIMARY KEY,
  salt    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_salts_insert BEFORE INSERT ON ledger_salts
WHEN EXISTS (SELECT 1 FROM ledger_salts WHERE subject = new.subject)
BEGIN SELECT raise(ABORT, 'this subject has its salt'); END;

CREATE TRIGGER ledger_salts_update BEFORE UPDATE ON ledger_salts
BEGIN SELECT raise(ABORT, 'a salt is kept or deleted, never changed'); END;

CREATE TABLE ledger_head (
  id   INTEGER PRIMARY KEY CHECK (id = 1),
  seq  INTEGER NOT NULL,
  hash TEXT NOT NULL,
  mac  TEXT NOT NULL
) STRICT;

INSERT INTO ledger_head (id, seq, hash, mac) VALUES (1, 0, '{GENESIS}', '');

CREATE TRIGGER ledger_head_insert BEFORE INSERT ON ledger_head
BEGIN SELECT raise(ABORT, 'the ledger has one head'); END;

CREATE TRIGGER ledger_head_update BEFORE UPDATE ON ledger_head
WHEN new.id IS NOT old.id OR new.seq <= old.seq
BEGIN SELECT raise(ABORT, 'the head of the ledger moves forward only'); END;

CREATE TRIGGER ledger_head_delete BEFORE DELETE ON ledger_head
BEGIN SELECT raise(ABORT, 'the ledger has one head'); END;
"""  # noqa: S608 - made of a constant

FREQUENT = ("call.completed", "call.sent", "secret.read")
"""What every call leaves behind. Among the newest records there always are some of each."""
RARE = f"type NOT IN ({', '.join(map(repr, FREQUENT))})"
"""The records that an index finds by their type. A search says this, word for word, to use it."""

# Every call paid for its records' places in the index, where nobody needs an index to find them.
LEDGER_V2 = f"""
DROP INDEX ledger_type;
CREATE INDEX ledger_type ON ledger (type) WHERE {RARE};
"""
