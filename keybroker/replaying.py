"""The ledger's calls, put before a candidate policy (`keybroker policy replay`). Reads only.

Agents have the tags and the owner, and people the roles, that they have now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from audit.filters import BadFilter, read_time
from audit.past import Past, PastCall, Skipped
from broker.errors import StoreUnavailable
from broker.model import User
from broker.policies import Policies
from broker.stores.sqlite import to_text
from rules.model import Policy, Subject
from rules.request import Via
from rules.trying.glimpse import Glimpse
from rules.trying.learn import Learner
from rules.trying.replay import Ask, Change, Replay, Seen
from rules.yamlfile import parse_duration

VOTING = ("approver", "admin")
ANY_APPROVER = "any approver"
"""Stands for the people of a group in which nobody is yet."""


@dataclass(frozen=True, slots=True)
class Load:
    """How often people would be asked."""

    days: float
    """What the averages are over; at least one."""
    average: Mapping[str, float]
    """Asks a day, by approver."""
    busiest: Mapping[str, tuple[str, int]]
    """Each approver's worst day, and how many asks it would have had."""
    unsure: Mapping[str, float]
    """Further asks a day that cannot be ruled out."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of it."""

    replay: Replay
    skipped: Skipped
    holds: Load
    then: Load
    """The same for what was held in fact."""


def moment_of(text: str, now: datetime, name: str) -> str:
    """A time as records write it, from `7d` (so long ago) or RFC 3339. Raises ValueError."""
    try:
        ago = timedelta(seconds=parse_duration(text))
    except ValueError:
        try:
            return read_time(text, name)
        except BadFilter as error:
            raise ValueError(f"{error} Or so long ago: 36h, 7d.") from None
    try:
        moment = now - ago
    except OverflowError:
        raise ValueError(f"{name}: {text} is before all calendars") from None
    return to_text(moment)


def earlier(policies: Policies) -> Callable[[int], Policy | None]:
    """The policy of a version, kept once read; None if it cannot be had."""
    kept: dict[int, Policy | None] = {}

    def find(version: int) -> Policy | None:
        if version not in kept:
            try:
                kept[version] = policies.version(version)
            except StoreUnavailable:
                kept[version] = None
        return kept[version]

    return find


def replay(
    past: Past,
    candidate: Policy,
    then: Callable[[int], Policy | None],
    agents: Mapping[str, Subject],
    people: Sequence[User],
    *,
    each: Callable[[Change], None],
    progress: Callable[[float], None],
) -> Replayed:
    """Asks the candidate about every call of the past; `each` is told of what it changes."""
    trial = Replay(candidate, then)
    first = last = None
    for call in past:
        moment = datetime.fromisoformat(call.time)
        first, last = min(first or moment, moment), max(last or moment, moment)
        change = trial.take(seen_of(call, agents.get(call.agent) or Subject(call.agent), moment))
        if change is not None:
            each(change)
        if trial.calls % 500 == 0:
            progress((past.at - past.first) / max(1, past.last - past.first))
    days = 1.0 if first is None or last is None else max(1.0, (last - first) / timedelta(days=1))
    voters = [user.name for user in people if user.role in VOTING and user.disabled_at is None]
    return Replayed(
        trial,
        past.skipped,
        _load(trial.holds, candidate, voters, days),
        _load(trial.held_then, candidate, voters, days),
    )


def learn(
    past: Past,
    agent: str,
    policy: Policy,
    agents: Mapping[str, Subject],
    *,
    progress: Callable[[float], None],
) -> Learner:
    """What covers the agent's calls; `policy` says what credentials and tiers are."""
    learner = Learner(agent, policy)
    subject = agents.get(agent) or Subject(agent)
    for number, call in enumerate(past):
        learner.take(seen_of(call, subject, datetime.fromisoformat(call.time)), call.time)
        if number % 500 == 0:
            progress((past.at - past.first) / max(1, past.last - past.first))
    return learner


def seen_of(call: PastCall, subject: Subject, moment: datetime) -> Seen:
    """A call of the ledger as the rules look at it."""
    return Seen(
        call=call.call,
        subject=subject,
        day=call.time[:10],
        said=call.said,
        glimpse=_glimpse(call, moment),
        rules=call.rules,
        version=call.policy,
        tiers=frozenset(call.tiers),
        credentials=call.credentials,
        asks=call.asks,
    )


def _glimpse(call: PastCall, moment: datetime) -> Glimpse:
    what = call.what
    via: Via = "gateway" if what.get("via") == "gateway" else "proxy"
    run = what.get("run")
    tunnel = call.said == "tunnel"
    return Glimpse(
        method="CONNECT" if tunnel else str(what["method"]),
        scheme="http" if what.get("scheme") == "http" else "https",
        host=str(what["host"]),
        port=int(str(what["port"])),
        path="" if tunnel else str(what["path"]),
        moment=moment,
        via=via,
        run=run if isinstance(run, str) else None,
        size=call.size,
    )


def _load(
    held: Mapping[Ask, int],
    policy: Policy,
    voters: Sequence[str],
    days: float,
) -> Load:
    sure: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    unsure: defaultdict[str, int] = defaultdict(int)
    for ask, count in held.items():
        asked, maybe = ask.people(policy, voters or (ANY_APPROVER,))
        for person in asked:
            sure[person][ask.day] += count
        for person in maybe:
            unsure[person] += count
    return Load(
        days=round(days, 2),
        average={name: round(sum(sure[name].values()) / days, 2) for name in sorted(sure)},
        busiest={name: _worst(sure[name]) for name in sorted(sure)},
        unsure={name: round(unsure[name] / days, 2) for name in sorted(unsure)},
    )


def _worst(by_day: Mapping[str, int]) -> tuple[str, int]:
    return max(by_day.items(), key=lambda item: (item[1], item[0]))
