"""The clock of this machine, held against the Vault's, the admin page's and the ledger's."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from audit.reading import open_ledger
from keybroker.doctor.finding import Finding, State
from keybroker.runstate import running

if TYPE_CHECKING:
    from keybroker.workspace import Workspace

NOTICED = timedelta(seconds=30)
"""Less is the time that an answer takes, and no trouble."""
TROUBLE = timedelta(minutes=5)
"""From here on tokens, certificates and the time limits of approvals go wrong."""
_FIX = "set the clock of the machine that is wrong, and keep it right with NTP"


def clock_findings(workspace: Workspace) -> Iterator[Finding]:
    """The newest record must not lie in the future; the admin page must show the same time."""
    now = datetime.now(UTC)
    with closing(open_ledger(workspace.database)) as db:
        row = db.execute("SELECT time FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
    if row is not None:
        newest = datetime.fromisoformat(row[0])
        if newest - now > NOTICED:
            yield Finding(
                "clock",
                "wrong",
                f"the ledger's newest record is of {row[0]}, which is still to come: this clock"
                " was set back",
                "set the clock (NTP keeps it right); nothing approved meanwhile expires in time",
            )
            return
    up = running(workspace)
    shown = None if up is None else _date_of(f"{up.admin}/healthz")
    found = None if shown is None else compared(shown, "the admin page", now)
    yield found or Finding("clock", "ok", f"{now:%Y-%m-%dT%H:%M:%SZ}")


def compared(date: str, whose: str, now: datetime) -> Finding | None:
    """A finding if the Date field (RFC 9110 6.6.1) of an answer is far from `now`."""
    try:
        other = parsedate_to_datetime(date)
    except ValueError:
        return None
    if other.tzinfo is None:
        return None
    gap = abs(other - now)
    if gap <= NOTICED:
        return None
    state: State = "wrong" if gap > TROUBLE else "warning"
    way = "ahead of" if other > now else "behind"
    says = f"the clock of {whose} is {int(gap.total_seconds())} s {way} this one"
    return Finding("clock", state, says, _FIX)


def _date_of(url: str) -> str | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return str(answer.headers.get("Date", ""))
    except urllib.error.HTTPError as error:
        with error:
            return str(error.headers.get("Date", ""))
    except (OSError, ValueError):
        return None  # whether it answers is another check's question
