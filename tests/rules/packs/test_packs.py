"""Every shipped pack: its own tests hold, every call falls under one class, and all say what they
should say."""

from __future__ import annotations

import pytest

from rules import packs
from rules.pack import CLASSES
from tests.support.packs import (
    class_of,
    host_of,
    matched,
    pack_of,
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
        found = matched(book, request_of({"method": method, "url": url}, ""))
        classes = {class_of(each) for each in found}
        assert len(classes) <= 1, (rule.id, method, url, [each.id for each in found])


@every
def test_the_whole_of_the_api_has_a_class(name: str) -> None:
    """Whatever a rule's templates reach is classified for reading, writing and deleting."""
    book = rulebook(name)
    classified = {
        method for rule in book.policy.rules for m in rule.matches for method in m.methods
    }
    for rule, _, url in samples(book.policy.rules):
        for method in classified:
            found = matched(book, request_of({"method": method, "url": url}, ""))
            assert found, (rule.id, method, url)


@every
def test_what_is_held_tells_people_what_it_does(name: str) -> None:
    pack = pack_of(name)
    assert {rule.level for rule in pack.rules} <= set(CLASSES)
    for rule in pack.rules:
        assert rule.tests.get("match"), rule.id
        if rule.level != "low":
            missing = {"summary", "impact", "undo"} - rule.fields.keys()
            assert not missing, (rule.id, missing)
