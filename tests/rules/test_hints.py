"""Every word that is unknown comes with the nearest one that there is."""

from __future__ import annotations

import pytest

from rules.errors import InvalidFile
from rules.load import load_policy
from rules.pack import read_pack
from rules.trial.cases import read_cases

RULE = "rules: [{id: r, agents: [bot], match: {}, effect: allow}]"


def in_match(text: str) -> str:
    return RULE.replace("match: {}", f"match: {{{text}}}")


POLICIES = [
    ("ruls: []", "rules"),
    ("mode: shado", "shadow"),
    (RULE.replace("effect", "efect"), "effect"),
    (RULE.replace("allow", "alow"), "allow"),
    (RULE.replace("allow", "hold, risk: hihg"), "high"),
    (RULE.replace("allow", "allow, body: strem"), "stream"),
    (RULE.replace("allow", "allow, use: [strip]") + "\ncredentials: {stripe: "
     "{secret: 'kv/a#b', hosts: [a.example], inject: bearer}}", "stripe"),
    (RULE.replace("allow", "hold, confirm: from:amount"), "form"),
    (RULE.replace("allow", "allow, limit: {cals: 5, per: 1m}"), "calls"),
    (RULE.replace("allow", "allow, limit: {calls: 5, per: 1m, over: hodl}"), "hold"),
    (RULE.replace("allow", "allow, tests: {no_mach: []}"), "no_match"),
    (RULE.replace("allow", "allow, tests: {match: [{metod: GET}]}"), "method"),
    (in_match("hots: a.example"), "host"),
    (in_match("scheme: htps"), "https"),
    (in_match("json: {/a: {gtt: 5}}"), "gt"),
    (in_match("json: {/a: {prefx: a}}"), "prefix"),
    (in_match("json: {/a: {length: {ltee: 5}}}"), "lte"),
    (in_match("body: {tpye: text/*}"), "type"),
    (in_match("graphql: {kind: mutaton}"), "mutation"),
    (in_match("graphql: {feilds: a}"), "fields"),
    (in_match("mcp: {tol: a}"), "tool"),
    (in_match("jsonrpc: {metod: a}"), "method"),
    (in_match("grpc: {servce: a}"), "service"),
    (in_match("upgrade: websoket"), "websocket"),
    (in_match("time: {days: [mno], zone: UTC}"), "mon"),
    (in_match("time: {from: '09:00', zone: Europe/Berln}"), "Europe/Berlin"),
    (in_match("source: {via: gatway}"), "gateway"),
    (in_match("when: call.metod == 'GET'"), "call.method"),
    ("credentials: {a: {secrt: b}}", "secret"),
    ("credentials: {a: {secret: 'kv/a#b', hosts: h.example, inject: barer}}", "bearer"),
    ("credentials: {a: {secret: 'kv/a#b', hosts: h.example, inject: {heder: x}}}", "header"),
    ("credentials: {a: {secret: 'kv/a#b', hosts: h.example, inject: bearer,"
     " env: {nam: A, shape: x}}}", "name"),
    ("tiers: {high: {qorum: []}}", "quorum"),
    ("tiers: {high: {quorum: [{group: finanse}]}}\napprovers: {finance: [a]}", "finance"),
    ("tiers: {high: {quorum: [{gruop: any}]}}", "group"),
    ("tiers: {high: {reason: requird}}", "required"),
    ("tiers: {high: {confirm: retpye}}", "retype"),
    ("include: [{pack: strpe, agents: bot}]", "stripe"),
    ("include: [{pack: stripe, agent: bot}]", "agents"),
    ("include: [{pack: kubernetes, agents: bot, with: {hots: k.example}}]", "host"),
    ("include: [{pack: stripe, agents: bot}]\noverride: {stripe.refund-creat: {risk: low}}",
     "stripe.refund-create"),
    ("include: [{pack: stripe, agents: bot}]\noverride: {stripe.refund-create: {rsk: low}}",
     "risk"),
]  # fmt: skip

CASE = "- {as: bot, request: {method: GET, url: u}, expect: {effect: deny}}"
CASES = [
    (CASE.replace("as:", "tgs: [a], as:"), "tags"),
    (CASE.replace("request", "requst"), "request"),
    (CASE.replace("method", "methd"), "method"),
    (CASE.replace("effect", "efect"), "effect"),
    (CASE.replace("deny", "dney"), "deny"),
    (CASE.replace("effect: deny", "code: policy_denid"), "policy_denied"),
    (CASE.replace("url: u", "url: u, via: prxy"), "proxy"),
]

PACK = "pack: p\ntitle: t\nabout: a\nhosts: [a.example]\nrules: [{id: a, class: low, match: {}}]\n"
PACKS = [
    (PACK.replace("title", "titel"), "title"),
    (PACK.replace("class", "clas"), "class"),
    (PACK.replace("low", "lwo"), "low"),
    (PACK + "parameters: {owner: {about: a, kind: nam}}", "name"),
    (PACK.replace("match: {}", 'match: {path: "/${ownr}"}')
     + "parameters: {owner: {about: a}}", "owner"),
]  # fmt: skip


def messages(read: object, text: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        read(text)  # type: ignore[operator]
    return [problem.message for problem in caught.value.problems]


def check(problems: list[str], meant: str) -> None:
    assert any(f'did you mean "{meant}"?' in problem for problem in problems) or any(
        meant in problem and "did you mean" in problem for problem in problems
    ), problems


@pytest.mark.parametrize(("text", "meant"), POLICIES)
def test_in_policies(text: str, meant: str) -> None:
    check(messages(load_policy, f"version: 1\n{text}\n"), meant)


@pytest.mark.parametrize(("text", "meant"), CASES)
def test_in_cases(text: str, meant: str) -> None:
    check(messages(lambda text: read_cases(text, "c.yaml"), text), meant)


@pytest.mark.parametrize(("text", "meant"), PACKS)
def test_in_packs(text: str, meant: str) -> None:
    check(messages(lambda text: read_pack(text, "p.yaml"), text), meant)


def test_a_method_in_small_letters_is_told_in_capitals() -> None:
    text = f"version: 1\n{in_match('method: post')}\n"
    assert any("write capitals, such as POST" in problem for problem in messages(load_policy, text))


@pytest.mark.parametrize(
    ("match", "sentence"),
    [
        ("query: {a: {eq: x}}", 'unknown operator "eq"; a bare value is equality'),
        ("json: {/a: {'>': 5}}", 'unknown operator ">"; write gt'),
        ("query: {a: {ne: x}}", 'unknown operator "ne"; write not_in: [..]'),
        ("query: {a: {regex: ^x}}", 'unknown operator "regex"; write a glob'),
        ("query: {a: {contains: x}}", 'unknown operator "contains"; write glob: "*..*"'),
        ("query: {a: {gte1: 5}}", 'unknown operator "gte1" (did you mean "gte"?)'),
        ("query: {a: {huge: 5}}", 'unknown operator "huge"; known: in, not_in, gt, '),
        ("query: {a: [x, y]}", "a must be one value, not a list; write {in: [..]}"),
        ("json: {/a: {gt: '5'}}", "gt compares with a number; write one, without quotes"),
        ("json: {/a: {gt: true}}", "gt compares with a number; write one"),
        ("json: 5", "json must be a mapping, not the number 5"),
        ("graphql: 5", "graphql must be a mapping, not the number 5"),
        ("time: {from: 9:00, zone: UTC}", 'from: "9:00" is no time, such as "09:00"'),
        ("path: '/v1/x?a=b'", "a path has no query; write that under `query:`"),
        ("method: '*'", '"*" is not a method; leave the field out for every method'),
        ("grpc: {service: /shop.v1.Orders/Cancel}", "write it like shop.v1.Orders"),
        ("grpc: {method: shop.Orders/Cancel}", "write it like Cancel"),
    ],
)
def test_a_slip_is_told_once_and_with_what_to_write(match: str, sentence: str) -> None:
    [problem] = messages(load_policy, f"version: 1\n{in_match(match)}\n")
    assert sentence in problem


def test_two_times_that_are_none_are_not_told_to_be_the_same() -> None:
    text = f"version: 1\n{in_match('time: {from: 9am, to: 5pm, zone: UTC}')}\n"
    assert [problem.split(" is ")[0] for problem in messages(load_policy, text)] == [
        'rule "r": from: "9am"',
        'rule "r": to: "5pm"',
    ]


@pytest.mark.parametrize(
    ("glob", "told"),
    [(r"^refs/heads/.*$", True), (r"\d+", True), ("[a-z]+*", True), ("(?i)main", True),
     ("refs/heads/*", False), ("file.*", False), ("US$ *", False), ("[*]", False)],
)  # fmt: skip
def test_a_glob_that_is_a_regular_expression_is_told(glob: str, told: bool) -> None:
    text = f"version: 1\n{in_match(f'json: {{/ref: {{glob: {glob!r}}}}}')}\n"
    _, warnings = load_policy(text.replace("\\\\", "\\"))
    assert [w.code for w in warnings] == (["glob-like-regex"] if told else [])


def test_a_warning_takes_nothing_out_of_a_rule() -> None:
    text = f"version: 1\n{in_match('json: {/ref: {glob: "^a$"}}')}\n"
    policy, warnings = load_policy(text)
    assert warnings
    assert [test.name for rule in policy.rules for m in rule.matches for test in m.json] == ["/ref"]
