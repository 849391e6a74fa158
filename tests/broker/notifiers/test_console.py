"""One inert line for the operator's terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from broker.notifiers.console import LONGEST_SUMMARY, ConsoleNotifier


@pytest.fixture
def tell(caplog: pytest.LogCaptureFixture) -> Callable[[str], str]:
    def opened(summary: str) -> str:
        with caplog.at_level(logging.INFO):
            ConsoleNotifier("http://localhost:8081").opened("a-1", summary, "bot", "medium")
        [record] = caplog.records
        assert record.about == {  # type: ignore[attr-defined]
            "event": "approval.opened", "approval": "a-1", "agent": "bot", "risk": "medium",
        }  # fmt: skip
        return record.getMessage()

    return opened


def test_the_line_says_who_waits_for_what_and_where_to_decide(tell: Callable[[str], str]) -> None:
    assert tell("Refund 5") == (
        "held for review (medium) from bot: Refund 5 - http://localhost:8081/approvals/a-1"
    )


def test_an_agents_words_cannot_steer_the_terminal(tell: Callable[[str], str]) -> None:
    line = tell("Refund\n\x1b[2J\x1b]0;title\x07 \u202e5")
    assert line.isprintable()
    assert "\u202e" not in line


def test_a_long_summary_is_cut(tell: Callable[[str], str]) -> None:
    assert len(tell("x" * 10_000)) < LONGEST_SUMMARY + 120
