"""Reading a configuration file part by part: every problem is noted with its line, none is raised.

A `Section` is one part of the file with a label for messages (`rule "x"`). Its readers return the
value, or None after noting what is wrong, so that one pass finds everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rules.errors import Problem
from rules.visible import is_invisible
from rules.yamlfile import Lines, Path, did_you_mean

# Looking for near names is the slow part of a message; a file this wrong does not need more.
_MAX_HINTS = 50
_MAX_NAMES = 8


@dataclass(slots=True)
class Source:
    """A file being read, and what is wrong with it so far."""

    file: str
    lines: Lines
    problems: list[Problem] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    """Of rules by id that come from another file: where in it they stand, for people."""
    faults: int = 0
    """How many of the problems are errors; what has warnings only is read as it stands."""
    _hints: int = 0

    def place(self, path: Path) -> int:
        """The line of what stands at `path`."""
        return self.lines.at(path)

    def note(
        self, path: Path, message: str, severity: str = "error", code: str = "", rule: str = ""
    ) -> None:
        self.add(Problem(self.file, self.place(path), message, severity, code, rule))

    def add(self, problem: Problem) -> None:
        self.faults += problem.severity == "error"
        self.problems.append(problem)

    def errors(self) -> list[Problem]:
        return sorted(p for p in self.problems if p.severity == "error")

    def warnings(self) -> list[Problem]:
        return sorted(p for p in self.problems if p.severity == "warning")

    def hint(self, word: str, known: Iterable[str]) -> str:
        """A "did you mean", or nothing when there were many already."""
        self._hints += 1
        return did_you_mean(word, known) if self._hints <= _MAX_HINTS else ""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a file. `path` leads to it; `label` begins its messages."""

    source: Source
    path: Path
    label: str = ""
    rule: str = ""
    """The id of the rule that it belongs to, if it does."""

    def at(self, *steps: str | int) -> Section:
        return Section(self.source, self.path + steps, self.label, self.rule)

    @property
    def line(self) -> int:
        """Where it stands; for people, as problems are."""
        return self.source.place(self.path)

    def error(self, message: str, code: str = "invalid-value") -> None:
        """Notes what is wrong; `code` is one of rules.lint.codes."""
        self._note(message, "error", code)

    def warn(self, message: str, code: str) -> None:
        self._note(message, "warning", code)

    def _note(self, message: str, severity: str, code: str) -> None:
        message = f"{self.label}: {message}" if self.label else message
        self.source.note(self.path, message, severity, code, self.rule)

    def unknown(self, kind: str, word: str, known: Iterable[str], otherwise: str = "") -> None:
        """Notes that `word` names nothing, with the nearest name that there is; if none is near,
        what to do `otherwise`, or the names, if they are few."""
        code = f"unknown-{kind.replace(' ', '-')}"
        known = tuple(known)
        hint = self.source.hint(word, known) or otherwise or _all(known)
        self.error(f'unknown {kind} "{word[:80]}"{hint}', code)

    def has(self, fields: Mapping[str, object], name: str, hint: str = "") -> bool:
        """Whether the field is there; notes that it is missing if not."""
        if name not in fields:
            self.error(f'"{name}" is missing{hint}', "missing-field")
        return name in fields

    def mapping(
        self,
        value: object,
        known: tuple[str, ...] = (),
        elsewhere: Mapping[str, str] | None = None,
    ) -> dict[str, object] | None:
        """`value` as a mapping; with `known`, other fields are errors. Empty counts as {}.

        `elsewhere` has fields that are known in another place, and says where.
        """
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.error(f"{self._name()} must be a mapping, {_is(value)}", "wrong-type")
            return None
        if known:
            for name in value:
                if name in known:
                    continue
                if elsewhere and name in elsewhere:
                    message = f'"{name}" does not belong here; it stands {elsewhere[name]}'
                    self.at(name).error(message, "unknown-field")
                else:
                    self.at(name).unknown("field", name, known)
        return value

    def text(self, value: object, limit: int = 500) -> str | None:
        """`value` as one line of text in which nothing is hidden."""
        if not isinstance(value, str):
            quote = "; put it in quotes" if isinstance(value, int | float) else ""
            self.error(f"{self._name()} must be text, {_is(value)}{quote}", "wrong-type")
            return None
        value = value.strip()
        plain = value.isascii() and value.isprintable()  # as nearly all text is
        odd = None if plain else next((c for c in value if is_invisible(c)), None)
        if not value or len(value) > limit:
            self.error(f"{self._name()} must have 1 to {limit} characters")
        elif odd is not None:
            self.error(
                f"{self._name()} holds the invisible character {odd!a}", "invisible-character"
            )
        else:
            return value
        return None

    def parsed[T](self, value: object, parse: Callable[[str], T]) -> T | None:
        """Text read by `parse`, whose ValueError becomes a problem."""
        text = self.text(value)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.error(f"{self._name()}: {error}")
            return None

    def several[T](self, value: object, parse: Callable[[str], T]) -> tuple[T, ...]:
        """One word or a list of them, each read by `parse`, without repetitions; never empty."""
        if value == [] or value is None:
            self.error(f"{self._name()} is empty; leave the field out or fill it in", "empty-field")
        if not isinstance(value, list):
            value = [value] if value is not None else []
        parsed = [self.at(i).parsed(item, parse) for i, item in enumerate(value)]
        return tuple(dict.fromkeys(item for item in parsed if item is not None))

    def choice(self, value: object, known: tuple[str, ...]) -> str | None:
        """One of the `known` words."""
        if isinstance(value, str) and value in known:
            return value
        hint = self.source.hint(value, known) if isinstance(value, str) else ""
        self.error(f"{self._name()} must be {' or '.join(known)}{hint}", "unknown-word")
        return None

    def count(self, value: object, most: int = 100) -> int | None:
        """A whole number from 1 to `most`."""
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        self.error(f"{self._name()} must be a whole number from 1 to {most}")
        return None

    def _name(self) -> str:
        """The field this section is, for messages; an item of a list goes by its list."""
        names = [step for step in self.path if isinstance(step, str)]
        return names[-1] if names else "this" if self.path else "the file"


def _all(known: tuple[str, ...]) -> str:
    """The names that there are, unless there are too many to read."""
    if len(known) > _MAX_NAMES:
        return ""
    return f"; known: {', '.join(known)}" if known else "; there is none"


def _is(value: object) -> str:
    match value:
        case None:
            return "and is empty"
        case bool():
            return f"not {str(value).lower()}"
        case int() | float():
            return f"not the number {value}"
        case str():
            return f'not the word "{value[:40]}"'
        case list():
            return "not a list"
        case _:
            return "not a mapping"
