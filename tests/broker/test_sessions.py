"""Page sessions: they end by their clocks and by people, and an id in a list opens nothing."""

from __future__ import annotations

import pytest

from broker.errors import NotFound
from broker.model import User
from broker.sessions import IDLE, LONGEST, Sessions
from tests.support.services import World

GOOD = "correct horse battery"


@pytest.fixture
def sessions(world: World) -> Sessions:
    return world.services.sessions


@pytest.fixture
def alice(world: World) -> User:
    return world.services.people.get("alice")


def test_a_session_ends_by_logging_out_and_by_a_new_password(
    world: World, sessions: Sessions, alice: User
) -> None:
    ended, other, changed = (sessions.start(alice) for _ in range(3))
    assert len({ended.token, other.token, changed.token}) == 3
    assert sessions.get(other.token) == other
    sessions.end(ended.token)
    sessions.end(ended.token)
    sessions.end("unknown")
    assert sessions.get(ended.token) is None
    assert sessions.get(other.token) is not None
    world.services.people.set_password("alice", GOOD, "cli:test")
    assert sessions.get(changed.token) is None
    assert [r["user"] for r in world.records("user.logout")] == ["alice"]


def test_it_ends_with_its_age_however_often_it_is_used(
    world: World, sessions: Sessions, alice: User
) -> None:
    session = sessions.start(alice, longest=7200, idle=3600)
    for _ in range(3):
        world.clock.forward(2000)
        found = sessions.get(session.token)
        assert found is not None
        sessions.seen(found)
        world.settle()
    world.clock.forward(1200)
    assert sessions.get(session.token) is None
    assert sessions.list("alice") == []


def test_it_ends_when_nobody_is_there(world: World, sessions: Sessions, alice: User) -> None:
    session = sessions.start(alice)
    assert IDLE < LONGEST
    world.clock.forward(IDLE - 1)
    assert sessions.get(session.token) is not None, "looking is not being there"
    world.clock.forward(1)
    assert sessions.get(session.token) is None
    assert sessions.list("alice") == []
    found = sessions.get(session.token)
    assert found is None, "nothing revives it"


def test_being_seen_is_written_once_a_minute(world: World, sessions: Sessions, alice: User) -> None:
    session = sessions.start(alice)
    world.clock.forward(59)
    sessions.seen(session)
    world.settle()
    [before] = sessions.list("alice")
    assert before.last_seen_at == before.created_at
    world.clock.forward(1)
    sessions.seen(session)
    world.settle()
    [after] = sessions.list("alice")
    assert (after.last_seen_at - after.created_at).seconds == 60


def test_sessions_are_listed_without_what_opens_them(sessions: Sessions, alice: User) -> None:
    one = sessions.start(alice, client="Firefox on Linux")
    [listed] = sessions.list("alice")
    assert (listed.id, listed.user, listed.client) == (one.id, "alice", "Firefox on Linux")
    assert sessions.get(listed.id) is None
    assert one.token not in repr(listed)
    assert sessions.list("bob") == []


def test_one_is_ended_by_its_id_and_only_its_own_persons(
    world: World, sessions: Sessions, alice: User
) -> None:
    session, other = sessions.start(alice), sessions.start(alice)
    for id, of in ((session.id, "bob"), ("s-unknown", "alice"), (session.token, "alice")):
        with pytest.raises(NotFound, match="no open session of this id"):
            sessions.end_one(id, of, "alice")
    assert sessions.get(session.token) is not None
    sessions.end_one(session.id, "alice", "carol")
    assert sessions.get(session.token) is None
    assert sessions.get(other.token) is not None
    with pytest.raises(NotFound):
        sessions.end_one(session.id, "alice", "carol")
    [record] = world.records("user.session_ended")
    assert (record["user"], record["session"], record["by"]) == ("alice", session.id, "carol")


def test_all_sessions_of_one_person_end_together(
    world: World, sessions: Sessions, alice: User
) -> None:
    mine = [sessions.start(alice) for _ in range(3)]
    bobs = sessions.start(world.services.people.get("bob"))
    assert sessions.end_all("alice", "alice", keep=mine[0].id) == 2
    assert [sessions.get(session.token) is None for session in mine] == [False, True, True]
    assert sessions.end_all("alice", "carol") == 1
    assert sessions.end_all("alice", "carol") == 0
    assert sessions.get(mine[0].token) is None
    assert sessions.get(bobs.token) is not None
    told = [(r["user"], r["by"], r["others"]) for r in world.records("user.logout")]
    assert told == [("alice", "alice", True), ("alice", "carol", False)]


def test_what_ended_does_not_pile_up(world: World, sessions: Sessions, alice: User) -> None:
    for _ in range(3):
        sessions.end(sessions.start(alice).token)
    sessions.start(alice)
    [(kept,)] = world.rows("SELECT count(*) FROM sessions")
    assert kept == 1


def test_the_csrf_token_belongs_to_its_session(sessions: Sessions, alice: User) -> None:
    one, two = (sessions.start(alice) for _ in range(2))
    assert one.csrf != two.csrf
    found = sessions.get(one.token)
    assert found is not None
    assert found.csrf == one.csrf
    assert one.csrf not in one.token


def test_sessions_are_kept_as_hashes_only(world: World, sessions: Sessions, alice: User) -> None:
    session = sessions.start(alice)
    on_disk = world.files()
    assert session.token.encode() not in on_disk
    assert session.csrf.encode() not in on_disk
