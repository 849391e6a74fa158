"""The clock, held against others'."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from keybroker.doctor.clock import compared

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "state", "says"),
    [
        (31, "warning", "the clock of Vault is 31 s ahead of this one"),
        (-299, "warning", "the clock of Vault is 299 s behind this one"),
        (301, "wrong", "the clock of Vault is 301 s ahead of this one"),
        (-86400, "wrong", "the clock of Vault is 86400 s behind this one"),
    ],
)
def test_clocks_that_differ(seconds: int, state: str, says: str) -> None:
    found = compared(format_datetime(NOW + timedelta(seconds=seconds)), "Vault", NOW)
    assert found is not None
    assert (found.check, found.state, found.says) == ("clock", state, says)
    assert "NTP" in found.fix


@pytest.mark.parametrize("seconds", [0, 30, -30])
def test_the_time_that_an_answer_takes_is_no_trouble(seconds: int) -> None:
    date = format_datetime((NOW + timedelta(seconds=seconds)).astimezone(UTC), usegmt=True)
    assert compared(date, "Vault", NOW) is None


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 22 Nov 2026 09:00:00 -0000"])
def test_what_is_no_date_says_nothing(date: str) -> None:
    assert compared(date, "Vault", NOW + timedelta(days=1)) is None
