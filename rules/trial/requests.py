"""Requests as people write them, made into what would come over the wire, to the letter.

What is odd about a request is for `canonicalise` to refuse, as it would on the wire: only what is
not a request at all is a mistake of the file.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from rules.canonical import canonicalise
from rules.errors import Ambiguous
from rules.hosts import is_address, parse_authority
from rules.matches import VIAS
from rules.model import HostPattern, Match, Rule
from rules.reading.forms import FORM
from rules.request import DEFAULT_PORTS, RawRequest, Request, Scheme, authority
from rules.source import Section
from rules.spellings import parse_name, parse_run

REQUEST = (
    "method",
    "url",
    "path",
    "target",
    "headers",
    "body",
    "json",
    "form",
    "body_base64",
    "at",
    "via",
    "run",
)
BODIES = ("body", "json", "form", "body_base64")
PLACES = ("url", "path", "target")
_RUN = "trial"
"""Stands for the id of a run that never was."""

type Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A request that somebody wrote, and when and whence it comes."""

    method: str
    url: str
    headers: Fields = ()
    body: bytes = b""
    target: str | None = None
    """Path and query in place of those of the URL, as they would stand on the wire."""
    moment: datetime | None = None
    via: str = "proxy"
    run: str | None = None

    def at(self, moment: datetime | None) -> Written:
        """The same at another time."""
        return replace(self, moment=moment)

    def request(self) -> Request:
        """Its canonical form. Raises Ambiguous if it has none."""
        raw = raw_request(
            self.method, self.url, self.headers, self.body, target=self.target, via=self.via
        )
        return canonicalise(raw, moment=self.moment, run=self.run, slashes=True)


def raw_request(
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    target: str | None = None,
    via: str = "proxy",
) -> RawRequest:
    """The request that a client would make of `url`. Raises Ambiguous if it says nowhere to go to.

    Nothing in it is encoded or tidied up; a fragment alone is left out, as every client does. Host
    and Content-Length are added where they are not given.
    """
    word, separator, rest = url.partition("://")
    scheme: Scheme = "https" if word.lower() == "https" else "http"
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    place = rest[:end]
    if not separator or word.lower() not in DEFAULT_PORTS or not place:
        raise Ambiguous("The URL names no place; write https://HOST[:PORT]/PATH.")
    if target is None:
        target = rest[end:].partition("#")[0]
        target = target if target.startswith("/") else "/" + target
    https, gateway = scheme == "https", via == "gateway"
    connect = parse_authority(place, DEFAULT_PORTS[scheme]) if https and not gateway else None
    given = {name.lower() for name, _ in headers}
    pairs = [] if gateway or "host" in given else [("Host", place)]
    pairs += headers
    if body and not given & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    return RawRequest(
        scheme=scheme,
        connect=connect,
        # Clients send no server name for an address (RFC 6066 3).
        sni=connect[0] if connect and not is_address(connect[0]) else None,
        authority=None if https else place,
        method=method,
        target=target,
        headers=tuple([(_bytes(name), _bytes(value)) for name, value in pairs]),
        body=body,
        gateway=place if gateway else None,
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def home_of(rule: Rule) -> str | None:
    """The scheme and the host of a test's request that gives its path only: the first exact host of
    the rule, else one under its first wildcard. None: it has none."""
    places = [(match, host) for match in rule.matches for host in match.hosts]
    for match, host in sorted(places, key=lambda place: place[1].wildcard):
        return _home(match, host)
    return None


def _home(match: Match, host: HostPattern) -> str:
    name = f"any.{host.host}" if host.wildcard else host.host
    return f"{match.scheme}://{authority(match.scheme, name, host.port)}"


# -- from YAML


def read_request(at: Section, value: object, home: str | None) -> Written | None:
    """One REQUEST; None after noting problems. `home` is where a path without a host goes."""
    before = at.source.faults
    if value is None:
        at.error("a request is empty; write {method: GET, url: https://..}")
        return None
    fields = at.mapping(value, REQUEST)
    if fields is None:
        return None
    method = ""
    if at.has(fields, "method"):
        method = _text(at.at("method"), fields["method"])
    url, target = _read_place(at, fields, home)
    headers = list(_read_pairs(at.at("headers"), fields.get("headers")))
    kind, body = _read_body(at, fields)
    if kind is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", kind))
    moment = read_moment(at.at("at"), fields["at"]) if "at" in fields else None
    via = at.at("via").choice(fields.get("via", "proxy"), VIAS)
    run = _read_run(at.at("run"), fields.get("run", False))
    if at.source.faults > before:
        return None
    return Written(method, url, tuple(headers), body, target, moment, via or "proxy", run)


def read_moment(at: Section, value: object) -> datetime | None:
    """A time of ISO 8601; one without a zone is UTC."""
    return at.parsed(value, parse_moment)


def parse_moment(text: str) -> datetime:
    """The same of text. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text[:40]}" is no time, such as 2026-03-02T09:30:00Z') from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def read_tags(at: Section, value: object) -> frozenset[str]:
    """Tags of an agent; an empty list says that it has none."""
    return frozenset() if value == [] else frozenset(at.several(value, _parse_tag))


def _parse_tag(text: str) -> str:
    name = parse_name(text.removeprefix("tag:"))
    if name != text:
        raise ValueError(f'a tag is written without tag: here: "{name}"')
    return name


def _read_place(at: Section, fields: dict[str, object], home: str | None) -> tuple[str, str | None]:
    """The URL and, if it is given, the target."""
    given = {name: _text(at.at(name), fields[name]) if name in fields else None for name in PLACES}
    url, path, target = given["url"], given["path"], given["target"]
    if url is not None and path is not None:
        at.at("path").error("the path stands in the url already")
    elif url is None and path is None and target is None:
        at.error(f'"url" is missing{"" if home is None else ", or the path alone"}')
    elif url is None and home is None:
        at.error('"url" is missing; a path alone is enough only in a rule that names a host')
    elif path is not None and target is not None:
        at.at("target").error("path and target are the same; give one of them")
    elif path and not path.startswith(("/", "?")):
        at.at("path").error(f'"{path[:80]}" is no path; it begins with /')
    return url if url is not None else f"{home}{path or ''}", target


def _read_run(at: Section, value: object) -> str | None:
    """The id of the run that the request comes from; None: from none."""
    if isinstance(value, bool):
        return _RUN if value else None
    return at.parsed(value, parse_run)


def run_of(text: str) -> str | None:
    """The same of text: `true` is some run, `false` none. Raises ValueError."""
    if text in ("true", "false"):
        return _RUN if text == "true" else None
    return parse_run(text)


def _read_pairs(at: Section, value: object) -> Iterator[tuple[str, str]]:
    """`{NAME: VALUE}`, where a list gives the name several times; or [[NAME, VALUE], ...]."""
    if isinstance(value, list):
        for index, pair in enumerate(value):
            here = at.at(index)
            if isinstance(pair, list) and len(pair) == 2:
                yield _text(here, pair[0]), _text(here, pair[1])
            else:
                here.error(f"{at.path[-1]} must be a mapping, or a list of [NAME, VALUE]")
        return
    for name, values in (at.mapping(value) or {}).items():
        for one in values if isinstance(values, list) else [values]:
            yield name, _text(at.at(name), one)


def _read_body(at: Section, fields: dict[str, object]) -> tuple[str | None, bytes]:
    """The Content-Type that the body implies, and the body."""
    given = [name for name in BODIES if name in fields]
    if len(given) > 1:
        at.at(given[1]).error(f"{' and '.join(given)}: a request has one body")
    if not given:
        return None, b""
    name = given[0]
    here, value = at.at(name), fields[name]
    match name:
        case "json":
            return "application/json", json.dumps(value, ensure_ascii=False).encode()
        case "form":
            return FORM, urlencode(list(_read_pairs(here, value))).encode()
        case "body_base64":
            try:
                return None, base64.b64decode(_text(here, value), validate=True)
            except (binascii.Error, ValueError):
                here.error("body_base64 is not base64")
                return None, b""
        case _:
            if isinstance(value, dict | list):
                here.error("body must be text; a JSON body is written json:, a form form:")
                return None, b""
            return None, _text(here, value).encode()


def _text(at: Section, value: object) -> str:
    """Any scalar as it is written; odd characters are for canonicalise to refuse."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case None:
            return ""
        case float():
            at.error(f"the number {value} can be written in several ways; put it in quotes")
        case _:
            at.error("this must be text")
    return ""
