"""A GraphQL document, as far as it says what it runs: its operations and their root fields.

The grammar is that of executable documents in the GraphQL specification of October 2021, whole, so
that what is accepted here means the same to every server that follows it. The work is bounded:
whoever is asked to read chooses neither the size nor the depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NoReturn, cast

from rules.errors import Unreadable

Kind = Literal["query", "mutation", "subscription"]

MAX_TEXT = 500_000
"""Characters of one document."""
MAX_TOKENS = 10_000
"""Of one request, however many documents it has."""
MAX_DEPTH = 100
"""Braces and brackets within each other."""

# Half a surrogate pair is no character, however it is written.
_ESCAPE = r"""\\(?: ["\\/bfnrt]
  | u(?: [0-9A-CEFa-cef][0-9A-Fa-f]{3} | [Dd][0-7][0-9A-Fa-f]{2} )
  | u[Dd][89ABab][0-9A-Fa-f]{2} \\u[Dd][C-Fc-f][0-9A-Fa-f]{2}
  | u\{0*+(?: 10[0-9A-Fa-f]{4} | [1-9A-Fa-f][0-9A-Fa-f]{4} | [1-9A-CEFa-cef][0-9A-Fa-f]{3}
           | [Dd][0-7][0-9A-Fa-f]{2} | [0-9A-Fa-f]{1,3} | (?<=0) )\}
)"""
# What is ignored before a token, then the token. A comment ends at a line's end and holds nothing
# that an older or laxer server takes for one: what follows would be hidden from somebody.
_TOKEN = re.compile(
    rf"""(?:[\ufeff\t\n\r ,]++|\#[^\n\r\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]*+(?=\n|\r\n|\Z))*+
    (?:(
        [A-Za-z_][A-Za-z0-9_]*+
      | [!$&()\[\]{{}}:=@|] | \.\.\.
      | -?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+(?![A-Za-z0-9_.])
      | \"\"\"(?:[^"\\\0-\x08\x0b\x0c\x0e-\x1f]++|"(?!"")|\\(?:\"\"\")?+)*+\"\"\"
      | "(?!"")(?:[^"\\\n\r\0-\x08\x0b-\x1f]++|{_ESCAPE})*+"
    )|\Z)""",
    re.VERBOSE | re.ASCII,
)
_NAME_START = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
_VALUE_START = _NAME_START | frozenset('-0123456789"')
_KINDS = frozenset({"query", "mutation", "subscription"})


@dataclass(frozen=True, slots=True)
class Roots:
    """What stands directly in one selection set, inline fragments undone."""

    fields: tuple[tuple[str, str], ...]
    """The key in the response (the alias, if there is one) and the field's name."""
    spreads: tuple[str, ...]
    """Names of fragments."""


@dataclass(frozen=True, slots=True)
class Operation:
    kind: Kind
    name: str | None
    roots: Roots


@dataclass(frozen=True, slots=True)
class Document:
    operations: tuple[Operation, ...]
    fragments: dict[str, Roots]
    tokens: int

    def fields(self, operation: Operation) -> tuple[str, ...]:
        """The names of the operation's root fields, fragments followed, one for each key in the
        response: what runs twice stands twice. Raises Unreadable.

        A field that `@skip` or `@include` may leave out is among them, and so is one under a type
        condition that may not hold.
        """
        keys: dict[tuple[str, str], None] = dict.fromkeys(operation.roots.fields)
        # Each fragment is entered once, as the specification's CollectFields does; going back up
        # is marked by None, so that a cycle is told from a second use.
        seen: set[str] = set()
        above: dict[str, None] = {}
        ahead: list[str | None] = list(operation.roots.spreads)
        while ahead:
            name = ahead.pop()
            if name is None:
                above.popitem()
                continue
            if name in seen:
                if name in above:
                    raise Unreadable("a fragment that holds itself")
                continue
            if name not in self.fragments:
                raise Unreadable("a fragment that is not there")
            seen.add(name)
            above[name] = None
            ahead.append(None)
            ahead += self.fragments[name].spreads
            keys.update(dict.fromkeys(self.fragments[name].fields))
        return tuple([name for _, name in keys])


def read_document(text: str, most_tokens: int = MAX_TOKENS) -> Document:
    """The document that `text` is. Raises Unreadable."""
    if len(text) > MAX_TEXT:
        raise Unreadable("a GraphQL document that is too long")
    tokens = list(islice(_scan(text), most_tokens + 1))
    if len(tokens) > most_tokens:
        raise Unreadable("a GraphQL document of too many words")
    return _Parser(tokens).document()


def _scan(text: str) -> Iterator[str]:
    at, end, match = 0, len(text), _TOKEN.match
    while at < end:
        found = match(text, at)
        if found is None:
            raise Unreadable("no GraphQL")
        at = found.end()
        token = found[1]
        if token is not None:
            yield token


class _Parser:
    """Descends through the tokens; each method takes what it is named for, or raises Unreadable."""

    def __init__(self, tokens: list[str]) -> None:
        # The empty token is the end; nothing takes it.
        self.tokens = [*tokens, ""]
        self.at = 0

    def document(self) -> Document:
        operations: dict[str | None, Operation] = {}
        fragments: dict[str, Roots] = {}
        while self.tokens[self.at]:
            if self.tokens[self.at] == "fragment":
                name, roots = self.fragment()
                if name in fragments:
                    raise Unreadable("two fragments of one name")
                fragments[name] = roots
            else:
                operation = self.operation()
                if operation.name in operations:
                    raise Unreadable("two operations of one name")
                operations[operation.name] = operation
        if not operations:
            raise Unreadable("a GraphQL document without an operation")
        if None in operations and len(operations) > 1:
            raise Unreadable("an operation without a name beside others")
        return Document(tuple(operations.values()), fragments, len(self.tokens) - 1)

    def operation(self) -> Operation:
        if self.tokens[self.at] == "{":
            return Operation("query", None, self.roots())
        kind = self.tokens[self.at]
        if kind not in _KINDS:
            self.fail()
        self.at += 1
        name = self.name() if self.tokens[self.at][:1] in _NAME_START else None
        if self.skip("("):
            self.variable_definition()
            while not self.skip(")"):
                self.variable_definition()
        self.directives()
        return Operation(cast(Kind, kind), name, self.roots())

    def fragment(self) -> tuple[str, Roots]:
        self.at += 1
        name = self.name()
        if name == "on":
            self.fail()
        self.take("on")
        self.name()
        self.directives()
        return name, self.roots()

    def variable_definition(self) -> None:
        self.take("$")
        self.name()
        self.take(":")
        self.type(0)
        if self.skip("="):
            self.value(0)
        self.directives()

    def type(self, depth: int) -> None:
        if self.skip("["):
            self.check(depth)
            self.type(depth + 1)
            self.take("]")
        else:
            self.name()
        self.skip("!")

    def roots(self) -> Roots:
        fields: list[tuple[str, str]] = []
        spreads: list[str] = []
        self.selections(1, fields, spreads)
        return Roots(tuple(fields), tuple(spreads))

    def selections(self, depth: int, fields: list[tuple[str, str]], spreads: list[str]) -> None:
        """One selection set; adds what stands in it to the lists."""
        self.check(depth)
        self.take("{")
        while True:
            if not self.skip("..."):
                fields.append(self.field(depth))
            elif self.tokens[self.at][:1] in _NAME_START and self.tokens[self.at] != "on":
                spreads.append(self.name())
                self.directives(depth)
            else:
                if self.skip("on"):
                    self.name()
                self.directives(depth)
                self.selections(depth + 1, fields, spreads)
            if self.skip("}"):
                return

    def field(self, depth: int) -> tuple[str, str]:
        """One field with all that is below it, as its key in the response and its name."""
        key = name = self.name()
        if self.skip(":"):
            name = self.name()
        self.arguments(depth)
        self.directives(depth)
        if self.tokens[self.at] == "{":
            self.selections(depth + 1, [], [])
        return key, name

    def directives(self, depth: int = 0) -> None:
        while self.skip("@"):
            self.name()
            self.arguments(depth)

    def arguments(self, depth: int) -> None:
        if self.skip("("):
            while True:
                self.name()
                self.take(":")
                self.value(depth)
                if self.skip(")"):
                    return

    def value(self, depth: int) -> None:
        word = self.tokens[self.at]
        self.at += 1
        if word[:1] in _VALUE_START:
            return
        self.check(depth)
        if word == "$":
            self.name()
        elif word == "[":
            while not self.skip("]"):
                self.value(depth + 1)
        elif word == "{":
            while not self.skip("}"):
                self.name()
                self.take(":")
                self.value(depth + 1)
        else:
            self.fail()

    def name(self) -> str:
        token = self.tokens[self.at]
        if token[:1] not in _NAME_START:
            self.fail()
        self.at += 1
        return token

    def take(self, token: str) -> None:
        if not self.skip(token):
            self.fail()

    def skip(self, token: str) -> bool:
        if self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def check(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Unreadable("a GraphQL document that is nested too deeply")

    def fail(self) -> NoReturn:
        raise Unreadable("no GraphQL")
