"""One token for many reads: taken once, renewed in time, replaced once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.secrets.access import AppRole, JwtFile, TokenFile, VaultAccess
from broker.secrets.keeper import LOOK, Direct, Keeper
from broker.secrets.login import Ask, Grant, Reply
from broker.secrets.trouble import VaultUnavailable


class Door:
    """An entrance that grants t1, t2 .. and does what `on_enter` and `on_renew` say before."""

    def __init__(self, lease: int = 0, *, renewable: bool = True, follows: bool = False) -> None:
        self.lease = lease
        self.renewable = renewable
        self._follows = follows
        self.said: list[str] = []
        self.sign: object = 0
        self.on_enter: Callable[[], None] = lambda: None
        self.on_renew: Callable[[], None] = lambda: None
        self.renewal: int | None = lease
        self.granted = 0

    async def enter(self, refused: Grant | None) -> Grant:
        self.said.append("enter")
        await asyncio.sleep(0)
        self.on_enter()
        self.granted += 1
        return Grant(f"t{self.granted}", self.lease, self.renewable)

    async def renew(self, grant: Grant) -> Grant | None:
        self.said.append(f"renew {grant.token}")
        self.on_renew()
        return None if self.renewal is None else Grant(grant.token, self.renewal, self.renewable)

    async def leave(self, grant: Grant) -> None:
        self.said.append(f"leave {grant.token}")

    def mark(self) -> object:
        return self.sign

    @property
    def follows(self) -> bool:
        return self._follows


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def keeper(door: Door, clock: Callable[[], float] | None = None) -> Keeper:
    return Keeper(door, limit=5.0, clock=clock or Clock(), spread=lambda: 0.5)


def refusing(kind: str = "log_in") -> Callable[[], None]:
    def refuse() -> None:
        raise VaultUnavailable("no", 400, kind=kind)  # type: ignore[arg-type]

    return refuse


async def test_a_token_is_taken_once_for_all_who_wait() -> None:
    door = Door()
    kept = keeper(door)
    assert await asyncio.gather(*(kept.token() for _ in range(20))) == ["t1"] * 20
    assert door.said == ["enter"]
    assert kept.log_ins == 1


async def test_a_refused_token_is_replaced_once_for_all_who_held_it() -> None:
    door = Door()
    kept = keeper(door)
    refused = await kept.token()
    assert await asyncio.gather(*(kept.other_than(refused) for _ in range(9))) == ["t2"] * 9
    assert await kept.other_than(refused) == "t2"
    assert door.said == ["enter", "enter", "leave t1"]


async def test_an_expired_token_is_not_even_tried() -> None:
    door, clock = Door(lease=90), Clock()
    kept = keeper(door, clock)
    await kept.token()
    assert kept.ends_in == 90
    clock.now += 90
    assert await kept.token() == "t2"
    kept.close()


async def test_a_reader_who_goes_away_does_not_end_the_log_in() -> None:
    door = Door()
    kept = keeper(door)
    first, second = asyncio.create_task(kept.token()), asyncio.create_task(kept.token())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "t1"
    assert door.said == ["enter"]


async def test_a_refused_log_in_is_not_repeated_by_every_read() -> None:
    """It would lock the account, and cost each call its time."""
    door, clock = Door(), Clock()
    door.on_enter = refusing()
    kept = keeper(door, clock)
    for _ in range(5):
        with pytest.raises(VaultUnavailable, match="no"):
            await kept.token()
    assert door.said == ["enter"]
    clock.now += LOOK
    with pytest.raises(VaultUnavailable):
        await kept.token()
    clock.now += LOOK
    with pytest.raises(VaultUnavailable):
        await kept.token()
    assert door.said == ["enter", "enter"]  # the pause has doubled
    door.sign = "another file"
    door.on_enter = lambda: None
    assert await kept.token() == "t1"


async def test_trouble_on_the_way_is_no_refusal() -> None:
    door = Door()
    door.on_enter = refusing("timeout")
    kept = keeper(door)
    for _ in range(3):
        with pytest.raises(VaultUnavailable):
            await kept.token()
    assert door.said == ["enter"] * 3


async def test_another_token_in_the_file_is_taken_up() -> None:
    door, clock = Door(follows=True), Clock()
    kept = keeper(door, clock)
    await kept.token()
    door.sign = "another"
    assert await kept.token() == "t1"  # it was looked at a moment ago
    clock.now += LOOK
    assert await kept.token() == "t2"
    clock.now += LOOK
    assert await kept.token() == "t2"


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.secrets.keeper._SHORTEST_LEAD", 0.02)


async def test_a_token_is_renewed_before_it_ends_though_nobody_reads(quick: None) -> None:
    door = Door(lease=1)
    kept = Keeper(door, limit=1, spread=lambda: 1.0)
    await kept.token()
    await until(lambda: kept.renewals == 2)
    assert door.said == ["enter", "renew t1", "renew t1"]
    left = kept.ends_in
    assert left is not None and left > 0
    kept.close()


@pytest.mark.parametrize("renewable", [True, False])
async def test_one_that_cannot_be_renewed_is_replaced_before_it_ends(
    renewable: bool, quick: None
) -> None:
    """Refused, cut short near its maximal TTL, or not renewable at all."""
    door = Door(lease=1, renewable=renewable)
    door.renewal = None
    kept = Keeper(door, limit=1)
    await kept.token()
    await until(lambda: kept.log_ins == 2 and "leave t1" in door.said)
    assert door.said == ["enter", *(["renew t1"] if renewable else []), "enter", "leave t1"]
    assert await kept.token() == "t2"
    kept.close()


@pytest.mark.parametrize("error", [VaultUnavailable("down"), RuntimeError("c4nary")])
async def test_renewal_goes_on_after_any_error(
    error: Exception, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(lease=1)
    times = 0

    def fail_twice() -> None:
        nonlocal times
        times += 1
        if times <= 2:
            raise error

    door.on_renew = fail_twice
    kept = Keeper(door, limit=1)
    with caplog.at_level(logging.WARNING):
        await kept.token()
        await until(lambda: kept.renewals >= 1)
    assert times >= 3
    assert len(caplog.records) == 2
    assert "c4nary" not in caplog.text
    kept.close()


async def test_closing_ends_the_renewal_and_hands_the_token_over() -> None:
    door = Door(lease=60)
    kept = keeper(door)
    await kept.token()
    grant = kept.close()
    assert grant is not None and grant.token == "t1"
    assert kept.close() is None


async def nobody(question: Ask) -> Reply:
    raise AssertionError(question)


async def test_only_a_token_file_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("a")
    for auth in (TokenFile(file), JwtFile("r", file), AppRole("r", secret_id_file=file)):
        door = Direct(VaultAccess("https://v", auth), nobody)
        assert door.follows == isinstance(auth, TokenFile)
        before = door.mark()
        file.write_text(file.read_text() + "b")
        assert door.mark() != before
    file.unlink()
    assert door.mark() is None
    assert Direct(VaultAccess("https://v", AppRole("r", secret_id="s")), nobody).mark() is None
