"""A world for every test of the middle; at its end the ledger verifies and holds no secret."""

from __future__ import annotations

from tests.support.services import template, world

__all__ = ["template", "world"]
