"""The packs that are shipped: one YAML file for each API, beside this one. They are only read here;
what they mean is for rules.pack and rules.include."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

_SUFFIX = ".yaml"


@cache
def names() -> tuple[str, ...]:
    """What can be included with `pack:`, in alphabetical order."""
    found = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(n.removesuffix(_SUFFIX) for n in found if n.endswith(_SUFFIX)))


@cache
def text_of(name: str) -> str | None:
    """The file of a shipped pack; None if there is no such pack."""
    if name not in names():
        return None
    return (files(__name__) / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def file_of(name: str) -> str:
    """How problems name the file of a shipped pack."""
    return f"packs/{name}{_SUFFIX}"
