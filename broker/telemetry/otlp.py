"""Sends spans to a collector: OTLP over HTTP in JSON, from a thread of its own.

It never blocks or fails a call: what the collector is too slow for is dropped, and counted.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import urllib3

from broker.errors import InvalidInput
from broker.telemetry.traces import Span, Value

log = logging.getLogger(__name__)

MOST_WAITING = 4096
"""Spans that may wait; later ones are dropped."""
BATCH = 512
"""Spans in one request."""
EVERY = 2.0
"""Seconds between two requests, and after one that failed."""
TIMEOUT = 5.0
"""Seconds that a request may take, and that the last ones have at the end."""

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")

type Tell = Callable[[str, int], None]
"""What became of so many spans: `exported`, `failed`, `dropped`."""


def encode(spans: Sequence[Span], resource: Mapping[str, str]) -> bytes:
    """An ExportTraceServiceRequest in OTLP's JSON: ids in hex, 64-bit numbers as strings."""
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource.items())},
                    "scopeSpans": [
                        {"scope": {"name": "keybroker"}, "spans": [_span(s) for s in spans]}
                    ],
                }
            ]
        },
        separators=(",", ":"),
    ).encode()


def read_headers(file: Path) -> dict[str, str]:
    """`Name: value` lines. Raises InvalidInput with what is wrong, never with a value."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} cannot be read ({type(error).__name__})") from None
    headers = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            found = _HEADER.fullmatch(line.strip())
            if found is None:
                raise InvalidInput(f"{file}:{number}: write `Name: value`")
            headers[found[1]] = found[2]
    return headers


class Exporter:
    """Takes spans from the event loop, and sends them from its thread."""

    def __init__(
        self,
        url: str,
        *,
        roots: str,
        resource: Mapping[str, str],
        headers_file: Path | None = None,
        tell: Tell,
        every: float = EVERY,
    ) -> None:
        """`roots` is a PEM file. The headers' file is read for each request: it may be renewed.

        Raises InvalidInput if it cannot be used now.
        """
        self._url = url
        self._resource = resource
        self._headers_file = headers_file
        self._headers()
        self._tell = tell
        self._every = every
        self._waiting: deque[Span] = deque()
        self._over = threading.Event()
        self._ill = False
        # Neither proxies nor credentials of the environment: urllib3 looks at none.
        self._pool = urllib3.PoolManager(maxsize=1, cert_reqs="CERT_REQUIRED", ca_certs=roots)
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def emit(self, spans: Sequence[Span]) -> None:
        """Takes all of them, or none if too many wait. Never blocks, never raises."""
        if len(self._waiting) + len(spans) > MOST_WAITING:
            self._tell("dropped", len(spans))
        else:
            self._waiting.extend(spans)

    def close(self) -> None:
        """Sends what waits, for TIMEOUT seconds at most."""
        self._over.set()
        self._thread.join(TIMEOUT)

    def _run(self) -> None:
        over = False
        while not over:
            over = self._over.wait(self._every)
            while self._waiting and self._send() and (over or not self._over.is_set()):
                pass

    def _send(self) -> bool:
        """One request; False if it failed, and its spans are lost."""
        count = min(BATCH, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        try:
            headers = {**self._headers(), "Content-Type": "application/json"}
            response = self._pool.request(
                "POST",
                self._url,
                body=encode(batch, self._resource),
                headers=headers,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(total=TIMEOUT),
            )
            cause = None if 200 <= response.status < 300 else f"it answers {response.status}"
        except InvalidInput as error:
            cause = str(error)
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever it is
            cause = type(error).__name__
        self._tell("exported" if cause is None else "failed", count)
        if (cause is not None) != self._ill:
            self._ill = cause is not None
            if cause is None:
                log.warning("traces are exported again")
            else:
                log.warning("traces are not exported: %s", cause)
        return cause is None

    def _headers(self) -> dict[str, str]:
        return {} if self._headers_file is None else read_headers(self._headers_file)


def _span(span: Span) -> dict[str, object]:
    made: dict[str, object] = {
        "traceId": span.trace,
        "spanId": span.id,
        "parentSpanId": span.parent,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": _attributes(span.attributes),
        "links": [{"traceId": trace, "spanId": id} for trace, id in span.links],
        "status": {"code": 2} if span.failed else {},
    }
    return made


def _attributes(facts: Iterable[tuple[str, Value]]) -> list[dict[str, object]]:
    return [{"key": name, "value": _value(value)} for name, value in facts]


def _value(value: Value) -> dict[str, object]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, str):
        return {"stringValue": value}
    return {"arrayValue": {"values": [{"stringValue": one} for one in value]}}
