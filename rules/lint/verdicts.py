"""Calls decided as the rulebook decides them, with only those rules looked at that may take them.

The linter tries thousands of calls, and a policy may have a thousand rules about one place. So the
rules are kept by place and path, and there by a word (a member, field or header, and its value
where that is listed) that a call must hold to fall under them; and who asks for calls that run
learns at the first rule that stops one. Each rule that is left is looked at as ever.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import cast

from rules.bodies import Field, Member, Operations, RpcCalls, ToolCalls
from rules.conditions import Header, Parameter, checks_of
from rules.decide import Rulebook, taking
from rules.errors import Unreadable
from rules.index import Entry, host_key, host_keys, names_of
from rules.lint.paths import PathIndex
from rules.matching import Matcher
from rules.model import Decision, Policy, Scalar, ValueTest
from rules.paths import parse_template, wide_texts
from rules.reading.call import Reading
from rules.reading.forms import plain_name
from rules.reading.json import Number, pointer_steps
from rules.values import fold, lenient_decimal

Word = tuple[str, str, str | Decimal | None]
"""A kind of place in a call (`json`, `field`, `header`), a name there, and a value; None: any. Of
root fields, tools and methods (`root`, `tool`, `rpc`) the name is how they begin."""
_LONGEST = 40
"""Characters of a beginning; what begins alike for longer is looked at together."""
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
        both = self._candidates(call, wide=True) | self._candidates(call, wide=False)
        return self._of(both, call)

    def if_it_runs(self, call: Reading) -> Decision | None:
        """The same of a call that falls under no rule that denies or holds; None if it does."""
        stopping = self._candidates(call, wide=True).values()
        if any(taking((entry,), call) for entry in stopping):
            return None
        return self._of(self._candidates(call, wide=False), call)

    def _of(self, candidates: dict[int, Entry], call: Reading) -> Decision:
        matching = taking(sorted(candidates.values(), key=attrgetter("order")), call)
        if not matching:
            return Decision("deny", "No rule lets the agent make this call.")
        try:
            return self._book.settle(call.subject, call, matching)
        except KeyError:  # a policy that is refused may name a tier that it does not have
            return Decision("deny", "A rule names what the policy does not have.")

    def _candidates(self, call: Reading, *, wide: bool) -> dict[int, Entry]:
        """Entries of rules that may take the call, by their identity."""
        request = call.request
        words, doubtful = words_in(call, self._kinds)
        found: dict[int, Entry] = {}
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
                                    found[id(entry)] = entry
        return found


def _entries(policy: Policy) -> Iterator[tuple[str, Entry]]:
    """With the key of the host that each is for."""
    for order, rule in enumerate(policy.rules):
        if rule.effect == "tunnel":
            continue
        excepts = tuple(Matcher.of(match) for match in rule.excepts)
        for match in rule.matches:
            matcher = Matcher.of(match)
            for host in match.hosts or (None,):
                yield host_key(host), Entry.of(order, rule, host, matcher, excepts)


def words_of(matcher: Matcher) -> list[list[Word]]:
    """Words of which, list by list, one stands in every call under the match that can be read."""
    found: list[list[Word]] = []
    for condition in matcher.conditions:
        match condition:
            case Member(test) if _must_be_there(test):
                steps = pointer_steps(test.name)
                if steps and steps[0] != "*" and not steps[0].isdigit():
                    name = fold(steps[0])
                    found.append(_with_values("json", name, test if len(steps) == 1 else None))
            case Field(test) | Parameter(test) if _must_be_there(test):
                found.append(_with_values("field", plain_name(test.name), test))
            case Header(test) if _must_be_there(test):
                found.append([("header", test.name, None)])
            case Operations(operations) if operations.fields:
                found.append(beginnings("root", operations.fields))
            case ToolCalls(tools) if tools.tools:
                found.append(beginnings("tool", tools.tools))
            case RpcCalls(calls) if calls.methods:
                found.append(beginnings("rpc", calls.methods))
    return found


def beginnings(kind: str, globs: Sequence[str]) -> list[Word]:
    """How what is like one of the globs begins."""
    heads = [fold(glob).partition("*")[0].strip()[:_LONGEST] for glob in globs]
    return [(kind, head, None) for head in dict.fromkeys(heads)]


def all_beginnings(kind: str, text: str) -> list[Word]:
    """The beginnings of all globs that the text may be like."""
    whole = fold(text)
    return [(kind, whole[:end], None) for end in range(min(len(whole), _LONGEST) + 1)]


def _with_values(kind: str, name: str, test: ValueTest | None) -> list[Word]:
    """The name with each value that it may have, if these are listed; else alone."""
    for check in checks_of(test) if test is not None else ():
        if check.op == "eq":
            return [(kind, name, alike(cast(Scalar, check.value)))]
        if check.op == "in":
            return [(kind, name, alike(v)) for v in cast(tuple[Scalar, ...], check.value)]
    return [(kind, name, None)]


def alike(value: Scalar) -> str | Decimal:
    """The same for any two values of which a lenient reader takes one for the other."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            number = lenient_decimal(value)
            return fold(value) if number is None else number
        case _:
            return value


def _must_be_there(test: ValueTest) -> bool:
    """In either reading: widely what is absent is none of those that `not_in` lists."""
    if test.exists is None:
        return any(check.op != "not_in" for check in checks_of(test))
    return test.exists


def words_in(call: Reading, kinds: Collection[str]) -> tuple[list[Word | None], bool]:
    """The words of these kinds in a call, with None for rules that want none, and whether it has
    parts that cannot be read: then it may fall under rules with other words too."""
    try:
        document = call.document(wide=True)
        query, clear = call.query
        fields = [*query, *call.form_pairs(wide=True)]
        doubtful = not clear or bool(call.form_files)
        named = list(_named(call, kinds))
    except Unreadable:
        return [None], True
    found: list[Word | None] = [None]
    if isinstance(document, dict):
        for name, value in document.items():
            found.append(("json", fold(name), None))
            if not isinstance(value, list | dict):
                plain = value.value if isinstance(value, Number) else value
                found.append(("json", fold(name), alike(plain)))
    for name, text in fields:
        found.append(("field", plain_name(name), None))
        found.append(("field", plain_name(name), alike(text)))
    found += [("header", name, None) for name, _ in call.request.headers]
    for kind, name in named:
        found += all_beginnings(kind, name)
    return list(dict.fromkeys(found)), doubtful


def _named(call: Reading, kinds: Collection[str]) -> Iterator[tuple[str, str]]:
    """The root fields, tools and methods that it runs, by either reading. Raises Unreadable."""
    for wide in (False, True):
        if "root" in kinds and not (call.has_no_body and not call.request.query):
            yield from (("root", name) for op in call.graphql(wide=wide) for name in op.fields)
        if call.has_no_body:
            continue
        if "tool" in kinds:
            yield from (("tool", rpc.tool) for rpc in call.mcp(wide=wide) if rpc.tool is not None)
        if "rpc" in kinds:
            yield from (("rpc", rpc.method) for rpc in call.jsonrpc(wide=wide))
