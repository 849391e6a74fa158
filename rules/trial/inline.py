"""`tests:` in a rule: requests that fall under it, and requests that do not.

They are about this rule alone, whoever calls and whatever other rules say. A policy of which one
fails is refused.
"""

from __future__ import annotations

from functools import lru_cache

from rules.counting import doubt_about
from rules.errors import Ambiguous, Problem, Unreadable
from rules.matching import Matcher, is_wide
from rules.misses import Miss, miss
from rules.model import Rule, Subject
from rules.pack import fill, read_pack, rules_of
from rules.reading.call import Reading
from rules.schema import read_rule
from rules.source import Section, Source
from rules.trial.requests import Written, home_of, read_request

TESTS = ("match", "no_match")
ANYBODY = "anybody"
"""The agent of a pack's rules while the pack itself is tried out."""


def check_tests(at: Section, rule: Rule, value: object) -> None:
    """Runs the tests of a rule, and notes what is wrong with them and each that fails."""
    fields = at.mapping(value, TESTS) or {}
    home = home_of(rule)
    trial = _Trial(rule)
    for kind in TESTS:
        items = fields.get(kind, [])
        if not isinstance(items, list):
            at.at(kind).error(f"{kind} must be a list of requests")
            continue
        for index, item in enumerate(items):
            here = at.at(kind, index)
            written = read_request(here, item, home)
            if written is not None:
                why = trial.failure(written, wanted=kind == "match")
                if why is not None:
                    here.error(f"a test fails: {why}", "test-fails")


class _Trial:
    """One rule, made ready once for all its tests."""

    def __init__(self, rule: Rule) -> None:
        tags = frozenset(a.removeprefix("tag:") for a in rule.agents if a.startswith("tag:"))
        names = [agent for agent in rule.agents if not agent.startswith("tag:")]
        self._rule = rule
        self._subject = Subject(names[0] if names else "", tags)
        self._matchers, self._holes = Matcher.all_of(rule)

    def failure(self, written: Written, *, wanted: bool) -> str | None:
        """What is not as wanted, as a clause; None if all is well."""
        what = f"{written.method} {written.url}"[:200]
        try:
            call = Reading(written.request(), self._subject)
        except Ambiguous as error:
            return f"{what} matches no rule: {error.sentence}" if wanted else None
        misses = [miss(self._rule, matcher, self._holes, call) for matcher in self._matchers]
        if None in misses:
            doubt = _uncounted(self._rule, call)
            if doubt is not None:
                return f"{what} does not fall under it: {doubt}" if wanted else None
            return None if wanted else f"{what} falls under it"
        if not wanted:
            return None
        nearest = min((m for m in misses if m), key=lambda m: m.distance)
        return f"{what} does not fall under it: {_why(nearest, call)}"


def _uncounted(rule: Rule, call: Reading) -> str | None:
    """Why an allow does not take the call, though it is as its match wants it: a number that it
    sums up is not there as one."""
    if is_wide(rule):
        return None
    try:
        return doubt_about(rule.limits, call)
    except Unreadable as error:
        return str(error)


def _why(nearest: Miss, call: Reading) -> str:
    reasons = nearest.reasons(call, openly=True)
    return "; ".join(f"it does so only {why.wanted}, and {why.found}" for why in reasons)


@lru_cache(maxsize=64)
def pack_failures(text: str, file: str) -> tuple[Problem, ...]:
    """What is wrong with the tests of a pack that can be read, each parameter at its default; one
    without a default is `NAME.example`."""
    pack = read_pack(text, file)
    values = {
        name: parameter.default or (f"{name}.example",)
        for name, parameter in pack.parameters.items()
    }
    source = Source(file, pack.lines)
    for rule, fields in rules_of(pack, values):
        if rule.tests:
            # What is wrong with the rule itself is told where it is included.
            unheard = Section(Source(file, pack.lines), ())
            read = read_rule(unheard, {"id": rule.id, "agents": ANYBODY, **fields})
            if read is not None:
                at = Section(source, ("rules", rule.index, "tests"), f'rule "{rule.id}"')
                check_tests(at, read, fill(rule.tests, values))
    return tuple(source.errors())
