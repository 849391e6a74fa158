"""Who had to agree, read from `approval.opened` alone, and whether those who voted suffice. Pure.

Deliberately not the broker's code: the verifier must not repeat a mistake of what it checks. What
is missing or odd in a requirement makes it impossible to meet, never easier.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from audit.record import JSON

VOTING_ROLES = frozenset({"approver", "admin"})
MOST_PLACES = 256
"""More people than any tier asks for; bounds the work that a forged requirement can cause."""


class OddRequirement(ValueError):
    """A requirement that does not have its form, or that asks nobody."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier's quorum: a place for each person it asks for; None is open to anybody."""

    name: str
    places: tuple[tuple[str, frozenset[str] | None], ...]

    def lacks(self, approvers: Collection[str]) -> list[str]:
        """The groups of the places that stay empty however the approvers are seated.

        One person takes one place. A bipartite matching, by augmenting paths (Kuhn, 1955).
        """
        seated = self._seat(approvers)
        return [group for i, (group, _) in enumerate(self.places) if i not in seated]

    def _seat(self, approvers: Collection[str]) -> dict[int, str]:
        seated: dict[int, str] = {}

        def seat(person: str, tried: set[int]) -> bool:
            for i, (_, members) in enumerate(self.places):
                if i in tried or (members is not None and person not in members):
                    continue
                tried.add(i)
                if i not in seated or seat(seated[i], tried):
                    seated[i] = person
                    return True
            return False

        for person in sorted(approvers):
            seat(person, set())
        return seated


@dataclass(frozen=True, slots=True)
class Requirement:
    """What `approval.opened` says must be met."""

    tiers: tuple[Tier, ...]
    excluded: frozenset[str]
    denials: int
    reason_required: bool
    retype: bool

    def lacks(self, approvers: Collection[str]) -> list[str]:
        """One phrase for each tier that these people do not satisfy; empty when all are."""
        return [
            f"tier {tier.name} lacks {len(groups)} of {len(tier.places)}"
            f" ({', '.join(sorted(set(groups)))})"
            for tier in self.tiers
            if (groups := tier.lacks(approvers))
        ]


def read_requirement(value: JSON) -> Requirement:
    """The requirement as the ledger has it. Raises OddRequirement."""
    try:
        requirement = _read(value)
    except (KeyError, TypeError, ValueError) as error:
        raise OddRequirement(f"its requirement cannot be understood ({error})") from error
    if not requirement.tiers or not all(tier.places for tier in requirement.tiers):
        raise OddRequirement("its requirement asks nobody")
    return requirement


def _read(value: JSON) -> Requirement:
    fields = _object(value)
    return Requirement(
        tiers=tuple(_tier(tier) for tier in _list(fields["tiers"])),
        excluded=frozenset(_text(name) for name in _list(fields["excluded"])),
        denials=_count(fields["denials"]),
        reason_required=_text(fields["reason"]) != "optional",
        retype=_text(fields["confirm"]) != "none",
    )


def _tier(value: JSON) -> Tier:
    fields = _object(value)
    places: list[tuple[str, frozenset[str] | None]] = []
    for entry in map(_object, _list(fields["quorum"])):
        members = entry["members"]
        allowed = None if members is None else frozenset(_text(name) for name in _list(members))
        count = _count(entry["count"])
        if len(places) + count > MOST_PLACES:
            raise ValueError(f"it asks for more than {MOST_PLACES} people")
        places += [(_text(entry["group"]), allowed)] * count
    return Tier(_text(fields["tier"]), tuple(places))


def _object(value: JSON) -> Mapping[str, JSON]:
    if not isinstance(value, Mapping):
        raise TypeError("not an object where one belongs")
    return value


def _list(value: JSON) -> list[JSON]:
    if not isinstance(value, list | tuple):
        raise TypeError("not a list where one belongs")
    return list(value)


def _text(value: JSON) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text where one belongs")
    return value


def _count(value: JSON) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("not a number of people where one belongs")
    return value
