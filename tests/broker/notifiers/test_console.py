"""One inert line for the operator's terminal."""

from __future__ import annotations

from broker.notifiers.console import LONGEST_SUMMARY, ConsoleNotifier


def tell(summary: str) -> str:
    lines: list[str] = []
    notifier = ConsoleNotifier(lines.append, "http://localhost:8081")
    notifier.opened("a-1", summary, "bot", "medium")
    [line] = lines
    return line


def test_the_line_says_who_waits_for_what_and_where_to_decide() -> None:
    assert tell("Refund 5") == (
        "held for review (medium) from bot: Refund 5 - http://localhost:8081/approvals/a-1"
    )


def test_an_agents_words_cannot_steer_the_terminal() -> None:
    line = tell("Refund\n\x1b[2J\x1b]0;title\x07 \u202e5")
    assert line.isprintable()
    assert "\u202e" not in line


def test_a_long_summary_is_cut() -> None:
    assert len(tell("x" * 10_000)) < LONGEST_SUMMARY + 120
