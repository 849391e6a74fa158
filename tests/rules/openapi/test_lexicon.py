"""Words: how names are taken apart, and that the lists agree with each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.openapi import lexicon
from rules.openapi.lexicon import FINAL, KINDS, NOUNS, PHRASES, VERBS, nouns_in, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("listDeployKeys", "list deploy key"),
        ("repos/get-content", "repo get content"),
        ("CoreV1_NamespacedPod", "core v 1 namespaced pod"),
        ("readHTTPStatus", "read http status"),
        ("Deletes the policies of addresses", "delete the policy of address"),
        ("2fa_methods", "2fa method"),
        ("délète größe", "d l te gr e"),
        ("", ""),
    ],
)
def test_names_are_taken_apart(text: str, words: str) -> None:
    assert words_of(text) == tuple(words.split())


@given(st.text(max_size=60))
def test_words_are_small_letters_and_digits(text: str) -> None:
    for word in words_of(text):
        assert word and word == word.lower() and word.isalnum()


def test_every_word_can_be_met() -> None:
    """What is in a list is what words_of makes of it, so that it is found."""
    lists = (VERBS, NOUNS, lexicon.MILD, lexicon.PEOPLE, lexicon.BULK)
    for words in lists:
        for word in words:
            assert words_of(word) == (word,), word
    for phrase in (*PHRASES, *lexicon.HARMLESS, *lexicon.READABLE):
        assert words_of(phrase) == tuple(phrase.split()), phrase


def test_every_list_leads_to_a_kind() -> None:
    assert {*VERBS.values(), *NOUNS.values(), *PHRASES.values()} <= KINDS.keys()
    for kind in KINDS.values():
        assert bool(kind.impact) == bool(kind.undo) == (kind.risk != "low")
    assert all(KINDS[kind].risk == "high" for kind in (*NOUNS.values(), *PHRASES.values()))


def test_two_words_may_mean_more_or_less_than_one() -> None:
    assert nouns_in(words_of("createApiKey")) == {"api key": "secret"}
    assert nouns_in(words_of("listSecretScanningAlerts")) == {}
    assert nouns_in(words_of("next_page_token")) == {}
    assert nouns_in(words_of("page_size, token")) == {"token": "secret"}


@pytest.mark.parametrize(
    ("said", "final"),
    [
        ("This action CANNOT BE UNDONE.", True),
        ("Permanently deletes it", True),
        ("you can't be recovered", True),
        ("an irreversible step", True),
        ("can be undone", False),
        ("impermanent", False),
    ],
)
def test_what_cannot_be_undone_is_told_by_its_description(said: str, final: bool) -> None:
    assert bool(FINAL.search(said)) is final
