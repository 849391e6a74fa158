"""People: argon2 hashes, sessions, API tokens, the one-time link; an ended account loses all."""

from __future__ import annotations

import pytest

from broker.errors import Conflict, InvalidInput, NotFound
from broker.people import LINK_TTL, People
from broker.services import Services
from tests.support.services import QUICK, Clock, World, open_services

GOOD = "correct horse battery"


@pytest.fixture
def people(world: World) -> People:
    world.services.people.set_password("alice", GOOD, "cli:test")
    return world.services.people


@pytest.fixture
def empty(tmp_path: object) -> object:
    services = open_services(tmp_path / "empty.db", Clock())  # type: ignore[operator]
    yield services
    services.close()


# Passwords


def test_the_right_password_is_the_person_and_both_outcomes_are_recorded(
    world: World, people: People
) -> None:
    user = people.check_password("alice", GOOD)
    assert user is not None
    assert (user.name, user.role, user.has_password) == ("alice", "approver", True)
    assert people.check_password("alice", GOOD + "x") is None
    logins = [(r["type"], r["user"]) for r in world.records("user.login", "user.login_failed")]
    assert logins == [("user.login", "alice"), ("user.login_failed", "alice")]


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("nobody", None),  # a password that was typed into the field for the name stays out
        (GOOD, None),
        ("bob", "bob"),  # has no password
    ],
)
def test_who_has_no_password_gets_in_with_none(
    world: World, people: People, name: str, recorded: str | None
) -> None:
    for password in (GOOD, "", "\ud800"):
        assert people.check_password(name, password) is None
    assert {r["user"] for r in world.records("user.login_failed")} == {recorded}


def test_a_password_is_kept_as_an_argon2id_hash(world: World, people: People) -> None:
    [(kept,)] = world.rows("SELECT password_hash FROM users WHERE name = 'alice'")
    assert kept.startswith("$argon2id$")
    assert QUICK.verify(kept, GOOD)
    assert GOOD.encode() not in world.files()


def test_an_unknown_name_costs_a_hash_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time of the answer would tell which names exist."""
    verified: list[str] = []

    class Counting:
        def hash(self, password: str) -> str:
            return QUICK.hash(password)

        def verify(self, hashed: str, password: str) -> bool:
            verified.append(hashed)
            return bool(QUICK.verify(hashed, password))

    people = People(
        world.services.store,
        pages_key=b"p" * 32,
        new_id=world.ids,
        random=lambda count: b"x" * count,
        hasher=Counting(),  # type: ignore[arg-type]
    )
    assert people.check_password("nobody", GOOD) is None
    assert people.check_password("bob", GOOD) is None
    assert len(verified) == 2
    assert all(hashed.startswith("$argon2id$") for hashed in verified)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "too short: 10 characters"),
        ("x" * 1025, "too long: 1024"),
        ("\ud800" * 12, "half a character"),
    ],
)
def test_a_bad_password_is_refused(people: People, password: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        people.set_password("alice", password, "cli:test")
    assert people.check_password("alice", GOOD) is not None


# Accounts


def test_an_account_is_added_once(world: World) -> None:
    people = world.services.people
    user = people.add("erin", "viewer", None, "cli:test")
    assert (user, user.has_password, people.any()) == (people.get("erin"), False, True)
    with pytest.raises(Conflict, match="there is a user erin already"):
        people.add("erin", "admin", None, "cli:test")
    assert people.get("erin").role == "viewer"
    with pytest.raises(InvalidInput, match="role 'root': it can be viewer, approver, admin"):
        people.add("fred", "root", None, "cli:test")
    with pytest.raises(InvalidInput, match="is no name for a user"):
        people.add("a b", "admin", None, "cli:test")
    assert [u.name for u in people.list()] == ["alice", "bob", "carol", "dave", "erin", "victor"]


def test_who_is_not_there_is_not_found(world: World) -> None:
    people = world.services.people
    for ask in (
        lambda: people.get("nobody"),
        lambda: people.disable("nobody", "cli:test"),
        lambda: people.set_password("nobody", GOOD, "cli:test"),
        lambda: people.new_api_token("nobody", "cli:test"),
    ):
        with pytest.raises(NotFound, match="there is no user nobody"):
            ask()


def test_a_disabled_account_loses_everything_at_once_in_every_process(
    world: World, people: People
) -> None:
    other = world.open().people
    session = people.start_session(people.get("alice"))
    token = people.new_api_token("alice", "cli:test")
    assert other.session(session.token) is not None
    assert other.by_api_token(token) is not None
    people.disable("alice", "cli:test")
    assert other.session(session.token) is None
    assert other.by_api_token(token) is None
    assert other.check_password("alice", GOOD) is None
    with pytest.raises(Conflict, match="the user alice is disabled"):
        other.new_api_token("alice", "cli:test")
    with pytest.raises(Conflict, match="disabled already"):
        other.disable("alice", "cli:test")
    later = other.start_session(people.get("alice"))
    assert other.session(later.token) is None


# Sessions


def test_a_session_ends_by_its_clock_by_logging_out_and_by_a_new_password(
    world: World, people: People
) -> None:
    alice = people.get("alice")
    brief = people.start_session(alice, ttl=60)
    ended, other, changed = (people.start_session(alice) for _ in range(3))
    assert len({brief.token, ended.token, other.token}) == 3
    assert people.session(brief.token) == brief
    world.clock.forward(60)
    assert people.session(brief.token) is None
    people.end_session(ended.token)
    people.end_session(ended.token)
    people.end_session("unknown")
    assert people.session(ended.token) is None
    assert people.session(other.token) is not None
    people.set_password("alice", GOOD + "!", "cli:test")
    assert people.session(changed.token) is None
    assert [r["user"] for r in world.records("user.logout")] == ["alice"]


def test_all_sessions_of_one_person_end_together(world: World, people: People) -> None:
    mine = [people.start_session(people.get("alice")) for _ in range(2)]
    bobs = people.start_session(people.get("bob"))
    people.end_all("alice")
    people.end_all("alice")
    assert [people.session(session.token) for session in mine] == [None, None]
    assert people.session(bobs.token) is not None
    assert len(world.records("user.logout")) == 1


def test_the_csrf_token_belongs_to_its_session(people: People) -> None:
    one, two = (people.start_session(people.get("alice")) for _ in range(2))
    assert one.csrf != two.csrf
    found = people.session(one.token)
    assert found is not None
    assert found.csrf == one.csrf
    assert one.csrf not in one.token


def test_sessions_and_tokens_are_kept_as_hashes_only(world: World, people: People) -> None:
    session = people.start_session(people.get("alice"))
    token = people.new_api_token("alice", "cli:test")
    on_disk = world.files()
    for shown in (session.token, session.csrf, token):
        assert shown.encode() not in on_disk
    assert [r["by"] for r in world.records("user.token")] == ["cli:test"]


def test_a_session_is_no_api_token_and_the_other_way_round(people: People) -> None:
    session = people.start_session(people.get("alice"))
    token = people.new_api_token("alice", "cli:test")
    assert people.by_api_token(session.token) is None
    assert people.session(token) is None


# The first link


def test_the_first_link_makes_an_admin_once(empty: Services) -> None:
    people = empty.people
    assert not people.any()
    link = people.first_user_link()
    assert people.link_is_open(link)
    assert people.link_is_open(link), "looking does not use it up"
    with pytest.raises(InvalidInput, match="too short"):
        people.redeem_link(link, "alice", "short")
    assert people.link_is_open(link)
    assert people.redeem_link(link, "alice", GOOD).role == "admin"
    assert not people.link_is_open(link)
    with pytest.raises(NotFound, match="was used or has expired"):
        people.redeem_link(link, "mallory", GOOD)
    with pytest.raises(Conflict, match="there are users already"):
        people.first_user_link()
    assert [user.name for user in people.list()] == ["alice"]


def test_a_new_link_ends_the_one_before(empty: Services) -> None:
    people = empty.people
    first, second = people.first_user_link(), people.first_user_link()
    assert not people.link_is_open(first)
    with pytest.raises(NotFound, match="was used"):
        people.redeem_link(first, "alice", GOOD)
    assert people.redeem_link(second, "alice", GOOD).name == "alice"


def test_a_link_ends_with_its_time_and_with_the_first_account(empty: Services) -> None:
    people = empty.people
    late = people.first_user_link()
    empty.store.clock.forward(LINK_TTL.total_seconds())  # type: ignore[attr-defined]
    assert not people.link_is_open(late)
    with pytest.raises(NotFound, match="has expired"):
        people.redeem_link(late, "alice", GOOD)
    link = people.first_user_link()
    people.add("bob", "viewer", None, "cli:test")
    assert not people.link_is_open(link)
    with pytest.raises(NotFound, match="was used"):
        people.redeem_link(link, "alice", GOOD)
