"""A finding, and the call that shows it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

from rules.errors import Problem
from rules.model import Subject
from rules.request import Request
from rules.spellings import is_run

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The worst first. An error refuses the file; a note asks whether this is meant."""


@dataclass(frozen=True, slots=True)
class Example:
    """One call, as `policy explain` and a policy's tests take it."""

    subject: Subject
    request: Request

    def to_dict(self) -> dict[str, Any]:
        """The fields of a test's request, with who calls (`as`, `tags`)."""
        request = self.request
        found: dict[str, Any] = {"as": self.subject.name}
        if self.subject.tags:
            found["tags"] = sorted(self.subject.tags)
        found |= {"method": request.method, "url": request.url}
        headers = list(request.headers)
        if request.upgrade is not None:
            headers += [("connection", "Upgrade"), ("upgrade", request.upgrade)]
        if headers:
            found["headers"] = dict(headers)
        if request.body:
            try:
                found["body"] = request.body.decode()
            except UnicodeDecodeError:
                found["body_base64"] = base64.b64encode(request.body).decode()
        if request.moment is not None:
            found["at"] = request.moment.isoformat()
        if request.via != "proxy":
            found["via"] = request.via
        if request.run is not None:
            found["run"] = request.run if is_run(request.run) else True
        return found


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know about a policy. `line` is 0 for the file as a whole."""

    code: str
    severity: Severity
    rule: str
    """The id of the rule that it is about, else empty."""
    file: str
    line: int
    message: str
    """What is odd, and why it matters."""
    example: Example | None = None
    """A call that shows it; None only where there is no policy that could decide it."""

    @classmethod
    def of(cls, problem: Problem, example: Example | None = None) -> Finding:
        """What the loader says, as a finding."""
        severity: Severity = "error" if problem.severity == "error" else "warning"
        return cls(
            problem.code,
            severity,
            problem.rule,
            problem.file,
            problem.line,
            problem.message,
            example,
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "code": self.code,
            "severity": self.severity,
            "rule": self.rule,
            "file": self.file,
            "line": self.line,
            "message": self.message,
            "example": None if self.example is None else self.example.to_dict(),
        }
