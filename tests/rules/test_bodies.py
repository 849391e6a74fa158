"""Conditions on bodies: every element for what permits, any for what restricts."""

from __future__ import annotations

import gzip
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
        ("{/amount: {gt: 1000}}", '{"amount": [5000]}', WIDE),
        ("{/amount: {gt: 1000}}", '[{"amount": 1}, {"amount": 5000}]', WIDE),
        ("{/amount: {lte: 1000}}", '[{"amount": 1}]', WIDE),
        ("{/admin: {exists: false}}", '[{"admin": 1}]', WIDE),
        ("{/role: {not_in: [admin]}}", '{"role": ["admin"]}', WIDE),
        ("{/items/*/n: {gt: 3}}", '{"items": {"n": 5}}', WIDE),
        ("{/items/*/n: {gt: 3}}", '{"items": {"0": {"n": 1}, "1": {"n": 5}}}', WIDE),
        ("{/items/*/n: {lte: 3}}", '{"items": {"*": {"n": 1}, "x": {"n": 5}}}', WIDE),
        ("{/items/*/n: {exists: false}}", '{"items": {"n": 5}}', WIDE),
        ("{/to/*: a}", '{"to": "a"}', WIDE),
        ("{/to/*: a}", '{"to": "b"}', NO),
        ("{/to/*/x: a}", '{"to": 5}', NO),
        ("{/dryRun: false}", '{"dry_run": false}', WIDE),
        ("{/dry_run: true}", '{"dry_run": true, "dryRun": false}', WIDE),
        ("{/dry_run: {exists: false}}", '{"dry-run": true}', WIDE),
        ("{/dry_run: true}", '{"dry_run": true, "_": 1}', YES),
        ("{/_: true}", '{"_": true}', YES),
        ("{/amount: {gt: 1000}}", '{"__proto__": {"amount": 5000}}', WIDE),
        ("{/amount: {lte: 1000}}", '{"amount": 1, "__proto__": {"amount": 5000}}', WIDE),
        ("{/amount: {exists: false}}", '{"__proto__": {"amount": 5000}}', WIDE),
        ("{/role: admin}", '{"role": "\uff41dmin"}', WIDE),
        ("{/0/n: {gt: 3}}", '[{"n": 1}, {"n": 5}]', NO),
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
        ("{pageSize: {exists: false}}", "page_size=5", WIDE),
        ("{page_size: {lte: 100}}", "page_size=5&pageSize=5000", WIDE),
        ("{amount: {exists: false}}", "!amount=5", WIDE),
        ("{amount: {exists: false}}", "!=5&_=6", YES),
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


def part(name: str, value: str, more: str = "") -> str:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'


def file(name: str, value: str, filename: str = "f.txt") -> str:
    return part(name, value, f'; filename="{filename}"\r\nContent-Type: text/plain')


def of_parts(test: str, *parts: str, query: str | None = None) -> tuple[bool, bool]:
    return both(test, "".join(parts) + "--b--\r\n", BOUNDARY, query=query)


def test_forms_of_parts() -> None:
    assert of_parts("form: {a: x}", part("a", "x")) == YES
    assert of_parts("form: {a: x}", part("a", "y")) == NO
    assert both("form: {a: x}", part("a", "x") + "--c--\r\n", BOUNDARY) == WIDE


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("{exists: true}", YES),
        ("{length: 4}", YES),  # bytes, not characters
        ("{length: {lte: 4}}", YES),
        ("{exists: true, length: {gte: 1, lt: 5}}", YES),
        ("{length: 3}", NO),
        ("{length: {gt: 4}}", NO),
        ("{prefix: z, length: {gt: 4}}", NO),
        ("{exists: false}", WIDE),
        ("xéy", WIDE),
        ("z", WIDE),
        ("{not_in: [z]}", WIDE),
        ("{prefix: z, length: 4}", WIDE),
        ("{lte: 5}", WIDE),
    ],
)
def test_a_file(test: str, expected: tuple[bool, bool]) -> None:
    assert of_parts(f"form: {{a: {test}}}", part("b", "1"), file("a", "xéy")) == expected


def test_beside_a_file_fields_are_read_as_ever() -> None:
    upload = file("a", "x")
    assert of_parts("form: {b: {exists: false}}", upload) == YES
    assert of_parts("form: {b: '1'}", upload, part("b", "1")) == YES
    assert of_parts("form: {b: '1'}", upload, part("b", "2")) == NO
    assert of_parts("query: {b: '1'}", upload, query="b=1") == YES


@pytest.mark.parametrize("name", ["a", "A", "a[]", "a[0]", "a[x]", "a "])
def test_what_some_server_takes_for_the_same_file_leaves_it_in_doubt(name: str) -> None:
    for test in ("form: {a: {exists: true}}", "form: {a: {length: 1}}"):
        assert of_parts(test, file("a", "x"), file(name, "x")) == WIDE
        assert of_parts(test, file("a", "x"), part(name, "x")) == WIDE
        assert of_parts(test, part(name, "x"), file("a", "x")) == WIDE
        assert of_parts(test, file("a", "x"), query=name.replace(" ", "+") + "=x") == WIDE
    # Params are one to Rack, whether from the query or the form.
    assert of_parts("query: {a: x}", file(name, "x"), query="a=x") == WIDE


@pytest.mark.parametrize(
    "doubtful",
    [
        file("a", "x", filename=""),
        file("a", "x", filename="."),
        file("a", "x", filename="../"),
        part("a", "x", '; filename="f.txt"'),
        part("a", "x", "; filename*=utf-8''f.txt\r\nContent-Type: text/plain"),
        part("a", "x", "\r\nContent-Type: application/octet-stream"),
        part("a", "x", "\r\nContent-Type: text/plain"),
        file("A", "x"),
        file("a[]", "x"),
    ],
)
def test_what_may_be_a_field_or_a_file_is_in_doubt(doubtful: str) -> None:
    for test in ("{exists: true}", "{exists: false}", "x", "y", "{length: 1}", "{length: 2}"):
        assert of_parts(f"form: {{a: {test}}}", doubtful) == WIDE


def test_one_name_in_query_and_form_is_in_doubt() -> None:
    for test in ("form: {a: {exists: true}}", "query: {a: {exists: true}}"):
        assert both(test, "a=1", FORM, query="a=1") == WIDE
    assert both("query: {a: 2}", "a=2", FORM, query="a=1") == WIDE
    assert both("query: {a: {exists: false}}", "a=2", FORM) == WIDE


def named_part(value: str) -> str:
    return f'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n{value}\r\n--b--\r\n'


UNTYPED: tuple[tuple[str, str], ...] = ()
MIXED = (("content-type", "multipart/mixed; boundary=b"),)
FORMS_TO_SOME = [
    (UNTYPED, "x&a=5000"),
    (UNTYPED, "&a=5000"),
    (UNTYPED, "a[]=5000"),
    (UNTYPED, "{x&a=5000"),
    (UNTYPED, "x;a=5000"),
    (UNTYPED, "?a=5000"),
    (UNTYPED, "a=5000&x=" + "x" * (2 << 20)),
    (PLAIN, "x&a=5000"),
    (MIXED, named_part("5000")),
    ((("content-type", "multipart/related; boundary=b"),), named_part("5000")),
    ((("content-type", "application/x-multipart; boundary=b"),), named_part("5000")),
]


@pytest.mark.parametrize(("headers", "body"), FORMS_TO_SOME)
def test_what_does_not_say_that_it_is_a_form_may_be_one(
    headers: tuple[tuple[str, str], ...], body: str
) -> None:
    """To Rack a POST without a type is, and so are parts that are mixed; others take any type."""
    assert both("form: {a: {gt: 1000}}", body, headers) == WIDE
    assert both("form: {a: {exists: false}}", body, headers) == WIDE
    assert both("form: {b: {exists: false}}", body.replace("name=", "names="), headers) != NO


@pytest.mark.parametrize(("headers", "body"), [*FORMS_TO_SOME[:6], *FORMS_TO_SOME[8:10]])
def test_a_form_to_some_beside_the_query(headers: tuple[tuple[str, str], ...], body: str) -> None:
    """Rack puts its fields in place of the query's."""
    assert both("query: {a: {lte: 1000}}", body, headers, query="a=1") == WIDE
    assert both("query: {a: {exists: false}}", body, headers) == WIDE
    assert both("query: {b: {lte: 1000}}", "some text", UNTYPED, query="b=1") == YES


def test_parts_without_names_are_no_fields() -> None:
    """As Google's uploads have them."""
    body = "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n\r\na=1\r\n--b--"
    headers = (("content-type", "multipart/related; boundary=b"),)
    assert both("query: {a: {lte: 1000}}", body, headers, query="a=1") == YES
    assert both("form: {a: {exists: false}}", body, headers) == YES


VEILED = [
    (gzip.compress(b'{"a": 1}', mtime=0), "text/plain", "gzip"),
    (gzip.compress(b"a=1", mtime=0), "text/plain", "gzip"),
    (gzip.compress(b"a=1", mtime=0), "", "br"),
    ('{"a": 1}'.encode("utf-16-le"), "text/plain; charset=utf-16le", ""),
    (b"+AHs-+ACI-a+ACI-: 1+AH0-", "text/plain; charset=utf-7", ""),
    (b"\xa8", 'text/plain; charset="ibm037"', ""),
]


@pytest.mark.parametrize(("body", "kind", "coding"), VEILED)
def test_the_looks_of_a_body_that_is_veiled_say_nothing(
    body: bytes, kind: str, coding: str
) -> None:
    """There are servers that undo the coding whatever the type, and read what they find."""
    given = {"content-type": kind, "content-encoding": coding}
    headers = tuple((name, value) for name, value in given.items() if value)
    for test in ("{/a: 1}", "{/a: {exists: false}}", "{/b: {exists: false}}"):
        assert both(f"json: {test}", body, headers) == WIDE
    for test in ("{a: '1'}", "{a: {exists: false}}"):
        assert both(f"form: {test}", body, headers) == WIDE
    assert both(when("!has(call.json.a)"), body, headers) == WIDE
    assert both("query: {b: '1'}", body, headers, query="b=1") == YES


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "iso-8859-1", "windows-1252", "gbk"])
def test_character_sets_that_keep_ascii_veil_nothing(name: str) -> None:
    headers = (("content-type", f"text/plain; charset={name}"),)
    assert both("json: {/a: {exists: false}}", "hello", headers) == YES
    assert both("form: {a: {exists: false}}", "hello", headers) == YES


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-be", "utf-8-sig"])
def test_json_looks_like_it_in_every_encoding_of_unicode(encoding: str) -> None:
    """Python's reader, for one, takes them all."""
    assert both("json: {/a: {exists: false}}", '{"a": 1}'.encode(encoding), PLAIN) == WIDE


@pytest.mark.parametrize(
    ("test", "body", "query", "expected"),
    [
        ("query: {dry_run: 'true'}", '{"dry_run": false}', "dry_run=true", WIDE),
        ("query: {dry_run: 'true'}", '{"dryRun": false}', "dry_run=true", WIDE),
        ("query: {dry_run: 'true'}", '{"other": {"dry_run": false}}', "dry_run=true", YES),
        ("query: {force: {exists: false}}", '{"force": 1}', None, WIDE),
        ("query: {force: '1'}", '{"force": 1}', None, WIDE),
        ("query: {a: '1'}", '{"b": "\\ud83d"}', "a=1", YES),
        ("query: {a: '1'}", '{"b": 1, "b": 2}', "a=1", YES),
        ("query: {a: '1'}", '{"a": 1, "a": 2}', "a=1", WIDE),
        ("query: {a: '1'}", '{"b": "\\ud83d", "\\u0061": 2}', "a=1", WIDE),
        ("json: {/amount: {lte: 10}}", '{"amount": 1}', "amount=50", WIDE),
        ("json: {/amount: {gt: 10}}", "{}", "amount=50", WIDE),
        ("json: {/amount: {gt: 10}}", "", "amount=50", WIDE),
        ("json: {/amount: {gt: 10}}", "{}", "amount=5", NO),
        ("json: {/amount: {gt: 10}}", "{}", "other=50", NO),
        ("json: {/a/b: {exists: false}}", "{}", "a[b]=1", WIDE),
        ("json: {/a/b: {exists: false}}", "{}", "a[c]=1", YES),
        ("json: {/a/*/b: x}", "{}", "a[][b]=x", WIDE),
        ("json: {/*: x}", "{}", "a=x", NO),
        ("form: {force: {exists: false}}", '{"force": 1}', None, WIDE),
        ("form: {force: {exists: false}}", '{"other": 1}', None, YES),
    ],
)
def test_one_name_in_the_query_and_in_json_is_in_doubt(
    test: str, body: str, query: str | None, expected: tuple[bool, bool]
) -> None:
    """Rails and Laravel merge the two, and Express puts JSON where it puts forms."""
    assert both(test, body, query=query) == expected


def test_what_must_not_stand_in_json_stands_in_no_form() -> None:
    for body in ("force=1", "force[x]=1"):
        assert both("json: {/force: {exists: false}}", body, FORM) == WIDE
    assert of_parts("json: {/force: {exists: false}}", part("force", "1")) == WIDE
    assert of_parts("json: {/force: {exists: false}}", file("force", "1")) == WIDE
    assert both("json: {/force: {exists: false}}", "other=1", FORM) == YES


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


@pytest.mark.parametrize(
    "test", ["graphql: {kind: mutation}", 'jsonrpc: {method: "eth_*"}', "mcp: {tool: read_file}"]
)
def test_what_a_socket_will_carry_is_in_doubt(test: str) -> None:
    assert both(test, method="GET", upgrade="websocket") == WIDE
    assert both(test, method="GET") == NO


@pytest.mark.parametrize("query", ["method=eth_call&id=1", "Request=%7B%7D", "jsonrpc=2.0"])
def test_a_call_of_jsonrpc_may_stand_in_the_query(query: str) -> None:
    assert both('jsonrpc: {method: "eth_*"}', method="GET", query=query) == WIDE
    assert both('jsonrpc: {method: "eth_*"}', method="GET", query="session=1") == NO


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


def test_an_expression_asks_for_a_field_and_there_is_something_else() -> None:
    """Which some server takes for it."""
    absent, small = when("!has(call.form.a)"), when("double(call.form.a) < 5.0")
    for test in (absent, small, when('!("a" in call.form)'), when('call.form["a"] == "x"')):
        assert of_parts(test, file("a", "1"), part("b", "1")) == WIDE
        assert of_parts(test, part("a", "1", '; filename=""')) == WIDE
        assert of_parts(test, part("a", "1", "\r\nContent-Type: text/plain")) == WIDE
        assert both(test, "a[]=1", FORM) == WIDE
        assert both(test, "a[b]=1", FORM) == WIDE
        assert both(test, "b=1", FORM, query="a=1") == WIDE
    assert of_parts(absent, file("b", "1")) == YES
    assert of_parts(small, file("b", "1"), part("a", "4")) == YES
    assert of_parts(small, file("b", "1"), part("a", "6")) == NO
    assert both(absent, "b[]=1&b[]=2", FORM, query="b=1") == YES
    for test in (when('call.form.all(k, k in ["b", "c"])'), when("size(call.form) == 1")):
        assert both(test, "b=1", FORM, query="c=1") == YES
        assert both(test, "b=1", FORM, query="b=1") == WIDE
        assert both(test, "b[x]=1", FORM) == WIDE
        assert of_parts(test, file("a", "1"), part("b", "1")) == WIDE
    query = when('call.query.a == "1"')
    assert both(query, "b=1", FORM, query="a=1") == YES
    assert both(query, "a=2", FORM, query="a=1") == WIDE
    assert of_parts(query, file("a", "1"), query="a=1") == WIDE


def test_an_expression_on_a_member_in_another_spelling() -> None:
    assert both(when("!has(call.json.dryRun)"), '{"dry_run": true}') == WIDE
    assert both(when("call.json.dry_run == true"), '{"dry_run": true, "dryRun": false}') == WIDE
    assert both(when("!has(call.query.pageSize)"), "{}", query="page_size=1") == WIDE


def test_an_expression_on_a_list_where_one_value_is_wanted() -> None:
    assert both(when('call.json.a == "b"'), '{"a": ["b"]}') == WIDE
    assert both(when("call.json.a == 5"), '{"a": ["5"]}') == WIDE
    assert both(when('call.json.a.exists(x, x == "b")'), '{"a": ["b"]}') == YES
    assert both(when('call.json.a == "b"'), '{"a": ["c"]}') == NO


def test_an_expression_on_a_body_that_looks_like_something_else() -> None:
    for test in ("!has(call.json.a)", "!has(call.form.a)"):
        assert both(when(test), '{"b": 1}') == YES
        assert both(when(test), "hello", PLAIN) == YES
    for test in ("!has(call.json.a)", "call.json.a == 1"):
        assert both(when(test), '{"a": 1}', PLAIN) == WIDE
    for test in ("!has(call.form.a)", 'call.form.a == "1"'):
        assert both(when(test), "a=1", PLAIN) == WIDE


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
