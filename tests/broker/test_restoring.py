"""A restored workspace brings back nothing that could act twice, and its ledger says so."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path

from broker.restoring import Ended, end_what_was_open
from broker.secrets.handover import Handover
from broker.secrets.login import Grant
from broker.services import create_state, open_services
from tests.broker.test_sending import outcome_of, send
from tests.support.holding import approved, claim, hold, state_of
from tests.support.services import World, payout, refund


def restored(world: World, *, end_tokens: bool = False) -> Ended:
    return end_what_was_open(world.services, backup="b-1", by="cli:root", end_tokens=end_tokens)


def test_open_approvals_end_and_cannot_be_executed_again(world: World) -> None:
    waiting = hold(world, refund(1))
    ready = approved(world, refund(2))
    taken = claim(world, approved(world, refund(3)), "c-taken")
    assert restored(world).approvals == 3
    for approval in (waiting, ready, taken):
        assert state_of(world, approval) == "expired"
        assert world.services.holds.stored(approval.id) is None
    reasons = {r["reason"] for r in world.records("approval.resolved")[-3:]}
    assert reasons == {"the workspace was restored from a backup"}


def test_a_call_under_way_becomes_unknown(world: World) -> None:
    send(world, "c-sent")
    assert restored(world).unknown == 1
    assert outcome_of(world, "c-sent") == ["call.sent", "call.unknown"]


def test_sessions_links_and_runs_end_and_standing_tokens_stay(world: World) -> None:
    services = world.services
    alice = services.people.get("alice")
    session = services.sessions.start(alice)
    token = services.tokens.new("alice", "test")
    run = services.agents.run_token("bot", ttl=600, by="test")
    assert services.agents.authenticate("bot", run) is not None
    standing = world.client()
    done = restored(world)
    assert done.sessions >= 1
    assert services.sessions.get(session.token) is None
    assert services.agents.authenticate("bot", run) is None
    assert services.agents.current(standing) is not None
    assert services.tokens.user(token) is not None


def test_a_token_for_vault_is_not_brought_back(world: World) -> None:
    services = world.services
    handover = Handover(services.store, services.keys.vault, secrets.token_bytes)
    handover.publish(Grant("hvs.x", 60, renewable=True))
    restored(world)
    assert handover.read().grant is None


def test_all_tokens_end_where_that_is_asked(world: World) -> None:
    services = world.services
    token = services.tokens.new("alice", "test")
    standing = world.client()
    assert restored(world, end_tokens=True).tokens >= 2
    assert services.agents.current(standing) is None
    assert services.tokens.user(token) is None


def test_the_ledger_tells_of_it(world: World) -> None:
    hold(world, payout())
    done = restored(world)
    (record,) = world.records("workspace.restored")
    assert record["backup"] == "b-1"
    assert record["approvals"] == done.approvals == 1
    world.check()


def test_an_open_link_for_the_first_user_ends(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    create_state(tmp_path)
    with closing(open_services(tmp_path)) as services:
        link = services.people.first_user_link()
        assert services.people.link_is_open(link)
        end_what_was_open(services, backup="b-1", by="cli:root", end_tokens=False)
        assert not services.people.link_is_open(link)
