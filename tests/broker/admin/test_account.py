"""The account page and the page of people: what outlives a session asks for the password again."""

import re
from collections.abc import AsyncIterator

import pytest

from tests.broker.admin.browser import Browser, browser
from tests.broker.admin.fakes import PASSWORD, FakeServices, services

NEW = "a new long password"


@pytest.fixture
def office() -> FakeServices:
    made = services()
    made.people.put("dave")
    made.people.put("erin", "admin")
    return made


@pytest.fixture
async def client(office: FakeServices) -> AsyncIterator[Browser]:
    async with browser(office) as opened:
        yield opened


async def test_an_api_token_is_shown_once_and_asks_for_the_password(
    client: Browser, office: FakeServices
) -> None:
    await client.sign_in("dave")
    wrong = await client.submit("/account/tokens", lasts="90", label="mine", current="wrong")
    assert wrong.status_code == 403
    assert 'value="mine"' in wrong.text, "what was typed is still there"
    odd = await client.submit("/account/tokens", lasts="7", current=PASSWORD)
    assert odd.status_code == 400
    assert office.tokens.open == {}
    made = await client.submit("/account/tokens", lasts="90", current=PASSWORD)
    (token,) = office.tokens.open
    assert token in made.text
    assert made.headers["cache-control"] == "no-store"
    page = (await client.get("/account")).text
    assert token not in page
    assert "/account/tokens/t-0/revoke" in page
    assert (await client.submit("/account/tokens/t-0/revoke")).status_code == 303
    assert office.tokens.open == {}


async def test_the_others_token_and_session_are_out_of_reach(
    client: Browser, office: FakeServices
) -> None:
    office.tokens.new("erin", "erin")
    theirs = office.sessions.start(office.people.users["erin"])
    await client.sign_in("dave")
    assert (await client.submit("/account/tokens/t-0/revoke")).status_code == 404
    assert (await client.submit(f"/account/sessions/{theirs.id}/end")).status_code == 404
    assert len(office.tokens.open) == 1
    assert office.sessions.get(theirs.token) is not None
    assert theirs.id not in (await client.get("/account")).text


async def test_other_sessions_are_ended_one_by_one_or_together(
    client: Browser, office: FakeServices
) -> None:
    dave = office.people.users["dave"]
    first, second, third = (office.sessions.start(dave) for _ in range(3))
    await client.sign_in("dave")
    mine = client.cookies["keybroker_8081"]
    page = (await client.get("/account")).text
    ids = set(re.findall(r"/account/sessions/(s-[0-9a-f]+)/end", page))
    assert ids == {first.id, second.id, third.id}, "this one is ended by signing out"
    assert (await client.submit(f"/account/sessions/{first.id}/end")).status_code == 303
    assert first.token not in office.sessions.open
    assert (await client.submit("/account/sessions/end")).status_code == 303
    assert list(office.sessions.open) == [mine]


async def test_a_new_password_asks_for_the_old_one_and_begins_a_new_session(
    client: Browser, office: FakeServices
) -> None:
    await client.sign_in("dave")
    before = client.cookies["keybroker_8081"]
    for fields, status in (
        ({"current": "wrong", "password": NEW, "again": NEW}, 403),
        ({"current": PASSWORD, "password": NEW, "again": NEW + "!"}, 422),
        ({"password": NEW, "again": NEW}, 403),
    ):
        assert (await client.submit("/account/password", **fields)).status_code == status
        assert office.people.passwords["dave"] == PASSWORD
    done = await client.submit("/account/password", current=PASSWORD, password=NEW, again=NEW)
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    assert office.people.passwords["dave"] == NEW
    assert client.cookies["keybroker_8081"] != before
    assert office.sessions.get(before) is None


async def test_who_holds_a_session_does_not_guess_the_password_for_free(
    client: Browser, office: FakeServices
) -> None:
    await client.sign_in("dave")
    answers = [
        await client.submit("/account/password", current=f"g{n}", password=NEW, again=NEW)
        for n in range(7)
    ]
    assert answers[-1].status_code == 429
    assert int(re.findall(r"Try again in (\d+) seconds", answers[-1].text)[0]) >= 1


async def test_the_script_that_refreshes_is_no_person(
    client: Browser, office: FakeServices
) -> None:
    await client.sign_in("dave")
    seen = len(office.sessions.saw)
    await client.get("/", headers={"Keybroker-Refresh": "1"})
    assert len(office.sessions.saw) == seen
    await client.get("/")
    assert len(office.sessions.saw) == seen + 1


async def test_an_admin_looks_after_people(client: Browser, office: FakeServices) -> None:
    theirs = office.sessions.start(office.people.users["dave"])
    await client.sign_in("erin")
    page = (await client.get("/people")).text
    assert "Role of dave" in page
    assert (await client.submit("/people/dave/role", role="viewer")).status_code == 303
    assert office.people.users["dave"].role == "viewer"
    assert (await client.submit("/people/dave/sessions/end")).status_code == 303
    assert office.sessions.get(theirs.token) is None
    assert (await client.submit("/people/dave/disable")).status_code == 303
    assert office.people.users["dave"].disabled_at is not None
    assert (await client.submit("/people/dave/enable")).status_code == 303
    assert office.people.users["dave"].disabled_at is None
    assert (await client.submit("/people/nobody/disable")).status_code == 404
