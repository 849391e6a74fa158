"""Text for people: nothing in it is hidden."""

from __future__ import annotations

import re
import unicodedata

MAX_VALUE = 80
"""Characters of a value in a summary."""

# Letters by their category, but blank to the eye.
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"))
_PRINTABLE = re.compile(r"[ -~]*")


def visible(text: str, limit: int = MAX_VALUE) -> str:
    """`text` with nothing hidden in it, cut to `limit` characters (the last is then `…`).

    Control characters, direction marks, line breaks, odd blanks and unassigned characters are
    written as escapes such as `\\u202e`.
    """
    cut = text[: limit + 1]
    if not _PRINTABLE.fullmatch(cut):
        cut = "".join(_escaped(c) if is_invisible(c) else c for c in cut)
    return cut if len(cut) <= limit else cut[: limit - 1] + "…"


def is_invisible(character: str) -> bool:
    """Whether a reader may not see this character, or may see it where it does not stand."""
    if character == " ":
        return False
    return unicodedata.category(character) in _INVISIBLE or character in _BLANK_LETTERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
