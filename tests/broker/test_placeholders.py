"""Placeholders: derived alike everywhere, one for each agent, found wherever they were moved."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from broker.answers import Answer
from broker.errors import Refusal
from broker.passage import Passage
from broker.placeholders import Placeholders
from broker.policies import Published
from rules.canonical import canonicalise
from rules.decide import Rulebook
from rules.load import load_policy
from rules.model import Subject
from tests.support.services import CANARY, World, problem_of, raw, run

KEY = b"k" * 32
BOT = Subject("bot", frozenset({"t"}), None)
POLICY = """
version: 1
credentials:
  stripe:
    secret: "kv/s#k"
    hosts: [api.stripe.com]
    inject: bearer
    env: {name: STRIPE_API_KEY, shape: "sk_test_{hex:24}"}
  writing:
    secret: "kv/s#w"
    hosts: [api.stripe.com]
    inject: bearer
    env: {name: STRIPE_API_KEY, shape: "sk_test_{hex:24}"}
  crm: {secret: "kv/c#k", hosts: [crm.example], inject: {header: X-Key}, env: CRM_KEY}
  plain: {secret: "kv/p#k", hosts: [p.example], inject: bearer}
rules:
  - id: read
    agents: [bot]
    match: {method: GET, host: api.stripe.com}
    effect: allow
    use: [stripe]
  - id: write
    agents: ["tag:t"]
    match: {method: POST, host: api.stripe.com}
    effect: hold
    use: [writing]
  - {id: crm, agents: [other], match: {host: crm.example}, effect: allow, use: [crm]}
  - {id: no, agents: [bot], match: {host: crm.example}, effect: deny, use: [crm]}
  - {id: p, agents: [bot], match: {host: p.example}, effect: allow, use: [plain]}
  - {id: open, agents: [bot], match: {host: open.example}, effect: allow}
"""
BOOK = Rulebook(load_policy(POLICY)[0])


def value_of(subject: Subject = BOT, key: bytes = KEY) -> str:
    return Placeholders(key).of(subject, BOOK)[0].value


def test_an_agent_has_those_of_the_credentials_that_its_rules_use() -> None:
    (stripe,) = Placeholders(KEY).of(BOT, BOOK)
    assert stripe.variable == "STRIPE_API_KEY"
    assert stripe.credentials == ("stripe", "writing")  # one variable can stand for two
    (crm,) = Placeholders(KEY).of(Subject("other"), BOOK)
    assert (crm.variable, crm.credentials) == ("CRM_KEY", ("crm",))
    assert Placeholders(KEY).of(Subject("nobody"), BOOK) == ()


def test_the_same_everywhere_and_another_for_each_agent_and_workspace() -> None:
    assert value_of() == value_of()
    assert (
        len({value_of(), value_of(Subject("twin", frozenset({"t"}))), value_of(key=b"x" * 32)}) == 3
    )


def check(value: str, **request: object) -> None:
    published = Published(1, BOOK)
    called = canonicalise(raw(**request))  # type: ignore[arg-type]
    Placeholders(KEY).check(BOT, published, called)


MOVED: Sequence[tuple[str, dict[str, object]]] = [
    ("path", {"path": "/v1/{}"}),
    ("query", {"path": "/v1/a?key={}"}),
    ("query", {"path": "/v1/a?{}=1"}),
    ("header x-other", {"headers": (("X-Other", "{}"),)}),
    ("header cookie", {"headers": (("Cookie", "session={}; a=b"),)}),
    ("header user-agent", {"headers": (("User-Agent", "tool/1 ({})"),)}),
    ("body", {"method": "POST", "body": b"to=a&text={}"}),
    ("body", {"method": "POST", "body": b"x" * 900 + b"{}"}),
]


@pytest.mark.parametrize(("where", "request_"), MOVED)
def test_where_it_was_moved_to_is_told(where: str, request_: dict[str, object]) -> None:
    value = value_of()
    filled = {name: _filled(part, value) for name, part in request_.items()}
    with pytest.raises(Refusal) as caught:
        check(value, **filled)
    assert caught.value.code == "placeholder_misplaced"
    assert f"The {where} of this call holds the placeholder of STRIPE_API_KEY" in str(caught.value)
    assert value not in str(caught.value)


def _filled(part: object, value: str) -> object:
    match part:
        case bytes():
            return part.replace(b"{}", value.encode())
        case str():
            return part.replace("{}", value)
        case tuple():
            return tuple((name, text.replace("{}", value)) for name, text in part)
    return part


@pytest.mark.parametrize(
    "encode",
    [
        lambda v: base64.b64encode(v).decode(),
        lambda v: base64.b64encode(b"user:" + v).decode(),
        lambda v: base64.b64encode(v + b":").decode(),
        lambda v: v.hex(),
        lambda v: "".join(f"%{byte:02X}" for byte in v),
    ],
)
def test_it_is_known_in_other_spellings(encode: Callable[[bytes], str]) -> None:
    spelt = encode(value_of().encode())
    with pytest.raises(Refusal, match="placeholder"):
        check("", path=f"/v1/a?key={spelt.rstrip('=')}")


def test_another_agents_is_just_a_text() -> None:
    check("", path=f"/v1/{value_of(Subject('other', frozenset({'t'})))}")
    check("", path="/v1/sk_test_" + "a" * 24)


def test_a_new_version_of_the_policy_is_looked_at_anew() -> None:
    placeholders = Placeholders(KEY)
    called = canonicalise(raw(path=f"/v1/{value_of()}"))
    placeholders.check(BOT, Published(1, Rulebook(load_policy("version: 1\n")[0])), called)
    with pytest.raises(Refusal):
        placeholders.check(BOT, Published(2, BOOK), called)


def test_on_the_path_of_a_call(world: World) -> None:
    """In the slot it is replaced, elsewhere refused and recorded; never is it the secret."""
    world.publish(POLICY)
    bot = world.services.agents.get("bot")
    (mine,) = world.services.placeholders.of(bot.subject, BOOK)
    pipeline = world.pipeline()

    def call(**request: Any) -> Answer | Passage:
        async def handled() -> Answer | Passage:
            return await pipeline.handle(world.client(), raw(**request), asyncio.Event())

        return run(handled())

    passed = call(headers=(("Authorization", f"Bearer {mine.value}"),))
    assert isinstance(passed, Passage)
    assert dict(passed.request.headers)["authorization"] == f"Bearer {CANARY}"
    reads = len(world.secrets.reads)
    moved: list[dict[str, Any]] = [
        {"path": f"/v1/a?k={mine.value}"},
        {"headers": (("X-Key", mine.value),)},
        {"host": "open.example", "headers": (("Authorization", f"Bearer {mine.value}"),)},
    ]
    for request in moved:
        refused = problem_of(call(**request))
        assert (refused["status"], refused["code"]) == (403, "placeholder_misplaced")
    assert len(world.secrets.reads) == reads
    denied = world.records("call.denied")
    assert [r["code"] for r in denied] == ["placeholder_misplaced"] * 3
