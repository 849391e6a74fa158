"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is empty where there is nothing to mend."""

    check: str
    state: State
    says: str
    fix: str = ""
