"""Tells the operator's terminal that a call waits, with where to look. The vote happens on the
page."""

from __future__ import annotations

import logging

from broker.telemetry.logs import about
from rules.visible import visible

log = logging.getLogger(__name__)

LONGEST_SUMMARY = 120


class ConsoleNotifier:
    """Writes one line a held call. The summary is made inert and short: it has an agent's words
    in it."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url

    def opened(self, approval_id: str, summary: str, agent: str, risk: str) -> None:
        """One line; never raises."""
        log.info(
            "held for review (%s) from %s: %s - %s/approvals/%s",
            risk,
            agent,
            visible(summary, LONGEST_SUMMARY),
            self._admin_url,
            approval_id,
            extra=about("approval.opened", approval=approval_id, agent=agent, risk=risk),
        )
