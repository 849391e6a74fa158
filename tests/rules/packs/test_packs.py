"""Every shipped pack: its own tests hold, every call falls under one class, and all say what they
should say."""

from __future__ import annotations

import pytest

from rules import packs
from rules.pack import CLASSES
from tests.support.packs import (
    bare,
    class_of,
    host_of,
    matched,
    pack_of,
    reaches,
    reaches_path,
    request_of,
    rulebook,
    samples,
)

every = pytest.mark.parametrize("name", packs.names())


@every
def test_its_own_tests_hold(name: str) -> None:
    book = rulebook(name)
    by_id = {rule.id: rule for rule in book.policy.rules}
    for rule in pack_of(name).rules:
        own = f"{name}.{rule.id}"
        host = host_of(by_id[own].matches[0])
        for spec in rule.tests["match"]:  # type: ignore[attr-defined]
            found = matched(book, request_of(spec, host))
            assert own in [each.id for each in found], (own, spec)
            assert {class_of(each) for each in found} == {rule.level}, (own, spec)
        for spec in rule.tests.get("no_match", ()):  # type: ignore[attr-defined]
            assert own not in [each.id for each in matched(book, request_of(spec, host))], (
                own,
                spec,
            )


@every
def test_every_call_falls_under_one_class(name: str) -> None:
    book = rulebook(name)
    for rule, method, url in samples(book.policy.rules):
        found = matched(book, bare(method, url))
        classes = {class_of(each) for each in found}
        assert len(classes) <= 1, (rule.id, method, url, [each.id for each in found])


@every
def test_the_rest_leaves_nothing_out(name: str) -> None:
    """What a rest rule reaches is its own or another's, though it leaves out what others have."""
    book = rulebook(name)
    rest = {f"{name}.{rule.id}": rule.fields for rule in pack_of(name).rules if rule.rest}
    reaching = [
        # A hole of its own comes before those for the rules of others.
        (rule, match, rule.excepts[:1] if "except" in rest[rule.id] else ())
        for rule in book.policy.rules
        if rule.id in rest
        for match in rule.matches
    ]
    for url in dict.fromkeys(url for _, _, url in samples(book.policy.rules)):
        for rule, match, holes in reaching:
            for method in match.methods if reaches_path(match, url) else ():
                request = bare(method, url)
                if reaches(match, request) and not any(reaches(hole, request) for hole in holes):
                    assert matched(book, request), (rule.id, method, url)


@every
def test_what_is_held_tells_people_what_it_does(name: str) -> None:
    pack = pack_of(name)
    assert {rule.level for rule in pack.rules} <= set(CLASSES)
    for rule in pack.rules:
        assert rule.tests.get("match"), rule.id
        if rule.level != "low":
            missing = {"summary", "impact", "undo"} - rule.fields.keys()
            assert not missing, (rule.id, missing)
