"""Why a call does not fall under a rule: each kind of condition, and nothing given away."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rules.load import load_policy
from rules.matching import Matcher
from rules.misses import Miss, miss
from rules.model import Subject
from rules.reading.call import Reading
from rules.trial.requests import Written

RUN, OTHER_RUN = "t-" + "0" * 26, "t-" + "1" * 26
SECRET = "hunter2-4111111111111111"


def missed(match: str, written: Written, tags: tuple[str, ...] = ()) -> tuple[Miss, Reading]:
    rule = f"{{id: r, agents: bot, effect: allow, {match}}}"
    policy, _ = load_policy(f"version: 1\nrules: [{rule}]\n")
    call = Reading(written.request(), Subject("bot", frozenset(tags)))
    (found,) = policy.rules
    matcher = Matcher.of(found.matches[0])
    result = miss(found, matcher, [Matcher.of(hole) for hole in found.excepts], call)
    assert result is not None
    return result, call


def post(body: object = None, **headers: str) -> Written:
    given = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    text = b"" if body is None else json.dumps(body).encode()
    return Written("POST", "https://a.example/x?q=1&q=2", tuple(given.items()), text)


TYPED = "Content-Type: text/plain"


def upload(more: str) -> Written:
    body = f'--b\r\nContent-Disposition: form-data; name="a"{more}\r\n\r\nxyz\r\n--b--\r\n'
    kind = ("content-type", "multipart/form-data; boundary=b")
    return Written("POST", "https://a.example/x", (kind,), body.encode())


QUERY = {"query": "mutation { deleteRepo mergePull }"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "delete_file", "arguments": {"path": "/etc"}}}  # fmt: skip


@pytest.mark.parametrize(
    ("match", "written", "wanted", "found"),
    [
        ("match: {method: [GET, PUT]}", post(), "with GET or PUT", "it is POST"),
        ("match: {host: b.example}", post(), "to b.example", "it goes to a.example"),
        ("match: {scheme: http}", post(), "over http", "it is https"),
        ("match: {path: [/a, /b]}", post(), "at /a or /b", "it is /x"),
        ("match: {path: [/a, /b, /c, /d]}", post(), "at /a, /b, /c or 1 more", "it is /x"),
        (
            "match: {upgrade: websocket}",
            post(),
            "with an upgrade to WebSocket",
            "it asks for no upgrade",
        ),
        (
            "match: {source: {run: true, tags: [ci]}}",
            post(),
            "with a run of `keybroker run` and an agent tagged ci",
            "it comes by the proxy, from no run, untagged",
        ),
        (
            f"match: {{source: {{run: {RUN}}}}}",
            replace(post(), run=OTHER_RUN),
            f"with the run {RUN}",
            f"it comes by the proxy, from the run {OTHER_RUN}, untagged",
        ),
        (
            "match: {time: {from: '09:00', to: '17:00', zone: UTC}}",
            post(),
            "with a time from 09:00 to 17:00 (UTC)",
            "its time is not known",
        ),
        (
            "match: {query: {q: {in: [a, b]}}}",
            post(),
            "if query q is one of a, b",
            'it is there 2 times: "1" and "2"',
        ),
        ("match: {query: {z: '1'}}", post(), "if query z = 1", "it is not there"),
        ("match: {query: {q: {exists: false}}}", post(), "if query q is not there", "it is there"),
        ("match: {headers: {x-env: test}}", post(x_env="prod"), "if header x-env = test",
         'it is "prod"'),
        ("match: {json: {/a/b: {prefix: x}}}", post({"a": {"b": "yz"}}),
         "if JSON /a/b is beginning with x", 'it is "yz"'),
        ("match: {json: {/a: 5}}", post({"a": [1, 2]}), "if JSON /a = 5", "it is a list of 2"),
        ("match: {json: {/a: 5}}", post({"a": {}}), "if JSON /a = 5", "it is an object of 0"),
        ("match: {json: {/a: 5}}", post({"a": None}), "if JSON /a = 5", "it is null"),
        ("match: {json: {/a: 5}}", post(), "if JSON /a = 5", "it has no body"),
        ("match: {json: {/a: 5}}", post({"a": 5}, content_type="text/plain"), "if JSON /a = 5",
         "its Content-Type is not that of JSON"),
        ("match: {form: {a: {gt: 5}}}", post({"a": 5}), "if form a > 5", "it is not there"),
        ("match: {form: {a: {length: {gt: 5}}}}", upload('; filename="f.txt"\r\n' + TYPED),
         "if form a is of length > 5", "it is a file of 3 bytes"),
        ("match: {form: {a: xyz}}", upload('; filename="f.txt"\r\n' + TYPED),
         "if form a = xyz", "there is no telling: a is sent as a file"),
        ("match: {form: {a: {exists: true}}}", upload("\r\n" + TYPED),
         "if form a is there", "there is no telling: a is sent as a file, or may be"),
        ("match: {body: {size: {lte: 2}}}", post([1, 2]), "with a body of <= 2 bytes",
         "its body has 6 bytes"),
        ("match: {body: {type: text/*}}", post([1, 2]), "with a body of type text/*",
         "its body has 6 bytes of type application/json"),
        ("match: {graphql: {kind: query}}", post(QUERY), "with a GraphQL query",
         "it is a mutation of deleteRepo and mergePull"),
        ("match: {mcp: {tool: read_*, arguments: {/path: /tmp}}}", post(CALL),
         "with a call of the tool read_* with /path = /tmp",
         'it is delete_file, and of /path it is "/etc"'),
        ("match: {jsonrpc: {method: eth_*}}", post(CALL), "with a JSON-RPC call eth_*",
         "it is delete_file"),
        ("match: {grpc: {service: a.B}}", post(), "with the gRPC method a.B", "it is no gRPC"),
        ("match: {when: call.json.a > 5}", post({"a": 1}), "if `call.json.a > 5`", "it is false"),
        ("match: {when: call.json.a > 5}", post({}), "if `call.json.a > 5`",
         "there is no telling: an expression has no clear answer for it"),
        ("match: {when: call.json.a > 5}", Written("POST", "https://a.example/x",
         (("content-type", "application/json"),), b'{"a": 1, "a": 5}'),
         "if `call.json.a > 5`", "there is no telling: a name occurs twice in an object"),
        ("match: {}, except: {json: {/dry: true}}", post({"dry": True}),
         "if it is no call with JSON /dry = true", "it is one"),
        ("match: {json: {/a: 5}}", Written("POST", "https://a.example/x",
         (("content-type", "application/json"),), b'{"a": 1, "a": 5}'),
         "if JSON /a = 5", "there is no telling: a name occurs twice in an object"),
    ],
)  # fmt: skip
def test_each_condition_says_what_it_wants_and_what_there_is(
    match: str, written: Written, wanted: str, found: str
) -> None:
    result, call = missed(match, written)
    (why,) = result.reasons(call, openly=True)
    assert (why.wanted, why.found) == (wanted, found)
    assert result.sentence(call).startswith('Rule "r" allows')


def test_a_sentence_that_is_kept_has_short_numbers_only() -> None:
    kept = [
        (post({"a": 4950}), "it is 4950."),
        (post({"a": True}), "it is true."),
        (post({"a": SECRET}), "it is another text."),
        (post({"a": int("4" * 16)}), "it is another number."),
    ]
    for written, end in kept:
        result, call = missed("match: {json: {/a: {lt: 5}}}", written)
        assert result.sentence(call) == f'Rule "r" allows it only if JSON /a < 5; {end}'
    for place in ("headers: {authorization: x}", "query: {q: x}", "form: {a: x}"):
        written = Written(
            "POST",
            f"https://a.example/?q={SECRET}",
            (("authorization", SECRET), ("content-type", "application/x-www-form-urlencoded")),
            f"a={SECRET}".encode(),
        )
        result, call = missed(f"match: {{{place}}}", written)
        assert SECRET not in result.sentence(call)
        (why,) = result.reasons(call, openly=True)
        assert SECRET in why.found


def test_several_reasons_stand_in_one_sentence() -> None:
    result, call = missed("match: {json: {/a: 1, /b: 2}}", post({"a": 3}))
    assert result.sentence(call) == (
        'Rule "r" allows it only if JSON /a = 1 (it is 3) and if JSON /b = 2 (it is not there).'
    )


def test_what_an_agent_wrote_is_visible_and_cut() -> None:
    result, call = missed("match: {json: {/a: x}}", post({"a": "\u202e" + "y" * 1000}))
    (why,) = result.reasons(call, openly=True)
    assert "\\u202e" in why.found
    assert len(why.found) < 100


def test_near_is_what_is_about_the_same_place() -> None:
    near, _ = missed("match: {path: /x, json: {/a: 1}}", post({}))
    method, _ = missed("match: {path: /x, method: GET}", post({}))
    far, _ = missed("match: {path: /y}", post({}))
    assert (near.is_near, method.is_near, far.is_near) == (True, True, False)
    assert sorted([far, method, near], key=lambda m: m.distance) == [near, method, far]
