"""People: accounts, roles, the one-time links; an ended account loses all."""

from __future__ import annotations

import pytest

from broker.errors import Conflict, InvalidInput, NotEntitled, NotFound
from broker.people import LINK_TTL, RESET_TTL, People
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
        lambda: people.set_role("nobody", "viewer", "cli:test"),
        lambda: people.enable("nobody", "cli:test"),
        lambda: people.reset("nobody", "cli:test"),
        lambda: world.services.tokens.new("nobody", "cli:test"),
    ):
        with pytest.raises(NotFound, match="there is no user nobody"):
            ask()


def test_a_disabled_account_loses_everything_at_once_in_every_process(
    world: World, people: People
) -> None:
    here, other = world.services, world.open()
    session = here.sessions.start(people.get("alice"))
    token = here.tokens.new("alice", "cli:test")
    link = people.reset("bob", "cli:test")
    assert other.sessions.get(session.token) is not None
    assert other.tokens.user(token) is not None
    people.disable("alice", "cli:test")
    people.disable("bob", "cli:test")
    assert other.sessions.get(session.token) is None
    assert other.tokens.user(token) is None
    assert other.people.check_password("alice", GOOD) is None
    assert other.people.reset_of(link) is None
    with pytest.raises(NotFound, match="was used or has expired"):
        other.people.redeem_reset(link, GOOD)
    with pytest.raises(Conflict, match="the user alice is disabled"):
        other.tokens.new("alice", "cli:test")
    with pytest.raises(Conflict, match="the user alice is disabled"):
        other.people.reset("alice", "cli:test")
    with pytest.raises(Conflict, match="disabled already"):
        other.people.disable("alice", "cli:test")
    with pytest.raises(NotEntitled, match="disabled"):
        other.sessions.start(people.get("alice"))
    people.enable("alice", "cli:test")
    assert other.sessions.get(session.token) is None
    assert other.tokens.user(token) is None
    assert other.people.check_password("alice", GOOD) is not None


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


# Roles, and the last admin


def test_a_role_is_changed_at_once_and_recorded(world: World) -> None:
    people = world.services.people
    assert people.set_role("alice", "admin", "carol").role == "admin"
    assert world.open().people.get("alice").role == "admin"
    people.set_role("alice", "admin", "carol")
    [record] = world.records("user.role")
    assert (record["user"], record["role"], record["was"]) == ("alice", "admin", "approver")
    with pytest.raises(InvalidInput, match="it can be viewer, approver, admin"):
        people.set_role("alice", "root", "carol")


def test_the_last_admin_stays(world: World) -> None:
    people = world.services.people
    for lose in (
        lambda: people.disable("carol", "carol"),
        lambda: people.set_role("carol", "viewer", "carol"),
    ):
        with pytest.raises(Conflict, match="carol is the last admin: give somebody else"):
            lose()
    people.set_role("dave", "admin", "carol")
    people.disable("dave", "carol")
    with pytest.raises(Conflict, match="last admin"):
        people.set_role("carol", "approver", "carol")
    people.enable("dave", "carol")
    people.disable("carol", "dave")
    with pytest.raises(Conflict, match="dave is the last admin"):
        people.disable("dave", "dave")
    with pytest.raises(Conflict, match="not disabled"):
        people.enable("dave", "dave")


# Links for a new password


def test_a_reset_takes_the_password_away_and_gives_a_link(world: World, people: People) -> None:
    session = world.services.sessions.start(people.get("alice"))
    token = world.services.tokens.new("alice", "cli:test")
    link = people.reset("alice", "carol")
    assert people.check_password("alice", GOOD) is None
    assert world.services.sessions.get(session.token) is None
    assert world.services.tokens.user(token) is not None, "what runs by itself goes on"
    assert people.reset_of(link) == "alice"
    assert people.reset_of(link) == "alice", "looking does not use it up"
    with pytest.raises(InvalidInput, match="too short"):
        people.redeem_reset(link, "short")
    assert people.redeem_reset(link, GOOD + "!").name == "alice"
    assert people.check_password("alice", GOOD + "!") is not None
    assert people.reset_of(link) is None
    with pytest.raises(NotFound, match="was used or has expired"):
        people.redeem_reset(link, GOOD)
    assert link.encode() not in world.files()
    assert [r["by"] for r in world.records("user.reset")] == ["carol"]
    assert [r["by"] for r in world.records("user.password")] == ["cli:test", "reset-link"]


def test_a_reset_link_ends_with_its_time_and_with_the_next_one(
    world: World, people: People
) -> None:
    first, second = people.reset("alice", "carol"), people.reset("alice", "carol")
    assert people.reset_of(first) is None
    assert people.reset_of(second) == "alice"
    world.clock.forward(RESET_TTL.total_seconds())
    assert people.reset_of(second) is None
    with pytest.raises(NotFound, match="has expired"):
        people.redeem_reset(second, GOOD)


def test_the_links_are_not_taken_for_each_other(world: World, empty: Services) -> None:
    people = world.services.people
    link = people.reset("alice", "carol")
    assert not people.link_is_open(link)
    with pytest.raises(NotFound):
        people.redeem_link(link, "mallory", GOOD)
    setup = empty.people.first_user_link()
    assert empty.people.reset_of(setup) is None
    with pytest.raises(NotFound):
        empty.people.redeem_reset(setup, GOOD)
    assert empty.people.link_is_open(setup)
