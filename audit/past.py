"""The calls of a ledger, each once and as it was asked for, oldest first: what a policy was asked,
and what it said.

Read one record at a time, so that a ledger of any length takes the memory of a short one. A record
without its form is passed over and counted; whether records are true is for verify() to tell.
"""

from __future__ import annotations

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard

from audit.reading import reading

type Said = Literal["allow", "hold", "deny", "tunnel"]

MOST_REMEMBERED = 100_000
"""Held calls and approvals that are kept in mind; of older ones the ledger is asked again."""
_PAGE = 1_000

_KINDS = (
    "call.sent",
    "call.denied",
    "approval.opened",
    "approval.joined",
    "tunnel.opened",
)
_HELD_BEFORE = (
    "SELECT 1 FROM ledger WHERE call = ? AND seq < ?"
    " AND type IN ('approval.opened', 'approval.joined') LIMIT 1"
)
_OF_RULES = frozenset(("policy_denied", "request_ambiguous"))
"""Codes of denials by the rules, if the request had a canonical form."""
_AFTER_ALLOW = frozenset(("egress_refused", "secret_unavailable", "upstream_unreachable"))
"""Codes of calls that the rules let go, and that then could not."""
_AFTER_HOLD = frozenset(("too_many_pending", "approval_denied", "approval_expired"))


@dataclass(frozen=True, slots=True)
class PastCall:
    """One call, and what the policy of its time said of it."""

    call: str
    agent: str
    time: str
    said: Said
    what: Mapping[str, object]
    """As the ledger has it; of a tunnel host and port."""
    rules: tuple[str, ...] | None
    """Ids of the rules that it fell under, of all for an allow or hold; of a denial of the first
    only. None: not known."""
    policy: int | None
    """Version of that policy."""
    size: int | None
    """Bytes of its body."""
    risk: str | None = None
    tiers: tuple[str, ...] = ()
    credentials: tuple[str, ...] | None = None
    """Names of those that went in, or would have; None: not known."""
    approval: str | None = None
    asks: bool = True
    """If it was held, people were asked for it: it opened an approval of its own."""
    shadow: Mapping[str, object] | None = None
    """What rules in shadow would have done with it, as the ledger has it."""


@dataclass(slots=True)
class Skipped:
    """What no policy decided, or what cannot be told."""

    undecided: int = 0
    """Refused before any rule was asked: no canonical form, too large, unknown agent."""
    spoilt: int = 0
    """Records that do not have their form."""


class Past:
    """The calls between two times, as records write them; None: from the first, to the last."""

    def __init__(
        self,
        db: sqlite3.Connection,
        *,
        since: str | None = None,
        until: str | None = None,
        agent: str | None = None,
        call: str | None = None,
    ) -> None:
        """`agent`: the calls of this agent only; `call`: this call only."""
        self._db = db
        self._since, self._until, self._agent, self._call_id = since, until, agent, call
        self._held: OrderedDict[str, None] = OrderedDict()
        """Calls that were told of when they were held."""
        self._opened: OrderedDict[str, dict[str, object] | None] = OrderedDict()
        self.skipped = Skipped()
        with reading("the ledger"):
            self.first, self.last = self._bounds()
        self.at = self.first
        """How far it has come, between `first` and `last`."""

    def _bounds(self) -> tuple[int, int]:
        first, last = 1, self._db.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchone()[0]
        if self._since is not None:
            # By the lowest number of them all: clocks may have been set back.
            found = self._db.execute(
                "SELECT min(seq) FROM ledger WHERE time >= ?", (self._since,)
            ).fetchone()[0]
            first = last + 1 if found is None else int(found)
        return first, int(last)

    def __iter__(self) -> Iterator[PastCall]:
        seq = self.first - 1
        while rows := self._page(seq):
            for seq, time, kind, call, agent, text in rows:
                self.at = seq
                data = _object(text)
                if data is None or not isinstance(call, str) or not isinstance(agent, str):
                    self.skipped.spoilt += 1
                    continue
                found = self._told(seq, kind, call, agent, time, data)
                if found is not None:
                    yield found
        self.at = self.last

    def _page(self, after: int) -> list[tuple[int, str, str, object, object, object]]:
        """Some further records. One at a time, but never for long: whoever reads a database in one
        go keeps its writers from tidying up behind them."""
        terms = ["seq > ?", "seq <= ?", f"type IN ({', '.join('?' * len(_KINDS))})"]
        given: list[object] = [after, self.last, *_KINDS]
        for name, sign, value in (
            ("time", ">=", self._since),
            ("time", "<", self._until),
            ("agent", "=", self._agent),
        ):
            if value is not None:
                # Walked by number: `+` keeps it off the index by this column.
                terms.append(f"+{name} {sign} ?")
                given.append(value)
        if self._call_id is not None:
            terms.append("call = ?")
            given.append(self._call_id)
        with reading("the ledger"):
            return self._db.execute(
                "SELECT seq, time, type, call, agent, data FROM ledger"  # noqa: S608 - constants
                f" WHERE {' AND '.join(terms)} ORDER BY seq LIMIT {_PAGE}",
                given,
            ).fetchall()

    def _told(
        self, seq: int, kind: str, call: str, agent: str, time: str, data: dict[str, object]
    ) -> PastCall | None:
        if self._was_held(call, seq):
            return None  # it counts where it was held; it may have been decided anew since
        match kind:
            case "call.sent":
                if data.get("approval") is not None:
                    return None  # it carries out what another call was held for
                names = _names(data.get("secrets"))
                return self._call(call, agent, time, "allow", data, data, credentials=names)
            case "approval.opened" | "approval.joined":
                return self._asked(kind, call, agent, time, data)
            case "tunnel.opened":
                return self._call(call, agent, time, "tunnel", data, {"what": data})
            case _:
                return self._denied(call, agent, time, data)

    def _asked(
        self, kind: str, call: str, agent: str, time: str, data: dict[str, object]
    ) -> PastCall | None:
        approval = data.get("approval")
        if not isinstance(approval, str):
            self.skipped.spoilt += 1
            return None
        _remember(self._held, call, None)
        if kind == "approval.opened":
            _remember(self._opened, approval, data)
            opened: dict[str, object] | None = data
        else:
            opened = self._opening(approval)
        if opened is None:
            self.skipped.spoilt += 1
            return None
        names = _names(opened.get("credentials"))
        asks = kind == "approval.opened"
        return self._call(call, agent, time, "hold", opened, opened, credentials=names, asks=asks)

    def _denied(self, call: str, agent: str, time: str, data: dict[str, object]) -> PastCall | None:
        code = data.get("code")
        if not isinstance(data.get("what"), dict):
            self.skipped.undecided += 1
            return None
        if code in _OF_RULES:
            said: Said = "deny"
        elif data.get("approval") is not None or code in _AFTER_HOLD:
            said = "hold"
        elif code in _AFTER_ALLOW:
            said = "allow"
        else:
            self.skipped.undecided += 1
            return None
        opened = self._opening(data.get("approval")) if said == "hold" else None
        if opened is not None:
            # A denial is told again to whoever repeats the request: it was held like the first.
            names = _names(opened.get("credentials"))
            return self._call(
                call, agent, time, "hold", opened, opened, credentials=names, asks=False
            )
        told = {**data, "rules": None} if said != "deny" or code != "policy_denied" else data
        # Held, but nothing was opened for it: too many are held already.
        return self._call(call, agent, time, said, told, data, asks=said != "hold")

    def _was_held(self, call: str, seq: int) -> bool:
        """Whether the call was held before this record, be it before the window."""
        if call in self._held:
            return True
        if self.first == 1 and len(self._held) < MOST_REMEMBERED:
            return False
        return self._db.execute(_HELD_BEFORE, (call, seq)).fetchone() is not None

    def _opening(self, approval: object) -> dict[str, object] | None:
        """What was recorded when the approval was opened."""
        if not isinstance(approval, str):
            return None
        if approval not in self._opened:
            row = self._db.execute(
                "SELECT data FROM ledger WHERE json_extract(data, '$.approval') = ?"
                " AND type = 'approval.opened' LIMIT 1",
                (approval,),
            ).fetchone()
            _remember(self._opened, approval, None if row is None else _object(row[0]))
        return self._opened[approval]

    def _call(
        self,
        call: str,
        agent: str,
        time: str,
        said: Said,
        told: Mapping[str, object],
        about: Mapping[str, object],
        *,
        credentials: tuple[str, ...] | None = None,
        asks: bool = True,
    ) -> PastCall | None:
        what = about.get("what")
        if not isinstance(what, dict) or not _is_place(what, said):
            self.skipped.spoilt += 1
            return None
        size, risk, policy = told.get("body_size"), told.get("risk"), told.get("policy")
        shadow = about.get("shadow")
        approval = told.get("approval")
        rules = _texts(told.get("rules"))
        if rules is not None:
            rules += _texts(told.get("allowed_by")) or ()
        return PastCall(
            call=call,
            agent=agent,
            time=time,
            said=said,
            what=what,
            rules=rules,
            policy=policy if _is_number(policy) else None,
            size=size if _is_number(size) else None,
            risk=risk if isinstance(risk, str) else None,
            tiers=_texts(told.get("tiers")) or (),
            credentials=credentials,
            approval=approval if isinstance(approval, str) else None,
            asks=asks,
            shadow=shadow if isinstance(shadow, dict) else None,
        )


def _remember[T](kept: OrderedDict[str, T], name: str, value: T) -> None:
    kept[name] = value
    if len(kept) > MOST_REMEMBERED:
        kept.popitem(last=False)


def _is_place(what: dict[str, object], said: Said) -> bool:
    if not isinstance(what.get("host"), str) or not _is_number(what.get("port")):
        return False
    return said == "tunnel" or (
        isinstance(what.get("method"), str)
        and what.get("scheme") in ("http", "https")
        and isinstance(what.get("path"), str)
    )


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _names(value: object) -> tuple[str, ...] | None:
    """Of a list of credentials or secrets."""
    if not isinstance(value, list):
        return None
    found = [one.get("name") for one in value if isinstance(one, dict)]
    return tuple([name for name in found if isinstance(name, str)])


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple([text for text in value if isinstance(text, str)])


def _object(text: object) -> dict[str, object] | None:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
