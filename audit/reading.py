"""Opens a ledger for reading, in place or as a copy, and turns rows into records. Never writes."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from audit.errors import NotCanonical, Unreadable
from audit.record import JSON, Record

COLUMNS = "seq, time, type, call, agent, data, prev, hash"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_HASH = re.compile(r"[0-9a-f]{64}")


def open_ledger(path: Path) -> sqlite3.Connection:
    """A read-only connection to the ledger in the file `path`. Raises Unreadable."""
    if not path.is_file():
        raise Unreadable(f"there is no ledger at {path}")
    address = path.absolute().as_uri()
    try:
        return _probed(f"{address}?mode=ro")
    except sqlite3.OperationalError as error:
        # In WAL mode even readers need files beside the database. On a read-only medium there can
        # be none; then, if no WAL was left behind, the file itself is the whole truth.
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise Unreadable(f"{path} cannot be read: {error}") from error
        with reading(str(path)):
            return _probed(f"{address}?mode=ro&immutable=1")
    except sqlite3.Error as error:
        raise Unreadable(f"{path} cannot be read: {error}") from error


def _probed(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        db.execute("SELECT seq FROM ledger LIMIT 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Translates SQLite's errors: what fails inside is Unreadable, not broken."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unreadable(f"{name} cannot be read: {error}") from error


def parse_json(text: str) -> JSON:
    """JSON as records may hold it. Raises NotCanonical for anything else."""
    try:
        value: JSON = json.loads(text, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, TypeError, RecursionError) as error:
        raise NotCanonical(f"it is not JSON as records hold it ({error})") from error
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"the number {text}")


def record_of(fields: tuple[object, ...]) -> Record:
    """The record with these fields, in the order of COLUMNS, `data` as an object.

    Raises NotCanonical where a field does not have its form. Whether it belongs where it stands is
    not looked at.
    """
    seq, time, type_, call, agent, data, prev, hash_ = fields
    if isinstance(seq, bool) or not isinstance(seq, int):
        raise NotCanonical("seq is not a number")
    if not isinstance(time, str) or _TIME.fullmatch(time) is None:
        raise NotCanonical("time is not a moment in UTC with microseconds")
    if not isinstance(type_, str):
        raise NotCanonical("type is not a text")
    if call is not None and not isinstance(call, str):
        raise NotCanonical("call is not a text")
    if agent is not None and not isinstance(agent, str):
        raise NotCanonical("agent is not a text")
    if not isinstance(data, dict):
        raise NotCanonical("data is not an object")
    if not isinstance(prev, str) or _HASH.fullmatch(prev) is None:
        raise NotCanonical("prev is not a hash")
    if not isinstance(hash_, str) or _HASH.fullmatch(hash_) is None:
        raise NotCanonical("hash is not a hash")
    return Record(seq, time, type_, call, agent, data, prev, hash_)
