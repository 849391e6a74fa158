"""The pages without a browser: the card's order, votes, history, inertness."""

import re
from collections.abc import AsyncIterator

import pytest

from tests.broker.admin.browser import Browser, browser
from tests.broker.admin.fakes import (
    HOSTILE,
    FakeServices,
    contact,
    hostile,
    now,
    refund,
    services,
)


@pytest.fixture
def office() -> FakeServices:
    made = services()
    for name in ("dave", "erin"):
        made.people.put(name)
    made.people.put("vera", "viewer")
    made.desk.put(refund())
    return made


@pytest.fixture
async def client(office: FakeServices) -> AsyncIterator[Browser]:
    async with browser(office) as opened:
        yield opened


def text_of(page: str) -> str:
    """The text of a page; inline elements do not part words."""
    inline = re.sub(r"</?(b|span|i)\b[^>]*>", "", page)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", inline))


async def test_the_list_shows_what_waits(client: Browser, office: FakeServices) -> None:
    office.desk.put(contact(seconds=60))
    await client.sign_in("dave")
    page = (await client.get("/")).text
    assert "<title>(2) Held calls" in page
    assert page.index("ap_02") < page.index("ap_01"), "what ends first comes first"


async def test_nothing_held(client: Browser, office: FakeServices) -> None:
    office.desk.cards.clear()
    await client.sign_in("dave")
    page = (await client.get("/")).text
    assert "Nothing waits for you" in page
    assert "<title>Held calls" in page


async def test_the_order_of_the_card_is_law(client: Browser) -> None:
    await client.sign_in("dave")
    text = text_of((await client.get("/approvals/ap_01")).text)
    order = [
        "What leaves",
        "Refund 249900 on charge ch_3QK2mT",
        "POST",
        "https://api.stripe.com/v1/refunds?expand=charge",
        "Where to",
        "port 443",
        "Consequence",
        "Money leaves the account",
        "Who and why",
        "billing-bot",
        "owned by alice",
        "In the run t-01kjpy53vjx8q2m4z7d9r0n6ce",
        "unverified",
        "The customer wrote twice",
        "Which rule",
        "stripe-refund",
        "Policy version 7",
        "Credential",
        "Bearer {stripe}",
        "Body",
        "requested_by_customer",
        "Headers",
        "idempotency-key",
    ]
    text = text.partition("Sign out")[2]  # from the frame on
    places = [text.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)


async def test_enter_decides_nothing_and_nothing_is_focused(client: Browser) -> None:
    """Implicit submission presses the first submit button of a form: here a disabled one."""
    await client.sign_in("dave")
    page = (await client.get("/approvals/ap_01")).text
    form = page[page.index('action="/approvals/ap_01/vote"') :]
    assert re.findall(r"<button[^>]*>", form)[0] == '<button type="submit" disabled hidden>'
    assert "autofocus" not in page


async def test_tiers_differ_in_more_than_colour(client: Browser, office: FakeServices) -> None:
    office.desk.put(contact())
    await client.sign_in("dave")
    high = (await client.get("/approvals/ap_01")).text
    medium = (await client.get("/approvals/ap_02")).text
    assert "Approve high risk" in high
    assert 'name="confirm"' in high
    assert "Approve high risk" not in medium
    assert 'name="confirm"' not in medium


async def test_a_vote_on_the_page(client: Browser, office: FakeServices) -> None:
    await client.sign_in("dave")
    response = await client.submit(
        "/approvals/ap_01/vote", decision="approve", confirm="249900", reason=" checked "
    )
    assert response.status_code == 303
    assert office.desk.seen == [("ap_01", "dave", "approve", "checked", "249900", "page")]
    page = text_of((await client.get("/approvals/ap_01")).text)
    assert "1 of 2 approvals" in page
    assert "You have voted on this call." in page


async def test_a_wrong_retype_is_told_and_the_reason_kept(
    client: Browser, office: FakeServices
) -> None:
    await client.sign_in("dave")
    response = await client.submit(
        "/approvals/ap_01/vote", decision="approve", confirm="2499", reason="I read it"
    )
    assert response.status_code == 422
    assert "Retype the amount" in response.text
    assert ">I read it</textarea>" in response.text
    assert office.desk.seen == []


async def test_a_vote_that_comes_too_late(client: Browser, office: FakeServices) -> None:
    await client.sign_in("dave")
    office.desk.cards["ap_01"]["state"] = "expired"
    response = await client.submit("/approvals/ap_01/vote", decision="deny")
    assert response.status_code == 409
    assert 'role="alert"' in response.text


async def test_a_viewer_sees_and_does_not_vote(client: Browser, office: FakeServices) -> None:
    await client.sign_in("vera")
    page = (await client.get("/approvals/ap_01")).text
    assert 'value="approve"' not in page
    assert "A viewer can look, but not vote." in page
    response = await client.submit("/approvals/ap_01/vote", decision="deny")
    assert response.status_code == 403
    assert office.desk.seen == []


@pytest.mark.parametrize("decision", ["", "maybe", "APPROVE"])
async def test_a_vote_is_one_of_two(decision: str, client: Browser, office: FakeServices) -> None:
    await client.sign_in("dave")
    assert (await client.submit("/approvals/ap_01/vote", decision=decision)).status_code == 400
    long = await client.submit("/approvals/ap_01/vote", decision="deny", reason="x" * 2001)
    assert long.status_code == 400
    assert office.desk.seen == []


async def test_an_ended_approval(client: Browser, office: FakeServices) -> None:
    office.desk.cards["ap_01"] |= {
        "state": "denied",
        "request": None,
        "needs": "",
        "resolution": {"state": "denied", "by": ["erin"], "reason": "wrong charge", "at": now()},
    }
    await client.sign_in("dave")
    text = text_of((await client.get("/approvals/ap_01")).text)
    assert "Denied by erin" in text
    assert "wrong charge" in text
    assert "The stored request was deleted" in text
    assert (await client.get("/approvals/ap_01/body")).status_code == 404


async def test_a_used_approval_names_its_voter_as_such(
    client: Browser, office: FakeServices
) -> None:
    vote = {"user": "erin", "decision": "approve", "reason": "ticket 17", "at": now()}
    office.desk.put(contact())
    office.desk.cards["ap_02"] |= {
        "state": "used",
        "request": None,
        "needs": "",
        "votes": [vote],
        "resolution": {"state": "used", "by": ["erin"], "reason": "ticket 17", "at": now()},
    }
    await client.sign_in("dave")
    text = text_of((await client.get("/approvals/ap_02")).text)
    assert "Used by erin" not in text
    assert "erin approved" in text
    assert text.count("ticket 17") == 1
    assert "https://eu.crm.example:8443/v2/contacts/9917" in text, "the port stays in sight"


async def test_the_exact_bytes_come_as_a_file_only(client: Browser) -> None:
    await client.sign_in("dave")
    response = await client.get("/approvals/ap_01/body")
    assert response.content == b"charge=ch_3QK2mT&amount=249900&reason=requested_by_customer"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in response.headers["content-security-policy"]


async def test_what_an_agent_wrote_is_inert(client: Browser, office: FakeServices) -> None:
    office.desk.put(hostile())
    await client.sign_in("dave")
    for path in ("/", "/approvals/ap_bad"):
        response = await client.get(path)
        assert response.status_code == 200
        page = response.text
        assert set(re.findall(r"<script[^>]*>", page)) == {'<script src="/static/app.js" defer>'}
        assert "<img" not in page
        assert "<svg" not in page
        assert "{{7*7}}" in page
        assert 'href="https://evil' not in page
        for char in "\u202e\u200b\u2066\x00\x1b\u3164":
            assert char not in page
        assert "U+202E" in page
        assert " onerror=" in page, "shown as text"
        assert HOSTILE not in page
        assert len(page) < 400_000


async def test_no_inline_script_or_style_anywhere(client: Browser, office: FakeServices) -> None:
    """The policy would stop them in the browser; here is where they would be written."""
    office.desk.put(contact())
    await client.sign_in("dave")
    for path in ("/", "/approvals/ap_01", "/history", "/history/c_058", "/account", "/nope"):
        page = (await client.get(path)).text
        assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", page), path
        assert "<style" not in page
        assert "javascript:" not in page


# History


async def test_history_filters_and_pages(client: Browser) -> None:
    await client.sign_in("dave")
    page = (await client.get("/history")).text
    assert page.count('<td class="time">') == 50
    older = re.search(r'href="(/history\?[^"]*)" rel="next"', page)
    assert older is not None
    rest = (await client.get(older[1].replace("&amp;", "&"))).text
    assert rest.count('<td class="time">') == 10
    assert 'rel="next"' not in rest
    denied = (await client.get("/history?outcome=denied&agent=crm-sync")).text
    assert "is-completed" not in denied
    assert "No calls match" in (await client.get("/history?host=nowhere.example")).text
    assert (await client.get("/history?before=x")).status_code == 400


async def test_a_calls_records(client: Browser) -> None:
    await client.sign_in("dave")
    text = text_of((await client.get("/history/c_058")).text)
    assert text.index("approval.opened") < text.index("call.sent") < text.index("call.completed")
    assert "kv/stripe#api_key" in text.replace("&#34;", '"')
    assert "by the gateway in the run t-01kjpy53vjx8q2m4z7d9r0n6ce" in text
    assert (await client.get("/history/c_nope")).status_code == 404


async def test_errors_are_pages(client: Browser) -> None:
    await client.sign_in("dave")
    for path, status in (("/nope", 404), ("/approvals/nope", 404), ("/static/nope", 404)):
        response = await client.get(path)
        assert response.status_code == status
        assert "<h1>Not found</h1>" in response.text
    assert (await client.post("/history")).status_code == 405
