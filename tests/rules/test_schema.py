"""What may stand in one credential, tier or rule."""

from __future__ import annotations

import pytest

from rules.errors import InvalidFile
from rules.load import load_policy
from rules.model import Injection, Match, ValueTest, Variable
from rules.schema import BUILT_IN
from rules.shapes import DEFAULT_SHAPE


def problems(text: str) -> str:
    with pytest.raises(InvalidFile) as caught:
        load_policy("version: 1\n" + text, "p")
    return "\n".join(problem.message for problem in caught.value.problems)


def rule(fields: str) -> str:
    return f"rules: [{{id: r, agents: [a], {fields}}}]"


@pytest.mark.parametrize(
    ("inject", "expected"),
    [
        ("bearer", Injection("authorization", "Bearer {secret}")),
        ("{basic: {username: u}}", Injection("authorization", "Basic {secret}", "u")),
        ('{basic: {username: ""}}', Injection("authorization", "Basic {secret}", "")),
        ("{header: X-Key}", Injection("x-key", "{secret}")),
        ('{header: X-Key, format: "t {secret}"}', Injection("x-key", "t {secret}")),
    ],
)
def test_injections(inject: str, expected: Injection) -> None:
    text = (
        f'version: 1\ncredentials: {{c: {{secret: "kv/a#b", hosts: h.example, inject: {inject}}}}}'
    )
    assert load_policy(text)[0].credentials["c"].inject == expected


@pytest.mark.parametrize(
    ("inject", "sentence"),
    [
        ("beaer", "inject must be bearer, {basic: {username: u}} or {header: NAME"),
        ("{}", "inject must be bearer"),
        ("{basic: {username: 'a:b'}}", "without a colon"),
        ("{basic: {user: a}}", 'unknown field "user"'),
        ("{basic: {username: u}, header: X}", 'unknown field "header"'),
        ("{header: Host}", "never forwarded"),
        ("{header: X-Key, format: plain}", "write {secret} exactly once"),
        ("{header: X-Key, fromat: '{secret}'}", 'unknown field "fromat" (did you mean "format"?)'),
    ],
)
def test_bad_injections(inject: str, sentence: str) -> None:
    text = f'credentials: {{c: {{secret: "kv/a#b", hosts: h.example, inject: {inject}}}}}'
    assert sentence in problems(text)


def credential(name: str, env: str) -> str:
    return f'{name}: {{secret: "kv/a#b", hosts: h.example, inject: bearer, env: {env}}}'


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("STRIPE_API_KEY", Variable("STRIPE_API_KEY", DEFAULT_SHAPE)),
        ("{name: STRIPE_API_KEY}", Variable("STRIPE_API_KEY", DEFAULT_SHAPE)),
        ('{name: A_KEY, shape: "sk_{hex:24}"}', Variable("A_KEY", "sk_{hex:24}")),
    ],
)
def test_variables(env: str, expected: Variable) -> None:
    text = f"version: 1\ncredentials: {{{credential('c', env)}}}"
    assert load_policy(text)[0].credentials["c"].env == expected


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("lower", "is not a name for a variable"),
        ("LD_PRELOAD", "LD_PRELOAD changes what programs do"),
        ("[A_KEY]", "env must be text, not a list"),
        ("''", "env must have 1 to"),
        ("{}", '"name" is missing'),
        ('{name: A_KEY, shape: "x"}', "too little is left open"),
        ('{name: A_KEY, shap: "{hex:32}"}', 'unknown field "shap" (did you mean "shape"?)'),
    ],
)
def test_bad_variables(env: str, sentence: str) -> None:
    assert sentence in problems(f"credentials: {{{credential('c', env)}}}")


def test_credentials_that_share_a_variable_share_its_shape() -> None:
    one, other = credential("a", "A_KEY"), credential("b", '{name: A_KEY, shape: "sk_{hex:24}"}')
    assert 'credential "b": A_KEY has another shape at the credential a' in problems(
        f"credentials: {{{one}, {other}}}"
    )
    same = credential("b", "{name: A_KEY}")
    assert load_policy(f"version: 1\ncredentials: {{{one}, {same}}}")[0].credentials["b"].env


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("quorum: []", "quorum must be a list of {group: NAME, count: N}, and not empty"),
        ("quorum: {group: any}", "quorum must be a list"),
        ("quorum: [{group: any, count: 0}]", "count must be a whole number from 1 to 100"),
        ("quorum: [{count: 1}]", "group must be text"),
        ("exclude: [a b]", "is not a name"),
        ("exclude: null", "exclude is empty"),
        ("decide_within: 15", "decide_within: 15 is not a duration"),
        ("decide_within: 0s", "decide_within must be from 1s to 30d"),
        ("execute_within: 31d", "execute_within must be from 1s to 30d"),
        ("denials: 0", "denials must be a whole number"),
        ("reason: yes", "reason must be optional or required"),
        ("confirm: type", "confirm must be none or retype"),
        ("passkey: required", "passkeys are not there yet"),
        ("passkey: never", "passkey must be optional"),
        ("grants: always", "grants are not there yet"),
        ("escalate: [{after: 5m}]", "escalation is not there yet"),
        ("quroum: []", 'unknown field "quroum" (did you mean "quorum"?)'),
    ],
)
def test_bad_tiers(fields: str, sentence: str) -> None:
    assert sentence in problems(f"tiers: {{t: {{{fields}}}}}")


def test_an_empty_exclude_excludes_nobody() -> None:
    tier = load_policy("version: 1\ntiers: {medium: {exclude: []}}")[0].tiers["medium"]
    assert (tier.exclude, tier.quorum) == ((), BUILT_IN["medium"].quorum)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("effect: deny", '"match" is missing; match: {} stands for every call'),
        ("effect: deny, match: null", "a match is empty; write {} for every call"),
        ("effect: deny, match: []", "an empty list matches nothing"),
        ("effect: deny, match: [{}, null]", "a match is empty"),
        ("effect: deny, match: {}, except: {}", "takes everything out of the rule"),
        ("effect: deny, match: {}, except: [{path: /x}, {}]", "takes everything out of the rule"),
        ("effect: deny, match: {}, except: null", "a match is empty"),
        ("effect: deny, match: {method: []}", "method is empty"),
        ("effect: deny, match: {host: []}", "host is empty"),
        ("effect: deny, match: {path: /a/**/b}", "`**` may only be the last segment"),
        ("effect: deny, match: {scheme: ftp}", "scheme must be https or http"),
        ("effect: deny, match: {cookie: x}", 'unknown field "cookie"'),
        ("effect: deny, match: {}, path: /x", 'stands under "match", as in `match: {path: ...}`'),
        ("effect: allow, match: {}, over: hold", 'stands under "limit", as in `limit: {over: ...'),
        (
            "effect: deny, match: {except: {}}",
            '"except" does not belong here; it stands in the rule',
        ),
        ("effect: deny, match: {query: {}}", "query is empty"),
        ("effect: deny, match: {query: {a: {exists: yes}}}", "exists must be true or false"),
        ("effect: deny, match: {query: {a: {}}}", "write a value, or an operator such as {exists"),
        ("effect: deny, match: {query: {a: true}}", "a must be text, not true; put it in quotes"),
        ("effect: deny, match: {query: {a: [1]}}", "a must be one value, not a list"),
        ("effect: deny, match: {headers: {Host: x}}", "never forwarded"),
        ("effect: deny, match: {headers: {x_a: x}}", "is not a header name"),
        ("effect: deny, match: {}, summary: '{amount}'", "{amount} cannot be filled in"),
        ("effect: deny, match: {}, confirm: amount", "is not a place in a request"),
        ("effect: deny, match: {}, impact: ''", "impact must have 1 to 500 characters"),
        ("effect: allow, match: {}, use: null", "use is empty"),
    ],
)
def test_bad_rules(fields: str, sentence: str) -> None:
    assert sentence in problems(rule(fields))


@pytest.mark.parametrize("bad", ["null", "''", "[]", "{}", "'*'", "'a b'", "[a, 7]"])
def test_bad_agents(bad: str) -> None:
    assert problems(f"rules: [{{id: r, agents: {bad}, match: {{}}, effect: deny}}]")


def test_value_tests() -> None:
    text = "match: {query: {a: 1, b: '', c: x, d: {exists: false}}}, effect: deny"
    (match,) = load_policy("version: 1\n" + rule(text))[0].rules[0].matches
    assert match.query == (
        ValueTest("a", equals="1"),
        ValueTest("b", equals=""),
        ValueTest("c", equals="x"),
        ValueTest("d", exists=False),
    )


def match_of(fields: str) -> Match:
    text = "version: 1\n" + rule(f"match: {{host: a.example, {fields}}}, effect: allow")
    return load_policy(text)[0].rules[0].matches[0]


def test_what_is_asked_of_a_value_keeps_its_blanks() -> None:
    """`git status ` begins no `git status; rm`."""
    [test] = match_of('json: {/cmd: {prefix: "git status ", glob: " *x "}}').json
    assert [check.value for check in test.checks] == ["git status ", " *x "]
    assert match_of('query: {q: " a "}').query[0].equals == " a "
    assert match_of('json: {/q: {in: ["a "]}}').json[0].checks[0].value == ("a ",)


@pytest.mark.parametrize("end", ["\\n", "\\t", "\\u2003", "\\u200b"])
def test_other_blanks_at_the_end_of_a_value_are_refused(end: str) -> None:
    fields = f'match: {{host: a.example, query: {{q: "a{end}"}}}}, effect: allow'
    assert problems(rule(fields))


def test_whether_something_exists_is_said() -> None:
    """An operator without a value would ask for nothing."""
    for written in ("exists: ", "exists: ~", "exists: null, in: [a]"):
        fields = f"match: {{host: a.example, query: {{debug: {{{written}}}}}}}, effect: allow"
        assert "exists must be true or false" in problems(rule(fields))


@pytest.mark.parametrize(
    ("match", "hole", "schemes"),
    [
        ("{scheme: http, host: a.example}", "{path: /admin/**}", ["http"]),
        ("{host: a.example}", "{path: /admin/**}", ["https"]),
        ("[{host: a.example}, {scheme: http}]", "{path: /admin/**}", ["https", "http"]),
        ("[{host: a.example}, {scheme: http}]", "{scheme: http, path: /a}", ["http"]),
        ("{scheme: http, host: a.example}", "[{path: /a}, {path: /b}]", ["http", "http"]),
    ],
)
def test_what_is_excepted_is_of_the_schemes_of_the_rule(
    match: str, hole: str, schemes: list[str]
) -> None:
    text = "version: 1\n" + rule(f"match: {match}, except: {hole}, effect: allow")
    assert [hole.scheme for hole in load_policy(text)[0].rules[0].excepts] == schemes


@pytest.mark.parametrize("zone", ["localtime", "right/Europe/Berlin", "posix/UTC", "posixrules"])
def test_a_zone_is_the_same_on_every_machine(zone: str) -> None:
    fields = f"match: {{host: a.example, time: {{zone: {zone}}}}}, effect: allow"
    assert "is no time zone" in problems(rule(fields))
