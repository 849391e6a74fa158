"""The history of calls: the page with its form, the API, and downloads of both.

What can be searched by is one table (audit.filters). Each request does bounded work; a page that is
not full says where to go on.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from urllib.parse import urlencode

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from audit.filters import FIELDS, OUTCOMES, BadFilter, Filter, read_filter
from audit.history import Found
from broker.admin.answers import answer
from broker.admin.api_people import Handler
from broker.admin.frame import Frame, PageHandler, Visit
from broker.admin.ports import CallSummary, Ledger, Record, Services
from broker.admin.routes import Entry
from broker.admin.security import Refused
from broker.errors import NotFound
from broker.model import User

PAGE_SIZE = 50
MOST = 200
"""The longest page of the API."""
MOST_ROWS = 100_000
"""The longest download."""
QUEUE = 16
"""Searches that may wait for a turn."""
COLUMNS = (
    "call",
    "started",
    "agent",
    "method",
    "scheme",
    "host",
    "port",
    "path",
    "outcome",
    "status",
    "code",
    "risk",
    "rules",
    "approval",
    "duration_ms",
    "seq",
)
_NAMES = frozenset(field.name for field in FIELDS)


def call_json(call: CallSummary) -> dict[str, object]:
    return {name: list(call.rules) if name == "rules" else getattr(call, name) for name in COLUMNS}


def record_json(record: Record) -> dict[str, object]:
    return {
        "seq": record.seq,
        "time": record.time,
        "type": record.type,
        "call": record.call,
        "agent": record.agent,
        "data": dict(record.data),
        "prev": record.prev,
        "hash": record.hash,
    }


def cell(value: object) -> str:
    """A value for a spreadsheet, which takes text that begins so for a formula (OWASP, CSV
    Injection): the apostrophe makes it text."""
    text = "" if value is None else " ".join(value) if isinstance(value, tuple) else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def whole_number(text: str | None, name: str, *, least: int, most: int, default: int) -> int:
    """A query parameter; Refused (400) unless it is plain digits within the bounds."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise Refused(400, f"{name} must be a whole number from {least} to {most}.")
    return int(text)


def parameters(query: QueryParams, known: frozenset[str]) -> dict[str, str]:
    """The query's parameters; Refused (400) for one that is unknown or there twice."""
    given: dict[str, str] = {}
    for name, value in query.multi_items():
        if name not in known:
            raise Refused(400, f"There are the parameters {', '.join(sorted(known))}.")
        if name in given:
            raise Refused(400, f"{name} is there twice.")
        given[name] = value
    return given


def wanted_of(given: Mapping[str, str]) -> Filter:
    """Refused (400) with the sentence of a BadFilter."""
    try:
        return read_filter(given)
    except BadFilter as error:
        raise Refused(400, str(error)) from None


class HistoryOf:
    """Searches the ledger for page and API alike."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # A search may take a tenth of a second of the processor that the workers want.
        self._turns = CapacityLimiter(2)

    async def search(self, wanted: Filter, limit: int, before: int | None) -> Found:
        """Refused (503) if too many ask at once."""
        if self._turns.statistics().tasks_waiting >= QUEUE:
            raise Refused(
                503, "Too many searches run at once. Try again.", headers={"retry-after": "1"}
            )
        find = partial(self._ledger.calls, wanted, limit=limit, before=before)
        return await run_sync(find, limiter=self._turns)

    async def rows(self, wanted: Filter, most: int) -> AsyncIterator[CallSummary]:
        """Up to `most` calls, newest first, some at a time."""
        before: int | None = None
        while most > 0:
            found = await self.search(wanted, min(most, 1000), before)
            for call in found.calls:
                yield call
            most, before = most - len(found.calls), found.next
            if before is None:
                return

    async def download(self, form: str, wanted: Filter, most: int) -> Response:
        """All that is found as a file: `csv` or `jsonl`. What is wrong shows before it begins."""
        rows = self.rows(wanted, most)
        first = await anext(rows, None)
        media = "text/csv; charset=utf-8" if form == "csv" else "application/jsonl"
        return StreamingResponse(
            _lines(form, first, rows),
            media_type=media,
            headers={"content-disposition": f'attachment; filename="keybroker-calls.{form}"'},
        )


async def _lines(
    form: str, first: CallSummary | None, rows: AsyncIterator[CallSummary]
) -> AsyncIterator[str]:
    line: Callable[[CallSummary], str] = _csv_line if form == "csv" else _json_line
    if form == "csv":
        yield ",".join(COLUMNS) + "\r\n"
    if first is not None:
        yield line(first)
        async for call in rows:
            yield line(call)


def _csv_line(call: CallSummary) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([cell(getattr(call, name)) for name in COLUMNS])
    return out.getvalue()


def _json_line(call: CallSummary) -> str:
    return json.dumps(call_json(call), separators=(",", ":")) + "\n"


class HistoryApi:
    """Handlers of /api/v1/calls."""

    def __init__(self, ledger: Ledger, history: HistoryOf) -> None:
        self._ledger, self._history = ledger, history

    def table(self) -> list[Entry[Handler]]:
        return [
            Entry("GET", "/api/v1/calls", "person", self.calls),
            Entry("GET", "/api/v1/calls.csv", "person", partial(self.download, "csv")),
            Entry("GET", "/api/v1/calls.jsonl", "person", partial(self.download, "jsonl")),
            Entry("GET", "/api/v1/calls/{id}", "person", self.call),
        ]

    async def calls(self, request: Request, user: User | None) -> Response:
        given = parameters(request.query_params, _NAMES | {"limit", "before"})
        limit = whole_number(given.get("limit"), "limit", least=1, most=MOST, default=PAGE_SIZE)
        before = whole_number(given.get("before"), "before", least=1, most=2**53, default=0)
        found = await self._history.search(wanted_of(given), limit, before or None)
        return answer(
            {
                "calls": [call_json(call) for call in found.calls],
                "next": found.next,
                "behind": found.behind,
            }
        )

    async def download(self, form: str, request: Request, user: User | None) -> Response:
        given = parameters(request.query_params, _NAMES | {"limit"})
        most = whole_number(given.get("limit"), "limit", least=1, most=MOST_ROWS, default=10_000)
        return await self._history.download(form, wanted_of(given), most)

    async def call(self, request: Request, user: User | None) -> Response:
        parameters(request.query_params, frozenset())
        records = await run_sync(self._ledger.show, request.path_params["id"])
        if not records:
            raise Refused(404, "There is no such call.")
        return answer({"records": [record_json(record) for record in records]})


class HistoryPages:
    """Handlers of /history."""

    def __init__(
        self, services: Services, ledger: Ledger, history: HistoryOf, frame: Frame
    ) -> None:
        self._services, self._ledger, self._frame = services, ledger, frame
        self._history = history

    def table(self) -> list[Entry[PageHandler]]:
        return [
            Entry("GET", "/history", "person", self.history),
            Entry("GET", "/history.csv", "person", partial(self.download, "csv")),
            Entry("GET", "/history.jsonl", "person", partial(self.download, "jsonl")),
            Entry("GET", "/history/{id}", "person", self.call),
        ]

    async def history(self, request: Request, visit: Visit) -> Response:
        given = _given(request.query_params)
        before = whole_number(
            request.query_params.get("before") or None, "before", least=1, most=2**53, default=0
        )
        error, found = None, Found((), None, 0)
        try:
            found = await self._history.search(read_filter(given), PAGE_SIZE, before or None)
        except BadFilter as problem:
            error = str(problem)
        kept = urlencode(given)
        values = {
            "calls": found.calls,
            "behind": found.behind,
            "fields": FIELDS,
            "outcomes": OUTCOMES,
            "given": given,
            "agents": sorted(agent.name for agent in await run_sync(self._services.agents.list)),
            "people": sorted(user.name for user in await run_sync(self._services.people.list)),
            "more": any(given.get(field.name) for field in FIELDS[3:]),
            "kept": kept,
            "older": "/history?" + urlencode({**given, "before": found.next})
            if found.next
            else None,
            "newest": f"/history?{kept}" if before else None,
            "error": error,
            "here": "history",
        }
        return await self._frame.page("history.html", visit.session, values, 400 if error else 200)

    async def download(self, form: str, request: Request, visit: Visit) -> Response:
        wanted = wanted_of(_given(request.query_params))
        return await self._history.download(form, wanted, MOST_ROWS)

    async def call(self, request: Request, visit: Visit) -> Response:
        records = await run_sync(self._ledger.show, request.path_params["id"])
        if not records:
            raise NotFound("There is no such call.")
        first = next((record for record in records if record.data.get("what")), records[0])
        approval = next(
            (a for record in records if isinstance(a := record.data.get("approval"), str)), None
        )
        values = {"records": records, "first": first, "approval": approval, "here": "history"}
        return await self._frame.page("call.html", visit.session, values)


def _given(query: QueryParams) -> dict[str, str]:
    """What a form filled in: its empty fields are not given, and blanks around are not meant."""
    return {field.name: value for field in FIELDS if (value := query.get(field.name, "").strip())}
