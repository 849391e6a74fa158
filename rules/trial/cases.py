"""Files of cases for `policy test`: a call in each, and what should come of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from rules.decide import Rulebook
from rules.errors import InvalidFile
from rules.model import Policy, Subject
from rules.source import Section, Source
from rules.spellings import parse_name
from rules.trial.outcome import CODES, Outcome, outcome_of
from rules.trial.requests import Written, read_moment, read_request, read_tags
from rules.yamlfile import did_you_mean, parse_yaml

CASE = ("name", "as", "tags", "at", "repeat", "request", "expect")
EXPECT = ("effect", "risk", "rule", "rules", "code", "sentence")
EFFECTS = ("allow", "hold", "deny")
MAX_REPEAT = 1_000_000


@dataclass(frozen=True, slots=True)
class Expected:
    """What a case says of the outcome: only what is in `given` counts."""

    given: frozenset[str]
    effect: str | None = None
    risk: str | None = None
    rule: str | None = None
    """One of the deciding rules; None: there is none."""
    rules: tuple[str, ...] = ()
    """All deciding rules, in any order."""
    code: str | None = None
    sentence: str = ""
    """A part of the sentence, in any letter case."""

    def differences(self, got: Outcome, policy: Policy) -> list[str]:
        """What is otherwise, each as a clause; empty if all is as expected."""
        ids = [rule.id for rule in policy.rules]
        found = []
        if "effect" in self.given and got.effect != self.effect:
            found.append(f"the effect is {got.effect}, not {self.effect}")
        if "risk" in self.given and got.risk != self.risk:
            hint = _hint("tier", self.risk, policy.tiers)
            found.append(f"the risk is {got.risk or 'none'}, not {self.risk or 'none'}{hint}")
        if "code" in self.given and got.code != self.code:
            found.append(f"the code is {got.code or 'none'}, not {self.code or 'none'}")
        if "rule" in self.given and not (
            self.rule in got.rules if self.rule is not None else not got.rules
        ):
            hint = _hint("rule", self.rule, ids)
            found.append(f"{_by(got.rules)}, not {self.rule or 'none'}{hint}")
        if "rules" in self.given and sorted(got.rules) != sorted(self.rules):
            hint = "".join(_hint("rule", name, ids) for name in self.rules)
            found.append(f"{_by(got.rules)}, not {', '.join(self.rules) or 'none'}{hint}")
        if "sentence" in self.given and self.sentence.casefold() not in got.sentence.casefold():
            found.append(f'the sentence does not have "{self.sentence}"')
        return found


def _by(rules: Collection[str]) -> str:
    words = ", ".join(rules)
    return (
        f"the deciding rules are {words}"
        if len(rules) > 1
        else (f"the deciding rule is {words or 'none'}")
    )


def _hint(kind: str, name: str | None, known: Collection[str]) -> str:
    """What to say of a name that the policy does not have."""
    if name is None or name in known:
        return ""
    return f' (the policy has no {kind} "{name}"{did_you_mean(name, known)})'


@dataclass(frozen=True, slots=True)
class Case:
    """One call and what is expected of it."""

    name: str
    agent: str
    tags: frozenset[str] | None
    """None: those of the agent's account, if there is one."""
    written: Written
    repeat: int
    expected: Expected
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Tried:
    """A case and what came of it."""

    case: Case
    got: Outcome
    differences: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.case.name,
            "passed": self.passed,
            "file": self.case.file,
            "line": self.case.line,
            "differences": list(self.differences),
            "got": self.got.to_json(),
        }


def try_case(case: Case, rulebook: Rulebook, subject_of: Callable[[str], Subject]) -> Tried:
    """Decides the case's call. `subject_of` knows the agents that have accounts."""
    subject = subject_of(case.agent)
    if case.tags is not None:
        subject = Subject(subject.name, case.tags, subject.owner)
    got = outcome_of(rulebook, subject, case.written, repeat=case.repeat)
    differences = case.expected.differences(got, rulebook.policy)
    if differences and not rulebook.rules_for(subject):
        named = {agent for rule in rulebook.policy.rules for agent in rule.agents}
        differences.append(
            f'no rule names the agent "{case.agent}"{did_you_mean(case.agent, named)}'
        )
    return Tried(case, got, tuple(differences))


# -- from YAML


def read_cases(text: str, file: str) -> tuple[Case, ...]:
    """The cases of a file. Raises InvalidFile with every mistake, in file order."""
    value, lines = parse_yaml(text, file)
    source = Source(file, lines)
    root = Section(source, ())
    if not isinstance(value, list) or not value:
        root.error("this must be a list of cases: - {name: .., as: AGENT, request: .., expect: ..}")
        raise InvalidFile(source.errors())
    cases = [_read_case(root, index, item) for index, item in enumerate(value)]
    if source.errors():
        raise InvalidFile(source.errors())
    return tuple(case for case in cases if case is not None)


def _read_case(root: Section, index: int, value: object) -> Case | None:
    named = value.get("name") if isinstance(value, dict) else None
    label = f'case "{named[:100]}"' if isinstance(named, str) else f"case {index + 1}"
    at = Section(root.source, (index,), label)
    fields = at.mapping(value, CASE)
    if fields is None:
        return None
    before = at.source.faults
    name = agent = written = expected = None
    if "name" in fields:
        name = at.at("name").text(fields["name"], 300)
    if at.has(fields, "as", ": which agent calls?"):
        agent = at.at("as").parsed(fields["as"], parse_name)
    tags = read_tags(at.at("tags"), fields["tags"]) if "tags" in fields else None
    if at.has(fields, "request"):
        written = read_request(at.at("request"), fields["request"], None)
    if "at" in fields:
        moment = read_moment(at.at("at"), fields["at"])
        if written is not None and written.moment is not None:
            at.at("at").error("the time stands in the request already")
        elif written is not None:
            written = written.at(moment)
    repeat = at.at("repeat").count(fields.get("repeat", 1), MAX_REPEAT)
    if at.has(fields, "expect"):
        expected = _read_expected(at.at("expect"), fields["expect"])
    if agent is None or written is None or expected is None or repeat is None:
        return None
    if at.source.faults > before:
        return None
    name = name or f"{written.method} {written.url}"
    return Case(name, agent, tags, written, repeat, expected, at.source.file, at.line)


def _read_expected(at: Section, value: object) -> Expected | None:
    fields = at.mapping(value, EXPECT)
    if fields is None:
        return None
    if not fields:
        at.error(f"expect is empty; give it {', '.join(EXPECT[:-1])} or {EXPECT[-1]}")
    effect = risk = rule = code = None
    rules: tuple[str, ...] = ()
    if "effect" in fields:
        effect = at.at("effect").choice(fields["effect"], EFFECTS)
    if fields.get("risk") is not None:
        risk = at.at("risk").parsed(fields["risk"], parse_name)
    if fields.get("rule") is not None:
        rule = at.at("rule").parsed(fields["rule"], parse_name)
    if fields.get("rules", []) not in ([], None):
        rules = at.at("rules").several(fields["rules"], parse_name)
    if fields.get("code") is not None:
        code = at.at("code").choice(fields["code"], CODES)
    sentence = at.at("sentence").text(fields["sentence"]) if "sentence" in fields else ""
    return Expected(frozenset(fields), effect, risk, rule, rules, code, sentence or "")
