"""Placeholders: moved anywhere but into their own slot they are refused, and nowhere are they the
secret; `lawful` looks for that in all that arrived."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from tests.attacks.stage import CREDENTIALS, Stage

pytestmark = pytest.mark.e2e

CODE = "placeholder_misplaced"


def mine(stage: Stage, variable: str = "PAY_KEY", agent: str = "bot") -> str:
    told = stage.internal("/v1/whoami", agent=stage.agents[agent]).json
    value: str = told["variables"][variable]["placeholder"]
    return value


def pending(stage: Stage) -> set[str]:
    """What people are asked about; other attacks have left some."""
    cards = stage.kb.api(stage.boss, "/api/v1/approvals?state=pending")[1]["approvals"]
    return {card["id"] for card in cards}


MOVED = {
    "mail-body": ("POST", "/open/mail", "Content-Type: text/plain", "to: me@evil.example {}"),
    "json-body": ("POST", "/open/x", "Content-Type: application/json", '{{"text": "{}"}}'),
    "form-body": ("POST", "/open/x", "Content-Type: application/x-www-form-urlencoded", "a={}&b=c"),
    "multipart": (
        "POST",
        "/open/x",
        "Content-Type: multipart/form-data; boundary=b",
        "--b {} --b--",
    ),
    "no-type": ("PUT", "/open/x", "X-A: b", "{}{}"),
    "query": ("GET", "/open/x?key={}", "X-A: b", ""),
    "query-name": ("GET", "/open/x?{}=key", "X-A: b", ""),
    "path": ("GET", "/open/{}", "X-A: b", ""),
    "other-header": ("GET", "/open/x", "X-Api-Key: {}", ""),
    "cookie": ("GET", "/open/x", "Cookie: a={}", ""),
    "user-agent": ("GET", "/open/x", "User-Agent: tool ({})", ""),
    "referer": ("GET", "/open/x", "Referer: https://evil.example/{}", ""),
    "held": ("POST", "/ask/x", "Content-Type: text/plain", "{}"),
    "held-query": ("POST", "/ask/x?{}", "Content-Type: text/plain", "a"),
}


@pytest.mark.parametrize("case", MOVED)
@pytest.mark.parametrize("spelt", ["plain", "base64", "hex"])
def test_moved_elsewhere(stage: Stage, case: str, spelt: str) -> None:
    method, path, line, body = MOVED[case]
    before = pending(stage)
    value = mine(stage)
    if spelt == "base64":
        value = quote(base64.b64encode(f"user:{value}".encode()).decode().rstrip("="))
    elif spelt == "hex":
        value = value.encode().hex()
    data = stage.get(
        path.format(value, value),
        line.format(value, value),
        method=method,
        body=body.format(value, value).encode(),
    )
    stage.held(stage.ask(data), CODE)
    assert pending(stage) <= before, "people are not asked about it"


def test_escaped_letter_by_letter_in_the_query(stage: Stage) -> None:
    value = "".join(f"%{ord(letter):02X}" for letter in mine(stage))
    got = stage.ask(stage.get(f"/open/x?key={value}"))
    assert got.codes in (["placeholder_misplaced"], ["request_ambiguous"])
    assert not stage.arrived


@pytest.mark.parametrize(
    ("host", "variable", "form"),
    [
        ("localhost", "PAY_KEY", "Bearer {}"),
        ("localhost", "PAY_KEY", "{}"),
        ("localhost", "PAY_KEY", "Basic {}"),
        ("localhost", "SVC_PASSWORD", "Bearer {}"),
        ("basic.localhost", "SVC_PASSWORD", "Basic {}"),
        ("basic.localhost", "PAY_KEY", "Bearer {}"),
    ],
)
def test_in_a_slot_it_is_replaced(stage: Stage, host: str, variable: str, form: str) -> None:
    """Whosever it is: a slot's own credential goes there, and nothing of what was there."""
    line = f"Authorization: {form.format(mine(stage, variable))}"
    request = f"GET /open/x HTTP/1.1\r\nHost: {stage.at(host)}\r\n{line}\r\n\r\n"
    assert stage.ask(request.encode(), authority=stage.at(host)).status == 404
    slot, value = CREDENTIALS[host]
    assert stage.arrived[0].values(slot) == [value]


@pytest.mark.parametrize("form", ["Bearer {}", "Basic {}", "{}"])
def test_at_a_host_without_the_credential(stage: Stage, form: str) -> None:
    host = stage.at("free.localhost")
    line = f"Authorization: {form.format(mine(stage))}"
    request = f"GET /echo HTTP/1.1\r\nHost: {host}\r\n{line}\r\n\r\n"
    stage.held(stage.ask(request.encode(), authority=host), CODE)


def test_in_http2(stage: Stage) -> None:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", stage.at())]
    fields += [(":path", "/open/x"), ("x-note", mine(stage))]
    stage.held(stage.ask_h2(fields), CODE)


def test_another_agents_is_an_inert_text(stage: Stage) -> None:
    """It is no key to anything: it arrives as it is, the agent's own credential in its slot."""
    value = mine(stage)
    assert value != mine(stage, agent="other")
    other = stage.agents["other"]
    data = stage.get("/open/x", f"X-Note: {value}", "Authorization: Bearer " + value)
    assert stage.ask(data, agent=other).status == 404
    (request,) = stage.arrived
    assert request.values("x-note") == [value]
    assert request.values("authorization") == [CREDENTIALS["localhost"][1]]


def test_one_changed_by_a_letter_is_an_inert_text(stage: Stage) -> None:
    value = mine(stage)[:-1] + "x"
    assert stage.ask(stage.get("/open/x", f"X-Note: {value}")).status == 404
    assert stage.arrived[0].values("x-note") == [value]


@pytest.mark.parametrize("agent", ["roamer", "patient"])
def test_an_agent_sees_only_its_own(stage: Stage, agent: str) -> None:
    told = stage.internal("/v1/whoami", agent=stage.agents[agent]).json["variables"]
    assert set(told) == ({"PAY_KEY"} if agent == "patient" else set())
