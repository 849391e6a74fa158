"""Conditions on bodies: every element for what permits, any for what restricts."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from rules.errors import InvalidFile
from rules.load import load_policy
from rules.matching import Matcher
from rules.model import Match, Subject
from rules.reading.call import Reading
from rules.request import Request

AGENT = Subject("a")
RUN, OTHER_RUN = "t-" + "0" * 26, "t-" + "1" * 26
YES, NO, WIDE = (True, True), (False, False), (False, True)
JSON = (("content-type", "application/json"),)
FORM = (("content-type", "application/x-www-form-urlencoded"),)
PLAIN = (("content-type", "text/plain"),)
BOUNDARY = (("content-type", "multipart/form-data; boundary=b"),)


def match_of(text: str) -> Match:
    policy, _ = load_policy(
        "version: 1\nrules:\n"
        f"  - {{id: r, agents: [a], effect: allow, match: {{host: a.example, {text}}}}}\n"
    )
    return policy.rules[0].matches[0]


def both(
    text: str,
    body: bytes | str = b"",
    headers: tuple[tuple[str, str], ...] = JSON,
    *,
    method: str = "POST",
    path: str = "/x",
    query: str | None = None,
    subject: Subject = AGENT,
    **more: object,
) -> tuple[bool, bool]:
    raw = body.encode() if isinstance(body, str) else body
    request = Request(method, "https", "a.example", 443, path, query, headers, raw, **more)  # type: ignore[arg-type]
    matcher = Matcher.of(match_of(text))
    reading = Reading(request, subject)
    return matcher.holds(reading, wide=False), matcher.holds(reading, wide=True)


@pytest.mark.parametrize(
    ("test", "body", "expected"),
    [
        ("{/amount: {gt: 1000}}", '{"amount": 1001}', YES),
        ("{/amount: {gt: 1000}}", '{"amount": 1000}', NO),
        ("{/amount: {gt: 1000}}", '{"amount": "1001"}', WIDE),
        ("{/amount: {gt: 1000}}", '{"Amount": 1001}', WIDE),
        ("{/amount: {gt: 1000}}", '{"amount": 5, "amount": 1001}', WIDE),
        ("{/amount: {lte: 1000}}", '{"amount": 5, "Amount": 1001}', WIDE),
        ("{/amount: {gt: 1000}}", '{"amount": 1001', WIDE),
        ("{/amount: {gt: 1000}}", "[]", NO),
        ("{/amount: {gt: 1000}}", "", NO),
        ("{/currency: eur}", '{"currency": "eur"}', YES),
        ("{/currency: eur}", '{"currency": "EUR"}', WIDE),
        ("{/tags/0: {prefix: prod}}", '{"tags": ["production"]}', YES),
        ("{/tags/*: {prefix: prod}}", '{"tags": ["production", "prod"]}', YES),
        ("{/tags/*: {prefix: prod}}", '{"tags": ["production", "test"]}', WIDE),
        ("{/tags/*: {prefix: prod}}", '{"tags": []}', NO),
        ("{/items/*/n: {lte: 3}}", '{"items": [{"n": 1}, {}]}', WIDE),
        ("{/dry_run: true}", '{"dry_run": true}', YES),
        ("{/dry_run: true}", '{"dry_run": "true"}', WIDE),
        ("{/admin: {exists: false}}", "{}", YES),
        ("{/admin: {exists: false}}", '{"admin": null}', NO),
        ("{/admin: {exists: false}}", '{"Admin": 1}', WIDE),
        ("{/admin: {exists: true}}", '{"admin": null}', YES),
        ("{/n: {length: {lte: 2}}}", '{"n": [1, 2]}', YES),
        ("{/n: {not_in: [a]}}", '{"n": "b"}', YES),
        ("{/n: {not_in: [a]}}", "{}", WIDE),
        ("{/n: 1}", '{"n": 1.0}', YES),
        ("{/n: {gt: 1}}", '{"n": 9007199254740993}', WIDE),
    ],
)
def test_json(test: str, body: str, expected: tuple[bool, bool]) -> None:
    assert both(f"json: {test}", body) == expected


def test_json_under_another_name() -> None:
    """There are servers that do not look at the Content-Type."""
    body = '{"admin": 1}'
    assert both("json: {/admin: 1}", body, PLAIN) == WIDE
    assert both("json: {/admin: {exists: false}}", body, PLAIN) == WIDE
    assert both("json: {/admin: {exists: false}}", "hello", PLAIN) == YES
    assert both("json: {/admin: 1}", "hello", PLAIN) == NO


@pytest.mark.parametrize(
    ("test", "body", "expected"),
    [
        ("{amount: {lte: 1000}}", "amount=1000", YES),
        ("{amount: {lte: 1000}}", "amount=1001", NO),
        ("{amount: {lte: 1000}}", "amount=1000&amount=5000", WIDE),
        ("{amount: {lte: 1000}}", "amount=1e2", WIDE),
        ("{amount: {lte: 1000}}", "amount=5;x=1", WIDE),
        ("{amount: 5}", "amount=5", YES),
        ("{amount: {exists: false}}", "Amount=5", WIDE),
        ("{amount: {exists: false}}", "amount[]=5", WIDE),
        ("{amount: {lte: 1000}}", "amount=5&amount[]=5000", WIDE),
        ("{amount: 5000}", "amount[x]=5000", WIDE),
        ("{'card[number]': 1}", "card[number]=1&card[cvc]=2", YES),
        ("{amount: {exists: false}}", '{"amount": 5}', WIDE),
        ("{amount: 5}", "amount=5\n", WIDE),
        ("{to: {suffix: '@example.com'}}", "to=a%40example.com", YES),
    ],
)
def test_forms(test: str, body: str, expected: tuple[bool, bool]) -> None:
    assert both(f"form: {test}", body, FORM) == expected


def test_forms_of_parts() -> None:
    def part(name: str, value: str, more: str = "") -> str:
        return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'

    assert both("form: {a: x}", part("a", "x") + "--b--\r\n", BOUNDARY) == YES
    assert both("form: {a: x}", part("a", "y") + "--b--\r\n", BOUNDARY) == NO
    assert both("form: {a: x}", part("a", "x") + "--c--\r\n", BOUNDARY) == WIDE
    file = part("a", "x", '; filename="f"')
    for test in ("form: {a: {exists: false}}", "form: {a: x}", "form: {a: y}"):
        assert both(test, file + "--b--\r\n", BOUNDARY) == WIDE
    assert both("form: {b: {exists: false}}", file + "--b--\r\n", BOUNDARY) == YES


def test_one_name_in_query_and_form_is_in_doubt() -> None:
    for test in ("form: {a: {exists: true}}", "query: {a: {exists: true}}"):
        assert both(test, "a=1", FORM, query="a=1") == WIDE
    assert both("query: {a: 2}", "a=2", FORM, query="a=1") == WIDE
    assert both("query: {a: {exists: false}}", "a=2", FORM) == WIDE


def test_body() -> None:
    assert both("body: {type: application/json}", "{}") == YES
    assert both("body: {type: application/json}", "{}", PLAIN) == NO
    assert both("body: {type: text/*}", "x", PLAIN) == YES
    assert both("body: {size: {lte: 1KiB}}", "x" * 1024) == YES
    assert both("body: {size: {lte: 1KiB}}", "x" * 1025) == NO
    assert both("body: {size: 0}") == YES


def graphql(*queries: str) -> str:
    messages = [{"query": query} for query in queries]
    return json.dumps(messages if len(messages) > 1 else messages[0])


def test_graphql() -> None:
    deletes = 'graphql: {kind: mutation, fields: ["delete*", mergePullRequest]}'
    assert both(deletes, graphql("mutation { x: deleteRef }")) == YES
    assert both(deletes, graphql("mutation { deleteRef addStar }")) == WIDE
    assert both(deletes, graphql("mutation { addStar }")) == NO
    assert both(deletes, graphql("{ deleteRef }")) == NO
    assert both(deletes, graphql("mutation { deleteRef }", "{ viewer }")) == WIDE
    assert both(deletes, graphql("mutation {")) == WIDE
    assert both(deletes, '{"id": "persisted"}') == WIDE
    assert both(deletes, "", (), method="GET") == NO
    assert both("graphql: {kind: query}", "", (), method="GET", query="query={a}") == YES
    assert both("graphql: {kind: query}", "", (), method="GET", query="query=mutation{a}") == NO


def rpc(*calls: tuple[str, object]) -> str:
    messages = [{"jsonrpc": "2.0", "id": 1, "method": m, "params": p} for m, p in calls]
    return json.dumps(messages if len(messages) > 1 else messages[0])


def test_mcp() -> None:
    tool = 'mcp: {method: tools/call, tool: "delete_*"}'
    delete, read = {"name": "delete_file", "arguments": {"path": "/etc/x"}}, {"name": "read"}
    assert both(tool, rpc(("tools/call", delete))) == YES
    assert both(tool, rpc(("tools/call", read))) == NO
    assert both(tool, rpc(("tools/call", read), ("tools/call", delete))) == WIDE
    assert both(tool, rpc(("tools/list", {}))) == NO
    path = "mcp: {arguments: {/path: {prefix: /etc}}}"
    assert both(path, rpc(("tools/call", delete))) == YES
    assert both(path, rpc(("tools/call", read))) == NO
    assert both('mcp: {method: "tools/*"}', rpc(("tools/list", {}))) == YES
    assert both(tool, "", (), method="GET") == NO
    assert both(tool, "hello") == WIDE


def test_jsonrpc() -> None:
    rule = 'jsonrpc: {method: "eth_*", params: {/0: {prefix: "0x"}}}'
    assert both(rule, rpc(("eth_send", ["0x1"]))) == YES
    assert both(rule, rpc(("eth_send", ["1"]))) == NO
    assert both(rule, rpc(("net_send", ["0x1"]))) == NO


def test_grpc() -> None:
    rule = "grpc: {service: shop.v1.Orders, method: Cancel}"
    grpc = (("content-type", "application/grpc"), ("te", "trailers"))
    assert both(rule, b"", grpc, path="/shop.v1.Orders/Cancel") == YES
    assert both(rule, b"", grpc, path="/shop.v1.Orders/Get") == NO
    assert both(rule, b"", JSON, path="/shop.v1.Orders/Cancel") == WIDE


def test_upgrades_and_sources() -> None:
    assert both("upgrade: websocket", upgrade="websocket") == YES
    assert both("upgrade: websocket") == NO
    assert both("source: {via: gateway}", via="gateway") == YES
    assert both("source: {run: true}", run="t-1") == YES
    assert both("source: {run: true}") == NO
    assert both("source: {run: false}") == YES
    assert both("source: {run: false}", run=RUN) == NO
    for several in (RUN, f"[{OTHER_RUN}, {RUN}]"):
        assert both(f"source: {{run: {several}}}", run=RUN) == YES
        assert both(f"source: {{run: {several}}}", run="t-" + "2" * 26) == NO
        assert both(f"source: {{run: {several}}}") == NO
    assert both("source: {tags: [ci]}", subject=Subject("a", frozenset({"ci"}))) == YES
    assert both("source: {tags: [ci]}") == NO


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-11-23T08:00:00", YES),  # a Monday; Berlin is an hour ahead
        ("2026-11-23T07:59:59", NO),
        ("2026-11-23T16:00:00", NO),
        ("2026-11-24T08:00:00", NO),
        ("2026-07-27T07:00:00", YES),  # and two in summer
    ],
)
def test_time(when: str, expected: tuple[bool, bool]) -> None:
    moment = datetime.fromisoformat(when).replace(tzinfo=UTC)
    rule = 'time: {days: [mon, fri], from: "09:00", to: "17:00", zone: Europe/Berlin}'
    assert both(rule, moment=moment) == expected
    assert both(rule) == WIDE


def test_a_night_counts_to_the_day_it_began() -> None:
    rule = 'time: {days: [fri], from: "22:00", to: "06:00", zone: UTC}'
    friday = datetime(2026, 11, 27, tzinfo=UTC)
    assert both(rule, moment=friday.replace(hour=23)) == YES
    assert both(rule, moment=friday.replace(day=28, hour=5)) == YES
    assert both(rule, moment=friday.replace(hour=5)) == NO
    assert both(rule, moment=friday.replace(day=28, hour=6)) == NO


def test_a_body_that_is_still_to_come_is_in_doubt() -> None:
    for rule in ("json: {/a: 1}", "form: {a: 1}", "body: {size: {lte: 5}}", "mcp: {tool: x}"):
        assert both(rule, unread=True) == WIDE
    assert both("body: {size: {lte: 5}}", unread=True, length=5) == YES


def when(text: str) -> str:
    return "when: " + json.dumps(text)


def test_expressions() -> None:
    money = when('call.json.amount > 100 && call.json.currency == "eur"')
    assert both(money, '{"amount": 101, "currency": "eur"}') == YES
    assert both(money, '{"amount": 100, "currency": "eur"}') == NO
    assert both(money, '{"amount": "101", "currency": "eur"}') == WIDE
    assert both(money, "{}") == WIDE
    assert both(money, '{"amount": 1, "amount": 101, "currency": "eur"}') == WIDE
    assert both(money, '{"amount": 101, "currency": "eur"}', unread=True) == WIDE
    assert both(when('call.method == "POST" && call.path.startsWith("/x")')) == YES
    assert both(when('"ci" in call.tags'), subject=Subject("a", frozenset({"ci"}))) == YES
    night = when("call.time.getHours() < 6")
    assert both(night, moment=datetime(2026, 11, 27, 5, tzinfo=UTC)) == YES
    assert both(night) == WIDE


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("call.metod == 'GET'", "metod"),
        ("call.port", "neither true nor false"),
        ("call.method ==", "when"),
        ("1 == 'a'", "when"),
    ],
)
def test_a_bad_expression_refuses_the_policy(text: str, sentence: str) -> None:
    with pytest.raises(InvalidFile, match=sentence):
        match_of(when(text))
