"""What was used of limits: exact in every window, whatever is sent, given back, or lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from broker.stores import limits
from broker.stores.limits import Caller
from broker.stores.schema import migrations
from rules.limits import UNREADABLE, Demand, Limit, Over

START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
TWO = Limit(Decimal(2), 60)
MONEY = Limit(Decimal(100), 3600, "form:amount")
EASY = Limit(Decimal(100), 3600, "form:amount", "hold")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@cache
def _migrated() -> bytes:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrations.apply(Database(db))
        return db.serialize()


def new_store() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.deserialize(_migrated())
    db.execute("PRAGMA foreign_keys = ON")
    return db


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(new_store()) as opened:
        yield opened
        check(opened)


def check(db: sqlite3.Connection) -> None:
    """Each counter has the sum of its uses."""
    for counter, used in db.execute("SELECT id, used FROM limit_counters").fetchall():
        amounts = db.execute("SELECT amount FROM limit_uses WHERE counter = ?", (counter,))
        assert sum((Decimal(row[0]) for row in amounts), Decimal(0)) == Decimal(used)


def take(
    db: sqlite3.Connection,
    call: str,
    *wanted: tuple[Limit, str],
    now: float = 0,
    agent: str = "bot",
    rule: str = "pay",
    worker: str | None = "w1",
    held: bool = False,
) -> tuple[Over, ...]:
    demands = demands_for(*wanted, rule=rule)
    return limits.reserve(db, Caller(call, agent, worker), demands, at(now), held=held)


def demands_for(*wanted: tuple[Limit, str], rule: str = "pay") -> list[Demand]:
    return [Demand(rule, limit, Decimal(amount)) for limit, amount in wanted]


def send(db: sqlite3.Connection, call: str, *wanted: tuple[Limit, str], now: float = 0) -> None:
    limits.sent(db, call, "bot", demands_for(*wanted), at(now))


def uses(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT call FROM limit_uses ORDER BY call")]


ONE = (TWO, "1")


def test_what_is_sent_counts_until_its_time_is_over(db: sqlite3.Connection) -> None:
    for call, moment in (("c-1", 0), ("c-2", 20)):
        assert take(db, call, ONE, now=moment) == ()
        send(db, call, ONE, now=moment)
    [over] = take(db, "c-3", ONE, now=59.999999)
    assert (over.used, over.frees_at, over.fits) == (2, at(60), True)
    assert take(db, "c-3", ONE, now=60) == ()
    send(db, "c-3", ONE, now=60)
    [over] = take(db, "c-4", ONE, now=60)
    assert over.frees_at == at(80)


def test_what_was_not_sent_counts_however_long_it_takes(db: sqlite3.Connection) -> None:
    """Or people who decide late would let two windows' worth out in one."""
    take(db, "c-1", ONE)
    take(db, "c-2", ONE)
    [over] = take(db, "c-3", ONE, now=10_000)
    assert over.frees_at is None and over.fits
    send(db, "c-1", ONE, now=10_000)
    [over] = take(db, "c-3", ONE, now=10_000)
    assert over.frees_at == at(10_060)


def test_agents_and_rules_count_by_themselves(db: sqlite3.Connection) -> None:
    for call in ("c-1", "c-2"):
        assert take(db, call, ONE) == ()
    assert take(db, "c-3", ONE)
    assert take(db, "c-4", ONE, agent="other") == ()
    assert take(db, "c-5", ONE, rule="another") == ()


def test_a_sum_is_exact(db: sqlite3.Connection) -> None:
    assert take(db, "c-1", (MONEY, "99.999999999999999999")) == ()
    [over] = take(db, "c-2", (MONEY, "0.000000000000000002"))
    assert over.used == Decimal("99.999999999999999999")
    assert take(db, "c-3", (MONEY, "0.000000000000000001")) == ()
    assert take(db, "c-4", (MONEY, "0")) == ()
    assert take(db, "c-5", (MONEY, "0.000000000000000001"))


def test_room_is_said_for_the_amount_that_was_asked(db: sqlite3.Connection) -> None:
    for call, amount, moment in (("c-1", "10", 0), ("c-2", "60", 100), ("c-3", "30", 200)):
        take(db, call, (MONEY, amount), now=moment)
        send(db, call, (MONEY, amount), now=moment)
    for amount, frees in (("1", 3600), ("10", 3600), ("11", 3700), ("71", 3800), ("100", 3800)):
        [over] = take(db, "c-9", (MONEY, amount), now=300)
        assert over.frees_at == at(frees), amount
        for moment, fits in ((frees - 0.000001, False), (frees, True)):
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
                db.backup(copy)
                assert (take(copy, "c-9", (MONEY, amount), now=moment) == ()) is fits


def test_what_is_larger_than_the_limit_never_fits(db: sqlite3.Connection) -> None:
    [over] = take(db, "c-1", (MONEY, "100.01"))
    assert not over.fits and over.frees_at is None
    [over] = take(db, "c-1", (MONEY, "Infinity"))
    assert not over.fits and over.demand.amount == UNREADABLE
    assert uses(db) == []


def test_all_is_counted_or_nothing(db: sqlite3.Connection) -> None:
    assert take(db, "c-1", ONE, (MONEY, "60")) == ()
    over = take(db, "c-2", ONE, (MONEY, "60"))
    assert [each.demand.limit for each in over] == [MONEY]
    assert set(uses(db)) == {"c-1"}
    assert take(db, "c-3", ONE, (MONEY, "40")) == ()
    over = take(db, "c-4", ONE, (MONEY, "60"))
    assert [each.demand.limit for each in over] == [TWO, MONEY]


def test_a_call_that_is_decided_anew_counts_once(db: sqlite3.Connection) -> None:
    for _ in range(5):
        assert take(db, "c-1", ONE) == ()
    assert take(db, "c-2", ONE) == ()
    assert take(db, "c-1", (MONEY, "1")) == ()  # another rule's limit by now
    assert take(db, "c-3", ONE) == ()


def test_what_is_given_back_can_be_had_again(db: sqlite3.Connection) -> None:
    take(db, "c-1", ONE, (MONEY, "100"))
    take(db, "c-2", ONE)
    limits.give_back(db, "c-1")
    limits.give_back(db, "c-1")
    assert take(db, "c-3", ONE, (MONEY, "100")) == ()
    assert take(db, "c-4", ONE)
    send(db, "c-3", ONE, (MONEY, "100"))
    limits.give_back(db, "c-3")  # it was sent: that is no more to be had
    assert take(db, "c-4", ONE)


@pytest.mark.parametrize("again", [False, True])
def test_what_turns_out_not_to_be_sent(db: sqlite3.Connection, again: bool) -> None:
    take(db, "c-1", ONE)
    take(db, "c-2", ONE)
    send(db, "c-1", ONE)
    limits.unsent(db, "c-1", again=again)
    assert bool(take(db, "c-3", ONE)) is again
    assert bool(take(db, "c-3", ONE, now=10_000)) is again
    if again:
        send(db, "c-1", ONE, now=10_000)
        [over] = take(db, "c-3", ONE, now=10_000)
        assert over.frees_at == at(10_060)


def test_what_is_sent_after_its_time_went_by_counts_anew(db: sqlite3.Connection) -> None:
    take(db, "c-1", ONE)
    send(db, "c-1", ONE)
    limits.prune(db, at(60))
    limits.unsent(db, "c-1", again=True)
    send(db, "c-1", ONE, now=100)
    take(db, "c-2", ONE, now=100)
    assert take(db, "c-3", ONE, now=100)


def test_a_held_call_may_go_beyond(db: sqlite3.Connection) -> None:
    """People are asked; what they may let through counts as well."""
    assert take(db, "c-1", (EASY, "60")) == ()
    assert take(db, "c-2", (EASY, "60")) and uses(db) == ["c-1"]
    [over] = take(db, "c-2", (EASY, "60"), worker=None, held=True)
    assert over.used == 60 and uses(db) == ["c-1", "c-2"]
    [over] = take(db, "c-3", (EASY, "1"))
    assert over.used == 120
    # One limit that denies is enough.
    assert len(take(db, "c-4", (EASY, "1"), (TWO, "3"), worker=None, held=True)) == 2
    assert uses(db) == ["c-1", "c-2"]


def test_what_cannot_be_read_takes_all(db: sqlite3.Connection) -> None:
    [over] = take(db, "c-1", (EASY, "Infinity"), worker=None, held=True)
    assert over.used == 0
    [over] = take(db, "c-2", (EASY, "1"))
    assert over.used == 100


def test_after_a_crash_what_was_not_sent_is_given_back(db: sqlite3.Connection) -> None:
    many = (Limit(Decimal(10), 60), "1")
    take(db, "c-1", many, worker="w1")
    take(db, "c-2", many, worker="w1")
    take(db, "c-3", many, worker="w2")
    take(db, "c-4", many, worker=None)
    send(db, "c-2", many)
    limits.recover(db, "w1")
    assert uses(db) == ["c-2", "c-3", "c-4"]
    limits.recover(db, None)
    assert uses(db) == ["c-2", "c-4"]


def test_a_clock_that_was_set_back_frees_nothing_early_and_blocks_not_for_ever(
    db: sqlite3.Connection,
) -> None:
    for call in ("c-1", "c-2"):
        take(db, call, ONE, now=100_000)
        send(db, call, ONE, now=100_000)
    [over] = take(db, "c-3", ONE, now=0)
    assert over.frees_at == at(60)
    assert take(db, "c-3", ONE, now=59)
    assert take(db, "c-3", ONE, now=60) == ()


def test_a_limit_whose_time_was_edited_goes_on(db: sqlite3.Connection) -> None:
    for call, moment in (("c-1", 0), ("c-2", 100)):
        take(db, call, (MONEY, "50"), now=moment)
        send(db, call, (MONEY, "50"), now=moment)
    longer = Limit(Decimal(100), 7200, "form:amount")
    [over] = take(db, "c-3", (longer, "1"), now=200)
    assert (over.used, over.frees_at) == (100, at(7200))
    shorter = Limit(Decimal(100), 150, "form:amount")
    [over] = take(db, "c-3", (shorter, "51"), now=200)
    assert (over.used, over.frees_at) == (50, at(250))
    higher = Limit(Decimal(101), 3600, "form:amount")
    assert take(db, "c-3", (higher, "1"), now=200) == ()


@pytest.mark.parametrize("first", [3600, 1800, 7200])
def test_a_limit_whose_time_was_edited_and_edited_back_knows_all_uses(
    db: sqlite3.Connection, first: int
) -> None:
    """Else whoever edits it twice lets the agent spend more than either limit says."""
    for number, per in enumerate((3600, first, 3600)):
        limit = Limit(Decimal(100), per, "form:amount")
        take(db, f"c-{number}", (limit, "30"), now=number)
        send(db, f"c-{number}", (limit, "30"), now=number)
    [over] = take(db, "c-9", (MONEY, "11"), now=100)
    assert (over.used, over.frees_at) == (90, at(3600))


def test_what_counts_beside_a_limit_is_given_back_and_goes_as_it_does(
    db: sqlite3.Connection,
) -> None:
    shorter = Limit(Decimal(100), 60, "form:amount")
    take(db, "c-1", (MONEY, "50"))
    send(db, "c-1", (MONEY, "50"))
    take(db, "c-2", (shorter, "50"), now=1)
    limits.give_back(db, "c-2")
    take(db, "c-3", (shorter, "50"), now=2)
    limits.recover(db, "w1")
    take(db, "c-4", (shorter, "1"), now=3)
    send(db, "c-4", (shorter, "1"), now=3)
    limits.recover(db, "w1")
    [over] = take(db, "c-5", (MONEY, "50"), now=3)
    assert over.used == 51
    assert take(db, "c-5", (MONEY, "50"), now=3600) == ()


def test_what_is_over_is_dropped_a_part_at_a_time(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_OUT_AT_A_TIME", 3)
    ten = (Limit(Decimal(10), 60), "1")
    for number in range(10):
        take(db, f"c-{number}", ten)
        send(db, f"c-{number}", ten)
    assert not limits.any_due(db, at(59.9)) and limits.any_due(db, at(60))
    # Those that are over do not count, dropped or not.
    for number in range(10, 20):
        assert take(db, f"c-{number}", ten, now=60) == (), number
    assert take(db, "c-20", ten, now=60)
    limits.recover(db, None)
    while limits.any_due(db, at(60)):
        before = len(uses(db))
        limits.prune(db, at(60))
        assert 0 < before - len(uses(db)) <= 3
    limits.prune(db, at(60))
    assert uses(db) == []
    assert db.execute("SELECT count(*) FROM limit_counters").fetchone() == (0,)


def test_room_far_away_is_said_without_looking_through_everything(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_LOOKED_AT", 3)
    for number in range(100):
        take(db, f"c-{number}", (MONEY, "1"), now=number)
        send(db, f"c-{number}", (MONEY, "1"), now=number)
    [over] = take(db, "c-100", (MONEY, "3"), now=100)
    assert over.frees_at == at(3602)
    [over] = take(db, "c-100", (MONEY, "50"), now=100)
    assert over.frees_at == at(3700)
    assert take(db, "c-100", (MONEY, "50"), now=3700) == ()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT amount FROM limit_uses WHERE counter = 1 AND sent_at <= 5",
        "SELECT amount FROM limit_uses WHERE counter = 1 AND sent_at IS NULL",
        "DELETE FROM limit_uses WHERE call = 'c' AND sent_at IS NULL",
        "UPDATE limit_uses SET sent_at = 5 WHERE call = 'c' AND sent_at IS NULL",
        "SELECT id FROM limit_counters WHERE agent = 'a' AND rule = 'r' AND place = ''",
        "DELETE FROM limit_uses WHERE counter = 1",
        "UPDATE limit_uses SET sent_at = 5 WHERE counter = 1 AND sent_at > 5",
        "DELETE FROM limit_uses WHERE worker IS NOT NULL AND worker = 'w'",
    ],
)
def test_no_table_is_looked_through(db: sqlite3.Connection, statement: str) -> None:
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert all(step.startswith("SEARCH") for step in plan), plan


# Against a model


@dataclass
class Model:
    """Uses with the moments at which they really happened; the program's clock may lie."""

    most: int
    real: float = 0
    behind: float = 0
    """Seconds that the clock is behind."""
    open: dict[str, int] = field(default_factory=dict)
    sent: list[tuple[str, float, int]] = field(default_factory=list)

    def counted(self, per: float) -> int:
        return sum(self.open.values()) + sum(a for _, t, a in self.sent if t > self.real - per)

    def most_in_a_window(self, per: float) -> int:
        """The largest sum of what was sent in a stretch of `per` seconds."""
        return max(
            (sum(a for _, t, a in self.sent if begin <= t < begin + per)
             for _, begin, _ in self.sent),
            default=0,
        )  # fmt: skip


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 6)),
        st.tuples(st.just("send"), st.integers(0, 100)),
        st.tuples(st.just("give back"), st.integers(0, 100)),
        st.tuples(st.just("unsent"), st.integers(0, 100)),
        st.tuples(st.just("wait"), st.integers(0, 12)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("prune"), st.just(0)),
    ),
    max_size=60,
)
PER = 10


def play(steps: list[tuple[str, int]], agrees: Callable[[Model, bool, int], None]) -> None:
    limit = Limit(Decimal(10), PER, "form:amount")
    model = Model(10)
    with closing(new_store()) as db:
        for number, (what, value) in enumerate(steps):
            now = at(model.real - model.behind)
            open_ = sorted(model.open)
            chosen = open_[value % len(open_)] if open_ else None
            if what == "reserve":
                call = f"c-{number:03}"
                over = limits.reserve(
                    db, Caller(call, "bot", "w"), [Demand("r", limit, Decimal(value))], now
                )
                agrees(model, not over, value)
                if not over:
                    model.open[call] = value
            elif what == "send" and chosen:
                amount = model.open.pop(chosen)
                demand = Demand("r", limit, Decimal(amount))
                limits.sent(db, chosen, "bot", [demand], now)
                model.sent.append((chosen, model.real, amount))
            elif what == "give back" and chosen:
                limits.give_back(db, chosen)
                del model.open[chosen]
            elif what == "unsent" and model.sent and model.sent[-1][1] == model.real:
                call, _, _ = model.sent.pop()
                limits.unsent(db, call, again=False)
            elif what == "wait":
                model.real += value
            elif what == "back":
                model.behind += value
            elif what == "crash":
                limits.recover(db, "w")
                model.open.clear()
            elif what == "prune":
                limits.prune(db, now)
            check(db)
    assert model.most_in_a_window(PER) <= model.most


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_as_much_as_the_limit_in_every_window_and_no_more(steps: list[tuple[str, int]]) -> None:
    def agrees(model: Model, passed: bool, amount: int) -> None:
        assert passed is (model.counted(PER) + amount <= model.most)

    play(steps, agrees)


@given(
    st.lists(
        st.one_of(STEPS.map(tuple), st.tuples(st.tuples(st.just("back"), st.integers(1, 30)))),
        max_size=5,
    )
)
@settings(max_examples=100, deadline=None)
def test_a_clock_set_back_lets_nothing_more_through(
    parts: list[tuple[tuple[str, int], ...]],
) -> None:
    def agrees(model: Model, passed: bool, amount: int) -> None:
        assert not passed or model.counted(PER) + amount <= model.most

    play([step for part in parts for step in part], agrees)
