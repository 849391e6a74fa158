"""What was used of limits, as rows: the only place that knows their columns.

A use counts from the decision on until its call has been sent and `per` seconds have gone by since;
one that is given back counts no more. So what is sent in any stretch of `per` seconds is never
more than the limit, however long people took to decide. Each counter keeps the sum of its uses, so
that a decision costs the same with ten of them as with a million.

For use inside the transaction of whoever decides, sends or ends a call. `now` is that of the
store's clock there: transactions follow one another, moments taken outside may not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from rules.limits import EXACT, UNREADABLE, Demand, Over

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000
_OUT_AT_A_TIME = 1000
"""Uses that one transaction takes out because their time is over: everybody's wait behind it."""
_LOOKED_AT = 1000
"""Uses that are looked through for the moment at which there is room again."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A call, whose it is, and the worker that is about to send it; None: it waits for people."""

    call: str
    agent: str
    worker: str | None


@dataclass(frozen=True, slots=True)
class _Counter:
    id: int
    used: Decimal
    """Without the uses whose time is over."""
    beside: Sequence[tuple[int, int]] = ()
    """(`per`, id) of the other counters of the same number of this rule and agent."""


def reserve(
    db: sqlite3.Connection,
    caller: Caller,
    demands: Sequence[Demand],
    now: datetime,
    *,
    held: bool = False,
) -> tuple[Over, ...]:
    """Counts the demands, all of them or none; returns those that go beyond their limit.

    With `held`, for a call that people will be asked about, those with `over: hold` count all the
    same. What the call had reserved before is given back: it may be decided anew.
    """
    give_back(db, caller.call)
    counters = [_counter(db, caller.agent, demand, now) for demand in demands]
    over = tuple(
        [
            Over(demand, counter.used, now, _frees_at(db, counter, demand, now))
            for demand, counter in zip(demands, counters, strict=True)
            if EXACT.add(counter.used, demand.amount) > demand.limit.most
        ]
    )
    if over and not (held and all(each.demand.limit.over == "hold" for each in over)):
        return over
    for demand, counter in zip(demands, counters, strict=True):
        _insert(db, caller, counter.id, _counted(demand), None)
    _insert_beside(db, caller, demands, counters)
    return over


def _insert_beside(
    db: sqlite3.Connection,
    caller: Caller,
    demands: Sequence[Demand],
    counters: Sequence[_Counter],
) -> None:
    """Keeps what is left of limits whose `per` was edited, so that an edit back finds all uses: a
    longer one counts on; a shorter one goes, as a longer one has all that it has."""
    asked: dict[tuple[str, str | None], set[int]] = {}
    for demand in demands:
        asked.setdefault((demand.rule, demand.limit.place), set()).add(demand.limit.per)
    beside: dict[int, Decimal] = {}
    for demand, counter in zip(demands, counters, strict=True):
        pers = asked[demand.rule, demand.limit.place]
        for per, other in counter.beside:
            if per > max(pers):
                beside[other] = _counted(demand)
            elif per not in pers:
                db.execute("DELETE FROM limit_uses WHERE counter = ?", (other,))
                db.execute("DELETE FROM limit_counters WHERE id = ?", (other,))
    for other, amount in beside.items():
        _insert(db, caller, other, amount, None)


def sent(
    db: sqlite3.Connection, call: str, agent: str, demands: Sequence[Demand], now: datetime
) -> None:
    """The call, which reserved the demands, is being sent: their time begins."""
    for demand in demands:
        counter = _counter(db, agent, demand, now)
        known = db.execute(
            "UPDATE limit_uses SET sent_at = ?, worker = NULL WHERE call = ? AND counter = ?",
            (_micros(now), call, counter.id),
        ).rowcount
        if not known:  # sent before without effect, and its time went by until now
            _insert(db, Caller(call, agent, None), counter.id, _counted(demand), _micros(now))
    db.execute(  # in counters beside these
        "UPDATE limit_uses SET sent_at = ?, worker = NULL WHERE call = ? AND sent_at IS NULL",
        (_micros(now), call),
    )


def give_back(db: sqlite3.Connection, call: str) -> None:
    """The call will not be sent. Harmless if it was, or has reserved nothing."""
    _take_out(
        db,
        db.execute(
            "DELETE FROM limit_uses WHERE call = ? AND sent_at IS NULL RETURNING counter, amount",
            (call,),
        ),
    )


def unsent(db: sqlite3.Connection, call: str, *, again: bool) -> None:
    """The call that was being sent turned out not to be: certainly no byte left. `again`: it stays
    reserved, since the approval that it belongs to is still good."""
    db.execute("UPDATE limit_uses SET sent_at = NULL WHERE call = ?", (call,))
    if not again:
        give_back(db, call)


def recover(db: sqlite3.Connection, worker: str | None) -> None:
    """After `worker` (None: every one) died: what it had reserved and not sent is given back."""
    _take_out(
        db,
        db.execute(
            "DELETE FROM limit_uses WHERE worker IS NOT NULL AND (? IS NULL OR worker = ?)"
            " RETURNING counter, amount",
            (worker, worker),
        ),
    )


def any_due(db: sqlite3.Connection, now: datetime) -> bool:
    """Whether `prune` would find something."""
    row = db.execute(f"SELECT EXISTS ({_DUE})", (_micros(now), 1)).fetchone()
    return bool(row[0])


def prune(db: sqlite3.Connection, now: datetime) -> None:
    """Takes out some of the uses whose time is over, and counters that have none."""
    due = db.execute(_DUE, (_micros(now), _OUT_AT_A_TIME)).fetchall()
    db.executemany("DELETE FROM limit_uses WHERE call = ? AND counter = ?", [r[:2] for r in due])
    _take_out(db, [row[1:] for row in due])
    db.execute(
        "DELETE FROM limit_counters"
        " WHERE NOT EXISTS (SELECT 1 FROM limit_uses WHERE counter = limit_counters.id)"
    )


_DUE = (
    "SELECT u.call, u.counter, u.amount FROM limit_counters c CROSS JOIN limit_uses u"
    " ON u.counter = c.id AND u.sent_at <= ? - c.per * 1000000 LIMIT ?"
)


def _counter(db: sqlite3.Connection, agent: str, demand: Demand, now: datetime) -> _Counter:
    """The demand's counter as it is now, made if there is none."""
    limit, rule = demand.limit, demand.rule
    key = agent, rule, limit.place or "", limit.per
    rows = db.execute(
        "SELECT id, used, per FROM limit_counters WHERE agent = ? AND rule = ? AND place = ?",
        key[:3],
    ).fetchall()
    row = next((row for row in rows if row[2] == limit.per), None)
    beside = [(other[2], other[0]) for other in rows if other is not row]
    if row is None:
        return replace(_new_counter(db, key, now), beside=beside)
    moment = _micros(now)
    # A clock that was set back must not make them count for longer than `per` from now on.
    db.execute(
        "UPDATE limit_uses SET sent_at = ? WHERE counter = ? AND sent_at > ?",
        (moment, row[0], moment),
    )
    begin = moment - limit.per * _SECOND
    gone = db.execute(
        "DELETE FROM limit_uses WHERE (call, counter) IN (SELECT call, counter FROM limit_uses"
        " WHERE counter = ? AND sent_at <= ? ORDER BY sent_at LIMIT ?) RETURNING amount",
        (row[0], begin, _OUT_AT_A_TIME),
    ).fetchall()
    used = EXACT.subtract(Decimal(row[1]), _total(gone))
    if gone:
        _keep(db, row[0], used)
    if len(gone) == _OUT_AT_A_TIME:  # the rest is left for the next time
        rest = db.execute(
            "SELECT amount FROM limit_uses WHERE counter = ? AND sent_at <= ?", (row[0], begin)
        )
        used = EXACT.subtract(used, _total(rest.fetchall()))
    return _Counter(row[0], used, beside)


def _new_counter(db: sqlite3.Connection, key: tuple[str, str, str, int], now: datetime) -> _Counter:
    """A counter that begins with what is known: a limit whose `per` was edited does not begin
    anew."""
    agent, rule, place, per = key
    [counter] = db.execute(
        "INSERT INTO limit_counters (agent, rule, place, per, used) VALUES (?, ?, ?, ?, '0')"
        " RETURNING id",
        key,
    ).fetchone()
    db.execute(
        "INSERT INTO limit_uses (call, counter, amount, sent_at, worker)"
        " SELECT call, ?, amount, sent_at, worker FROM limit_uses WHERE counter = ("
        " SELECT id FROM limit_counters WHERE agent = ? AND rule = ? AND place = ? AND id <> ?"
        " ORDER BY per DESC LIMIT 1) AND (sent_at IS NULL OR sent_at > ?)",
        (counter, agent, rule, place, counter, _micros(now) - per * _SECOND),
    )
    known = db.execute("SELECT amount FROM limit_uses WHERE counter = ?", (counter,)).fetchall()
    used = _total(known)
    _keep(db, counter, used)
    return _Counter(counter, used)


def _insert(
    db: sqlite3.Connection, caller: Caller, counter: int, amount: Decimal, sent_at: int | None
) -> None:
    db.execute(
        "INSERT INTO limit_uses (call, counter, amount, sent_at, worker) VALUES (?, ?, ?, ?, ?)",
        (caller.call, counter, _text(amount), sent_at, caller.worker),
    )
    _add(db, counter, amount)


def _take_out(db: sqlite3.Connection, gone: sqlite3.Cursor | Sequence[sqlite3.Row]) -> None:
    """What these uses, as (counter, amount), had added to their counters is taken off."""
    less: dict[int, Decimal] = {}
    for counter, amount in list(gone):
        less[counter] = EXACT.subtract(less.get(counter, Decimal(0)), Decimal(amount))
    for counter, amount in less.items():
        _add(db, counter, amount)


def _add(db: sqlite3.Connection, counter: int, amount: Decimal) -> None:
    [used] = db.execute("SELECT used FROM limit_counters WHERE id = ?", (counter,)).fetchone()
    _keep(db, counter, EXACT.add(Decimal(used), amount))


def _keep(db: sqlite3.Connection, counter: int, used: Decimal) -> None:
    db.execute("UPDATE limit_counters SET used = ? WHERE id = ?", (_text(used), counter))


def _frees_at(
    db: sqlite3.Connection, counter: _Counter, demand: Demand, now: datetime
) -> datetime | None:
    """See Over."""
    limit = demand.limit
    if demand.amount > limit.most:
        return None
    waiting = db.execute(
        "SELECT amount FROM limit_uses WHERE counter = ? AND sent_at IS NULL", (counter.id,)
    ).fetchall()
    if EXACT.add(_total(waiting), demand.amount) > limit.most:
        return None
    per = timedelta(seconds=limit.per)
    excess = EXACT.subtract(EXACT.add(counter.used, demand.amount), limit.most)
    for sent_at, amount in db.execute(
        "SELECT sent_at, amount FROM limit_uses WHERE counter = ? AND sent_at > ?"
        " ORDER BY sent_at LIMIT ?",
        (counter.id, _micros(now - per), _LOOKED_AT),
    ):
        excess = EXACT.subtract(excess, Decimal(amount))
        if excess <= 0:
            return _EPOCH + timedelta(microseconds=sent_at) + per
    return now + per  # by then all of them are out


def _counted(demand: Demand) -> Decimal:
    """What counts for the demand; one that cannot be read takes all there is."""
    return demand.limit.most if demand.amount == UNREADABLE else demand.amount


def _total(rows: Sequence[sqlite3.Row]) -> Decimal:
    total = Decimal(0)
    for row in rows:
        total = EXACT.add(total, Decimal(row[0]))
    return total


def _text(number: Decimal) -> str:
    return format(number, "f")


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
