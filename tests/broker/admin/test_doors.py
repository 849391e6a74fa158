"""Ways in and out: sign-in, its limits, the one-time link, sign-out, the account page."""

from collections.abc import AsyncIterator

import pytest

from tests.broker.admin.browser import Browser, browser
from tests.broker.admin.fakes import PASSWORD, FakeServices, refund, services


@pytest.fixture
def office() -> FakeServices:
    made = services()
    made.people.put("dave")
    made.desk.put(refund())
    return made


@pytest.fixture
async def client(office: FakeServices) -> AsyncIterator[Browser]:
    async with browser(office) as opened:
        yield opened


async def test_a_visitor_is_sent_to_sign_in_and_back(client: Browser) -> None:
    response = await client.get("/approvals/ap_01?x=1")
    assert response.status_code == 303
    assert response.headers["location"] == "/login?next=%2Fapprovals%2Fap_01%3Fx%3D1"
    page = await client.visit(response.headers["location"])
    assert 'value="/approvals/ap_01?x=1"' in page.text
    response = await client.submit(
        "/login", name="dave", password=PASSWORD, next="/approvals/ap_01?x=1"
    )
    assert (response.status_code, response.headers["location"]) == (303, "/approvals/ap_01?x=1")
    assert (await client.get("/approvals/ap_01")).status_code == 200


async def test_signing_in_leads_nowhere_else(client: Browser) -> None:
    page = await client.visit("/login?next=//evil.example")
    assert "evil" not in page.text
    response = await client.submit(
        "/login", name="dave", password=PASSWORD, next="https://evil.example"
    )
    assert response.headers["location"] == "/"


async def test_a_wrong_password_does_not_say_which_part_is_wrong(client: Browser) -> None:
    await client.visit("/login")
    known = await client.submit("/login", name="dave", password="wrong")
    unknown = await client.submit("/login", name="mallory", password="wrong")
    assert known.status_code == unknown.status_code == 401
    assert known.text.replace("dave", "") == unknown.text.replace("mallory", "")


async def test_guessing_is_slowed_down(client: Browser, office: FakeServices) -> None:
    await client.visit("/login")
    answers = [await client.submit("/login", name="Dave", password=f"g{n}") for n in range(8)]
    assert [answer.status_code for answer in answers[:4]] == [401] * 4
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert "Too many wrong passwords" in answers[-1].text
    assert office.people.checks < 8, "a refused guess is not even tried"
    right = await client.submit("/login", name="dave", password=PASSWORD)
    assert right.status_code == 429, "also the right one waits, or waiting would tell"


async def test_the_session_is_new_at_each_sign_in(client: Browser, office: FakeServices) -> None:
    await client.sign_in("dave")
    first = client.cookies["keybroker_8081"]
    await client.sign_in("dave")
    second = client.cookies["keybroker_8081"]
    assert first != second
    assert office.sessions.get(first) is None, "the earlier one has ended"


async def test_a_planted_session_id_is_not_taken_over(
    client: Browser, office: FakeServices
) -> None:
    client.cookies.set("keybroker_8081", "planted")
    await client.visit("/login")
    await client.submit("/login", name="dave", password=PASSWORD)
    assert list(office.sessions.open) != ["planted"]


async def test_signing_out_ends_the_session(client: Browser, office: FakeServices) -> None:
    await client.sign_in("dave")
    response = await client.submit("/logout")
    assert response.headers["location"] == "/login"
    assert office.sessions.open == {}
    assert (await client.get("/")).status_code == 303


async def test_the_first_account() -> None:
    office = services()
    office.people.link = "once"
    async with browser(office) as client:
        assert "keybroker up" in (await client.visit("/login")).text
        assert (await client.visit("/setup?token=guess")).status_code == 404
        for _ in range(2):
            page = await client.visit("/setup?token=once")
            assert page.status_code == 200, "opening the link does not use it up"
        differ = await client.submit(
            "/setup", token="once", name="alice", password="a long password", again="another"
        )
        assert (differ.status_code, office.people.link) == (422, "once")
        short = await client.submit(
            "/setup", token="once", name="alice", password="short", again="short"
        )
        assert "too short" in short.text
        made = await client.submit(
            "/setup",
            token="once",
            name="alice",
            password="a long password",
            again="a long password",
        )
        assert made.headers["location"] == "/"
        assert office.people.users["alice"].role == "admin"
        assert (await client.get("/")).status_code == 200
        again = await client.submit(
            "/setup", token="once", name="eve", password="a long password", again="a long password"
        )
        assert again.status_code in (403, 404)
        assert "eve" not in office.people.users


async def test_a_new_password_by_link(office: FakeServices) -> None:
    office.people.resets["once"] = "dave"
    async with browser(office) as client:
        for guess in ("", "guess", "ONCE"):
            assert (await client.visit(f"/reset?token={guess}")).status_code == 404
        for _ in range(2):
            page = await client.visit("/reset?token=once")
            assert page.status_code == 200, "opening the link does not use it up"
        assert "dave" in page.text
        new = "a new long password"
        differ = await client.submit("/reset", token="once", password=new, again=new + "!")
        assert differ.status_code == 422
        short = await client.submit("/reset", token="once", password="short", again="short")
        assert "too short" in short.text
        done = await client.submit("/reset", token="once", password=new, again=new)
        assert (done.status_code, done.headers["location"]) == (303, "/")
        assert office.people.passwords["dave"] == new
        assert (await client.get("/")).status_code == 200
        await client.visit("/login")
        again = await client.submit("/reset", token="once", password=new, again=new)
        assert again.status_code == 404


async def test_a_strangers_guesses_do_not_keep_a_known_browser_waiting(
    office: FakeServices,
) -> None:
    """The stranger shares the address, as everybody does behind a reverse proxy."""
    async with browser(office) as known, browser(office) as stranger:
        # One program, two browsers: the second speaks to the app of the first.
        stranger._transport = known._transport
        await known.sign_in("dave")
        await known.submit("/logout")
        await stranger.visit("/login")
        for n in range(8):
            refused = await stranger.submit("/login", name="dave", password=f"g{n}")
        assert refused.status_code == 429
        right = await stranger.submit("/login", name="dave", password=PASSWORD)
        assert right.status_code == 429
        await known.visit("/login")
        response = await known.submit("/login", name="dave", password=PASSWORD)
        assert response.status_code == 303
        await known.submit("/logout")
        stranger.cookies.set("keybroker_8081_device", "device-of-dave-forged")
        forged = await stranger.submit("/login", name="dave", password=PASSWORD)
        assert forged.status_code == 429


async def test_a_known_browser_does_not_guess_for_free(
    client: Browser, office: FakeServices
) -> None:
    await client.sign_in("dave")
    await client.submit("/logout")
    await client.visit("/login")
    answers = [await client.submit("/login", name="dave", password=f"g{n}") for n in range(7)]
    assert answers[-1].status_code == 429
