"""A pack's file: its form, its mistakes, and the rules that are made of it."""

from __future__ import annotations

import pytest

from rules.errors import InvalidFile
from rules.pack import read_pack, rules_of

PACK = """\
pack: shop
title: Shop
about: A shop.
hosts: ["${host}", api.shop.example]
parameters:
  host: {kind: host, about: Where.}
  owner: {default: "*", about: Whose.}
rules:
  - {id: pay, class: high, match: {method: POST, path: ["/${owner}/pay", /pay]}, undo: no}
  - {id: see, class: low, match: [{method: GET, path: /x}, {path: /y, method: GET, query: {a: 1}}]}
  - {id: odd, class: medium, match: {host: other.example, method: POST, path: /z}}
  - {id: read, class: low, rest: true, match: {method: GET, path: "/${owner}/**"}}
  - {id: write, class: medium, rest: true, match: {method: [POST, PUT]}, except: {path: /never}}
  - {id: all, class: high, rest: true, match: {path: "/**"}, except: {method: [GET, POST, PUT]}}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        read_pack(text, "shop.yaml")
    return [f"{problem.line}: {problem.message}" for problem in caught.value.problems]


def made() -> dict[str, dict[str, object]]:
    values = {"host": ("h.example:8443",), "owner": ("acme", "emca")}
    return {rule.id: fields for rule, fields in rules_of(read_pack(PACK, "shop.yaml"), values)}


def test_hosts_and_parameters_are_filled_in() -> None:
    pay = made()["pay"]
    assert pay["match"] == {
        "host": ["h.example:8443", "api.shop.example"],
        "method": "POST",
        "path": ["/acme/pay", "/emca/pay", "/pay"],
    }
    assert (pay["effect"], pay["risk"], pay["undo"]) == ("hold", "high", "no")
    assert made()["odd"]["match"] == {"host": "other.example", "method": "POST", "path": "/z"}
    assert made()["see"]["effect"] == "allow"


def test_the_rest_leaves_out_what_others_have() -> None:
    rules = made()
    assert "except" not in rules["read"], "two allows of one class need no parting"
    assert rules["write"]["except"] == [
        {"path": "/never"},
        {"path": ["/acme/pay", "/emca/pay", "/pay"], "method": ["POST"]},
    ], "and what cannot meet it is no hole in it"
    assert rules["all"]["except"][-1] == {"method": "GET", "path": "/y", "query": {"a": 1}}  # type: ignore[index]


def test_the_same_text_gives_the_same_rules() -> None:
    assert made() == made()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("pack: shop", "pack: Shop"), '1: pack: "Shop" is not a name'),
        (("title: Shop\n", ""), '"title" is missing'),
        (("class: high, match", "class: higher, match"), "class must be low or medium or high"),
        (("id: see", "id: pay"), 'rule id "pay" is taken by line 9'),
        (("${owner}/pay", "${onwer}/pay"), 'unknown parameter "onwer" (did you mean "owner"?)'),
        (("parameters:\n", "parameters:\n  unused: {about: X.}\n"), "nothing refers to ${unused}"),
        (("kind: host", "kind: hots"), 'kind must be name or host (did you mean "host"?)'),
        (("rest: true, match: {method: GET", "rest: 1, match: {method: GET"), "rest must be"),
        (("undo: no", "effect: deny"), "effect is not a pack's to say: class does"),
        (("undo: no", "agents: [a]"), "agents is not a pack's to say: the include does"),
        (("undo: no", "undoo: no"), 'unknown field "undoo" (did you mean "undo"?)'),
        (("query: {a: 1}", 'query: {"${owner}": 1}'), "a parameter stands in a value"),
        (("query: {a: 1}", 'query: {a: "${owner}"}'), "${owner} may be `*`, which is no pattern"),
        (("path: /never", 'json: {/a: {in: ["${owner}"]}}'), "may be `*`, which is no pattern"),
    ],
)
def test_mistakes_are_told_with_their_lines(change: tuple[str, str], told: str) -> None:
    assert any(told in problem for problem in problems(PACK.replace(*change, 1)))


def test_a_star_may_stand_where_it_is_anything() -> None:
    asked = PACK.replace("query: {a: 1}", 'query: {a: {glob: "${owner}-*"}, b: "${host}"}')
    assert read_pack(asked, "shop.yaml").rules


def test_without_rules_it_is_no_pack() -> None:
    assert "rules must be a list, and not empty" in problems("pack: x\ntitle: X\n")[-1]


@pytest.mark.parametrize("value", ["*.example", "a/b", "a b", "a:b:c", "*", "a.example:0"])
def test_a_host_is_one_host(value: str) -> None:
    with pytest.raises(ValueError):
        read_pack(PACK, "shop.yaml").parameters["host"].parse(value)
