"""The laws are tested on the same worlds as the middle."""

from __future__ import annotations

from tests.support.services import template, world

__all__ = ["template", "world"]
