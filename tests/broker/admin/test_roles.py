"""Who may do what: each route with each role, taken from the tables that the program serves."""

from __future__ import annotations

from typing import get_args

import pytest
from starlette.routing import Mount, Route

from broker.admin.account import Account
from broker.admin.api import Api
from broker.admin.app import create_app
from broker.admin.doors import Doors
from broker.admin.frame import Frame
from broker.admin.guesses import Guesses
from broker.admin.history import HistoryOf, HistoryPages
from broker.admin.pages import Pages
from broker.admin.roles import Who, admit
from broker.admin.security import Site
from broker.errors import NotEntitled
from broker.model import User
from tests.broker.admin.browser import URL, browser
from tests.broker.admin.fakes import (
    EPOCH,
    FakeLedger,
    FakeMonitor,
    FakeServices,
    refund,
    services,
    user,
)

WHO: tuple[Who, ...] = get_args(Who.__value__)
ROLES = ("viewer", "approver", "admin")
MAY: dict[Who, set[str]] = {
    "anyone": {*ROLES},
    "person": {*ROLES},
    "voter": {"approver", "admin"},
    "self_or_admin": {"admin"},  # the paths below name somebody else
    "admin": {"admin"},
}


def office() -> FakeServices:
    made = services()
    for role in ROLES:
        made.people.put(role, role)  # type: ignore[arg-type]
        made.tokens.open[f"t-{role}"] = role
    made.people.put("somebody")
    made.desk.put(refund())
    return made


def tables() -> tuple[list[tuple[str, str, Who]], list[tuple[str, str, Who]]]:
    """(pages, API) as (method, path, who)."""
    made, site = office(), Site.from_url(URL)
    frame = Frame(made, site)
    guesses = Guesses(made, site)
    past = HistoryPages(made, FakeLedger(), HistoryOf(FakeLedger()), frame)
    doors = Doors(made, frame, site, guesses, longest=60, idle=60)
    pages = [
        *((e.method, e.path, e.who) for e in Pages(made, frame).table()),
        *((e.method, e.path, e.who) for e in past.table()),
        *((e.method, e.path, e.who) for e in Account(made, frame, doors, guesses).table()),
    ]
    return pages, [
        (e.method, e.path, e.who) for e in Api(made, FakeLedger(), FakeMonitor()).table()
    ]


PAGES, API = tables()


def filled(path: str) -> str:
    return path.replace("{name}", "somebody").replace("{id}", "ap_01")


def test_every_route_is_in_a_table() -> None:
    doors = {"/login", "/logout", "/setup", "/reset", "/events"}
    app = create_app(office(), url=URL, ledger=FakeLedger(), monitor=FakeMonitor())
    served = {route.path for route in app.routes if isinstance(route, Route)}
    assert served == {path for _, path, _ in (*PAGES, *API)} | doors
    assert [route.path for route in app.routes if isinstance(route, Mount)] == ["/static"]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("role", ROLES)
def test_the_table_of_roles(who: Who, role: str) -> None:
    person = user("mallory", role)  # type: ignore[arg-type]
    gone = User("mallory", "admin", True, EPOCH, EPOCH)
    if role in MAY[who]:
        admit(who, person, "somebody")
    else:
        with pytest.raises(NotEntitled):
            admit(who, person, "somebody")
    if who == "self_or_admin":
        admit(who, person, "mallory")
        for other in (None, "Mallory", "mallory ", ""):
            if role != "admin":
                with pytest.raises(NotEntitled):
                    admit(who, person, other)
    if who != "anyone":
        for nobody in (None, gone):
            with pytest.raises(NotEntitled):
                admit(who, nobody, "mallory")


@pytest.mark.parametrize(("method", "path", "who"), API)
async def test_the_api(method: str, path: str, who: Who) -> None:
    for role in (None, *ROLES):
        async with browser(office()) as client:
            headers = {"authorization": f"Bearer t-{role}"} if role else {}
            response = await client.request(method, filled(path), headers=headers)
            if role is None:
                assert (response.status_code == 401) == (who != "anyone")
            else:
                assert (response.status_code == 403) == (role not in MAY[who]), role
                assert response.status_code not in (401, 405, 500)


@pytest.mark.parametrize(("method", "path", "who"), PAGES)
async def test_the_pages(method: str, path: str, who: Who) -> None:
    for role in (None, *ROLES):
        made = office()
        async with browser(made) as client:
            if role:
                await client.sign_in(role)
            ask = client.submit if method == "POST" else client.get
            response = await ask(filled(path))
            location = response.headers.get("location", "")
            if role is None:
                assert response.status_code == 303
                assert location.startswith("/login")
            else:
                assert (response.status_code == 403) == (role not in MAY[who]) or (
                    # Their forms ask for the password, which was not given.
                    path in ("/account/tokens", "/account/password")
                )
                assert response.status_code not in (401, 405, 500)
                assert not location.startswith("/login")


@pytest.mark.parametrize("path", [path for method, path, _ in PAGES if method == "POST"])
async def test_every_form_has_an_origin_and_a_token(path: str) -> None:
    made = office()
    async with browser(made) as client:
        await client.sign_in("admin")
        before = str((made.people, made.sessions.open, made.tokens.open, made.desk.seen))
        origin = {"origin": "http://localhost:8081"}
        form = {"csrf": client.csrf}
        for headers, data in (
            ({}, form),
            ({"origin": "https://evil.example"}, form),
            ({"origin": "null"}, form),
            (origin, {"x": "1"}),
            (origin, {"csrf": "x" * 64}),
        ):
            response = await client.post(filled(path), data=data, headers=headers)
            assert response.status_code == 403, (headers, data)
        assert str((made.people, made.sessions.open, made.tokens.open, made.desk.seen)) == before


@pytest.mark.parametrize("path", sorted({path for _, path, _ in (*PAGES, *API)}))
async def test_other_methods_are_named(path: str) -> None:
    allowed = {method for method, known, _ in (*PAGES, *API) if known == path} | {"OPTIONS"}
    if "GET" in allowed:
        allowed.add("HEAD")
    headers = {"authorization": "Bearer t-admin"}
    async with browser(office()) as client:
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"} - allowed:
            response = await client.request(method, filled(path), headers=headers)
            assert response.status_code == 405, method
            assert set(response.headers["allow"].split(", ")) == allowed
        options = await client.request("OPTIONS", filled(path))
        assert options.status_code == 204
        assert set(options.headers["allow"].split(", ")) == allowed
