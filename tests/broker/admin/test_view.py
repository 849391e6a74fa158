"""The card as the template gets it."""

import base64
from typing import Any

import pytest

from broker.admin import view
from tests.broker.admin.fakes import contact, later, now, refund


def test_the_deciding_field_is_found_in_the_body() -> None:
    request = view.shown_request(refund())
    assert request is not None
    assert [(line.name, line.value) for line in request.deciding] == [("amount", "249900")]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("query:expand", "expand"),
        ("header:Idempotency-Key", "idempotency-key"),
        ("form:charge", "charge"),
        ("path", "path"),
    ],
)
def test_every_kind_of_place_can_decide(place: str, name: str) -> None:
    request = view.shown_request(refund(confirm={"place": place, "hint": ""}))
    assert request is not None
    assert [line.name for line in request.deciding] == [name]


def test_a_json_pointer_decides() -> None:
    card = contact(confirm={"place": "json:/contact/stage", "hint": ""})
    request = view.shown_request(card)
    assert request is not None
    assert [line.value for line in request.deciding] == ["lost"]


def test_without_a_named_place_nothing_is_marked() -> None:
    request = view.shown_request(contact())
    assert request is not None
    assert request.deciding == ()


def test_an_ended_approval_has_no_request() -> None:
    assert view.shown_request(refund(request=None)) is None


def with_body(body: bytes, text: str | None) -> view.Body:
    card: dict[str, Any] = refund()
    card["request"] = {
        **card["request"],
        "body_base64": base64.b64encode(body).decode(),
        "body_size": len(body),
        "body_text": text,
        "fields": [],
    }
    request = view.shown_request(card)
    assert request is not None
    return request.body


def test_files_stand_beside_fields() -> None:
    card = refund()
    file = {"name": "a", "filename": "b.pdf", "type": "", "size": 3, "sha256": "0f" * 32}
    card["request"] = {**card["request"], "fields": [], "files": [file], "body_text": "[1]"}
    request = view.shown_request(card)
    assert request is not None
    assert request.body.files == (file,)
    assert request.body.pretty is None


def test_a_binary_body_is_a_hexdump() -> None:
    body = with_body(b"\xff\xfe" * 4000, None)
    assert body.text is None
    assert body.pretty is None
    assert body.hexdump.startswith("00000000  ff fe ff fe")
    assert body.hex_cut


def test_json_is_indented_and_its_odd_characters_stay_escaped() -> None:
    body = with_body('{"a": "\u202e"}'.encode(), '{"a": "\u202e"}')
    assert body.pretty == '{\n  "a": "\\u202e"\n}'


@pytest.mark.parametrize("text", ["{", '"just text"', "[" * 100_000, "x" * 100_000])
def test_what_is_no_json_has_no_indented_view(text: str) -> None:
    body = with_body(text.encode(), text)
    assert body.pretty is None
    assert body.text is not None
    assert len(body.text) <= view.MOST_TEXT
    assert body.text_cut == (len(text) > view.MOST_TEXT)


def test_the_time_left_is_the_servers() -> None:
    assert (
        view.seconds_left(refund(decide_by="2026-01-01T00:10:00Z", now="2026-01-01T00:00:00Z"))
        == 600
    )
    assert view.seconds_left(refund(decide_by="2026-01-01T00:00:00Z", now=now())) == 0
    approved = refund(state="approved", decide_by=now(), execute_by=later(300))
    assert view.seconds_left(approved) > 290
    assert view.seconds_left(refund(state="approved")) == 0
    assert view.parse_time("2026-01-01T00:00:00").tzinfo is not None


def test_the_headline_is_the_summary_or_the_place() -> None:
    assert view.headline(refund()) == "Refund 249900 on charge ch_3QK2mT"
    assert view.headline(refund(summaries=[])) == "POST api.stripe.com/v1/refunds"


def test_the_requirement_in_words() -> None:
    card = refund()
    assert view.requirement_sentences(card["requirement"]) == [
        "High tier: 2 different people with the role approver or admin.",
        "May not vote: alice.",
        "One denial ends it.",
    ]
    mixed = {
        "tiers": [
            {
                "tier": "wire",
                "quorum": [
                    {"group": "finance", "count": 2, "members": ["alice", "bob"]},
                    {"group": "security", "count": 1, "members": ["dave"]},
                ],
            }
        ],
        "excluded": [],
        "denials": 2,
    }
    assert view.requirement_sentences(mixed) == [
        "Wire tier: 2 different people of finance (alice, bob) and one person of security (dave).",
        "2 denials end it.",
    ]


def test_progress_counts_people_once() -> None:
    vote = {"user": "dave", "decision": "approve"}
    assert view.progress(refund(votes=[vote, vote, {"user": "bob", "decision": "deny"}])) == (1, 2)
    assert view.progress({"votes": []}) == (0, 1)
