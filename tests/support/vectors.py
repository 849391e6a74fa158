"""The vectors of canonical requests (tests/vectors/README.md), as this implementation's values."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules.request import RawRequest, Request

FILE = Path(__file__).parents[1] / "vectors" / "canonical.json"

type Text = str | list[str | list[Any]]


@dataclass(frozen=True, slots=True)
class Vector:
    """One case. Either `canonical` or `why` is given."""

    id: str
    group: str
    raw: RawRequest
    canonical: Request | None
    why: str | None
    """The class of the reason for refusing it."""


def load_vectors() -> list[Vector]:
    """All cases of the file, in order."""
    file = json.loads(FILE.read_text(encoding="utf-8"))
    return [
        _vector(file["defaults"], group["class"], case)
        for group in file["groups"]
        for case in group["cases"]
    ]


def _vector(defaults: dict[str, Any], group: str, case: dict[str, Any]) -> Vector:
    raw = _raw({**defaults, **case["request"]})
    expect = case["expect"]
    canonical = expect.get("canonical")
    return Vector(
        id=f"{group}: {case['name']}",
        group=group,
        raw=raw,
        canonical=None if canonical is None else _canonical(canonical, raw.body),
        why=expect.get("why"),
    )


def _raw(request: dict[str, Any]) -> RawRequest:
    lines = [*request.pop("headers"), *request.pop("add")]
    body = _body(request)
    connect = request.pop("connect")
    return RawRequest(
        **{
            **request,
            "target": _text(request["target"]),
            "connect": None if connect is None else (_text(connect[0]), connect[1]),
            "headers": tuple(
                (_text(name).encode("latin-1"), _text(value).encode("latin-1"))
                for name, value in lines
            ),
            "body": body,
        }
    )


def _canonical(fields: dict[str, Any], body: bytes) -> Request:
    return Request(
        **{
            **fields,
            "path": _text(fields["path"]),
            "headers": tuple((name, value) for name, value in fields["headers"]),
            "body": body,
        }
    )


def _body(request: dict[str, Any]) -> bytes:
    text = request.pop("body").encode()
    encoded = request.pop("body_base64", None)
    return text if encoded is None else base64.b64decode(encoded, validate=True)


def _text(value: Text) -> str:
    """A text; a list is its pieces, in which `[text, times]` is a repetition."""
    if isinstance(value, str):
        return value
    return "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in value)
