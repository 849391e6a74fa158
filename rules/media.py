"""Content-Type: one media type with its parameters, or refused.

Servers cut this header at the first `;`, `,` or blank, take the first or the last of two
parameters: what they could disagree about would let a body be a form to the upstream alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rules.errors import Ambiguous
from rules.hosts import shown

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_VALUE = r'"(?:[^"\\]|\\.)*+"|[^ \t;,"]*+'
# RFC 9110 8.3.1; unquoted values may be more than tokens, as those of boundaries often are.
_PARAMETER = rf"({_WORD})(?:=({_VALUE}))?+"
_PARAMETERS = re.compile(rf";[ \t]*+(?:{_PARAMETER})?+")
_TYPE = re.compile(
    rf"({_WORD}/{_WORD})((?:[ \t]*+;[ \t]*+(?:{_WORD}(?:=(?:{_VALUE}))?+)?+)*+)[ \t]*+"
)
_IN_ASCII = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1"})


@dataclass(frozen=True, slots=True)
class MediaType:
    """What a body says it is. Names are lower case, and empty where it says nothing."""

    name: str = ""
    charset: str = ""

    @property
    def is_form(self) -> bool:
        return self.name == "application/x-www-form-urlencoded"

    @property
    def is_multipart(self) -> bool:
        """With parts that servers may read as fields: Rack does so with all of these."""
        return self.name in ("multipart/form-data", "multipart/related", "multipart/mixed")

    @property
    def is_json(self) -> bool:
        """As widely as Laravel reads it: `text/json` and `application/json-patch+json` are too."""
        return "/json" in self.name or "+json" in self.name

    @property
    def keeps_ascii(self) -> bool:
        """Whether ASCII letters in the body are what they look like."""
        return not self.charset or self.charset in _IN_ASCII


NO_TYPE = MediaType()


@lru_cache(maxsize=1024)
def read_media_type(text: str) -> MediaType:
    """The media type that a Content-Type names; an empty one names none. Raises Ambiguous."""
    if not text:
        return NO_TYPE
    found = _TYPE.fullmatch(text)
    if found is None:
        raise Ambiguous(
            "The Content-Type is not one media type with its parameters; write it like"
            " `text/plain; charset=utf-8`."
        )
    parameters: dict[str, str] = {}
    for name, value in _PARAMETERS.findall(found[2]):
        lower = name.lower()
        if lower in parameters:
            raise Ambiguous(f"The Content-Type gives {shown(lower)} twice; give it once.")
        if lower:
            parameters[lower] = value
    charset = parameters.get("charset", "").strip('"').replace("\\", "").lower()
    return MediaType(found[1].lower(), charset)


def type_name(content_type: str | None) -> str:
    """The media type alone, in lower case; empty if none is named. For a Content-Type that was
    found to be one."""
    return (content_type or "").partition(";")[0].strip(" \t").lower()
