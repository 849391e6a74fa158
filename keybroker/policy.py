"""What the program does with a policy beside deciding: explain a call, warn of missing accounts.

Explaining takes the very path of a call (canonical form, then decision), and sends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from broker.model import Agent, User
from keybroker.errors import Unusable
from rules.canonical import canonicalise
from rules.decide import Rulebook
from rules.errors import Ambiguous, Problem
from rules.model import ANYONE, OWNER, Policy, Subject
from rules.request import DEFAULT_PORTS, RawRequest
from rules.words import describe_limit

CODES = {"deny": "policy_denied", "hold": "approval_pending", "allow": None, "tunnel": None}
"""What the agent would read in each case; None: the upstream's answer."""


def raw_request(
    method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes
) -> RawRequest:
    """The request a client would make of `url` through the proxy. Raises Unusable for no URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Unusable(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise Unusable(f"{url!r} is not a URL of the form https://HOST[:PORT]/PATH")
    authority = parts.netloc
    # The target is cut out of the text, not rebuilt: what is odd in it must be seen as it stands.
    rest = url.split("://", 1)[1][len(authority) :].split("#", 1)[0]
    target = rest if rest.startswith("/") else "/" + rest
    given = {name.lower() for name, _ in headers}
    pairs = [] if "host" in given else [("Host", authority)]
    pairs += headers
    if body and not given & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    https = parts.scheme == "https"
    return RawRequest(
        scheme="https" if https else "http",
        connect=(host, port or DEFAULT_PORTS["https"]) if https else None,
        sni=host if https and not _is_address(host) else None,
        authority=None if https else authority,
        method=method,
        target=target,
        headers=tuple((n.encode(), v.encode()) for n, v in pairs),
        body=body,
    )


def _is_address(host: str) -> bool:
    # Clients send no server name for an address (RFC 6066 3).
    return ":" in host or host.replace(".", "").isdigit()


def subject_of(name: str, agents: Sequence[Agent]) -> Subject:
    """The agent as rules see it; one without an account yet has no tags and no owner."""
    for agent in agents:
        if agent.name == name:
            return Subject(agent.name, agent.tags, agent.owner)
    return Subject(name)


def explain_call(policy: Policy, subject: Subject, raw: RawRequest) -> dict[str, object]:
    """Effect, risk, code, rules and sentence, as the proxy would decide; and the limits that the
    call would count towards, whatever is used of them."""
    try:
        request = canonicalise(raw)
    except Ambiguous as error:
        return {
            "effect": "deny",
            "risk": None,
            "code": "request_ambiguous",
            "rules": [],
            "limits": [],
            "sentence": error.sentence,
        }
    decision = Rulebook(policy).decide(subject, request)
    return {
        "effect": decision.effect,
        "risk": decision.risk,
        "code": CODES[decision.effect],
        "rules": list(decision.rules),
        "limits": [
            {"rule": demand.rule, "sentence": f"at most {describe_limit(demand.limit)}"}
            for demand in decision.limits
        ],
        "sentence": decision.sentence,
    }


def account_warnings(
    policy: Policy, agents: Sequence[Agent], people: Sequence[User], file: str
) -> tuple[Problem, ...]:
    """A warning for each agent or person that the policy names and nobody has added yet."""
    known_agents = {agent.name for agent in agents}
    known_people = {user.name for user in people}
    found: dict[str, Problem] = {}

    def warn(line: int, sentence: str) -> None:
        found.setdefault(sentence, Problem(file, line, sentence, "warning"))

    for rule in policy.rules:
        for name in rule.agents:
            if not name.startswith("tag:") and name not in known_agents:
                warn(
                    rule.line,
                    f"there is no agent {name} yet: `keybroker agent add {name}` makes it",
                )
    named = {person for members in policy.approvers.values() for person in members}
    for tier in policy.tiers.values():
        named |= set(tier.exclude) - {OWNER, ANYONE}
    for person in sorted(named - known_people):
        warn(0, f"there is no user {person} yet: `keybroker user add {person} --role approver`")
    return tuple(sorted(found.values()))
