"""What gets past the guards: calls that run with nobody asked, though a person may think
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal

from rules.describe import describe_host
from rules.lint.finding import Example, Finding
from rules.lint.meeting import meet, without_body
from rules.lint.never import why_never
from rules.lint.possible import looks_at_body
from rules.lint.view import Placed, View
from rules.lint.within import Spot
from rules.lint.witness import Body, dump, filled
from rules.model import Decision, Match, Rule, ValueTest
from rules.reading.forms import FORM
from rules.values import NUMERIC

RISKY = ("DELETE", "PUT", "PATCH", "POST")
"""Methods that change something, the most dangerous first."""
_PER_RULE = 20
"""Other rules that are tried beside one."""


def guards(view: View) -> Iterator[Finding]:
    """Of all rules that are about calls."""
    for order, rule in enumerate(view.policy.rules):
        if rule.effect == "allow":
            yield from _risky(view, rule)
            yield from _wide_host(view, order, rule)
        elif rule.effect == "hold" and any(
            why_never(rule, match, wide=False) is None for match in rule.matches
        ):
            yield from _avoidable(view, rule)


def _allowed_by(rule: Rule, decision: Decision) -> bool:
    return decision.effect == "allow" and rule.id in decision.rules


# -- risky methods


def says_what_it_means(match: Match) -> bool:
    """Whether the match looks at what a call does, so that its method says little."""
    if match.graphql is not None:
        return match.graphql.kinds == frozenset(("query",)) or bool(match.graphql.fields)
    return match.mcp is not None or match.jsonrpc is not None or match.grpc is not None


def _risky(view: View, rule: Rule) -> Iterator[Finding]:
    """An allow that lets calls change things with nobody asked."""
    if rule.id in view.policy.packed and rule.id not in view.policy.loosened:
        return  # its authors have looked at each call
    found: dict[str, Example] = {}
    named = True
    for match in rule.matches:
        if match.upgrade or says_what_it_means(match):
            continue
        for method in RISKY:
            if method in found or (match.methods and method not in match.methods):
                continue
            example = _allowed(view, rule, replace(match, methods=frozenset((method,))))
            if example is not None:
                found[method] = example
                named = named and bool(match.methods)
    if not found:
        return
    methods = ", ".join(found)
    why = "with nobody asked" + ("" if named else "; it names no method, so all are meant")
    yield view.finding(
        "risky-without-hold",
        "note" if named and "DELETE" not in found else "warning",
        rule,
        f"it lets {methods} through {why}",
        next(iter(found.values())),
    )


def _allowed(view: View, rule: Rule, match: Match) -> Example | None:
    for _, subject in view.callers(rule, match):
        found = view.find(
            match, subject, lambda decision, _: _allowed_by(rule, decision), rule, runs=True
        )
        if found is not None:
            return found
    return None


# -- a wildcard beside the host itself


def _wide_host(view: View, order: int, rule: Rule) -> Iterator[Finding]:
    """An allow for `*.example.com` that goes past what rules say of a host below it."""
    told: set[str] = set()
    for match in rule.matches:
        for spot in Spot.all_of(match):
            if spot.host is not None and not spot.host.wildcard:
                continue
            for selector, subject in view.callers(rule, match):
                beside = view.meeting(subject, spot, one_host=True)
                for placed in _some(view, rule, beside, _lets_through):
                    host = placed.spot.host
                    if placed.rule is rule or host is None or host.host in told:
                        continue
                    if not _lets_through(placed):
                        continue
                    example = _past(view, rule, placed, match, selector)
                    if example is None:
                        continue
                    told.add(host.host)
                    wide = describe_host(spot.host) if spot.host is not None else "any host"
                    message = (
                        f"{wide} takes in {describe_host(host)}, where it allows more than rule "
                        f'"{placed.rule.id}" (line {placed.rule.line}), which is about that host'
                    )
                    yield view.finding("wildcard-beside-host", "note", rule, message, example)


def _lets_through(placed: Placed) -> bool:
    return placed.rule.effect != "deny"


def _past(view: View, rule: Rule, placed: Placed, match: Match, selector: str) -> Example | None:
    """A call to that host which this rule alone allows."""
    host = placed.spot.host
    if host is None:
        return None
    return view.find(
        replace(match, hosts=(replace(host, wildcard=False),)),
        view.subject(selector, match),
        lambda decision, _: decision.effect == "allow" and decision.rules == (rule.id,),
        rule,
        runs=True,
    )


# -- holds that an agent can go around


def _avoidable(view: View, rule: Rule) -> Iterator[Finding]:
    """A hold on what stands in a body, beside an allow that does not look there."""
    found: dict[str, tuple[Placed, Example]] = {}

    def lets_through(placed: Placed) -> bool:
        return placed.rule.effect == "allow" and not _same_pack(view, rule, placed.rule)

    for match in rule.matches:
        if not looks_at_body(match):
            continue
        bodies = {"hold-avoidable": _disguises(match)}
        if any(_compares(test) for test in match.json + match.form):
            bodies["comparison-avoidable"] = _unlike_numbers(match)
        fitting: dict[str, dict[str, list[Body]]] = {}
        for selector, subject in view.callers(rule, match):
            for spot in Spot.all_of(match):
                for placed in _some(view, rule, view.meeting(subject, spot), lets_through):
                    other = placed.rule
                    if not lets_through(placed):
                        continue
                    if other.id not in fitting:
                        fitting[other.id] = {
                            code: taken
                            for code, some in bodies.items()
                            if (taken := [body for body in some if view.may_take(other, body)])
                        }
                    left = {c: some for c, some in fitting[other.id].items() if c not in found}
                    both = meet(without_body(spot.only()), placed.spot.only()) if left else None
                    if both is None:
                        continue
                    for code, some in left.items():
                        example = _through(view, other, both, selector, some)
                        if example is not None:
                            found[code] = placed, example
                if len(found) == 2:
                    break
    for code, (placed, example) in found.items():
        other = placed.rule
        what = {
            "hold-avoidable": "the same call with a body of another kind",
            "comparison-avoidable": "the same call with a value that is no plain number",
        }[code]
        message = (
            f'{what} is not held, since rule "{other.id}" (line {other.line}) allows it without '
            "looking at the body: an agent chooses how it writes"
        )
        severity = "warning" if code == "hold-avoidable" else "note"
        yield view.finding(code, severity, rule, message, example)  # type: ignore[arg-type]


def _same_pack(view: View, one: Rule, other: Rule) -> bool:
    """Rules of one pack were made to go together."""
    packed = view.policy.packed
    return one.id in packed and other.id in packed and one.line == other.line


def _compares(test: ValueTest) -> bool:
    return any(check.op in NUMERIC for check in test.checks)


def _through(
    view: View, allow: Rule, match: Match, selector: str, bodies: list[Body]
) -> Example | None:
    subject = view.subject(selector, match)
    for body in bodies:
        found = view.find(
            match,
            subject,
            lambda decision, request: _allowed_by(allow, decision) and bool(request.body),
            allow,
            body=body,
            runs=True,
        )
        if found is not None:
            return found
    return None


def _disguises(match: Match) -> list[Body]:
    """Bodies of other kinds, with what the hold looks for where that can be said."""
    bodies = []
    if match.json:
        names = [test.name.rpartition("/")[2] for test in match.json]
        bodies.append(Body(FORM, "&".join(f"{name}=1" for name in names if name).encode()))
    if match.form:
        fields = filled({}, [replace(t, name=f"/{t.name}") for t in match.form], 0)
        if fields:
            bodies.append(Body("application/json", dump(fields).encode()))
    bodies.append(Body("text/plain", b"something else"))
    return [body for body in bodies if body.content]


def _unlike_numbers(match: Match) -> list[Body]:
    """The body that the hold wants, with text where it compares a number."""

    def spoilt(tests: tuple[ValueTest, ...], *, typed: bool) -> tuple[ValueTest, ...]:
        return tuple(
            ValueTest(test.name, equals=f"USD {_bound(test)}") if _compares(test) else test
            for test in tests
        )

    if match.json:
        document = filled({}, spoilt(match.json, typed=True), 0)
        return [] if document is None else [Body("application/json", dump(document).encode())]
    pairs = [(t.name, t.equals or "1") for t in spoilt(match.form, typed=False)]
    text = "&".join(f"{name}={value.replace(' ', '+')}" for name, value in pairs)
    return [Body(FORM, text.encode())]


def _bound(test: ValueTest) -> Decimal:
    bounds = [c.value for c in test.checks if isinstance(c.value, Decimal)]
    return max(bounds) + 1 if bounds else Decimal(1)


def _some(
    view: View, rule: Rule, placed: Iterator[Placed], counts: Callable[[Placed], bool]
) -> list[Placed]:
    """The first few beside the rule, each rule once; if there are more that count, the view is
    told."""
    found: dict[str, Placed] = {}
    for one in placed:
        if len(found) < _PER_RULE:
            found.setdefault(one.rule.id, one)
        elif one.rule.id not in found and counts(one):
            view.cut_short(rule)
            break
    return list(found.values())
