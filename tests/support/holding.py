"""Held calls without a pipeline: what it would propose, and the moves of an approval."""

from __future__ import annotations

from typing import Any

from broker.approvals import resolve
from broker.cards import make_card
from broker.digest import join_key, request_digest
from broker.holds import Holds, Proposal
from broker.injectors import place
from broker.model import Approval
from broker.sealing import StoredRequest
from rules.canonical import canonicalise
from rules.model import Subject
from rules.request import RawRequest
from tests.support.services import World, refund


def propose(
    world: World, wire: RawRequest | None = None, *, agent: str = "bot", note: str | None = None
) -> Proposal:
    """What the pipeline would propose for this request."""
    request = canonicalise(wire or refund())
    published = world.services.policies.refresh()
    assert published is not None
    known = world.services.agents.get(agent)
    subject = Subject(agent, known.tags, known.owner)
    policy = published.rulebook.policy
    decision = published.rulebook.decide(subject, request)
    assert decision.effect == "hold", decision
    credentials = [policy.credentials[name] for name in decision.credentials]
    outgoing = place(request, credentials)
    key = world.services.keys.digest
    return Proposal(
        call=world.ids("c"),
        agent=agent,
        stored=StoredRequest(outgoing, request.headers),
        digest=request_digest(key, outgoing, credentials),
        join_key=join_key(key, agent, outgoing, credentials),
        decision=decision,
        policy_version=published.version,
        requirement=resolve(policy, decision.tiers, subject),
        card=make_card(known, outgoing, decision, policy, credentials, note),
        credentials=[(c.name, str(c.secret)) for c in credentials],
    )


def hold(world: World, wire: RawRequest | None = None, **options: Any) -> Approval:
    return world.services.holds.open_or_join(propose(world, wire, **options)).result(5)


def approved(world: World, wire: RawRequest | None = None) -> Approval:
    held = hold(world, wire)
    world.vote(held.id)
    return world.services.holds.get(held.id)


def claim(
    world: World,
    held: Approval,
    call: str = "c-1",
    *,
    basis: str | None = None,
    holds: Holds | None = None,
) -> Approval:
    future = (holds or world.services.holds).claim(
        held.id, basis=held.basis if basis is None else basis, worker="w1", call=call
    )
    return future.result(5)


def state_of(world: World, held: Approval) -> str:
    return world.services.holds.get(held.id).state


def is_stored(world: World, held: Approval) -> bool:
    """Whether the request of this approval is still there."""
    return bool(world.rows("SELECT 1 FROM requests WHERE approval = ?", held.id))
