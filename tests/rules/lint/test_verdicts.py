"""The short way to a decision leads to the same one."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from rules.decide import Rulebook
from rules.lint.verdicts import Verdicts
from rules.load import load_policy
from rules.model import Decision, Policy, Subject
from rules.paths import SLASH_REFUSED
from rules.reading.call import Reading
from rules.request import Request
from tests.support.policies import SUBJECTS, near, policies


def told(decision: Decision) -> tuple[object, ...]:
    return (
        decision.effect,
        decision.rules if decision.code == "policy_denied" else (),
        decision.credentials,
        decision.tiers,
        decision.limits,
    )


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
def test_it_decides_as_the_rulebook_does(data: st.DataObject) -> None:
    policy: Policy = data.draw(policies())
    book = Rulebook(policy)
    verdicts = Verdicts(book)
    for rule in policy.rules:
        match = data.draw(st.sampled_from(rule.matches))
        subject = data.draw(st.sampled_from(SUBJECTS))
        request: Request = data.draw(near(match, subject))
        decision = book.decide(subject, request)
        event(decision.effect)
        if decision.sentence == SLASH_REFUSED:  # whatever rules deny it besides
            assert decision.effect == "deny"
            continue
        assert told(verdicts.decide(Reading(request, subject))) == told(decision)
        stops = {r.effect for r in book.matching(Reading(request, subject))} & {"deny", "hold"}
        running = verdicts.if_it_runs(Reading(request, subject))
        assert (running is None) is bool(stops)
        assert running is None or told(running) == told(decision)


SPELLINGS = """\
version: 1
rules:
  - {id: all, agents: [bot], match: {method: POST, host: a.example}, effect: allow}
  - {id: json, agents: [bot], match: {host: a.example, path: /j, json: {/Amount: {gt: 5}}},
     effect: hold}
  - {id: form, agents: [bot], match: {host: a.example, path: /f, form: {a_b: {prefix: x}}},
     effect: hold}
  - {id: plan, agents: [bot], match: {host: a.example, path: /q, query: {plan: {prefix: x}}},
     effect: hold}
  - {id: dots, agents: [bot], match: {host: a.example, path: /d, form: {card.number: {prefix: x}}},
     effect: hold}
  - {id: file, agents: [bot], effect: hold,
     match: {host: a.example, path: /t.json, json: {/file: {prefix: /etc}}}}
  - {id: none, agents: [bot], match: {host: a.example, path: /n, json: {/kind: {not_in: [x]}}},
     effect: deny}
  - {id: root, agents: [bot], match: {host: a.example, path: /g, graphql: {fields: [Delete*]}},
     effect: hold}
  - {id: tool, agents: [bot], match: {host: a.example, path: /m, mcp: {tool: "*file"}},
     effect: hold}
  - {id: rpc, agents: [bot], match: {host: a.example, path: /r, jsonrpc: {method: eth_*}},
     effect: hold}
"""
RPC = '{"jsonrpc": "2.0", "id": 1, "method": %s, "params": {"name": "read-file", "arguments": {}}}'


def test_a_hold_is_found_by_every_spelling_of_its_word() -> None:
    book = Rulebook(load_policy(SPELLINGS)[0])
    verdicts = Verdicts(book)
    form = "application/x-www-form-urlencoded"
    for path, kind, body, effect in (
        ("/j", "application/json", json.dumps({"amount": 7}), "hold"),
        ("/J/", "text/plain", json.dumps({"AMOUNT": "7"}), "hold"),
        ("/j", "application/json", '{"amount": 1, "amount": 7}', "hold"),
        ("/j", "application/json", json.dumps({"sum": 7}), "allow"),
        ("/j.json", "application/json", json.dumps({"a_mount": 7}), "hold"),
        ("/j", "application/json", json.dumps({"amount": [1, "7x"]}), "hold"),
        ("/j", "application/json", json.dumps([{"amount": 7}]), "hold"),
        ("/j", "application/json", json.dumps({"__proto__": {"amount": 7}}), "hold"),
        ("/j?amount=7", "application/json", "{}", "hold"),
        ("/j?amount[]=7", "application/json", "{}", "hold"),
        ("/q", "application/json", json.dumps({"plan": "xy"}), "hold"),
        ("/f", "", "c&a_b=xy", "hold"),
        ("/d", form, "card=xy", "hold"),
        ("/d", form, "card[number]=xy", "hold"),
        ("/t", "application/json", json.dumps({"file": "/srv/..//etc/x"}), "hold"),
        ("/f", form, "a.b=xy", "hold"),
        ("/f", form, "A_B[]=xy", "hold"),
        ("/f", "text/plain", "a_b=xy", "hold"),
        ("/f?a%20b=x", form, "c=1", "hold"),
        ("/f", form, "c=xy", "allow"),
        ("/n", "application/json", "{}", "deny"),
        ("/g", "application/json", '{"query": "mutation {a: deleteRepo{id}}"}', "hold"),
        ("/g", "text/plain", '{"query": "{star DELETE_all}"}', "hold"),
        ("/g", "application/graphql", "{delete}", "hold"),
        ("/g", "application/json", '{"query": "{star}"}', "allow"),
        ("/g", "application/json", '{"id": "x"}', "hold"),
        ("/g", "text/plain", "{", "hold"),
        ("/m", "application/json", RPC % '"tools/call"', "hold"),
        ("/m", "application/json", RPC % '"tools/list"', "allow"),
        ("/m", "text/plain", f"[{RPC % '"x"'}, {RPC % '"tools/call"'}]", "hold"),
        ("/r", "application/json", RPC % '"ETH_call"', "hold"),
        ("/r", "application/json", RPC % '"net"', "allow"),
    ):
        target, _, query = path.partition("?")
        headers = (("content-type", kind),) if kind else ()
        request = Request(
            "POST", "https", "a.example", 443, target, query or None, headers, body.encode()
        )
        call = Reading(request, Subject("bot"))
        assert book.decide(call.subject, request).effect == effect, (path, body)
        assert verdicts.decide(call).effect == effect, (path, body)
        assert (verdicts.if_it_runs(call) is None) is (effect != "allow"), (path, body)


SOCKETS = """\
version: 1
rules:
  - {id: all, agents: [bot], match: {host: a.example}, effect: allow}
  - {id: root, agents: [bot], match: {host: a.example, path: /g, graphql: {fields: [Delete*]}},
     effect: hold}
  - {id: rpc, agents: [bot], match: {host: a.example, path: /r, jsonrpc: {method: eth_*}},
     effect: hold}
"""


def test_a_hold_on_what_a_socket_or_a_query_may_carry_is_found() -> None:
    book = Rulebook(load_policy(SOCKETS)[0])
    verdicts = Verdicts(book)
    for path, query, upgrade, effect in (
        ("/g", None, "websocket", "hold"),
        ("/r", None, "websocket", "hold"),
        ("/r", "method=eth_call", None, "hold"),
        ("/r", "session=1", None, "allow"),
        ("/g", None, None, "allow"),
    ):
        request = Request("GET", "https", "a.example", 443, path, query, (), b"", upgrade=upgrade)
        call = Reading(request, Subject("bot"))
        assert book.decide(call.subject, request).effect == effect, (path, query)
        assert verdicts.decide(call).effect == effect, (path, query)
        assert (verdicts.if_it_runs(call) is None) is (effect != "allow"), (path, query)
