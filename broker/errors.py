"""The exception tree of the middle. Foreign errors are translated into these at the edge, with
`from`.

KeybrokerError                something failed; str() is one sentence for a person, without secrets
├── Refusal                   the answer to an agent's call: a code of the contract and a sentence
├── NotFound                  no such agent, user, approval
├── Conflict                  the present state does not allow the move (a vote on a decided call)
├── NotEntitled               this person may not do this
├── OverLimit                 the call goes beyond a limit that denies
├── Unconfirmed               the vote lacks the retyped value or the reason that the tier asks for
├── InvalidInput              a name, number or word that cannot be accepted
├── StoreUnavailable          the store could not be read or written
└── SecretUnavailable         Vault did not give the secret
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rules.limits import Over
    from rules.model import Shadow


class KeybrokerError(Exception):
    """Base of the middle's errors; `str(error)` is one sentence that a person can act on."""


@dataclass(frozen=True, slots=True)
class Code:
    """One refusal of the contract: its HTTP status and its title (RFC 9457)."""

    status: int
    title: str


CODES: Mapping[str, Code] = {
    "agent_unauthenticated": Code(407, "The proxy does not know this agent"),
    "gateway_refused": Code(403, "The gateway does not take this request"),
    "request_ambiguous": Code(400, "The request could be read in more than one way"),
    "policy_denied": Code(403, "The policy denies this call"),
    "placeholder_misplaced": Code(403, "A placeholder stands where no credential goes"),
    "approval_pending": Code(503, "A person has not decided yet"),
    "approval_denied": Code(403, "A reviewer denied this call"),
    "approval_expired": Code(403, "Nobody decided in time"),
    "approval_used": Code(409, "An identical call has used this approval"),
    "too_many_pending": Code(429, "This agent has too many held calls"),
    "egress_refused": Code(403, "The address is not allowed"),
    "body_too_large": Code(413, "The request body is over the limit"),
    "secret_unavailable": Code(502, "The credential could not be read"),
    "upstream_unreachable": Code(502, "The upstream could not be reached"),
    "ledger_unavailable": Code(503, "The audit log cannot be written, so nothing was sent"),
    "response_refused": Code(502, "The response cannot be passed on safely"),
    "not_found": Code(404, "There is nothing here"),
    "internal_error": Code(500, "Keybroker failed; nothing was sent"),
}


NOT_AGAIN = (("x-should-retry", "false"),)
"""For answers to a call that may have taken effect: OpenAI's and Anthropic's SDKs repeat 409 and
5xx by themselves, POST included, unless told so."""


class Refusal(KeybrokerError):
    """A call is answered by Keybroker itself, with a code of the contract.

    `extra` holds further members of the problem document (`rule`, `approval`); `retry_after` is in
    seconds. `status` replaces the code's own where the agent's settings or the request ask for it.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = CODES[code].status if status is None else status
        self.retry_after = retry_after
        self.headers = headers
        self.extra = dict(extra or {})
        self.shadow: Shadow | None = None
        """For the ledger alone: what is only tried says of the call."""


class NotFound(KeybrokerError):
    """There is no such thing."""


class Conflict(KeybrokerError):
    """The present state does not allow this; nothing was changed."""


class NotEntitled(KeybrokerError):
    """This person may not do this; nothing was changed."""


class OverLimit(KeybrokerError):
    """The call goes beyond a limit of its rules; nothing was changed."""

    def __init__(self, over: Sequence[Over]) -> None:
        # Only here: every command loads this module, and few of them what the words need.
        from rules.words import describe_over

        super().__init__(" ".join([describe_over(each) for each in over]))
        self.over = tuple(over)


class Unconfirmed(KeybrokerError):
    """The vote lacks what the tier asks for (retyped value, reason); nothing was changed."""


class InvalidInput(KeybrokerError):
    """A value that cannot be accepted; the sentence says how to mend it."""


class StoreUnavailable(KeybrokerError):
    """The store could not be read or written; nothing is sent while this lasts."""


class SecretUnavailable(KeybrokerError):
    """The secret could not be had; the sentence names the reference, never a value."""

    def __init__(self, sentence: str, *, late: bool = False) -> None:
        """`late`: the time for it ran out."""
        super().__init__(sentence)
        self.late = late
