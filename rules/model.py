"""The policy as values: what a checked file means. Built by rules.load, read by rules.decide.

Everything is frozen; nothing here reads files or knows of people's accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NamedTuple

from rules.limits import Demand, Limit

Effect = Literal["allow", "hold", "deny", "tunnel"]
Reason = Literal["optional", "required"]
Confirm = Literal["none", "retype"]

LOW = "low"
DEFAULT_RISK = "medium"
"""The risk of a hold that names none."""
ANYONE = "any"
"""The group of everyone with the role approver or admin."""
OWNER = "owner"
"""In a tier's `exclude`: the person who owns the agent."""


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret lies: `MOUNT/PATH#FIELD` in a KV engine. A name, never a value."""

    mount: str
    path: str
    field: str

    def __str__(self) -> str:
        return f"{self.mount}/{self.path}#{self.field}"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """An exact host, or `*.suffix` (one label or more, never the suffix itself)."""

    host: str
    """Lower case; for a wildcard the suffix without `*.`."""
    wildcard: bool
    port: int | None
    """None: the scheme's default port."""


@dataclass(frozen=True, slots=True)
class Injection:
    """How a credential goes into a request: into one header, by one format.

    `format` holds `{secret}` exactly once. For basic authentication `username` is set, `format` is
    `Basic {secret}`, and what stands for the secret is base64(username:secret) (RFC 7617).
    """

    header: str
    """Lower case."""
    format: str
    username: str | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that stands for a credential, with what its placeholder looks like.

    `shape` is literal text with parts such as `{hex:24}` (see rules.shapes).
    """

    name: str
    shape: str


@dataclass(frozen=True, slots=True)
class Credential:
    name: str
    secret: SecretRef
    hosts: tuple[HostPattern, ...]
    inject: Injection
    line: int = 0
    env: Variable | None = None


@dataclass(frozen=True, slots=True)
class Quorum:
    """`count` distinct people of `group`."""

    group: str
    count: int


@dataclass(frozen=True, slots=True)
class Tier:
    """What a risk asks of people. Durations are whole seconds."""

    name: str
    quorum: tuple[Quorum, ...]
    exclude: tuple[str, ...]
    """`owner`, or names of people."""
    decide_within: int
    execute_within: int
    denials: int
    """How many denials deny the call."""
    reason: Reason
    confirm: Confirm


Op = Literal["eq", "in", "not_in", "gt", "gte", "lt", "lte", "prefix", "suffix", "glob", "length"]
type Scalar = str | Decimal | bool | None


@dataclass(frozen=True, slots=True)
class Check:
    """One operator and what it compares with (see rules.values).

    A Scalar for most; several for `in` and `not_in`; checks on a number for `length`.
    """

    op: Op
    value: Scalar | tuple[Scalar, ...] | tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class ValueTest:
    """A test on one value: present, absent, equal to `equals`, and as all `checks` want it.

    `name` is a query parameter, a header, a form field, or a JSON pointer.
    """

    name: str
    exists: bool | None = None
    equals: str | None = None
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class BodyTest:
    """The body as a whole."""

    types: tuple[str, ...] = ()
    """Media types, lower case; `text/*` is any of its kind."""
    size: tuple[Check, ...] = ()
    """On its number of bytes."""


@dataclass(frozen=True, slots=True)
class GraphQLTest:
    """Operations of a GraphQL request."""

    kinds: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()
    """Globs of root fields' real names."""


@dataclass(frozen=True, slots=True)
class RpcTest:
    """Calls of a JSON-RPC message."""

    methods: tuple[str, ...] = ()
    """Globs."""
    params: tuple[ValueTest, ...] = ()


@dataclass(frozen=True, slots=True)
class McpTest:
    """The same in the words of MCP; with tools or arguments it is about `tools/call`."""

    methods: tuple[str, ...] = ()
    """Globs."""
    tools: tuple[str, ...] = ()
    """Globs."""
    arguments: tuple[ValueTest, ...] = ()


@dataclass(frozen=True, slots=True)
class GrpcTest:
    """A gRPC call, by its path."""

    services: tuple[str, ...] = ()
    """Globs of whole names: `shop.v1.Orders`."""
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TimeTest:
    """When a call comes, by the clock on a wall. From `begin` to before `end`, in minutes of the
    day; an end that is not later lies on the next day, which then counts to the day before."""

    zone: str
    """A name of the IANA database."""
    days: frozenset[int] = frozenset(range(7))
    """Monday is 0."""
    begin: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class SourceTest:
    """Where a call comes from."""

    via: Literal["proxy", "gateway"] | None = None
    run: bool | None = None
    """Whether it comes from a run that `keybroker run` started."""
    runs: tuple[str, ...] = ()
    """Ids of runs, one of which it comes from; then `run` says nothing."""
    tags: tuple[str, ...] = ()
    """Of the agent; one of them suffices."""


@dataclass(frozen=True, slots=True)
class Match:
    """All that is given must hold; an empty field does not restrict."""

    methods: frozenset[str] = frozenset()
    hosts: tuple[HostPattern, ...] = ()
    paths: tuple[str, ...] = ()
    """Path templates; see rules.paths."""
    scheme: Literal["http", "https"] = "https"
    query: tuple[ValueTest, ...] = ()
    headers: tuple[ValueTest, ...] = ()
    json: tuple[ValueTest, ...] = ()
    form: tuple[ValueTest, ...] = ()
    """Of urlencoded and of multipart forms."""
    body: BodyTest | None = None
    graphql: GraphQLTest | None = None
    jsonrpc: RpcTest | None = None
    mcp: McpTest | None = None
    grpc: GrpcTest | None = None
    upgrade: bool | None = None
    """Whether a WebSocket is asked for."""
    time: TimeTest | None = None
    source: SourceTest | None = None
    when: str | None = None
    """An expression in CEL (see rules.cel)."""


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    agents: tuple[str, ...]
    """Names, or `tag:NAME`."""
    matches: tuple[Match, ...]
    """A call falls under the rule if it falls under any of these and under none of `excepts`."""
    effect: Effect
    excepts: tuple[Match, ...] = ()
    risk: str | None = None
    """The tier's name; set for holds."""
    summary: str | None = None
    confirm: str | None = None
    """The place in the request whose value is retyped: `form:amount`."""
    impact: str | None = None
    undo: str | None = None
    """Whether it can be taken back, or how: `no`, `yes`, or a phrase."""
    use: tuple[str, ...] = ()
    stream: bool = False
    """`body: stream`: the request's body is passed on as it comes, unread. Allow rules only."""
    body_limit: int | None = None
    """Bytes of a streamed body; None: no limit."""
    limits: tuple[Limit, ...] = ()
    """Of allow and hold rules: how often, and how much in sum."""
    shadow: bool = False
    """`mode: shadow`: it is only tried."""
    line: int = 0

    @property
    def tier(self) -> str | None:
        """The name of the tier in which people are asked: of a hold, and of an allow's calls that
        are held for going beyond a limit. None: nobody is asked."""
        if self.effect == "hold":
            return self.risk
        if self.effect == "allow" and any(limit.over == "hold" for limit in self.limits):
            return DEFAULT_RISK if self.risk in (None, LOW) else self.risk
        return None


@dataclass(frozen=True, slots=True)
class Policy:
    credentials: Mapping[str, Credential]
    approvers: Mapping[str, tuple[str, ...]]
    tiers: Mapping[str, Tier]
    rules: tuple[Rule, ...]
    text: str = field(default="", repr=False)
    """The file it came from, to the letter."""
    loosened: tuple[str, ...] = ()
    """Ids of the packs' rules that an override asks less of than was shipped."""
    packed: frozenset[str] = frozenset()
    """Ids of the rules that come from packs."""
    shadows: tuple[Rule, ...] = ()
    """Rules that are only tried: whoever decides by `rules` knows nothing of them."""
    shadow: bool = False
    """`mode: shadow` of the whole file: none of it is in force."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The agent as the rules see it."""

    name: str
    tags: frozenset[str] = frozenset()
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Shadow:
    """What rules that are only tried would have done with a call."""

    decided: Effect
    """What was decided in fact."""
    effect: Effect
    """What would have been, had they been in force."""
    rules: tuple[tuple[str, Effect], ...] = ()
    """Those that matched, with their effects."""
    version: int | None = None
    """Of the policy, where a whole file is tried."""


class Deferred:
    """A text that is worked out when first asked for: many decisions are taken, few are told."""

    __slots__ = ("_make", "_text")

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make
        self._text: str | None = None

    def __str__(self) -> str:
        if self._text is None:
            self._text = self._make()  # two threads at worst make the same twice
        return self._text

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, str | Deferred) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return repr(str(self))


class Decision(NamedTuple):
    """What the policy says of one call, and why. The starting state of everything is deny.

    A tuple, since each call makes one: a frozen dataclass of so many fields takes thrice the time.
    """

    effect: Effect
    said: str | Deferred
    """The `sentence`."""
    rules: tuple[str, ...] = ()
    """Ids of the deciding rules, in file order."""
    allowed_by: tuple[str, ...] = ()
    """Ids of allow rules that matched beside the deciding holds (their credentials count too)."""
    tiers: tuple[str, ...] = ()
    """Names of the tiers whose requirements must all be met, strictest first; empty unless held."""
    risk: str = "low"
    credentials: tuple[str, ...] = ()
    """Names of the credentials to inject, in file order."""
    summaries: tuple[str, ...] = ()
    """The deciding rules' summaries, filled in from the request."""
    impacts: tuple[str, ...] = ()
    undos: tuple[str, ...] = ()
    """Whether, or how, it can be taken back, by the deciding rules."""
    confirm_place: str | None = None
    """Where `confirm_value` stands: a place, or `path`; None unless a tier asks for retyping."""
    confirm_value: str | None = None
    """What the reviewer retypes, where a tier asks for it."""
    stream: bool = False
    """The body may be passed on unread: nothing that could match this call looks at it."""
    body_limit: int | None = None
    """Bytes of a streamed body; None: no limit."""
    code: str = "policy_denied"
    """Of a denial, as the agent sees it; `request_ambiguous` if it would go out but for something
    in it that has more than one reading."""
    limits: tuple[Demand, ...] = ()
    """What the call takes of the deciding rules' limits; not yet whether there is room for it."""
    shadow: Shadow | None = None
    """What is only tried says beside this; it changes nothing."""
    ground: str | Deferred = ""
    """The `basis`."""

    def __repr__(self) -> str:  # without `confirm_value`
        return f"Decision({self.effect!r}, {self.sentence!r}, rules={self.rules!r})"

    @property
    def sentence(self) -> str:
        """One sentence for the agent, the ledger and the reviewer. Never raises."""
        try:
            return str(self.said)
        except Exception as error:  # noqa: BLE001 - what was decided stands all the same
            kind = type(error).__name__
            return f"Keybroker failed to say why ({kind}); this call: {self.effect}."

    @property
    def basis(self) -> str:
        """SHA-256 (hex) over every definition that led here: rules, tiers, groups, credentials,
        agent. If it differs later, the call is decided anew (law 3)."""
        return str(self.ground)
