"""A fault is told by its type and place, never by its message."""

from __future__ import annotations

import logging

import pytest

from proxy.faults import report


def broken() -> None:
    raise ValueError("s3cret")


def test_type_and_place_and_no_message(caplog: pytest.LogCaptureFixture) -> None:
    try:
        broken()
    except ValueError as error:
        report("a test", error)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    line = broken.__code__.co_firstlineno + 1
    assert record.getMessage() == f"fault in a test: ValueError at test_faults.py:{line}"
    assert record.exc_info is None, "or a handler would print the message"


def test_what_was_never_raised_or_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    report("a test", OSError("s3cret"))
    report("a test", None)
    assert [record.getMessage() for record in caplog.records] == [
        "fault in a test: OSError at ?",
        "fault in a test: unknown at ?",
    ]
