"""Paths and queries: the strict grammar, and the templates that policies match paths with.

A path has one spelling or is refused, so that the string that was matched is the string that is
forwarded. Matching is linear in the length of the path; there is no pattern to blow up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from types import MappingProxyType
from urllib.parse import quote, unquote, unquote_to_bytes

from rules.errors import Ambiguous
from rules.hosts import shown

MAX_TARGET = 16_384
"""Bytes of path and query together."""

# RFC 3986: unreserved / sub-delims without ";" / ":" / "@". ";" starts parameters that some servers
# strip, and so is refused.
_RAW = r"A-Za-z0-9\-._~!$&'()*+,=:@"
_PLAIN_PATH = re.compile(rf"/[{_RAW}/]*")
_ENCODED_PATH = re.compile(rf"/(?:[{_RAW}/]|%[0-9A-F]{{2}})*")
ENCODED_SLASH = "%2F"
"""Part of a name to some servers, a separator to others: only where a rule says so."""
_DOTS = re.compile(r"/\.+(?=/|$)")
_ODD_IN_PATH = re.compile(rf"[^{_RAW}/%]|%(?![0-9A-F]{{2}})")
_ESCAPE = re.compile(r"%([0-9A-F]{2})")
# What a segment may hold only in encoded form. A delimiter that may stand by itself is not here:
# `@` and `%40` would be two spellings. `%` (25) is not, because "%252F" is read as "%2F" by one
# server and as "/" by the next.
_NEEDS_ENCODING = frozenset(b' "#<>?[]^`{|}') | frozenset(range(0x80, 0x100))
_ALLOWED_ESCAPES = frozenset(f"{byte:02X}" for byte in _NEEDS_ENCODING)

_QUERY = re.compile(r'[!"$-~]*')
_DELIMITER = re.compile("%3F|%23")
"""An encoded `?` or `#`: who decodes before splitting the target ends the path here."""
_ALIKE = frozenset("/\\%\u2044\u2215\u2216\u29f5\u29f8\u29f9")
"""Among them what Windows' best-fit tables turn into a slash or backslash, but NFKC does not."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

SLASH_REFUSED = (
    "The path holds `%2F`, an encoded slash, which servers read in two ways and no rule takes here "
    "(with `{+name}` in its path); use a plain `/` between segments, or another endpoint."
)
_FORMAT = re.compile(r"(?<=[^/])\.[^./]+(?=/?\Z)")
"""How Rails (`(.:format)`), Grape and others let a client name the form of the answer: what is
called is the same."""
_FRONT = re.compile(r"\A/index\.php(?=/)", re.IGNORECASE)
"""The one script through which Magento, Nextcloud, Symfony and Laravel serve every path, and which
may be named before it."""
_FORMATS = frozenset(
    ("json", "xml", "html", "htm", "js", "csv", "txt", "yaml", "yml", "atom", "rss")
)

_DOTTED = (
    "The path holds a look-alike of `/`, `\\`, `%` or a dot segment, which some servers turn into "
    "the real one; leave it out."
)

_VARIABLE = re.compile(r"\{(\+?)([A-Za-z_][A-Za-z0-9_]*)\}([:.][\w.:~-]*[\w~-])?", re.ASCII)


def check_path(path: str, *, slashes: bool = False) -> None:
    """Returns if the path is in canonical form; otherwise raises Ambiguous with what to write.

    With `slashes` it may have encoded slashes if it is in canonical form for who decodes them, too.
    """
    if slashes and ENCODED_SLASH in path and path.startswith("/"):
        check_path(path.replace(ENCODED_SLASH, "/"))
        return
    if "%" not in path:
        if not _PLAIN_PATH.fullmatch(path):
            raise Ambiguous(_odd_path(path))
    elif not _ENCODED_PATH.fullmatch(path):
        raise Ambiguous(_odd_path(path))
    else:
        _check_escapes(path)
    if "//" in path:
        raise Ambiguous("The path holds `//`; write a single `/`.")
    if "/." in path and _DOTS.search(path):
        raise Ambiguous("The path holds a `.` or `..` segment; write the path it leads to.")


def check_query(query: str) -> None:
    """Returns if the query (without its `?`) can be forwarded to the letter; raises Ambiguous."""
    if not _QUERY.fullmatch(query):
        raise Ambiguous(_odd_query(query))
    if "%" not in query:
        return
    if _BAD_ESCAPE.search(query):
        raise Ambiguous("The query holds a `%` that starts no escape; write `%25` for the sign.")
    if "%00" in query:
        raise Ambiguous("The query holds an encoded NUL byte (`%00`); leave it out.")
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise Ambiguous(
            "The query's percent escapes are not UTF-8; encode its text as UTF-8."
        ) from None


@dataclass(frozen=True, slots=True)
class Template:
    """A path template of the policy: literal segments, `*`, `{name}` and a final `**`.

    `*` and `{name}` stand for one segment that is not empty, `{name}:cancel` for one that ends so
    (the custom methods of Google's APIs, AIP-136); `**` for any rest, the empty one
    included, so that `/v1/**` matches `/v1`, `/v1/` and all below.
    """

    text: str
    segments: tuple[str | None, ...]
    """None stands for any one segment that is not empty."""
    suffixes: Mapping[int, str]
    """How segments that stand for any must end, by index: `{name}:cancel`."""
    wide_segments: tuple[str | None, ...]
    """The same as `matches(..., ignore_case=True)` compares them."""
    without_format: tuple[str | None, ...]
    """The same without `.json` and the like at the end."""
    rest: bool
    """The template ends in `**`."""
    slashed: frozenset[int]
    """The segments that may have encoded slashes; if there are any, so may what `**` stands for."""
    literal_prefix: str
    """What every path that matches (with case) begins with."""
    wide_prefix: str
    """What one of the `wide_texts` of every path that matches widely begins with."""

    def matches(self, path: str, *, ignore_case: bool = False) -> bool:
        """Whether a canonical path falls under the template.

        `ignore_case` asks for the widest reading, for rules that restrict: letter case,
        compatibility forms of letters (NFKC), invisible characters, dots and spaces at the end of a
        segment, a slash at the end, a format there (`.json`), `/index.php` before it, and what
        follows an encoded `?` or `#` do not count, since some servers ignore them; an encoded slash
        is part of its segment to some and a plain one to others. What matches without it matches
        with it.
        """
        if ignore_case:
            if _is_plain(path):
                return self._matches_widely(path.lower().split("/")[1:])
            return any(self._matches_widely(_wide(text)) for text in _spellings(path))
        segments = path.split("/")[1:]
        if not _match(self.segments, self.rest, segments):
            return False
        if self.suffixes and not all(_goes_on(segments[i], s) for i, s in self.suffixes.items()):
            return False
        return ENCODED_SLASH not in path or self._takes_slashes_of(segments)

    def filled(self, word: str) -> list[str]:
        """The segments of a path that falls under it, `word` standing for any and nothing for the
        rest."""
        return [
            word + self.suffixes.get(index, "") if part is None else part
            for index, part in enumerate(self.segments)
        ]

    def _matches_widely(self, path: Sequence[str]) -> bool:
        if not _match(self.wide_segments, self.rest, path) and (
            self.without_format is self.wide_segments
            or not _match(self.without_format, self.rest, path)
        ):
            return False
        return all(path[index].endswith(s.lower()) for index, s in self.suffixes.items())

    def _takes_slashes_of(self, segments: list[str]) -> bool:
        if not self.slashed:
            return False
        return not any(
            ENCODED_SLASH in segment and index not in self.slashed
            for index, segment in enumerate(segments[: len(self.segments)])
        )


@lru_cache(maxsize=16_384)
def parse_template(text: str) -> Template:
    """Reads a path template. Raises ValueError with a sentence."""
    if not text.startswith("/"):
        raise ValueError(f"the path {shown(text)} must begin with `/`")
    if "?" in text:
        raise ValueError(f"{shown(text)}: a path has no query; write that under `query:`")
    if "//" in text:
        raise ValueError(f"{shown(text)}: `//` is in no path that Keybroker accepts")
    parts = text.split("/")[1:]
    rest = parts[-1] == "**"
    if rest:
        parts.pop()
    segments: list[str | None] = []
    names: set[str] = set()
    slashed: set[int] = set()
    suffixes: dict[int, str] = {}
    for index, part in enumerate(parts):
        variable = _VARIABLE.fullmatch(part)
        if part == "**":
            raise ValueError(f"{shown(text)}: `**` may only be the last segment")
        if part == "*":
            segments.append(None)
        elif variable:
            plus, name, suffix = variable.groups()
            if name in names:
                raise ValueError(f"{shown(text)}: {{{name}}} occurs twice")
            names.add(name)
            segments.append(None)
            if plus:
                slashed.add(index)
            if suffix:
                suffixes[index] = suffix
        elif "*" in part or "{" in part or "}" in part:
            raise ValueError(
                f"{shown(text)}: `*`, `**` and `{{name}}` must be whole segments, unlike "
                f"{shown(part)}; only `{{name}}` may go on, with `:` or `.`"
            )
        else:
            segments.append(part)
    literal = "/" + "/".join(
        "x" + suffixes.get(index, "") if part is None else part
        for index, part in enumerate(segments)
    )
    try:
        check_path(literal)
    except Ambiguous as error:
        if ENCODED_SLASH in literal.upper():
            raise ValueError(
                f"{shown(text)}: write `{{+name}}` for a segment that may have encoded slashes "
                "(`%2F`); what they stand between is left to `when`"
            ) from error
        raise ValueError(
            f"{shown(text)} can match no path that Keybroker accepts: {error.sentence}"
        ) from error
    wide = tuple([None if part is None else _fold(part) for part in segments])
    if not rest and len(wide) > 1 and wide[-1] == "":
        wide = wide[:-1]
    plain = wide
    if wide and wide[-1] is not None and not rest:
        stem, _, form = wide[-1].rpartition(".")
        if stem and form in _FORMATS:
            plain = (*wide[:-1], stem)
    return Template(
        text=text,
        segments=tuple(segments),
        suffixes=MappingProxyType(suffixes),
        wide_segments=wide,
        without_format=plain,
        rest=rest,
        slashed=frozenset(slashed),
        literal_prefix=_literal_prefix(segments),
        wide_prefix="/" + "/".join(takewhile(lambda part: part is not None, plain)),  # type: ignore[arg-type]
    )


def wide_texts(path: str) -> tuple[str, ...]:
    """The path as `matches(..., ignore_case=True)` compares it, in one piece: for a quick look."""
    if _is_plain(path):
        return (path.lower(),)
    return _odd_texts(path)


@lru_cache(maxsize=256)
def _odd_texts(path: str) -> tuple[str, ...]:
    return tuple(["/" + "/".join(_wide(text)) for text in _spellings(path)])


def _spellings(path: str) -> list[str]:
    """The path, and what else lenient servers take it for: that is cut at an encoded `?` or `#`, or
    has its encoded slashes decoded, or names no script before it and no format at its end."""
    found = [path]
    if "%" in path:
        found.append(_DELIMITER.split(path, maxsplit=1)[0])
        found += [text.replace(ENCODED_SLASH, "/") for text in found]
    if "." in path:
        if path[:7].lower() == "/index.":
            found += [_FRONT.sub("", text) for text in found]
        found += [_FORMAT.sub("", text) for text in found]
    return list(dict.fromkeys(found)) if len(found) > 1 else found


def _match(segments: Sequence[str | None], rest: bool, path: Sequence[str]) -> bool:
    if len(path) < len(segments) or (len(path) > len(segments) and not rest):
        return False
    for wanted, found in zip(segments, path, strict=False):
        if found != wanted if wanted is not None else found == "":
            return False
    return True


def _goes_on(segment: str, suffix: str) -> bool:
    """Whether the segment is something with the suffix behind it."""
    return segment.endswith(suffix) and segment != suffix


def _literal_prefix(segments: list[str | None]) -> str:
    prefix = ""
    for segment in segments:
        prefix += "/"
        if segment is None:
            return prefix
        prefix += segment
    return prefix or "/"


@lru_cache(maxsize=256)
def _wide(path: str) -> tuple[str, ...]:
    parts = path.split("/")[1:]
    if len(parts) > 1 and parts[-1] == "":
        parts.pop()
    return tuple(_fold(part) for part in parts)


def _is_plain(path: str) -> bool:
    """Whether a canonical path has nothing that is read widely in another way than letter case."""
    return "%" not in path and "." not in path and not path.endswith("/")


def _fold(segment: str) -> str:
    """The segment as the most lenient of servers would read it."""
    if "%" not in segment:
        text = segment.lower()
    elif ENCODED_SLASH in segment:
        text = ENCODED_SLASH.join(map(_fold, segment.split(ENCODED_SLASH)))
    else:
        whole = unicodedata.normalize("NFKC", unquote(segment).casefold()).casefold()
        text = "".join(c for c in whole if unicodedata.category(c) != "Cf") or whole
    return text.rstrip(". ") or text  # as Windows does with file names


def _check_escapes(path: str) -> None:
    for escape in _ESCAPE.findall(path):
        if escape not in _ALLOWED_ESCAPES:
            raise Ambiguous(_odd_escape(escape))
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise Ambiguous(
            "The path's percent escapes are not UTF-8; encode its text as UTF-8."
        ) from None
    if text.isascii():
        if any(not segment.strip(". ") for segment in text.split("/") if "." in segment):
            raise Ambiguous(_DOTTED)
        return
    if any("\x80" <= c <= "\x9f" for c in text):
        raise Ambiguous("The path holds an encoded control character; leave it out.")
    if not unicodedata.is_normalized("NFC", text):
        raise Ambiguous(
            "The path's text is not in Unicode's composed form; write "
            f"{shown(quote(unicodedata.normalize('NFC', text)))} (NFC)."
        )
    for segment in text.split("/"):
        plain = unicodedata.normalize("NFKC", segment)
        if not _ALIKE.isdisjoint(plain) or ("." in plain and not plain.strip(". ")):
            raise Ambiguous(_DOTTED)


def _odd_escape(escape: str) -> str:
    character = chr(int(escape, 16))
    if escape == "2F":
        return SLASH_REFUSED
    if escape == "5C":
        return (
            "The path holds `%5C`, an encoded backslash, which servers read in two ways; use a "
            "plain `/` between segments, or another endpoint."
        )
    if escape == "25":
        return "The path holds `%25`: doubly encoded text is read in two ways; encode it once."
    if escape == "3B":
        return "The path holds `%3B`, an encoded `;`, which servers read in two ways; leave it out."
    if character < " " or character == "\x7f":
        return f"The path holds an encoded control byte (`%{escape}`); leave it out."
    return f"The path holds `%{escape}` where no escape is needed; write `{character}` itself."


def _odd_path(path: str) -> str:
    if not path.startswith("/"):
        return "The path must begin with `/`; write `/` for the root."
    found = _ODD_IN_PATH.search(path)
    # The caller has seen that some character is odd; without one, deny all the same.
    at = found.start() if found else len(path)
    odd = path[at : at + 1]
    if odd == "%":
        written = path[at : at + 3]
        if re.fullmatch("%[0-9A-Fa-f]{2}", written):
            return f"The path holds `{written}`; write the escape in capitals, `{written.upper()}`."
        return (
            "The path holds a `%` that starts no escape; write text percent-encoded as UTF-8, once."
        )
    if odd == "\\":
        return "The path holds a backslash; write `/` between segments."
    if odd == ";":
        return "The path holds `;`; parameters of a segment are read in two ways, leave them out."
    if odd == "#":
        return "The path holds `#`; leave the fragment out, or write `%23` if it is part of a name."
    if odd < " " or odd == "\x7f":
        return f"The path holds the control byte {shown(odd)}; leave it out."
    return f"The path holds {shown(odd)} as it is; write {_encoded(odd)}."


def _odd_query(query: str) -> str:
    found = re.search(r'[^!"$-~]', query)
    odd = found.group() if found else ""
    if odd == "#":
        return "The query holds `#`; leave the fragment out, or write `%23` for the sign."
    if odd < " " or odd == "\x7f":
        return f"The query holds the control byte {shown(odd)}; percent-encode it or leave it out."
    return f"The query holds {shown(odd)} as it is; write {_encoded(odd)}."


def _encoded(character: str) -> str:
    # An engine may hand over undecodable bytes as lone surrogates.
    try:
        return f"`{quote(character, safe='')}`"
    except UnicodeEncodeError:
        return "the text percent-encoded as UTF-8"
