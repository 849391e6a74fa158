"""What can go wrong in rules/: an ambiguous request, an unreadable body, an invalid file.

RulesError
├── Ambiguous        a request has no single canonical form
├── Unreadable       a part of a request has no one reading as what it is asked to be
│   └── Undecided    a condition has no answer for it
└── InvalidFile      a YAML file (policy or settings) has problems; carries all of them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RulesError(Exception):
    """Base of all errors raised in rules/."""


class Ambiguous(RulesError):
    """The request could be read in more than one way; the sentence says what to write instead."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Unreadable(RulesError):
    """A body is not what its Content-Type says, has more than one reading, or costs too much to
    read. The message says which, and quotes nothing of the request."""


class Undecided(Unreadable):
    """There is no answer, and not because of how the request is written: an expression failed on
    it."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a file; `line` counts from 1, 0 means the file as a whole."""

    file: str
    line: int
    message: str
    severity: str = "error"  # "error" or "warning"
    code: str = ""
    """What kind of problem it is, for machines; "" for those that need no name."""
    rule: str = ""
    """The id of the rule that it is about, where the code says so."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.severity}: {self.message}"


class InvalidFile(RulesError):
    """A file is refused; `problems` holds everything wrong with it, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = tuple(problems)
