"""Every code of a finding: how bad it is, why it matters, how to mend it. Codes are stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rules.lint.finding import Severity


@dataclass(frozen=True, slots=True)
class Code:
    """What one code stands for; the sentences go into the guide."""

    severity: Severity
    why: str
    mend: str


_REFUSED: Mapping[str, tuple[str, str]] = {
    "invalid-yaml": (
        "what cannot be read in one way is not read at all",
        "write plain YAML: one document, no anchors, aliases, tags or merge keys",
    ),
    "duplicate-key": ("of two entries only one would count", "leave one of them"),
    "wrong-version": ("another version may mean something else", "write `version: 1`"),
    "missing-field": ("nothing stands in for it", "write the field"),
    "unknown-field": (
        "a restriction that is not understood must not be passed over",
        "correct the name, or leave it out",
    ),
    "wrong-type": (
        "it would be guessed what is meant",
        "write text, a list or a mapping as the message says",
    ),
    "empty-field": ("an empty field could mean all or nothing", "fill it in, or leave it out"),
    "invisible-character": ("what nobody sees, nobody reviews", "take it out"),
    "unknown-word": ("it would be guessed what is meant", "write one of the words in the message"),
    "invalid-value": (
        "no call, or another one than meant, would fall under it",
        "write it as the message says",
    ),
    "invalid-pack": ("a part of a pack would be missing", "mend the file that the message names"),
    "unknown-pack": (
        "its rules would be missing",
        "correct the name; `keybroker policy packs` has them",
    ),
    "unknown-parameter": ("what it should narrow stays wide", "correct the name"),
    "unknown-rule-of-a-pack": (
        "what should be overridden is not",
        "correct the id; `policy packs show NAME` has them",
    ),
    "unknown-credential": (
        "calls would go out without it",
        "correct the name, or add it under `credentials:`",
    ),
    "unknown-tier": ("it is not said who must agree", "correct the name, or add it under `tiers:`"),
    "unknown-group": ("nobody could vote", "correct the name, or add it under `approvers:`"),
    "duplicate-id": ("ledger and answers name rules by id", "give one of them another id"),
    "quorum-cannot-be-met": (
        "what nobody can approve waits until it is denied",
        "ask for fewer, add people to the group, or exclude fewer",
    ),
    "variables-clash": (
        "a variable has one value at a time",
        "give both the same shape, or other variables",
    ),
    "wrong-risk": (
        "the risk says that people are asked, the effect that they are not",
        "make effect and risk agree",
    ),
    "stream-is-read": (
        "a streamed body is sent before anything could look at it",
        "buffer it, or leave out what looks at it",
    ),
    "limit-without-calls": ("there is nothing to count", "limit an allow or a hold"),
    "tunnel-looks-inside": ("nothing inside a tunnel is seen", "name hosts only"),
    "tunnel-to-credential": (
        "a credential could be sent to its host unseen",
        "allow the calls, or take the host from the credential",
    ),
    "wider-than-credential": (
        "the credential would leave for a foreign host, or the call without it",
        "name only hosts of the credential",
    ),
    "credential-over-http": ("anybody on the way could read it", "leave `scheme: http` out"),
    "test-fails": (
        "the rule is not what its author says it is",
        "mend the rule, or the test if it is the one that is wrong",
    ),
    "slots-clash": ("one header takes one credential", "part the rules with `except:`"),
}

_FOUND: Mapping[str, tuple[Severity, str, str]] = {
    "no-effect": (
        "warning",
        "a reader takes it for a protection",
        "leave it out, or change what it depends on",
    ),
    "loosened": ("warning", "the pack's authors asked for more", "see that it is meant"),
    "shadow": (
        "warning",
        "whoever reads the file may believe that all of it counts",
        "take `mode: shadow` out once you have seen enough",
    ),
    "never-matches": (
        "warning",
        "a guard without calls guards nothing, and an allow without calls allows nothing",
        "resolve what contradicts itself",
    ),
    "matches-no-plain-call": (
        "warning",
        "what was to be stopped passes by",
        "resolve what contradicts itself",
    ),
    "match-never-holds": (
        "warning",
        "a part of the rule does nothing",
        "resolve the contradiction, or take the match out",
    ),
    "except-never-holds": (
        "warning",
        "what was to be taken out of the rule stays in it",
        "name the hosts, ports and methods of the rule, or take the except out",
    ),
    "glob-like-regex": (
        "warning",
        "the value that is meant does not look like it, so that the rule never applies",
        "write a glob, or matches(..) in `when:`",
    ),
    "body-of-get": (
        "note",
        "hardly any client sends a body with GET or HEAD",
        "look at the query, or name another method",
    ),
    "unusual-method": (
        "note",
        "a slip in a method makes a rule match nothing",
        "correct it, or let it be",
    ),
    "covered": (
        "warning",
        "a rule that never decides misleads whoever reads it",
        "take it out, or narrow the stronger rule with `except:`",
    ),
    "allow-only-adds": (
        "note",
        "it reads as if calls ran by themselves, and all are held",
        "put `use:` into the hold, or narrow the hold",
    ),
    "covered-by-alike": ("note", "one who changes it changes nothing", "take it out"),
    "risky-without-hold": (
        "warning",
        "what changes something runs with nobody asked; a note where the rule names the method",
        "hold it, or name the methods that are meant",
    ),
    "host-not-policed": (
        "warning",
        "whoever talks the agent into a call has the credential's power",
        "hold or deny risky methods there",
    ),
    "host-without-rule": (
        "warning",
        "a credential should go nowhere that it is not needed",
        "take the host from the credential, or write the rule",
    ),
    "credential-unused": (
        "warning",
        "what nobody needs should not lie ready",
        "take it out, or use it",
    ),
    "credentials-clash": (
        "warning",
        "the call is denied, since one header takes one credential",
        "part the rules with `except:`",
    ),
    "credentials-together": (
        "note",
        "the upstream gets both; of several such rules one is named",
        "part the rules with `except:` if only one is meant",
    ),
    "wildcard-beside-host": (
        "note",
        "a rule for a host does not narrow one for a wildcard",
        "take the host out with `except:`",
    ),
    "hold-avoidable": (
        "warning",
        "an agent chooses the type of its body",
        "let the allow take only what the hold can read (`body: {type: ..}`), or hold all bodies",
    ),
    "comparison-avoidable": (
        "note",
        "what is no number compares with nothing, and a server may read it all the same",
        "allow only what compares the other way",
    ),
    "opaque-condition": ("note", "nothing is proved about expressions", "write tests for the rule"),
    "limit-never-fits": (
        "warning",
        "every call goes beyond the limit",
        "raise the limit, or lower the bound",
    ),
    "limit-never-reached": (
        "note",
        "it reads like a protection and is none",
        "leave it out, or lower it",
    ),
    "unknown-agent": (
        "warning",
        "a slip in a name leaves an agent without the rule",
        "add the agent, or correct the name",
    ),
    "unknown-tag": ("warning", "the rule is about nobody", "give an agent the tag, or correct it"),
    "unknown-user": (
        "warning",
        "a vote that is asked for cannot come",
        "add the user, or correct the name",
    ),
    "user-may-not-approve": (
        "warning",
        "the group is smaller than it looks",
        "give them the role, or take them out of the group",
    ),
    "quorum-lacks-people": (
        "warning",
        "what nobody can approve waits until it is denied",
        "add people who may approve, or ask for fewer",
    ),
    "owner-may-approve": (
        "warning",
        "whoever steers the agent approves its calls",
        "`exclude: [owner]`",
    ),
    "looked-at-in-part": (
        "note",
        "many rules are about one place, and comparing them all would take long",
        "part them by path or host, or try such calls with tests",
    ),
    "hold-tells-nobody": (
        "warning",
        "held calls wait until they are denied",
        "add a user who may approve",
    ),
}

CODES: Mapping[str, Code] = {
    **{name: Code("error", *told) for name, told in _REFUSED.items()},
    **{name: Code(*told) for name, told in _FOUND.items()},
}
