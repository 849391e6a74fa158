"""People: nobody becomes somebody else, or more than they are, by the page, the API or a link."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.attacks.stage import Stage

pytestmark = pytest.mark.e2e

PASSWORD = "correct horse battery"


@dataclass
class Visitor:
    """A browser of one's own: cookies, forms, no redirects followed."""

    stage: Stage
    cookies: dict[str, str] = field(default_factory=dict)
    csrf: str = ""
    wait: int = 0
    """Seconds that the last answer says to wait."""

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """(status, text, location)."""
        client = http.client.HTTPConnection("localhost", self.stage.kb.admin_port, timeout=20)
        sent = {"Cookie": "; ".join(f"{n}={v}" for n, v in self.cookies.items()), **(headers or {})}
        client.request(method, path, body, {n: v for n, v in sent.items() if v})
        response = client.getresponse()
        text = response.read().decode()
        for line in response.headers.get_all("set-cookie") or ():
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        client.close()
        self.wait = int(response.headers.get("retry-after", "0"))
        found = re.search(r'name="csrf" value="([^"]*)"', text)
        if found is not None:
            self.csrf = found[1]
        return response.status, text, response.headers.get("location", "")

    def get(self, path: str) -> tuple[int, str, str]:
        return self.ask("GET", path)

    def post(self, path: str, **fields: str) -> tuple[int, str, str]:
        headers = {
            "Origin": self.stage.kb.admin_url,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return self.ask("POST", path, urlencode({"csrf": self.csrf, **fields}), headers)

    def sign_in(self, name: str, password: str = PASSWORD) -> int:
        self.get("/login")
        status = self.post("/login", name=name, password=password, next="/")[0]
        if status == 303:
            self.get("/account")
        return status

    @property
    def session(self) -> str:
        return self.cookies[f"keybroker_{self.stage.kb.admin_port}"]


@dataclass(frozen=True)
class Town:
    """An admin, an approver and a viewer, with tokens."""

    stage: Stage
    tokens: Mapping[str, str]

    def api(self, who: str | None, method: str, path: str, document: object = None) -> Any:
        token = None if who is None else self.tokens.get(who, who)
        return self.stage.kb.api(token, path, document, method)


@pytest.fixture(scope="module")
def town(whole_stage: Stage) -> Town:
    kb = whole_stage.kb
    tokens = {
        "mayor": kb.user("mayor", "admin", PASSWORD),
        "clerk": kb.user("clerk", "approver", PASSWORD),
        "watcher": kb.user("watcher", "viewer", PASSWORD),
    }
    return Town(whole_stage, tokens)


# Becoming more than one is


@pytest.mark.parametrize("who", ["clerk", "watcher"])
@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        ("PATCH", "/api/v1/users/{who}", {"role": "admin"}),
        ("PATCH", "/api/v1/users/{who}", {"disabled": False}),
        ("PATCH", "/api/v1/users/mayor", {"disabled": True}),
        ("PATCH", "/api/v1/users/mayor", {"role": "viewer"}),
        ("GET", "/api/v1/users", None),
        ("GET", "/api/v1/users/mayor", None),
        ("GET", "/api/v1/users/mayor/sessions", None),
        ("GET", "/api/v1/users/mayor/tokens", None),
        ("DELETE", "/api/v1/users/mayor/sessions", None),
        ("DELETE", "/api/v1/users/mayor/sessions/s-1", None),
        ("DELETE", "/api/v1/users/mayor/tokens/t-1", None),
        ("GET", "/api/v1/users/{who}%2f..%2fmayor", None),
        ("GET", "/api/v1/users/{Who}", None),
        ("GET", "/api/v1/users/{who}%20", None),
        ("GET", "/api/v1/users/{who}%00", None),
    ],
)
def test_roles(town: Town, who: str, method: str, path: str, document: object) -> None:
    where = path.replace("{who}", who).replace("{Who}", who.upper())
    status, said = town.api(who, method, where, document)
    assert status in (403, 404), said
    assert "mayor" not in json.dumps(said)
    assert town.api("mayor", "GET", f"/api/v1/users/{who}")[1]["role"] != "admin"
    assert town.api("mayor", "GET", "/api/v1/me")[1]["disabled_at"] is None


def test_nobody_learns_who_exists(town: Town) -> None:
    """The same refusal for a person who is there and for one who is not."""
    for path in ("", "/sessions", "/tokens"):
        there = town.api("watcher", "GET", f"/api/v1/users/mayor{path}")
        assert there == town.api("watcher", "GET", f"/api/v1/users/nobody{path}")
    pages = []
    for name in ("clerk", "nobody"):
        visitor = Visitor(town.stage)
        visitor.get("/login")
        status, text, _ = visitor.post("/login", name=name, password="wrong", next="/")
        text = text.replace(name, "").replace(visitor.csrf, "")
        pages.append((status, text))
    assert pages[0] == pages[1]


@pytest.mark.parametrize("path", ["/people", "/people/clerk/role", "/people/clerk/disable"])
def test_the_page_of_people(town: Town, path: str) -> None:
    visitor = Visitor(town.stage)
    assert visitor.sign_in("watcher") == 303
    status, text, _ = visitor.get("/people") if path == "/people" else visitor.post(path, role="x")
    assert status == 403
    assert "mayor" not in text


def test_the_last_admin_cannot_be_got_rid_of(town: Town) -> None:
    for change in ({"role": "viewer"}, {"disabled": True}, {"role": "viewer", "disabled": True}):
        status, said = town.api("mayor", "PATCH", "/api/v1/users/mayor", change)
        assert (status, "last admin" in said["detail"]) == (409, True)


# Becoming somebody else


def test_credentials_are_not_taken_for_each_other(town: Town) -> None:
    visitor = Visitor(town.stage)
    assert visitor.sign_in("clerk") == 303
    [session] = town.api("clerk", "GET", "/api/v1/users/clerk/sessions")[1]["sessions"][:1]
    [token] = town.api("clerk", "GET", "/api/v1/users/clerk/tokens")[1]["tokens"]
    device = visitor.cookies[f"keybroker_{town.stage.kb.admin_port}_device"]
    for wrong in (visitor.session, session["id"], token["id"], device, town.stage.bot.token):
        assert town.api(wrong, "GET", "/api/v1/me")[0] == 401
    for wrong in (town.tokens["clerk"], session["id"], token["id"], device):
        other = Visitor(town.stage, {f"keybroker_{town.stage.kb.admin_port}": wrong})
        assert other.get("/account")[2].startswith("/login")
    cookie = {"Cookie": f"keybroker_{town.stage.kb.admin_port}={visitor.session}"}
    assert visitor.ask("GET", "/api/v1/me", headers=cookie)[0] == 401


def test_a_planted_session_is_not_taken_over(town: Town) -> None:
    name = f"keybroker_{town.stage.kb.admin_port}"
    mine = Visitor(town.stage)
    assert mine.sign_in("watcher") == 303
    victim = Visitor(town.stage, {name: mine.session})
    assert victim.sign_in("clerk") == 303
    assert victim.session != mine.session
    assert mine.get("/account")[2].startswith("/login"), "what was planted has ended"


def test_a_new_password_ends_every_session_and_asks_for_the_old_one(town: Town) -> None:
    town.stage.kb.user("changer", "viewer", PASSWORD)
    thief, owner = Visitor(town.stage), Visitor(town.stage)
    assert thief.sign_in("changer") == owner.sign_in("changer") == 303
    new = "an entirely new one"
    assert thief.post("/account/password", current="?", password=new, again=new)[0] == 403
    before = owner.session
    assert owner.post("/account/password", current=PASSWORD, password=new, again=new)[0] == 303
    assert thief.get("/account")[2].startswith("/login")
    assert owner.session != before
    assert Visitor(town.stage).sign_in("changer") == 401
    assert Visitor(town.stage).sign_in("changer", new) == 303


def test_who_is_disabled_is_out_at_once(town: Town) -> None:
    token = town.stage.kb.user("leaver", "approver", PASSWORD)
    visitor = Visitor(town.stage)
    assert visitor.sign_in("leaver") == 303
    town.stage.kb.cli("user", "disable", "leaver")
    assert visitor.get("/account")[2].startswith("/login")
    assert town.api(token, "GET", "/api/v1/me")[0] == 401
    assert Visitor(town.stage).sign_in("leaver") == 401
    town.stage.kb.cli("user", "enable", "leaver")
    assert visitor.get("/account")[2].startswith("/login")
    assert town.api(token, "GET", "/api/v1/me")[0] == 401


# Others' sessions and tokens


def test_others_sessions_and_tokens_by_id(town: Town) -> None:
    mayor, clerk = Visitor(town.stage), Visitor(town.stage)
    assert mayor.sign_in("mayor") == clerk.sign_in("clerk") == 303
    [session] = town.api("mayor", "GET", "/api/v1/users/mayor/sessions")[1]["sessions"][:1]
    [token] = town.api("mayor", "GET", "/api/v1/users/mayor/tokens")[1]["tokens"]
    assert clerk.post(f"/account/sessions/{session['id']}/end")[0] == 404
    assert clerk.post(f"/account/tokens/{token['id']}/revoke")[0] == 404
    for path in (f"sessions/{session['id']}", f"tokens/{token['id']}"):
        assert town.api("clerk", "DELETE", f"/api/v1/users/mayor/{path}")[0] == 403
        assert town.api("clerk", "DELETE", f"/api/v1/users/clerk/{path}")[0] == 404
        # Not even an admin ends it in another's name: the record would be false.
        assert town.api("mayor", "DELETE", f"/api/v1/users/clerk/{path}")[0] == 404
    assert mayor.get("/account")[0] == 200
    assert town.api("mayor", "GET", "/api/v1/me")[0] == 200


FORMS = [
    ("/account/password", {"current": PASSWORD, "password": "x" * 12, "again": "x" * 12}),
    ("/account/tokens", {"current": PASSWORD, "label": "mine", "lasts": ""}),
    ("/account/sessions/end", {}),
    ("/people/watcher/role", {"role": "admin"}),
    ("/people/watcher/disable", {}),
    ("/people/watcher/sessions/end", {}),
    ("/logout", {}),
]


@pytest.mark.parametrize(("path", "fields"), FORMS, ids=[path for path, _ in FORMS])
def test_forms_from_elsewhere(town: Town, path: str, fields: dict[str, str]) -> None:
    visitor, other = Visitor(town.stage), Visitor(town.stage)
    assert visitor.sign_in("mayor") == other.sign_in("watcher") == 303
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    here = town.stage.kb.admin_url
    for headers, csrf in (
        ({**kind}, visitor.csrf),
        ({**kind, "Origin": "https://evil.example"}, visitor.csrf),
        ({**kind, "Origin": here.replace("localhost", "127.0.0.1")}, visitor.csrf),
        ({**kind, "Origin": here}, ""),
        ({**kind, "Origin": here}, other.csrf),
        ({"Content-Type": "text/plain", "Origin": here}, visitor.csrf),
    ):
        body = urlencode({**fields, "csrf": csrf})
        assert visitor.ask("POST", path, body, headers)[0] in (403, 415)
    assert visitor.get("/account")[0] == 200
    assert town.api("mayor", "GET", "/api/v1/users/watcher")[1]["role"] == "viewer"


# Links


def test_a_reset_link_works_once_and_stands_nowhere(town: Town) -> None:
    kb = town.stage.kb
    kb.user("forgetful", "viewer", PASSWORD)
    old = kb.json("user", "reset", "forgetful")["url"]
    url = kb.json("user", "reset", "forgetful")["url"]
    token, stale = url.partition("token=")[2], old.partition("token=")[2]
    visitor, new = Visitor(town.stage), "an entirely new one"
    for guess in ("", "x", stale, token[:-1], token + "A", token.swapcase(), "%00", "kb_reset_"):
        assert visitor.get(f"/reset?token={quote(guess)}")[0] == 404
        assert visitor.get(f"/setup?token={quote(guess)}")[0] == 404
    assert visitor.get(f"/setup?token={token}")[0] == 404
    assert visitor.get(f"/reset?token={token}")[0] == 200
    wrong = visitor.post("/reset", token=stale, password=new, again=new)
    assert wrong[0] == 404
    assert Visitor(town.stage).sign_in("forgetful") == 401
    assert visitor.get(f"/reset?token={token}")[0] == 200
    assert visitor.post("/reset", token=token, password=new, again=new)[0] == 303
    again = Visitor(town.stage)
    assert again.get(f"/reset?token={token}")[0] == 404
    again.get("/login")
    assert again.post("/reset", token=token, password=PASSWORD, again=PASSWORD)[0] == 404
    assert Visitor(town.stage).sign_in("forgetful", new) == 303
    for file in (kb.log, *kb.workspace.glob("state/*.db*")):
        assert token.encode() not in file.read_bytes(), file.name


# Searching

HOSTILE = [
    "'",
    "' OR '1'='1",
    "'; DROP TABLE calls; --",
    '" OR ""="',
    "%",
    "_",
    "\\",
    "*",
    "a\x00b",
    "$.what.host",
    "\u202e\ufeff",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "x" * 400,
]


def texts(document: Any) -> Iterator[str]:
    """Every text that stands in it."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, list | dict):
        for part in document.values() if isinstance(document, dict) else document:
            yield from texts(part)


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_searches_are_data(town: Town, value: str) -> None:
    visitor = Visitor(town.stage)
    assert visitor.sign_in("watcher") == 303
    before = len(town.api("watcher", "GET", "/api/v1/calls?limit=200")[1]["calls"])
    for name in ("agent", "host", "method", "path", "rule", "code", "approval", "reviewer",
                 "secret", "since", "until", "text", "outcome", "before"):  # fmt: skip
        query = urlencode({name: value})
        status, said = town.api("watcher", "GET", f"/api/v1/calls?{query}")
        assert status in (200, 400), said
        found = said["calls"] if status == 200 else []
        assert name == "text" or found == [], name
        for call in found:  # other attacks have sent it, to the letter
            whole = town.api("watcher", "GET", f"/api/v1/calls/{call['call']}")[1]
            assert any(value.casefold() in text.casefold() for text in texts(whole)), call
        status, text, _ = visitor.get(f"/history?{query}")
        assert status in (200, 400)
        assert "<script>alert" not in text
    assert len(town.api("watcher", "GET", "/api/v1/calls?limit=200")[1]["calls"]) == before


@pytest.mark.parametrize(
    "before", ["0", "-1", "1.5", "1e9", "9" * 30, "0x10", "\u0661", "1;2", "", "null", "%00"]
)
def test_a_cursor_is_a_number(town: Town, before: str) -> None:
    query = urlencode({"before": before})
    assert town.api("watcher", "GET", f"/api/v1/calls?{query}")[0] == 400


@pytest.mark.parametrize("form", ["calls", "calls.csv", "calls.jsonl"])
def test_the_history_is_for_people(town: Town, form: str) -> None:
    assert town.api(None, "GET", f"/api/v1/{form}")[0] == 401
    assert town.api(town.stage.bot.token, "GET", f"/api/v1/{form}")[0] == 401
    page = f"/history{form.removeprefix('calls')}"
    assert Visitor(town.stage).get(page)[2].startswith("/login")


def test_guessing_at_a_name_locks_its_owner_out_of_nothing(town: Town) -> None:
    """From the same address, as behind a reverse proxy; the stranger waits, and not for ever."""
    token = town.stage.kb.user("target", "approver", PASSWORD)
    signed_in, known, stranger = Visitor(town.stage), Visitor(town.stage), Visitor(town.stage)
    assert signed_in.sign_in("target") == known.sign_in("target") == 303
    assert known.post("/logout")[0] == 303
    answers = [stranger.sign_in("target", f"guess {n}") for n in range(9)]
    assert answers[0] == 401 and answers[-1] == 429
    assert 0 < stranger.wait <= 60
    assert stranger.sign_in("target") == 429, "a right guess waits as well, or it would be told"
    # A browser that is known, an open session, and a token do not wait for the stranger.
    assert known.sign_in("target") == 303
    assert signed_in.get("/account")[0] == 200
    new = "changed while guessed at"
    fields = {"current": PASSWORD, "password": new, "again": new}
    assert signed_in.post("/account/password", **fields)[0] == 303
    assert town.api(token, "GET", "/api/v1/me")[0] == 200
