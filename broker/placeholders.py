"""Placeholders: what an agent's variables hold in place of credentials (`env:` in the policy).

They are derived, not stored: the same agent and variable give the same value in every run and every
worker, so a request repeated in another run is the same request, and one that turns up where no
credential goes is known again. A placeholder is no secret, and nothing ever replaces it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from broker.errors import Refusal
from broker.policies import Published
from broker.spellings import Needle, needles
from rules.decide import Rulebook
from rules.model import Subject, Variable
from rules.request import Request
from rules.shapes import fill_shape

_KEPT = 1000
"""Agents whose placeholders are remembered."""
_BLOCKS = 8
"""Of 32 bytes: more than the longest shape can use up."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One variable of one agent."""

    variable: str
    value: str
    credentials: tuple[str, ...]
    """Those that it stands for, in file order."""


@dataclass(frozen=True, slots=True)
class _Known:
    placeholder: Placeholder
    needles: tuple[Needle, ...]


class Placeholders:
    """Makes them, and finds them in requests."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._version = -1
        self._known: dict[Subject, tuple[_Known, ...]] = {}

    def of(self, subject: Subject, rulebook: Rulebook) -> tuple[Placeholder, ...]:
        """The variables of the credentials that the agent's rules use, in file order."""
        credentials = rulebook.policy.credentials
        used = {
            name
            for rule in rulebook.rules_for(subject)
            if rule.effect in ("allow", "hold")
            for name in rule.use
        }
        standing: dict[Variable, list[str]] = {}
        for name, credential in credentials.items():
            if name in used and credential.env is not None:
                standing.setdefault(credential.env, []).append(name)
        return tuple(
            Placeholder(variable.name, self._value(subject.name, variable), tuple(names))
            for variable, names in standing.items()
        )

    def check(self, subject: Subject, published: Published, outgoing: Request) -> None:
        """Raises Refusal if a placeholder of the agent's is still in a request whose slots are
        empty: it was moved, or sent where no rule gives its credential.

        It is looked for as it is and in hex and base64. What escapes that is an inert text.
        """
        known = self._of(subject, published)
        if not known:
            return
        for where, text in _parts(outgoing):
            for each in known:
                if any(needle.core in text for needle in each.needles):
                    raise _misplaced(each.placeholder, where)

    def _of(self, subject: Subject, published: Published) -> tuple[_Known, ...]:
        if published.version != self._version or len(self._known) >= _KEPT:
            self._version, self._known = published.version, {}
        known = self._known.get(subject)
        if known is None:
            known = self._known[subject] = tuple(
                _Known(placeholder, needles(placeholder.value.encode()))
                for placeholder in self.of(subject, published.rulebook)
            )
        return known

    def _value(self, agent: str, variable: Variable) -> str:
        message = b"".join(
            len(part.encode()).to_bytes(8, "big") + part.encode()
            for part in (agent, variable.name, variable.shape)
        )
        blocks = (
            hmac.new(self._key, bytes([block]) + message, hashlib.sha256).digest()
            for block in range(_BLOCKS)
        )
        return fill_shape(variable.shape, int.from_bytes(b"".join(blocks)))


def _parts(request: Request) -> Iterator[tuple[str, bytes]]:
    """Every place that an agent writes to, under the name by which to tell it."""
    for where, text in (("path", request.path), ("query", request.query or "")):
        raw = text.encode()
        yield where, raw
        yield where, unquote_to_bytes(raw)
    for name, value in request.headers:
        yield "name of a header", name.encode()
        yield f"header {name}", value.encode("utf-8", "surrogateescape")
    yield "body", request.body


def _misplaced(placeholder: Placeholder, where: str) -> Refusal:
    names = " and ".join(placeholder.credentials)
    return Refusal(
        "placeholder_misplaced",
        f"The {where} of this call holds the placeholder of {placeholder.variable}. It stands for"
        f" {names}, which Keybroker puts in by itself, in its one place and only into calls that a"
        " rule gives it to; a placeholder is never replaced. Send the call without it.",
    )
