"""The admin page in a real Chromium, over the real services, calls held as workers do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from broker.admin.app import create_app
from broker.admin.ledger import LedgerReader
from broker.approvals import resolve
from broker.cards import make_card
from broker.digest import join_key, request_digest
from broker.holds import Proposal
from broker.injectors import place
from broker.model import Approval
from broker.sealing import StoredRequest
from broker.services import Services, create_state, new_id, open_services
from rules.canonical import canonicalise
from rules.model import Subject
from rules.request import RawRequest
from tests.broker.admin.fakes import FakeMonitor

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PASSWORD = "correct horse battery"
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#key", hosts: [api.pay.example], inject: bearer}
rules:
  - id: refund
    agents: [bot]
    match: {method: POST, host: api.pay.example, path: /v1/refunds}
    effect: hold
    risk: high
    summary: "Refund {form:amount} on charge {form:charge}"
    confirm: form:amount
    impact: Money leaves the account and cannot be called back.
    use: [pay]
  - id: note
    agents: [bot]
    match: {method: POST, host: api.pay.example, path: "/v1/notes/**"}
    effect: hold
    risk: medium
    summary: "Write the note {json:/text}"
    use: [pay]
"""
HOSTILE = (
    "<script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>"
    '"><svg onload=alert(3)>{{7*7}} \u202eexe.txt\u202c\u200b\u2066 \u0435vil '
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        message = "CHROMIUM IS MISSING: the admin page was NOT tested (scripts/ensure-chromium)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
    ]
    expect.set_options(timeout=20_000)  # as for actions; it ends when what is expected is there
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@dataclass
class Office:
    """The real services behind the real app on a real port, and people who sign in."""

    services: Services
    url: str
    chromium: Browser
    contexts: list[BrowserContext] = field(default_factory=list)

    def hold(
        self, path: str, body: bytes, kind: str, claim: str | None = None, query: str = ""
    ) -> Approval:
        """Holds a call as broker.pipeline does, without the wait for an answer."""
        services = self.services
        headers = [(b"host", b"api.pay.example"), (b"content-type", kind.encode())]
        headers.append((b"content-length", str(len(body)).encode()))
        if claim is not None:
            headers.append((b"keybroker-reason", claim.encode()))
        raw = RawRequest(
            scheme="https",
            connect=("api.pay.example", 443),
            sni="api.pay.example",
            authority=None,
            method="POST",
            target=path + query,
            headers=tuple(headers),
            body=body,
        )
        request = canonicalise(raw)
        published = services.policies.refresh()
        assert published is not None
        policy = published.rulebook.policy
        agent = services.agents.get("bot")
        subject = Subject(agent.name, agent.tags, agent.owner)
        decision = published.rulebook.decide(subject, request)
        assert decision.effect == "hold", decision.sentence
        credentials = [policy.credentials[name] for name in decision.credentials]
        outgoing = place(request, credentials)
        proposal = Proposal(
            call=new_id("c"),
            agent=agent.name,
            stored=StoredRequest(outgoing, request.headers),
            digest=request_digest(b"k" * 32, outgoing, credentials),
            join_key=join_key(b"k" * 32, agent.name, outgoing, credentials),
            decision=decision,
            policy_version=published.version,
            requirement=resolve(policy, decision.tiers, subject),
            card=make_card(agent, outgoing, decision, policy, credentials, None),
            credentials=[(c.name, str(c.secret)) for c in credentials],
        )
        return services.holds.open_or_join(proposal).result(10)

    def refund(self, amount: str = "249900", claim: str | None = None) -> Approval:
        form = {"charge": secrets.token_hex(4), "amount": amount}
        kind = "application/x-www-form-urlencoded"
        return self.hold("/v1/refunds", urlencode(form).encode(), kind, claim)

    def note(self, text: str = "hello", claim: str | None = None) -> Approval:
        body = json.dumps({"text": text, "nonce": secrets.token_hex(4)}).encode()
        return self.hold("/v1/notes/7", body, "application/json", claim)

    def open(self, **options: object) -> Page:
        """A page in a browser profile of its own."""
        context = self.chromium.new_context(base_url=self.url, **options)  # type: ignore[arg-type]
        context.set_default_timeout(20_000)
        self.contexts.append(context)
        return context.new_page()

    def sign_in(self, name: str, **options: object) -> Page:
        page = self.open(**options)
        page.goto("/login")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Held calls")).to_be_visible()
        return page

    def state(self, approval: Approval) -> str:
        return self.services.holds.get(approval.id).state


@contextmanager
def serving(services: Services, database: Path) -> Iterator[str]:
    """Serves the app on a free port of the loopback interface; yields its URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://localhost:{listener.getsockname()[1]}"
        app = create_app(services, url=url, ledger=LedgerReader(database), monitor=FakeMonitor())
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
        )
        thread.start()
        yield url
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def empty_office(tmp_path: Path, chromium: Browser) -> Iterator[Office]:
    state = tmp_path / "state"
    state.mkdir()
    create_state(tmp_path)
    with closing(open_services(tmp_path)) as services:
        services.policies.publish(POLICY, "test")
        services.agents.add("bot", owner="alice", by="test")
        with serving(services, state / "keybroker.db") as url:
            office = Office(services, url, chromium)
            yield office
            for context in office.contexts:
                context.close()


@pytest.fixture
def office(empty_office: Office) -> Office:
    for name, role in (("dave", "approver"), ("erin", "approver"), ("vera", "viewer")):
        empty_office.services.people.add(name, role, PASSWORD, "test")
    return empty_office


def watch(page: Page) -> list[str]:
    """What must not happen on a page: dialogs, script errors, policy reports, foreign requests."""
    trouble: list[str] = []
    page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: trouble.append(f"error {error}"))
    page.on("console", lambda line: trouble.append(f"{line.type} {line.text}"))
    origin = page.url.split("/login")[0].rstrip("/")
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(origin) else trouble.append(f"request {request.url}")
        ),
    )
    return trouble


def no_overflow(page: Page) -> None:
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide <= 0, f"{page.url} is {wide} px wider than the window"


def focused(page: Page) -> str:
    return str(
        page.evaluate("(document.activeElement.textContent || document.activeElement.id).trim()")
    )


def tab_to(page: Page, arrived: Callable[[str], bool]) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if arrived(focused(page)):
            return
    pytest.fail("the keyboard does not lead there")


def test_the_first_account_is_made_by_the_one_time_link(empty_office: Office) -> None:
    link = empty_office.services.people.first_user_link()
    page = empty_office.open()
    # The browser is led from the address to the one name that sessions and passkeys live on.
    page.goto(empty_office.url.replace("localhost", "127.0.0.1") + f"/setup?token={link}")
    assert page.url.startswith(empty_office.url)
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password again").fill(PASSWORD)
    page.get_by_role("button", name="Create the account").click()
    expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
    assert empty_office.services.people.get("alice").role == "admin"
    page.goto(f"/setup?token={link}")
    expect(page.get_by_text("This link was used")).to_be_visible()


def test_a_held_call_appears_by_itself(office: Office) -> None:
    page = office.sign_in("dave")
    trouble = watch(page)
    expect(page.locator("#live")).to_have_text("Live")
    assert page.title() == "Held calls · Keybroker"
    page.evaluate("window.sameDocument = true")
    held = office.refund()
    expect(page.get_by_role("link", name="Refund 249900")).to_be_visible()
    expect(page).to_have_title("(1) Held calls · Keybroker")
    expect(page.get_by_role("status")).to_contain_text("Held now: Refund 249900")
    erin = office.services.people.get("erin")
    office.services.desk.vote(held.id, erin, "deny", reason=None, confirm=None, via="cli")
    expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
    expect(page).to_have_title("Held calls · Keybroker")
    assert page.evaluate("window.sameDocument") is True, "without a reload"
    assert trouble == []


def test_the_list_keeps_the_focus_when_it_changes(office: Office) -> None:
    office.note("first")
    page = office.sign_in("dave")
    page.get_by_role("link", name="Write the note first").focus()
    office.note("second")
    expect(page.get_by_role("link", name="Write the note second")).to_be_visible()
    assert focused(page) == "Write the note first"


def test_tabs_share_one_stream(office: Office) -> None:
    page = office.sign_in("dave")
    pages = [page, *(page.context.new_page() for _ in range(7))]
    for tab in pages[1:]:
        tab.goto("/")
        expect(tab.locator("#live")).to_have_text("Live")
    office.note("to all of you")
    for tab in pages:
        expect(tab.get_by_role("link", name="to all of you")).to_be_visible()


def test_a_vote_by_keyboard_alone(office: Office) -> None:
    held = office.note()
    page = office.sign_in("dave")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("Enter")
    tab_to(page, lambda name: name.startswith("Write the note"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What leaves")).to_be_visible()
    assert page.evaluate("document.activeElement === document.body"), "nothing is preselected"
    page.keyboard.press("Enter")
    assert office.state(held) == "pending"
    tab_to(page, lambda name: name == "Deny")
    page.keyboard.press("Tab")
    assert focused(page) == "Approve", "one key away from each other, deny first"
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_contain_text("Approved by dave")
    assert office.state(held) == "approved"


def test_the_retype_flow_with_two_people(office: Office) -> None:
    held = office.refund("249900", claim="The customer wrote twice.")
    dave, erin = office.sign_in("dave"), office.sign_in("erin")
    for page in (dave, erin):
        page.goto(f"/approvals/{held.id}")
        expect(page.locator(".decider")).to_contain_text("249900")
    field = dave.get_by_label("To approve, retype the amount (form field amount)")
    field.fill("249900")
    field.press("Enter")
    assert office.services.holds.get(held.id).votes == (), "Enter decides nothing"
    field.fill("2499")
    dave.get_by_label("Reason").fill("checked the order")
    dave.get_by_role("button", name="Approve").click()
    expect(dave.get_by_role("alert")).to_be_visible()
    assert dave.get_by_label("Reason").input_value() == "checked the order"
    dave.get_by_label("To approve, retype").fill("249900")
    dave.get_by_role("button", name="Approve").click()
    expect(dave.get_by_text("1 of 2 approvals")).to_be_visible()
    expect(dave.get_by_role("button", name="Approve")).to_have_count(0)
    # The other reviewer sees the vote without losing what they have typed.
    erin.get_by_label("Reason").fill("half a reas")
    expect(erin.get_by_text("1 of 2 approvals")).to_be_visible()
    assert erin.get_by_label("Reason").input_value() == "half a reas"
    erin.get_by_label("To approve, retype").fill("249900")
    erin.get_by_role("button", name="Approve").click()
    expect(erin.locator(".verdict")).to_contain_text("Approved by dave, erin")
    expect(dave.locator(".verdict")).to_contain_text("Approved by dave, erin")
    votes = office.services.holds.get(held.id).votes
    assert [(vote.user, vote.reason) for vote in votes] == [
        ("dave", "checked the order"),
        ("erin", "half a reas"),
    ]


def test_denying_needs_no_retyping(office: Office) -> None:
    held = office.refund()
    page = office.sign_in("dave")
    page.goto(f"/approvals/{held.id}")
    page.get_by_role("button", name="Deny").click()
    expect(page.locator(".verdict")).to_contain_text("Denied by dave")
    assert office.state(held) == "denied"


def test_a_viewer_sees_and_cannot_vote(office: Office) -> None:
    held = office.note()
    page = office.sign_in("vera")
    page.goto(f"/approvals/{held.id}")
    expect(page.get_by_role("heading", name="What leaves")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    expect(page.get_by_role("button", name="Deny")).to_have_count(0)


@pytest.mark.parametrize("width", [390, 1280])
def test_hostile_text_stays_inert(office: Office, width: int) -> None:
    claim = "<script>alert(9)</script> https://evil.example " + "A" * 400
    note = office.note(HOSTILE + "x" * 30_000, claim=claim)
    kind = "application/x-www-form-urlencoded"
    form = urlencode({"amount": HOSTILE, "charge": "y" * 5000, HOSTILE: "1"}).encode()
    refund = office.hold("/v1/refunds", form, kind, claim, "?q=%E2%80%AE%3Cb%3E")
    binary = office.hold("/v1/notes/" + "a" * 900, b"\xff\x00<b>" * 3000, "image/png")
    page = office.sign_in("dave", viewport={"width": width, "height": 844})
    trouble = watch(page)
    page.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.log(e.violatedDirective))"
    )
    for path in ["/", *(f"/approvals/{held.id}" for held in (note, refund, binary))]:
        page.goto(path)
        expect(page.locator("h1").first).to_be_visible()
        page.locator("details").evaluate_all(
            "all => all.forEach(d => { d.removeAttribute('name'); d.open = true; })"
        )
        no_overflow(page)
        main = page.locator("main")
        assert main.locator("script, img, svg, b b, iframe, object, style").count() == 0
        assert not main.locator("a[href*='evil']").count()
        assert "\u202e" not in main.inner_text()
        assert "\u200b" not in main.inner_text()
    page.goto(f"/approvals/{refund.id}")
    expect(page.locator("main")).to_contain_text("<script>alert(1)</script>")
    expect(page.locator("main")).to_contain_text("{{7*7}}")
    page.goto(f"/approvals/{binary.id}")
    expect(page.locator("pre.hex")).to_contain_text("ff 00 3c 62 3e")
    assert trouble == []


def test_the_countdown_is_by_the_servers_clock(office: Office) -> None:
    """The client's clock stands still, years ago; the countdown goes on all the same."""
    held = office.note()
    page = office.sign_in("dave")
    page.add_init_script("Date.now = () => 0")
    page.goto(f"/approvals/{held.id}")
    count = page.locator(".decide .count")

    def seconds() -> int:
        minutes, rest = count.inner_text().split(":")
        return int(minutes) * 60 + int(rest)

    first = seconds()
    assert 600 < first <= 900
    page.wait_for_function(
        "before => document.querySelector('.decide .count').textContent !== before",
        arg=count.inner_text(),
    )
    assert seconds() < first


def test_without_script_everything_works(office: Office) -> None:
    held = office.refund()
    page = office.sign_in("dave", java_script_enabled=False)
    page.goto("/")
    page.get_by_role("link", name="Refund 249900").click()
    page.get_by_label("To approve, retype").fill("249900")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("1 of 2 approvals")).to_be_visible()
    assert [vote.user for vote in office.services.holds.get(held.id).votes] == ["dave"]


def test_a_session_that_ends_elsewhere_leaves_the_page(office: Office) -> None:
    page = office.sign_in("dave")
    expect(page.locator("#live")).to_have_text("Live")
    office.services.sessions.end_all("dave", "cli:test")
    page.wait_for_url("**/login")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(office: Office, scheme: str) -> None:
    held, high = office.note(), office.refund(claim="word " * 90)
    size = {"width": 390, "height": 844}
    page = office.sign_in("dave", viewport=size, color_scheme=scheme)
    call = office.services.holds.get(held.id).call
    paths = [f"/approvals/{held.id}", f"/approvals/{high.id}", f"/history/{call}"]
    office.services.people.set_role("dave", "admin", "test")
    for path in ["/", *paths, "/history?rule=x", "/history", "/account", "/people", "/nope"]:
        page.goto(path)
        no_overflow(page)
    page.goto(f"/approvals/{high.id}")
    page.get_by_role("link", name="Decide").click()
    expect(page.get_by_role("button", name="Approve")).to_be_in_viewport()


def test_history_and_records(office: Office) -> None:
    held = office.note("kept in the ledger")
    erin = office.services.people.get("erin")
    office.services.desk.vote(held.id, erin, "deny", reason="no", confirm=None, via="cli")
    page = office.sign_in("dave")
    page.get_by_role("link", name="History").click()
    expect(page.locator("table.calls")).to_contain_text("/v1/notes/7")
    page.get_by_label("Outcome").select_option("denied")
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile(r"outcome=denied"))
    page.locator("table.calls a").first.click()
    for kind in ("approval.opened", "approval.voted", "approval.resolved"):
        expect(page.locator(".trace")).to_contain_text(kind)


def test_the_history_is_searched_by_keyboard_and_by_address(office: Office) -> None:
    office.note("kept")
    page = office.sign_in("dave")
    trouble = watch(page)
    page.goto("/history")
    tab_to(page, lambda text: text == "f-host")
    page.keyboard.type("api.pay.example:8443")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No calls match.")).to_be_visible()
    expect(page.get_by_label("Host")).to_have_value("api.pay.example:8443")
    page.get_by_role("link", name="Show all of them").click()
    expect(page.locator("table.calls")).to_contain_text("/v1/notes/7")
    # What is searched by further unfolds by itself where the address has it.
    page.goto("/history?rule=note&since=2020-01-31T09:30:00Z")
    expect(page.get_by_label("Rule")).to_have_value("note")
    expect(page.get_by_label("From UTC")).to_have_value("2020-01-31T09:30")
    expect(page.locator("table.calls tbody tr")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 2
    assert ",api.pay.example,443,/v1/notes/7,pending," in lines[1]
    page.get_by_role("link", name="Records of the call of bot").click()
    page.get_by_role("link", name="its approval").click()
    page.get_by_role("link", name="records").click()
    expect(page.get_by_role("heading", name="approval.opened")).to_be_visible()
    assert trouble == []


def test_account_sessions_and_tokens(office: Office) -> None:
    page, phone = office.sign_in("dave"), office.sign_in("dave", user_agent="x iPhone Safari/1")
    page.goto("/account")
    sessions = page.get_by_role("region", name="Sessions")
    expect(sessions.get_by_role("listitem")).to_have_count(2)
    expect(sessions).to_contain_text("Safari on iPhone")
    sessions.get_by_role("button", name="End the session of Safari on iPhone").click()
    expect(sessions.get_by_role("listitem")).to_have_count(1)
    phone.goto("/account")
    phone.wait_for_url("**/login**")
    tokens = page.get_by_role("region", name="API tokens")
    tokens.get_by_label("What it is for").fill("nightly")
    tokens.get_by_label("Present password").fill("wrong")
    tokens.get_by_role("button", name="Make a token").click()
    expect(tokens.get_by_role("alert")).to_have_text("The password is wrong.")
    expect(tokens.get_by_label("Present password")).to_be_focused()
    expect(tokens.get_by_label("What it is for")).to_have_value("nightly")
    tokens.get_by_label("Present password").fill(PASSWORD)
    tokens.get_by_role("button", name="Make a token").click()
    token = page.locator("#token").inner_text()
    assert office.services.tokens.user(token) is not None
    page.goto("/account")
    tokens.get_by_role("button", name="Revoke the token nightly").click()
    expect(tokens.get_by_role("listitem")).to_have_count(0)
    assert office.services.tokens.user(token) is None


def test_a_new_password_by_form_and_by_link(office: Office) -> None:
    page = office.sign_in("dave")
    page.goto("/account")
    form = page.get_by_role("region", name="Password")
    form.get_by_label("Present password").fill(PASSWORD)
    form.get_by_label("New password", exact=True).fill("a second password")
    form.get_by_label("New password again").fill("a second password")
    form.get_by_role("button", name="Change the password").click()
    expect(page.get_by_role("heading", name="dave")).to_be_visible()
    link = office.services.people.reset("dave", "test")
    other = office.open()
    other.goto(f"/reset?token={link}")
    other.get_by_label("New password", exact=True).fill("a third password")
    other.get_by_label("New password again").fill("a third password")
    other.get_by_role("button", name="Set the password").click()
    expect(other.get_by_role("heading", name="Held calls")).to_be_visible()
    assert office.services.people.check_password("dave", "a third password") is not None
    page.goto("/account")
    page.wait_for_url("**/login**")


def test_an_admin_looks_after_people(office: Office) -> None:
    office.services.people.add("root", "admin", PASSWORD, "test")
    vera, page = office.sign_in("vera"), office.sign_in("root")
    expect(vera.get_by_role("link", name="People")).to_have_count(0)
    page.get_by_role("link", name="People").click()
    page.get_by_label("Role of root").select_option("viewer")
    page.get_by_role("button", name="Set the role of root").click()
    expect(page.get_by_role("alert")).to_contain_text("Root is the last admin")
    page.get_by_role("button", name="Disable vera").click()
    expect(page.get_by_role("button", name="Enable vera")).to_be_visible()
    vera.wait_for_url("**/login**")  # by itself; a click of hers would race with that
    page.get_by_label("Role of erin").select_option("admin")
    page.get_by_role("button", name="Set the role of erin").click()
    expect(page.get_by_label("Role of erin")).to_have_value("admin")
    assert office.services.people.get("erin").role == "admin"
