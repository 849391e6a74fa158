"""Whether a call falls under a rule, in two readings of one condition.

Rules that permit read narrowly: what is in doubt does not match. Rules that restrict read widely:
letter case, a value among several, a second spelling, what could be read in two ways all match.
What matches narrowly always matches widely.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from rules.hosts import pattern_matches
from rules.model import HostPattern, Match, Rule, ValueTest
from rules.paths import Template, parse_template
from rules.places import Reading
from rules.request import DEFAULT_PORTS

HEAD_FIELDS = frozenset({"methods", "hosts", "paths", "scheme", "query", "headers"})
"""The fields of a match that a request's head decides. One that is not listed here counts as being
about the body, so that a call which it could match is not sent before its body was read."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A `Match` made ready for matching; hosts are left to the rulebook's index."""

    match: Match
    templates: tuple[Template, ...]

    @classmethod
    def of(cls, match: Match) -> Condition:
        return cls(match, tuple(parse_template(path) for path in match.paths))

    @property
    def needs_body(self) -> bool:
        """Whether the head alone cannot tell."""
        return any(
            getattr(self.match, field.name) != field.default
            for field in fields(self.match)
            if field.name not in HEAD_FIELDS
        )

    def holds(self, call: Reading, *, wide: bool) -> bool:
        """Whether all but the host is as the match wants it."""
        match, request = self.match, call.request
        if match.scheme != request.scheme:
            return False
        if match.methods and request.method not in match.methods:
            return False
        if self.templates and not self._path_holds(request.path, wide):
            return False
        return all(_query_holds(test, call, wide) for test in match.query) and all(
            _header_holds(test, request.values(test.name), wide) for test in match.headers
        )

    def _path_holds(self, path: str, wide: bool) -> bool:
        for template in self.templates:
            # The prefix settles most cases quickly; it says nothing of the wide reading.
            if (wide or path.startswith(template.literal_prefix)) and template.matches(
                path, ignore_case=wide
            ):
                return True
        return False

    def holds_at_host(self, call: Reading, *, wide: bool) -> bool:
        """The same with the host."""
        request = call.request
        hosts = self.match.hosts
        at_host = not hosts or any(
            host_holds(host, request.host, request.port, request.scheme) for host in hosts
        )
        return at_host and self.holds(call, wide=wide)


def host_holds(pattern: HostPattern, host: str, port: int, scheme: str) -> bool:
    """Whether host and port fall under the pattern, for a request of that scheme."""
    return pattern_matches(pattern, host, port, DEFAULT_PORTS[scheme])


def is_wide(rule: Rule) -> bool:
    """Whether the rule restricts, and therefore reads widely; what it excepts then reads narrowly.

    A hold restricts: beside it there may be a broader allow, which must not be reached by a
    spelling that the upstream takes for the same.
    """
    return rule.effect in ("deny", "hold")


def _query_holds(test: ValueTest, call: Reading, wide: bool) -> bool:
    pairs, clear = call.query
    if not clear:
        return wide
    key = _key(test.name)
    # What some servers would take for the same parameter.
    alike = [(name, value) for name, value in pairs if _key(name) == key]
    own = [value for name, value in alike if name == test.name]
    if test.equals is not None:
        wanted = test.equals
        if wide:
            return any(_key(value) == _key(wanted) for _, value in alike)
        return bool(own) and all(value == wanted for _, value in alike)
    if test.exists:
        return bool(alike) if wide else bool(own)
    return not any(own) if wide else not alike


def _header_holds(test: ValueTest, values: tuple[str, ...], wide: bool) -> bool:
    if test.equals is not None:
        if wide:
            return _key(test.equals) in _elements(values)
        return bool(values) and all(value == test.equals for value in values)
    if test.exists:
        return bool(values) if wide else any(values)
    return not any(value.strip() for value in values) if wide else not values


def _elements(values: Iterable[str]) -> set[str]:
    """Header values as a lenient server may take them: whole, by element, without parameters."""
    found = set()
    for value in values:
        for element in (value, *value.split(",")):
            found |= {_key(element), _key(element.split(";")[0]), _key(element.strip(' "'))}
    return found


def _key(text: str) -> str:
    return text.strip().casefold()
