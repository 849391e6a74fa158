"""Tells the operator's terminal that a call waits, with where to look. The vote happens on the
page."""

from __future__ import annotations

from collections.abc import Callable

from rules.words import visible

LONGEST_SUMMARY = 120


class ConsoleNotifier:
    """Writes one line a held call. The summary is made inert and short: it has an agent's words
    in it."""

    def __init__(self, write: Callable[[str], None], admin_url: str) -> None:
        self._write = write
        self._admin_url = admin_url

    def opened(self, approval_id: str, summary: str, agent: str, risk: str) -> None:
        """One line; never raises."""
        self._write(
            f"held for review ({risk}) from {agent}: {visible(summary, LONGEST_SUMMARY)}"
            f" - {self._admin_url}/approvals/{approval_id}"
        )
