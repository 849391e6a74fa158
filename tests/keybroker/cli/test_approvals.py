"""`keybroker approvals`: the card in the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from keybroker.cli.approvals import print_card

CARD: dict[str, Any] = {
    "summaries": ["Refund 1 on charge ch_9"],
    "impacts": ["Money leaves."],
    "what": {"method": "POST", "scheme": "https", "host": "p.example", "port": 9443, "path": "/r"},
    "credentials": [{"name": "payments", "secret": "kv/payments#key"}],
    "agent": "bot",
    "owner": "alice",
    "tags": ["finance", "night"],
    "operator_note": "nightly refunds",
    "claim": "please\x1b[2J",
    "rules": [{"id": "refund", "sentence": "POST: held."}],
    "risk": "medium",
    "state": "pending",
    "decide_by": "2026-01-31T09:15:00.000000Z",
    "execute_by": None,
    "votes": [],
}


def shown(capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    print_card({**CARD, **changes})
    return capsys.readouterr().out


def test_a_card_says_who_runs_the_agent_and_what_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    assert "POST p.example:9443/r" in text
    assert "bot, owned by alice, tagged finance, night" in text
    assert "run for     nightly refunds" in text
    assert r"please\x1b[2J" in text


def test_a_card_has_the_sentence_that_the_agent_got(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'why         Rule "refund" holds it.' in shown(
        capsys, sentence='Rule "refund" holds it.'
    )
    assert "why " not in shown(capsys)


def test_the_clock_or_end_that_counts_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "decide by   2026-01-31T09:15" in shown(capsys)
    approved = shown(capsys, state="approved", execute_by="2026-01-31T09:20:00.000000Z")
    assert "execute by  2026-01-31T09:20" in approved
    assert "decide by" not in approved
    denied = shown(capsys, state="denied", resolution={"state": "denied", "reason": "no"})
    assert "because     no" in denied
