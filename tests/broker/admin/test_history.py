"""Searching the history on the page and in the API; what is downloaded computes nothing."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from audit.filters import FIELDS, Filter
from audit.history import Found
from broker.admin.history import QUEUE, HistoryOf, cell
from broker.admin.security import Refused
from tests.broker.admin.browser import Browser, browser
from tests.broker.admin.fakes import HOSTILE, FakeLedger, FakeServices, history, services

BY_DAVE = {"authorization": "Bearer t-dave"}


@pytest.fixture
def office() -> FakeServices:
    made = services()
    made.people.put("dave", "viewer")
    made.tokens.open["t-dave"] = "dave"
    return made


@pytest.fixture
def ledger() -> FakeLedger:
    return history()


@pytest.fixture
async def client(office: FakeServices, ledger: FakeLedger) -> AsyncIterator[Browser]:
    async with browser(office, ledger=ledger) as opened:
        await opened.sign_in("dave")
        yield opened


EXAMPLES = {
    "agent": "billing-bot",
    "outcome": "completed",
    "host": "api.stripe.com:443",
    "method": "post",
    "path": "/v1",
    "rule": "stripe-refund",
    "code": "policy_denied",
    "approval": "ap_01",
    "reviewer": "alice",
    "secret": "kv/stripe#api_key",
    "shadow": "no-refunds",
    "since": "2026-11-22T09:00:00Z",
    "until": "2026-11-23",
    "text": "Refund",
}


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
async def test_page_and_api_ask_the_same(name: str, client: Browser, ledger: FakeLedger) -> None:
    query = urlencode({name: EXAMPLES[name]})
    page = await client.get(f"/history?{query}")
    assert page.status_code == 200
    assert (await client.get(f"/api/v1/calls?{query}", headers=BY_DAVE)).status_code == 200
    on_page, by_api = ledger.asked
    assert on_page == by_api != Filter()
    shown = re.search(rf'name="{name}"[^>]*value="([^"]*)"|<option selected>([^<]*)', page.text)
    assert shown is not None, "the form keeps what was asked"
    if FIELDS[[f.name for f in FIELDS].index(name)].kind == "text" and shown[1]:
        assert shown[1] == EXAMPLES[name]


async def test_the_form_is_kept_in_the_address(client: Browser) -> None:
    page = (await client.get("/history?agent=billing-bot&outcome=&host=+")).text
    assert 'href="/history.csv?agent=billing-bot"' in page
    wide = (await client.get("/history?host=&agent=")).text
    older = re.search(r'href="(/history\?[^"]*)" rel="next"', wide)
    assert older is not None
    assert older[1] == "/history?before=31"


@pytest.mark.parametrize("query", ["host=a%20b", "outcome=done", "since=soon", "method=G%20T"])
async def test_what_is_odd_is_said_in_the_form(query: str, client: Browser) -> None:
    page = await client.get(f"/history?{query}")
    assert page.status_code == 400
    assert " must be " in page.text
    assert "No calls" not in page.text


async def test_an_empty_page_says_what_to_do(client: Browser, ledger: FakeLedger) -> None:
    assert "Show all of them" in (await client.get("/history?host=nowhere.example")).text
    ledger.made.clear()
    assert "Every call that an agent makes" in (await client.get("/history")).text
    ledger.behind = 5000
    assert "5,000 newer records" in (await client.get("/history")).text


async def test_hosts_show_ports_that_are_not_the_usual(client: Browser) -> None:
    page = (await client.get("/history")).text
    assert "eu.crm.example:8443" in page
    assert "api.stripe.com:443" not in page


async def test_hostile_values_stay_text(client: Browser, ledger: FakeLedger) -> None:
    ledger.made[:] = [
        replace(ledger.made[0], agent=HOSTILE, method=HOSTILE, host=HOSTILE, path=HOSTILE,
                outcome="failed", code=HOSTILE, call=HOSTILE)
    ]  # fmt: skip
    for field in FIELDS:
        page = (await client.get("/history?" + urlencode({field.name: HOSTILE}))).text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "<svg" not in page
        assert 'onerror=alert(2)>"' not in page


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=201", "limit=x", "limit=", "limit=1&limit=2", "before=0", "before=-1",
        "before=1e3", "before=99999999999999999999", "before=%00", "cursor=1", "agent=",
        "agent=a&agent=b", "outcome=Denied", "host=%0a", "since=2026", "text=" + "x" * 401,
    ],
)  # fmt: skip
async def test_the_api_refuses_what_is_odd(query: str, client: Browser) -> None:
    response = await client.get(f"/api/v1/calls?{query}", headers=BY_DAVE)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"


async def test_pages_of_the_api_follow_each_other(client: Browser) -> None:
    seen: list[int] = []
    query = "limit=25"
    while query:
        page = (await client.get(f"/api/v1/calls?{query}", headers=BY_DAVE)).json()
        seen += [call["seq"] for call in page["calls"]]
        query = f"limit=25&before={page['next']}" if page["next"] else ""
    assert seen == [n * 3 + 1 for n in range(59, -1, -1)]


@pytest.mark.parametrize("path", ["/history.csv", "/api/v1/calls.csv"])
async def test_a_table_of_it(path: str, client: Browser, ledger: FakeLedger) -> None:
    ledger.made[0] = replace(
        ledger.made[0], path='=HYPERLINK("https://evil.example")', agent="@SUM(1)", host="-1+1"
    )
    ledger.made[1] = replace(ledger.made[1], path='/a,"b"\r\nc', agent="\t=1", rules=("+a", "b"))
    response = await client.get(f"{path}?", headers=BY_DAVE)
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"].startswith("attachment;")
    rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert len(rows) == 60
    assert (rows[-1]["path"], rows[-1]["agent"], rows[-1]["host"]) == (
        '\'=HYPERLINK("https://evil.example")',
        "'@SUM(1)",
        "'-1+1",
    )
    assert (rows[-2]["path"], rows[-2]["agent"], rows[-2]["rules"]) == (
        '/a,"b"\r\nc',
        "'\t=1",
        "'+a b",
    )
    assert all(not value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values())


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (7, "7"), (("a", "b"), "a b"), ("\r", "'\r")]
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


async def test_lines_of_json(client: Browser) -> None:
    response = await client.get("/api/v1/calls.jsonl?outcome=denied&limit=3", headers=BY_DAVE)
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["outcome"] for line in lines] == ["denied"] * 3
    empty = await client.get("/api/v1/calls.jsonl?host=nowhere.example", headers=BY_DAVE)
    assert (empty.status_code, empty.text) == (200, "")
    odd = await client.get("/api/v1/calls.csv?host=a%20b", headers=BY_DAVE)
    assert odd.status_code == 400


async def test_a_flood_of_searches_is_turned_away() -> None:
    """Waiting searches hold a place each; beyond some the answer comes at once."""
    gate, entered = asyncio.Event(), 0
    loop = asyncio.get_running_loop()

    class Slow(FakeLedger):
        def calls(self, wanted: Filter, *, limit: int, before: int | None) -> Found:
            nonlocal entered
            entered += 1
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
            return Found((), None, 0)

    searches = HistoryOf(Slow())
    running = [asyncio.create_task(searches.search(Filter(), 1, None)) for _ in range(QUEUE + 2)]
    while entered < 2:
        await asyncio.sleep(0.01)
    with pytest.raises(Refused) as refused:
        await searches.search(Filter(), 1, None)
    assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
    gate.set()
    assert [found.calls for found in await asyncio.gather(*running)] == [()] * (QUEUE + 2)


async def test_a_call_leads_to_its_approval(client: Browser) -> None:
    page = (await client.get("/history/c_058")).text
    assert 'href="/approvals/ap_01"' in page
