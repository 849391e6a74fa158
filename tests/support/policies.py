"""Random policies over few words, so that their rules meet, and calls that come near to them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice

from hypothesis import strategies as st

from rules.limits import Limit
from rules.lint.witness import calls
from rules.model import (
    BodyTest,
    Check,
    Credential,
    GraphQLTest,
    HostPattern,
    Injection,
    Match,
    McpTest,
    Policy,
    RpcTest,
    Rule,
    SecretRef,
    SourceTest,
    Subject,
    TimeTest,
    ValueTest,
)
from rules.request import Request
from rules.schema import BUILT_IN

SUBJECTS = (Subject("a"), Subject("b", frozenset({"t"})), Subject("c", frozenset({"t", "u"})))
_HOST = HostPattern("h.example", False, None)
_HOSTS = (
    _HOST,
    HostPattern("x.h.example", False, None),
    HostPattern("h.example", True, None),
    HostPattern("h.example", False, 8443),
)
_PATHS = ("/a", "/a/", "/a/*", "/a/b", "/A/b", "/*/b", "/a/**", "/**", "/pkg.S/M")
_PATHS += ("/{x}:b", "/a/{x}:b", "/a/{+x}", "/{+x}/**")
_TEXTS = ("", "x", "X", "xy", "5", "5.0", "7", "true")
_NUMBERS = tuple(map(Decimal, ("3", "5", "5.5", "7")))
_MOMENT = datetime(2026, 6, 3, 10, tzinfo=UTC)


def some[T](words: tuple[T, ...], most: int = 2) -> st.SearchStrategy[tuple[T, ...]]:
    """A few of the words, often none."""
    return st.lists(st.sampled_from(words), max_size=most, unique=True).map(tuple)


def _checks(typed: bool) -> st.SearchStrategy[tuple[Check, ...]]:
    scalars = st.sampled_from(_TEXTS)
    values = st.one_of(scalars, st.sampled_from((*_NUMBERS, True, None))) if typed else scalars
    lists = st.lists(values, min_size=1, max_size=2).map(tuple)
    bounds = st.builds(
        Check, st.sampled_from(("gt", "gte", "lt", "lte")), st.sampled_from(_NUMBERS)
    )
    one = st.one_of(
        bounds,
        bounds,
        st.builds(Check, st.sampled_from(("in", "not_in")), lists),
        st.builds(Check, st.sampled_from(("prefix", "suffix")), st.sampled_from(("x", "5", "xy"))),
        st.builds(Check, st.just("glob"), st.sampled_from(("x*", "*y", "xy"))),
        st.builds(Check, st.just("length"), st.lists(bounds, min_size=1, max_size=2).map(tuple)),
        *([st.builds(Check, st.just("eq"), values)] if typed else []),
    )
    return st.lists(one, min_size=1, max_size=3).map(tuple)


def tests_on(name: str, typed: bool) -> st.SearchStrategy[tuple[ValueTest, ...]]:
    """At most one test on that name."""
    one = st.one_of(
        st.builds(ValueTest, st.just(name), exists=st.booleans()),
        st.builds(
            ValueTest,
            st.just(name),
            exists=st.sampled_from((None, True)),
            checks=_checks(typed),
        ),
        st.nothing()
        if typed
        else st.builds(ValueTest, st.just(name), equals=st.sampled_from(_TEXTS)),
    )
    return st.one_of(st.just(()), st.just(()), one.map(lambda test: (test,)))


def rarely[T](strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    """Mostly None."""
    return st.one_of(st.none(), st.none(), st.none(), strategy)


_SIZES = st.lists(
    st.builds(Check, st.sampled_from(("gt", "lte")), st.sampled_from((Decimal(0), Decimal(9)))),
    max_size=2,
).map(tuple)

MATCHES = st.builds(
    Match,
    methods=some(("GET", "POST", "DELETE")).map(frozenset),
    hosts=some(_HOSTS),
    paths=some(_PATHS),
    query=tests_on("q", False),
    headers=tests_on("x-h", False),
    json=st.one_of(st.just(()), tests_on("/n", True)),
    form=st.one_of(st.just(()), st.just(()), tests_on("n", False)),
    body=rarely(
        st.builds(
            BodyTest,
            types=some(("application/json", "application/*", "text/plain"), 1),
            size=_SIZES,
        )
    ),
    graphql=rarely(
        st.builds(
            GraphQLTest,
            kinds=some(("query", "mutation"), 1).map(frozenset),
            fields=some(("del*", "delX", "*X"), 1),
        )
    ),
    jsonrpc=rarely(st.builds(RpcTest, methods=some(("m*", "mx"), 1), params=tests_on("/n", True))),
    mcp=rarely(
        st.builds(
            McpTest,
            methods=some(("tools/call", "tools/*"), 1),
            tools=some(("del*", "delx"), 1),
            arguments=tests_on("/n", True),
        )
    ),
    upgrade=rarely(st.booleans()),
    time=rarely(
        st.builds(
            TimeTest,
            zone=st.sampled_from(("UTC", "Europe/Berlin")),
            days=some((0, 2, 4), 3).map(lambda days: frozenset(days or range(7))),
            begin=st.sampled_from((0, 540)),
            end=st.sampled_from((600, 1440)),
        )
    ),
    source=rarely(
        st.builds(SourceTest, via=st.sampled_from((None, "gateway")), tags=some(("t", "u"), 1))
    ),
)
HOLES = MATCHES.filter(lambda match: match != Match())


@st.composite
def rules(draw: st.DrawFn, number: int) -> Rule:
    """One rule; it may share its match or its hole with what was drawn before by chance only."""
    effect = draw(st.sampled_from(("allow", "allow", "hold", "deny")))
    matches = tuple(draw(st.lists(MATCHES, min_size=1, max_size=2)))
    excepts = tuple(draw(st.one_of(st.just([]), st.lists(HOLES, max_size=2))))
    if excepts and draw(st.booleans()):
        # A hole that is around the match, or nearly.
        excepts = (replace(matches[0], query=()), *excepts[1:])
        excepts = tuple(hole for hole in excepts if hole != Match())
    use = draw(some(("k", "l"), 1)) if effect != "deny" and matches[0].hosts else ()
    if any(not match.hosts for match in matches):
        use = ()
    limits = (Limit(Decimal(5), 60),) if effect == "allow" and draw(st.integers(0, 5)) == 5 else ()
    return Rule(
        id=f"r{number}",
        agents=draw(some(("a", "b", "tag:t", "tag:u")).map(lambda names: names or ("a",))),
        matches=matches,
        effect=effect,
        excepts=excepts,
        risk=draw(st.sampled_from(("medium", "high"))) if effect == "hold" else None,
        use=use,
        limits=limits,
        line=number + 1,
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Two to five rules, some of which are narrower or wider copies of another."""
    found: list[Rule] = []
    for number in range(draw(st.integers(2, 5))):
        rule = draw(rules(number))
        if found and draw(st.booleans()):
            other = draw(st.sampled_from(found))
            rule = replace(
                rule,
                agents=draw(st.sampled_from((other.agents, rule.agents))),
                matches=tuple(draw(_alike(match)) for match in other.matches),
                excepts=draw(st.sampled_from((other.excepts, rule.excepts, ()))),
                use=(),
            )
        found.append(rule)
    hosts = (HostPattern("h.example", True, None), _HOST, HostPattern("h.example", False, 8443))
    credentials = {
        name: Credential(
            name, SecretRef("kv", name, "k"), hosts, Injection(f"x-{name}", "{secret}")
        )
        for name in ("k", "l")
    }
    return Policy(credentials, {}, dict(BUILT_IN), tuple(found))


@st.composite
def _alike(draw: st.DrawFn, match: Match) -> Match:
    """The same match, wider or narrower in one field."""
    other = draw(MATCHES)
    name = draw(
        st.sampled_from(
            ("methods", "hosts", "paths", "query", "headers", "json", "form", "body", "graphql",
             "jsonrpc", "mcp", "upgrade", "time", "source")
        )
    )  # fmt: skip
    value = draw(st.sampled_from((getattr(other, name), getattr(Match(), name))))
    return replace(match, **{name: value})


_BODIES = (
    ("", b""),
    ("application/json", b'{"n": 5}'),
    ("application/json", b'{"n": "X", "N": 7}'),
    ("application/json", b'{"n": 5, "n": 6}'),
    ("application/json", b"[1"),
    ("application/vnd.x+json", b'{"n": [5, "x"]}'),
    ("text/plain", b'{"n": 7}'),
    ("application/x-www-form-urlencoded", b"n=5&n=x"),
    ("application/x-www-form-urlencoded", b"n=5;N=7"),
    ("application/json", b'{"query": "mutation { delX }"}'),
    ("application/json", b'{"id": "persisted"}'),
    ("application/json", b'{"jsonrpc": "2.0", "id": 1, "method": "mx", "params": {"n": 5}}'),
    ("text/plain", b"n=5"),
)


@st.composite
def near(draw: st.DrawFn, match: Match, subject: Subject) -> Request:
    """A call under the match, or changed a little so that its readings differ."""
    found = list(islice(calls(match), 12))
    base = draw(st.sampled_from(found)) if found else None
    if base is None:
        base = Request("POST", "https", "h.example", 443, "/a/b", None, (), b"")
    if base.moment is None:
        hours = draw(st.integers(0, 100))
        base = replace(base, moment=_MOMENT + timedelta(hours=hours))
    for _ in range(draw(st.integers(0, 3))):
        base = draw(_changed(base))
    return base


def _changed(base: Request) -> st.SearchStrategy[Request]:
    queries = ("q=x", "Q=X", "q=5&q=7", "q=5;q=6", "q=%zz", "", "n=5", "q=x&q=x")
    bodies = st.sampled_from(_BODIES).map(
        lambda body: replace(
            base,
            body=body[1],
            headers=(
                *(pair for pair in base.headers if pair[0] != "content-type"),
                *((("content-type", body[0]),) if body[0] else ()),
            ),
        )
    )
    if base.upgrade is not None:
        bodies = st.just(base)
    return st.one_of(
        bodies,
        st.sampled_from(queries).map(lambda query: replace(base, query=query)),
        st.sampled_from(
            (
                "/a",
                "/a/",
                "/a/b",
                "/A/B",
                "/a/b/",
                "/x/y/z",
                "/a%3Fb",
                "/a:b",
                "/a/x:B",
                "/a/b%2Fc",
                "/a%2Fb",
                "/a%2Fx:b",
            )
        ).map(lambda path: replace(base, path=path)),
        st.sampled_from(("h.example", "x.h.example", "y.x.h.example", "other.example")).map(
            lambda host: replace(base, host=host)
        ),
        st.sampled_from(("", "x", "X, y", "5", "x; a=b")).map(
            lambda value: replace(base, headers=(*base.headers, ("x-h", value)))
        ),
        st.sampled_from(("GET", "POST", "DELETE")).map(
            lambda method: base if base.upgrade else replace(base, method=method)
        ),
    )
