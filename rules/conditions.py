"""What a match asks of a request's head, one condition at a time, each with its two readings.

A condition holds or not; one that cannot tell, since what it looks at has no one reading, raises
Unreadable with the reason. `needs_body` says whether the head alone is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Protocol
from zoneinfo import ZoneInfo

from rules.errors import Unreadable
from rules.model import Check, GrpcTest, SourceTest, TimeTest, ValueTest
from rules.paths import ENCODED_SLASH, Template, parse_template
from rules.reading.call import Reading
from rules.reading.forms import may_be
from rules.reading.grpc import read_grpc
from rules.values import Value, fold, glob_holds, holds, text_holds

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Condition(Protocol):
    """One of the things that a match asks for."""

    @property
    def needs_body(self) -> bool:
        """Whether the head alone cannot tell."""
        ...

    def holds(self, call: Reading, *, wide: bool) -> bool:
        """Whether the call is as it wants it. Raises Unreadable if there is no telling."""
        ...


class OfHead:
    """The head decides."""

    needs_body: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Scheme(OfHead):
    scheme: str

    def holds(self, call: Reading, *, wide: bool) -> bool:
        return call.request.scheme == self.scheme


@dataclass(frozen=True, slots=True)
class Methods(OfHead):
    methods: frozenset[str]

    def holds(self, call: Reading, *, wide: bool) -> bool:
        return call.request.method in self.methods


@dataclass(frozen=True, slots=True)
class Paths(OfHead):
    """One of several templates."""

    templates: tuple[Template, ...]

    @classmethod
    def of(cls, paths: Iterable[str]) -> Paths:
        return cls(tuple([parse_template(path) for path in paths]))

    def holds(self, call: Reading, *, wide: bool) -> bool:
        path = call.request.path
        for template in self.templates:
            # The prefix settles most cases quickly; it says nothing of the wide reading.
            if (wide or path.startswith(template.literal_prefix)) and template.matches(
                path, ignore_case=wide
            ):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Upgrade(OfHead):
    """Whether a WebSocket is asked for."""

    wanted: bool

    def holds(self, call: Reading, *, wide: bool) -> bool:
        return (call.request.upgrade is not None) is self.wanted


@dataclass(frozen=True, slots=True)
class Source(OfHead):
    """Where the call comes from."""

    test: SourceTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        test, subject = self.test, call.subject
        if test.via is not None and call.request.via != test.via:
            return False
        run = call.request.run
        if test.run is not None and (run is not None) is not test.run:
            return False
        if test.runs and run not in test.runs:
            return False
        return not test.tags or not subject.tags.isdisjoint(test.tags)


@dataclass(frozen=True, slots=True)
class Window(OfHead):
    """When the call comes."""

    test: TimeTest
    zone: ZoneInfo

    @classmethod
    def of(cls, test: TimeTest) -> Window:
        return cls(test, ZoneInfo(test.zone))

    def holds(self, call: Reading, *, wide: bool) -> bool:
        if call.request.moment is None:
            raise Unreadable("the time of the call is not known")
        test, moment = self.test, call.request.moment.astimezone(self.zone)
        minute = moment.hour * 60 + moment.minute
        if test.begin < test.end:
            return test.begin <= minute < test.end and moment.weekday() in test.days
        if minute >= test.begin:
            return moment.weekday() in test.days
        # After midnight, of a window that began the day before.
        yesterday = (moment.date() - timedelta(days=1)).weekday()
        return minute < test.end and yesterday in test.days


@dataclass(frozen=True, slots=True)
class GrpcMethod(OfHead):
    """The gRPC method, which is the path."""

    test: GrpcTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        test, grpc = self.test, read_grpc(call.request)
        if grpc is not None:
            service, method = grpc.service, grpc.method
        elif wide:  # a server that looks at the path alone takes it for one
            path = call.request.path.replace(ENCODED_SLASH, "/")
            service, _, method = path[1:].partition("/")
        else:
            return False
        return any_glob(test.services, service, wide) and any_glob(test.methods, method, wide)


@dataclass(frozen=True, slots=True)
class Parameter(OfHead):
    """A query parameter."""

    test: ValueTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        pairs, clear = call.query
        if not clear:
            raise Unreadable("its query is read in two ways")
        if any(may_be(part.name, self.test.name) for part in call.form_files):
            raise Unreadable(f"a part of its form is named {self.test.name} as well")
        return pairs_hold(self.test, pairs, call.body_beside_query(self.test.name), wide=wide)


@dataclass(frozen=True, slots=True)
class Header(OfHead):
    test: ValueTest

    def holds(self, call: Reading, *, wide: bool) -> bool:
        test, values = self.test, call.request.values(self.test.name)
        checks = checks_of(test)
        if test.exists is False:
            return not any(value.strip() for value in values) if wide else not values
        if test.exists is True and not (values if wide else any(values)):
            return False
        if not checks:
            return True
        if wide:
            return any_holds(checks, sorted(elements_of(values)))
        return all_hold(checks, values)


def pairs_hold(
    test: ValueTest,
    pairs: Sequence[tuple[str, str]],
    others: Sequence[tuple[str, str]],
    *,
    wide: bool,
) -> bool:
    """Whether the named values among `pairs` are as the test wants them.

    `others` are those of the other place that servers merge with this one, form or query. Raises
    Unreadable if the name stands in both: which of them counts is not known.
    """
    # What some servers would take for the same parameter.
    alike = [(name, value) for name, value in pairs if may_be(name, test.name)]
    beside = [value for name, value in others if may_be(name, test.name)]
    checks = checks_of(test)
    if wide:
        found = [value for _, value in alike] + beside
        if test.exists is False:
            own = [value for name, value in alike if name == test.name]
            return not any(own)
        if test.exists is True and not found:
            return False
        return not checks or any_holds(checks, found)
    if beside and alike:
        raise Unreadable(f"{test.name} stands in the query and in the form")
    own = [value for name, value in alike if name == test.name]
    if test.exists is False:
        return not alike and not beside
    if test.exists is True and not own:
        return False
    return not checks or (bool(own) and all_hold(checks, [value for _, value in alike]))


def checks_of(test: ValueTest) -> tuple[Check, ...]:
    """All that a value must be."""
    if test.equals is None:
        return test.checks
    return (Check("eq", test.equals), *test.checks)


def all_hold[T: Value](
    checks: Sequence[Check], values: Sequence[T], one_holds: Callable[..., bool] = text_holds
) -> bool:
    """Narrowly: there are values, and each is as every check wants it."""
    return bool(values) and all(
        one_holds(check, value, wide=False) for value in values for check in checks
    )


def any_holds(checks: Sequence[Check], values: Sequence[Value]) -> bool:
    """Widely: one of the values may be as every check wants it; what is not there is none of those
    that `not_in` lists."""
    if not values:
        return all(check.op == "not_in" for check in checks)
    return any(all(holds(check, value, wide=True) for check in checks) for value in values)


def any_glob(globs: Sequence[str], text: str, wide: bool) -> bool:
    """Whether one of the globs fits; none at all fit everything."""
    if not globs:
        return True
    if wide:
        return any(glob_holds(fold(glob), fold(text)) for glob in globs)
    return any(glob_holds(glob, text) for glob in globs)


def elements_of(values: Iterable[str]) -> set[str]:
    """Header values as a lenient server may take them: whole, by element, without parameters."""
    found = set()
    for value in values:
        for element in (value, *value.split(",")):
            found |= {fold(element), fold(element.split(";")[0]), fold(element.strip(' "'))}
    return found
