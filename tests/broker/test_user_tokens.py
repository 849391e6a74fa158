"""API tokens: shown once, listed without their values, ended by age, by hand, with the account."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import Conflict, InvalidInput, NotFound
from broker.user_tokens import MOST, UserTokens
from tests.support.services import World


@pytest.fixture
def tokens(world: World) -> UserTokens:
    return world.services.tokens


def test_tokens_are_kept_as_hashes_and_their_making_is_recorded(
    world: World, tokens: UserTokens
) -> None:
    token = tokens.new("alice", "cli:test", label="deploy", lasts=timedelta(days=1))
    assert token.encode() not in world.files()
    [record] = world.records("user.token")
    [listed] = tokens.list("alice")
    assert (record["by"], record["token"], record["name"]) == ("cli:test", listed.id, "deploy")
    assert token not in repr(listed)
    assert tokens.user(listed.id) is None, "its id is no token"


def test_a_token_ends_with_its_time(world: World, tokens: UserTokens) -> None:
    brief = tokens.new("alice", "cli:test", lasts=timedelta(hours=1))
    lasting = tokens.new("alice", "cli:test")
    world.clock.forward(3599)
    assert tokens.user(brief) is not None
    world.clock.forward(1)
    assert tokens.user(brief) is None
    assert tokens.user(lasting) is not None
    assert [token.expires_at for token in tokens.list("alice")] == [None]


def test_its_use_is_remembered_to_the_minute(world: World, tokens: UserTokens) -> None:
    token = tokens.new("alice", "cli:test")
    assert tokens.list("alice")[0].last_used_at is None
    for seconds, told in ((10, 10), (30, 10), (60, 100)):
        world.clock.forward(seconds)
        assert tokens.user(token) is not None
        world.settle()
        [listed] = tokens.list("alice")
        assert listed.last_used_at is not None
        assert (listed.last_used_at - listed.created_at).seconds == told


def test_one_is_revoked_by_its_id_and_only_its_own_persons(
    world: World, tokens: UserTokens
) -> None:
    token, other = tokens.new("alice", "cli:test"), tokens.new("alice", "cli:test")
    by_id = {listed.id for listed in tokens.list("alice")}
    for id in by_id:
        with pytest.raises(NotFound, match="no open token of this id"):
            tokens.revoke(id, "bob", "bob")
    assert tokens.user(token) is not None
    first = next(r["token"] for r in world.records("user.token"))
    tokens.revoke(str(first), "alice", "carol")
    assert tokens.user(token) is None
    assert tokens.user(other) is not None
    with pytest.raises(NotFound):
        tokens.revoke(str(first), "alice", "carol")
    assert [(r["user"], r["by"]) for r in world.records("user.token_revoked")] == [
        ("alice", "carol")
    ]


@pytest.mark.parametrize("label", ["x" * 61, "a\nb", "\x1b[31m", "\ud800"])
def test_a_name_that_could_not_be_shown_is_refused(label: str, tokens: UserTokens) -> None:
    with pytest.raises(InvalidInput, match="printable"):
        tokens.new("alice", "cli:test", label=label)


def test_their_number_has_an_end(tokens: UserTokens) -> None:
    with pytest.raises(InvalidInput, match="some time"):
        tokens.new("alice", "cli:test", lasts=timedelta(0))
    for _ in range(MOST):
        tokens.new("alice", "cli:test")
    with pytest.raises(Conflict, match="revoke one"):
        tokens.new("alice", "cli:test")
    assert tokens.new("bob", "cli:test")


def test_a_session_is_no_api_token_and_the_other_way_round(
    world: World, tokens: UserTokens
) -> None:
    session = world.services.sessions.start(world.services.people.get("alice"))
    token = tokens.new("alice", "cli:test")
    assert tokens.user(session.token) is None
    assert world.services.sessions.get(token) is None
