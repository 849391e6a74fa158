"""What children log never holds an exception's own text."""

from __future__ import annotations

import logging
import sys

from keybroker.logs import Terse


def test_an_exception_is_logged_by_kind_and_place_only() -> None:
    def fail() -> None:
        raise ValueError("sk_live_canary")

    try:
        fail()
    except ValueError:
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "call %s failed", ("c-1",), sys.exc_info()
        )
    line = Terse("keybroker worker-0: %(message)s").format(record)
    assert "canary" not in line
    assert line.startswith("keybroker worker-0: call c-1 failed")
    assert "ValueError at " in line
    assert "test_logs.py" in line
