"""Guessing gets slower and slower, and honest people are let in."""

from broker.admin.throttle import Throttle

ALICE = ("user:alice",)


def test_the_first_guesses_are_free_and_then_the_wait_doubles() -> None:
    throttle = Throttle(free=2, first=1, longest=60)
    assert [throttle.begin(ALICE, 0) for _ in range(3)] == [0, 0, 0]
    assert throttle.begin(ALICE, 0) == 1
    assert throttle.begin(ALICE, 1) == 0
    assert throttle.begin(ALICE, 1) == 2
    assert throttle.begin(ALICE, 3) == 0
    assert throttle.begin(ALICE, 3.5) == 4, "waits are rounded up"


def test_the_wait_has_an_end() -> None:
    throttle = Throttle(free=0, first=1, longest=60)
    now = 0.0
    for _ in range(100):
        now += throttle.begin(ALICE, now)
        throttle.begin(ALICE, now)
    assert throttle.begin(ALICE, now) == 60


def test_asking_while_blocked_does_not_prolong_it() -> None:
    throttle = Throttle(free=0, first=10, longest=60)
    throttle.begin(ALICE, 0)
    assert [throttle.begin(ALICE, t) for t in (1, 5, 9)] == [9, 5, 1]
    assert throttle.begin(ALICE, 10) == 0


def test_a_right_guess_starts_afresh() -> None:
    throttle = Throttle(free=1)
    throttle.begin(ALICE, 0)
    throttle.succeeded(ALICE)
    assert throttle.begin(ALICE, 0) == 0
    assert throttle.begin(ALICE, 0) == 0


def test_a_shared_key_takes_back_one_guess_only() -> None:
    throttle = Throttle(free=1)
    address = ("address:192.0.2.1",)
    assert throttle.begin(address, 0) == 0
    assert throttle.begin(address, 0) == 0
    throttle.forgive(address)
    assert throttle.begin(address, 0) == 0
    assert throttle.begin(address, 0) > 0
    throttle.forgive(("address:never seen",))


def test_people_do_not_wait_for_each_other() -> None:
    throttle = Throttle(free=0)
    throttle.begin(ALICE, 0)
    assert throttle.begin(ALICE, 0) > 0
    assert throttle.begin(("user:bob",), 0) == 0


def test_counts_are_forgotten_and_bounded() -> None:
    throttle = Throttle(free=0, first=1, forget=100, keys=2)
    throttle.begin(ALICE, 0)
    assert throttle.begin(ALICE, 200) == 0, "long ago"
    for n in range(5):
        throttle.begin((f"user:{n}",), 200)
    assert throttle.begin(ALICE, 200) == 0, "pushed out by newer keys"
