"""The REST API, as scripts and the command line use it."""

import json

import httpx
import pytest

from audit.errors import Unreadable
from broker.errors import StoreUnavailable
from tests.broker.admin.browser import browser
from tests.broker.admin.fakes import (
    FakeLedger,
    FakeMonitor,
    FakeServices,
    contact,
    hostile,
    refund,
    services,
)


@pytest.fixture
def office() -> FakeServices:
    made = services()
    for name in ("dave", "erin"):
        made.people.put(name)
    made.people.put("vera", "viewer")
    made.tokens.open = {"t-dave": "dave", "t-erin": "erin", "t-vera": "vera"}
    made.desk.put(refund())
    made.desk.put(contact())
    return made


def by(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer t-{name}"}


def check_problem(response: httpx.Response, status: int) -> str:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    return str(problem["detail"])


async def test_held_calls_are_listed(office: FakeServices) -> None:
    async with browser(office) as client:
        response = await client.get("/api/v1/approvals?state=pending", headers=by("vera"))
    assert [card["id"] for card in response.json()["approvals"]] == ["ap_01", "ap_02"]


async def test_a_card_is_shown_whole(office: FakeServices) -> None:
    async with browser(office) as client:
        card = (await client.get("/api/v1/approvals/ap_01", headers=by("dave"))).json()
    assert card["request"]["url"] == "https://api.stripe.com/v1/refunds?expand=charge"
    assert card["credentials"][0]["preview"] == "Bearer {stripe}"
    assert card["you"]["may_vote"] is True


async def test_two_people_approve(office: FakeServices) -> None:
    vote = {"decision": "approve", "confirm": "249900", "reason": "checked"}
    async with browser(office) as client:
        path = "/api/v1/approvals/ap_01/votes"
        first = await client.post(path, json=vote, headers=by("dave"))
        second = await client.post(path, json=vote, headers=by("erin"))
    assert (first.status_code, first.json()["state"]) == (200, "pending")
    assert (second.status_code, second.json()["state"]) == (200, "approved")
    assert office.desk.seen[0] == ("ap_01", "dave", "approve", "checked", "249900", "api")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"", 400),
        (b"[]", 400),
        (b"[" * 5000, 400),
        (b'{"decision": "deny", "decision": "approve"}', 400),
        (b"{}", 422),
        (b'{"decision": "maybe"}', 422),
        (b'{"decision": "deny", "reason": 7}', 422),
        (b'{"decision": "deny", "reason": "\\ud800"}', 422),
        (b'{"decision": "deny", "until": "later"}', 422),
        (b'{"decision": "approve"}', 422),
        (b'{"decision": "approve", "confirm": "1"}', 422),
        (json.dumps({"decision": "deny", "reason": "x" * 2001}).encode(), 422),
        (b" " * 70_000, 413),
    ],
)
async def test_bad_votes_change_nothing(content: bytes, status: int, office: FakeServices) -> None:
    async with browser(office) as client:
        response = await client.post(
            "/api/v1/approvals/ap_01/votes", content=content, headers=by("dave")
        )
    check_problem(response, status)
    assert office.desk.seen == []


async def test_the_errors_of_a_vote(office: FakeServices) -> None:
    deny = {"decision": "deny"}
    async with browser(office) as client:

        async def cast(approval: str, who: str) -> httpx.Response:
            path = f"/api/v1/approvals/{approval}/votes"
            return await client.post(path, json=deny, headers=by(who))

        assert "viewer" in check_problem(await cast("ap_01", "vera"), 403)
        check_problem(await cast("nope", "dave"), 404)
        assert (await cast("ap_01", "dave")).status_code == 200
        check_problem(await cast("ap_01", "erin"), 409)
        check_problem(await cast("ap_01", "nobody"), 401)


@pytest.mark.parametrize(
    "path",
    ["/api/v1/approvals", "/api/v1/approvals/ap_01", "/api/v1/calls", "/api/v1/calls/c_058"],
)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic dC1kYXZlOg==", "t-dave"])
async def test_no_token_no_answer(path: str, header: str | None, office: FakeServices) -> None:
    async with browser(office) as client:
        response = await client.get(path, headers={"authorization": header} if header else {})
    check_problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_page_session_is_no_token(office: FakeServices) -> None:
    """The API needs no CSRF token because it never looks at a cookie."""
    async with browser(office) as client:
        await client.sign_in("dave")
        check_problem(await client.get("/api/v1/approvals"), 401)
        response = await client.submit("/api/v1/approvals/ap_01/votes", decision="deny")
        check_problem(response, 401)


async def test_calls_are_filtered_and_paged(office: FakeServices) -> None:
    async with browser(office) as client:

        async def calls(query: str) -> list[dict[str, object]]:
            return list(
                (await client.get(f"/api/v1/calls{query}", headers=by("vera"))).json()["calls"]
            )

        first = await calls("?limit=10")
        second = await calls(f"?limit=10&before={first[-1]['seq']}")
        assert second[0]["call"] == "c_049"
        assert {call["agent"] for call in await calls("?agent=crm-sync")} == {"crm-sync"}
        assert {call["outcome"] for call in await calls("?outcome=denied")} == {"denied"}
        assert {call["host"] for call in await calls("?host=api.stripe.com")} == {"api.stripe.com"}


@pytest.mark.parametrize(
    "query",
    [
        "approvals?state=maybe",
        "calls?limit=0",
        "calls?limit=201",
        "calls?before=-1",
        "calls?limit=\u0663",
    ],
)
async def test_bad_queries_are_said_to_be_bad(query: str, office: FakeServices) -> None:
    async with browser(office) as client:
        check_problem(await client.get(f"/api/v1/{query}", headers=by("dave")), 400)


async def test_a_call_shows_its_records(office: FakeServices) -> None:
    async with browser(office) as client:
        records = (await client.get("/api/v1/calls/c_058", headers=by("vera"))).json()["records"]
        check_problem(await client.get("/api/v1/calls/c_nope", headers=by("vera")), 404)
    assert [record["type"] for record in records] == [
        "approval.opened",
        "approval.voted",
        "call.sent",
        "call.completed",
    ]


async def test_hostile_text_travels_as_escaped_json(office: FakeServices) -> None:
    office.desk.put(hostile())
    async with browser(office) as client:
        response = await client.get("/api/v1/approvals/ap_bad", headers=by("dave"))
    assert response.status_code == 200
    assert response.content.isascii()
    assert response.json()["request"]["fields"][2] == ["lone", "\ud800"]


async def test_unknown_paths_and_methods_are_problems(office: FakeServices) -> None:
    async with browser(office) as client:
        check_problem(await client.get("/api/v1/nothing", headers=by("dave")), 404)
        check_problem(await client.delete("/api/v1/approvals/ap_01", headers=by("dave")), 405)


async def test_metrics_are_open_unless_the_settings_say_otherwise(office: FakeServices) -> None:
    async with browser(office) as client:
        response = await client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "keybroker_policy_version 3\n" in response.text
    async with browser(office, monitor=FakeMonitor(guarded=True)) as client:
        check_problem(await client.get("/metrics"), 401)
        check_problem(await client.get("/metrics", headers=by("nobody")), 401)
        assert (await client.get("/metrics", headers=by("vera"))).status_code == 200


async def test_health_is_asked_of_nobody(office: FakeServices) -> None:
    class Closed(type(office.people)):  # type: ignore[misc]
        def any(self) -> bool:
            raise StoreUnavailable("the store is locked")

    office.people.__class__ = Closed
    async with browser(office) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_readiness_tells_strangers_names_only(office: FakeServices) -> None:
    monitor = FakeMonitor(found={"store": None, "vault": "Vault at https://10.2.3.4 is sealed."})
    async with browser(office, monitor=monitor) as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["checks"] == {"store": "ok", "vault": "fail"}
        assert check_problem(response, 503) == "Calls cannot go through: vault."
        assert "10.2.3.4" not in response.text
        assert (await client.get("/readyz", headers=by("nobody"))).json() == response.json()
        told = (await client.get("/readyz", headers=by("vera"))).json()
        assert told["faults"] == {"vault": "Vault at https://10.2.3.4 is sealed."}
        monitor.found = {"store": None, "vault": None}
        response = await client.get("/readyz")
        assert response.json() == {"status": "ok", "checks": {"store": "ok", "vault": "ok"}}


async def test_readiness_is_told_while_the_store_is_down(office: FakeServices) -> None:
    class Closed(type(office.tokens)):  # type: ignore[misc]
        def user(self, token: str) -> None:
            raise StoreUnavailable("the store is locked")

    office.tokens.__class__ = Closed
    async with browser(office, monitor=FakeMonitor(found={"store": "locked"})) as client:
        response = await client.get("/readyz", headers=by("vera"))
    assert (response.status_code, response.json()["checks"]) == (503, {"store": "fail"})
    assert "faults" not in response.json()


async def test_an_unreadable_ledger_is_said_without_its_path(office: FakeServices) -> None:
    class Broken(FakeLedger):
        def show(self, call: str) -> list[object]:  # type: ignore[override]
            raise Unreadable("/var/lib/keybroker/state.db cannot be read")

    async with browser(office, ledger=Broken()) as client:
        detail = check_problem(await client.get("/api/v1/calls/c", headers=by("dave")), 503)
    assert "/var" not in detail


async def test_an_unforeseen_error_tells_nothing(office: FakeServices) -> None:
    class Torn(FakeLedger):
        def show(self, call: str) -> list[object]:  # type: ignore[override]
            raise RuntimeError("sk_live_canary")

    async with browser(office, ledger=Torn()) as client:
        response = await client.get("/api/v1/calls/c", headers=by("dave"))
    check_problem(response, 500)
    assert "canary" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
