"""Calls decided as the rulebook decides them, with only those rules looked at that may take them.

The linter tries thousands of calls, and a policy may have a thousand rules about one place. So the
rules are kept by place and path, and there by a word (a member, field or header, and its value
where that is listed) that a call must hold to fall under them; and who asks for calls that run
learns at the first rule that stops one. Each rule that is left is looked at as ever.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from rules.decide import Rulebook, taking
from rules.index import Entry, host_key, host_keys, names_of
from rules.lint.paths import PathIndex
from rules.lint.words import Word, words_in, words_of
from rules.matching import Matcher
from rules.model import Decision, Policy
from rules.paths import parse_template, wide_texts
from rules.reading.call import Reading

_ANYWHERE = "/**"

type _Shelf = dict[Word | None, list[Entry]]


class Verdicts:
    """Decides for one rulebook."""

    def __init__(self, book: Rulebook) -> None:
        self._book = book
        self._places: dict[tuple[str, str, bool], PathIndex[_Shelf]] = {}
        """By selector, host, and whether the rules restrict."""
        self._fill(book.policy)

    def _fill(self, policy: Policy) -> None:
        entries = [(key, entry, words_of(entry.matcher)) for key, entry in _entries(policy)]
        common = Counter(word for _, _, lists in entries for words in lists for word in words)
        self._kinds = frozenset(word[0] for word in common)
        shelves: dict[tuple[str, str, bool, str], _Shelf] = {}
        for key, entry, lists in entries:
            # The rarest, so that few rules share a word.
            rarest = min(lists, key=lambda words: max(map(common.__getitem__, words)), default=None)
            words: Sequence[Word | None] = (None,) if rarest is None else rarest
            for selector in entry.rule.agents:
                for path in entry.matcher.match.paths or (_ANYWHERE,):
                    place = selector, key, entry.wide
                    shelf = shelves.get((*place, path))
                    if shelf is None:
                        shelf = shelves[*place, path] = defaultdict(list)
                        index = self._places.setdefault(place, PathIndex())
                        index.add(parse_template(path), shelf)
                    for word in words:
                        shelf[word].append(entry)

    def decide(self, call: Reading) -> Decision:
        """The rulebook's decision, but for what it says beside the rules that decide."""
        words = words_in(call, self._kinds)
        return self._of(
            [entry for wide in (True, False) for entry in self._candidates(call, words, wide)], call
        )

    def if_it_runs(self, call: Reading) -> Decision | None:
        """The same of a call that falls under no rule that denies or holds; None if it does."""
        words = words_in(call, self._kinds)
        if any(taking((entry,), call) for entry in self._candidates(call, words, True)):
            return None
        return self._of(self._candidates(call, words, False), call)

    def _of(self, candidates: Iterable[Entry], call: Reading) -> Decision:
        each = {id(entry): entry for entry in candidates}.values()
        matching = taking(sorted(each, key=attrgetter("order")), call)
        if not matching:
            return Decision("deny", "No rule lets the agent make this call.")
        try:
            return self._book.settle(call.subject, call, matching)
        except KeyError:  # a policy that is refused may name a tier that it does not have
            return Decision("deny", "A rule names what the policy does not have.")

    def _candidates(
        self, call: Reading, found: tuple[list[Word | None], bool], wide: bool
    ) -> Iterator[Entry]:
        """Entries of rules that may take the call, whose words were found; some of them twice."""
        request = call.request
        words, doubtful = found
        for selector in names_of(call.subject):
            for key in host_keys(request.host):
                index = self._places.get((selector, key, wide))
                if index is None:
                    continue
                for text in wide_texts(request.path):
                    for shelf in index.leading_to(text[1:].split("/")):
                        for word in shelf if doubtful else words:
                            for entry in shelf.get(word, ()):
                                methods = entry.matcher.match.methods
                                if not methods or request.method in methods:
                                    yield entry


def _entries(policy: Policy) -> Iterator[tuple[str, Entry]]:
    """With the key of the host that each is for."""
    for order, rule in enumerate(policy.rules):
        if rule.effect == "tunnel":
            continue
        matchers, excepts = Matcher.all_of(rule)
        for matcher in matchers:
            for host in matcher.match.hosts or (None,):
                yield host_key(host), Entry.of(order, rule, host, matcher, excepts)
