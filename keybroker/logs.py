"""The log of `up` and its children on stderr: a line a record, as text for people or JSON.

Whoever's words are in a record, they stay inside their line. An exception is never quoted: it can
carry what was being handled when it was raised, a secret included; what kind it was and where it
was raised says enough. Of others' messages (asyncio's, mitmproxy's, uvicorn's) the first line is
kept, since they quote exceptions below it, and nothing under a warning.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, get_args

from keybroker.cli.frame import paint
from keybroker.errors import Unusable
from rules.visible import visible

_Info = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

Format = Literal["text", "json"]
Level = Literal["error", "warning", "info", "debug"]
VARIABLE = "KEYBROKER_LOG"
OURS = ("keybroker", "proxy", "broker", "rules", "audit", "certs")
LONGEST = 2000
"""Characters of a message or of a fact."""

up = logging.getLogger("keybroker.up")
"""What `up` itself says; for people it looks as every command's output does."""


@dataclass(frozen=True, slots=True)
class Style:
    """How to log."""

    format: Format = "text"
    level: Level = "info"

    def overridden(self, environment: Mapping[str, str] | None = None) -> Style:
        """With what $KEYBROKER_LOG says instead: a format, a level, or both with a comma between.

        Raises Unusable for other words.
        """
        said = (os.environ if environment is None else environment).get(VARIABLE, "")
        style = self
        for word in filter(None, (part.strip() for part in said.split(","))):
            if word in get_args(Format):
                style = Style(word, style.level)  # type: ignore[arg-type]  # just looked
            elif word in get_args(Level):
                style = Style(style.format, word)  # type: ignore[arg-type]
            else:
                words = ", ".join((*get_args(Format), *get_args(Level)))
                raise Unusable(f"{VARIABLE} has {word!r}; it takes, with commas between: {words}")
        return style


class Text(logging.Formatter):
    """For people; colour only where it goes to a terminal."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._name = "keybroker" if process == "up" else f"keybroker {process}"

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        sentence = sentence_of(record)
        if record.levelno >= logging.ERROR or self._name != "keybroker":
            prefix = paint(f"{self._name}:", err=True, fg="red", bold=True)
            quiet = record.levelno < logging.WARNING
            return sentence if quiet else f"{prefix} {sentence}"
        if record.levelno >= logging.WARNING:
            return f"{paint('warning:', err=True, fg='yellow', bold=True)} {sentence}"
        return sentence


class Json(logging.Formatter):
    """For machines: one object a line, in ASCII."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """time, level, process, event, message, and what else is known."""
        facts = getattr(record, "about", None) or {"event": record.name}
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": facts["event"],
            "message": sentence_of(record),
        }
        for name, fact in facts.items():
            if fact is not None:
                line.setdefault(name, visible(fact, LONGEST) if isinstance(fact, str) else fact)
        return json.dumps(line, separators=(",", ":"))


def sentence_of(record: logging.LogRecord) -> str:
    """The message with nothing hidden in it, and what exception led to it."""
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - a line that is badly written must not stop what it is about
        text = str(record.msg)
    if record.name.partition(".")[0] not in OURS:
        text = f"{record.name}: {text.partition(chr(10))[0]}"
    text = visible(text, LONGEST)
    info = record.exc_info
    return f"{text}: {terse(info)}" if isinstance(info, tuple) and info[0] else text


def terse(info: _Info) -> str:
    """An exception as its type and the places that it came through."""
    kind, _, trace = info
    places = " < ".join(
        f"{frame.filename}:{frame.lineno}" for frame in reversed(traceback.extract_tb(trace))
    )
    return f"{kind.__name__ if kind else 'no exception'} at {places or '?'}"


def start(process: str, style: Style) -> None:
    """Everything that this process logs goes to stderr, in this style."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json(process) if style.format == "json" else Text(process))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(style.level.upper())
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a stderr that went away is no reason for a traceback
    sys.excepthook = lambda kind, error, trace: up.critical(
        "this process ends", exc_info=(kind, error, trace)
    )
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        name = failed.thread.name if failed.thread else "?"
        up.error(
            "the thread %s ended",
            name,
            exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback),
        )


def _unraisable(failed: object) -> None:
    kind = getattr(failed, "exc_type", None)
    up.error("an error where none can be raised: %s", getattr(kind, "__name__", "?"))


# --- as `up` speaks ------------------------------------------------------------------------------


def complain(text: str) -> None:
    """An error; each line of `text` is one of them."""
    for line in text.splitlines() or [""]:
        up.error("%s", line)


def warn(text: str) -> None:
    """A warning."""
    up.warning("%s", text)


def tell(text: str) -> None:
    """Something that happened."""
    up.info("%s", text)
