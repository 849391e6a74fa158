"""The log: one line a record whatever is in it, and never an exception's own text."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.telemetry.logs import about
from keybroker import logs
from keybroker.errors import Unusable
from keybroker.logs import LONGEST, Json, Style, Text


def record(
    message: str,
    *arguments: object,
    level: int = logging.ERROR,
    name: str = "broker.x",
    **more: Any,
) -> logging.LogRecord:
    made = logging.LogRecord(
        name, level, __file__, 1, message, arguments, more.pop("exc_info", None)
    )
    made.__dict__.update(more)
    return made


def raised(error: Exception) -> Any:
    try:
        raise error
    except type(error):
        return sys.exc_info()


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    line = Json("worker-0").format(made)
    assert line.isascii() and line.isprintable()
    found: dict[str, Any] = json.loads(line)
    return found


HOSTILE = [
    "a\nkeybroker: everything is fine",
    'a\r\n{"level":"info"}',
    "\x1b[2J\x1b]0;title\x07",
    "\x00\x08\x7f\x85",
    "\u2028\u2029\u202e\u200b\ufeff",
    "\ud800",
    "%s %d %(x)s",
    '"} {"event":"forged"}',
    "x" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_others_wrote_stays_in_its_line(text: str) -> None:
    for made in (record("call failed: %s", text), record("x", **about("e", host=text))):
        line = Text("worker-0").format(made)
        assert line.isprintable() and len(line) < LONGEST + 100
        found = as_json(made)
        assert found["event"] != "forged" and found["level"] == "error"
        assert all(len(str(value)) <= LONGEST for value in found.values())


@given(st.text(), st.sampled_from([logging.INFO, logging.WARNING, logging.ERROR]))
def test_any_text_makes_one_printable_line(text: str, level: int) -> None:
    for formatter in (Text("up"), Text("admin"), Json("admin")):
        assert formatter.format(record("%s", text, level=level)).isprintable()


@pytest.mark.parametrize("formatter", [Text("worker-0"), Json("worker-0")])
def test_an_exception_is_logged_by_kind_and_place_only(formatter: logging.Formatter) -> None:
    info = raised(ValueError("sk_live_canary"))
    line = formatter.format(record("call %s failed", "c-1", exc_info=info))
    assert "canary" not in line
    assert "call c-1 failed: ValueError at " in line and "test_logs.py" in line


def test_others_messages_lose_what_they_quote_below_their_first_line() -> None:
    """asyncio prints an exception that nobody fetched with its text."""
    text = (
        "Task exception was never retrieved\nfuture: <Task exception=ValueError('sk_live_canary')>"
    )
    made = record(text, name="asyncio", exc_info=raised(ValueError("sk_live_canary")))
    line = Text("worker-0").format(made)
    assert "canary" not in line and "asyncio: Task exception was never retrieved" in line


def test_arguments_that_do_not_fit_are_no_error() -> None:
    assert "%s and %s" in Text("admin").format(record("%s and %s", 1))


def test_a_line_for_machines_has_what_is_known() -> None:
    made = record(
        "call %s",
        "c-1",
        level=logging.INFO,
        **about("call.ended", call="c-1", agent=None, status=7),
    )
    made.created = 1785000000.25
    assert as_json(made) == {
        "time": "2026-07-25T17:20:00.250Z",
        "level": "info",
        "process": "worker-0",
        "event": "call.ended",
        "message": "call c-1",
        "call": "c-1",
        "status": 7,
    }
    assert as_json(record("x", name="uvicorn.error"))["event"] == "uvicorn.error"


def test_no_fact_replaces_what_every_line_has() -> None:
    found = as_json(record("x", **about("e", level="debug", process="up", message="y")))
    assert (found["level"], found["process"], found["message"]) == ("error", "worker-0", "x")


def test_people_read_up_like_any_command_and_others_by_name() -> None:
    def line(process: str, level: int) -> str:
        return Text(process).format(record("x", level=level))

    assert line("up", logging.ERROR) == "keybroker: x"
    assert line("up", logging.WARNING) == "warning: x"
    assert line("up", logging.INFO) == line("worker-1", logging.INFO) == "x"
    assert line("worker-1", logging.WARNING) == "keybroker worker-1: x"


def test_the_variable_overrides_the_settings() -> None:
    style = Style("text", "info")
    assert style.overridden({}) == style
    assert style.overridden({"KEYBROKER_LOG": "json"}) == Style("json", "info")
    assert style.overridden({"KEYBROKER_LOG": " debug, json"}) == Style("json", "debug")
    with pytest.raises(Unusable, match="'loud'; it takes"):
        style.overridden({"KEYBROKER_LOG": "json,loud"})


# In a process of its own: it changes how this one logs


SCRIPT = """
import asyncio, logging, sys, threading, warnings
from keybroker import logs
logs.start("worker-0", logs.Style("json", "debug"))
logging.getLogger("urllib3").debug("foreign debug")
logging.getLogger("proxy.x").debug("own debug")
warnings.warn("a warning\\nsecond line")
def fail(): raise ValueError("sk_live_canary")
thread = threading.Thread(target=fail, name="a-thread"); thread.start(); thread.join()
async def main():
    asyncio.get_running_loop().create_task(later()); await asyncio.sleep(0.01)
async def later(): raise ValueError("sk_live_canary")
asyncio.run(main())
class Bad:
    def __del__(self): raise ValueError("sk_live_canary")
Bad()
logs.complain("one\\ntwo"); logs.warn("three"); logs.tell("four")
raise ValueError("sk_live_canary")
"""


@pytest.fixture(scope="module")
def printed() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1 and "canary" not in done.stderr + done.stdout
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_whatever_a_process_says_is_one_object_a_line(printed: list[dict[str, Any]]) -> None:
    messages = [line["message"] for line in printed]
    assert "own debug" in messages and not any("foreign debug" in m for m in messages)
    for begin in (
        "py.warnings: ",
        "the thread a-thread ended: ValueError at",
        "asyncio: Task exception was never retrieved",
        "an error where none can be raised: ValueError",
        "this process ends: ValueError",
    ):
        assert any(m.startswith(begin) for m in messages), begin
    assert messages[-5:-1] == ["one", "two", "three", "four"]
    assert {line["process"] for line in printed} == {"worker-0"}


def test_complaints_are_errors(printed: list[dict[str, Any]]) -> None:
    assert [line["level"] for line in printed[-5:]] == [
        "error", "error", "warning", "info", "critical",
    ]  # fmt: skip
    assert logs.VARIABLE == "KEYBROKER_LOG"
