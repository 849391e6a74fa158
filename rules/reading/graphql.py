"""GraphQL over HTTP: which operations a request runs, and with which root fields.

After the GraphQL over HTTP specification and what servers in use do beside it. What one server
would take from the URL and another from the body, or under a second spelling, is Unreadable, and so
is a persisted operation whose text is not there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus

from rules.errors import Unreadable
from rules.media import type_name
from rules.reading.document import MAX_TEXT, MAX_TOKENS, Kind, Operation, read_document
from rules.reading.forms import MULTIPART
from rules.reading.json import Json, read_json
from rules.reading.multipart import Part, read_multipart
from rules.request import Request

MAX_OPERATIONS = 1_000
"""Of one batch."""

_MEMBERS = frozenset({"query", "operationName", "variables", "extensions"})
# How servers call the name under which they keep an operation; it may win over a text beside it.
_PERSISTED = frozenset(
    {"id", "doc", "docid", "doc_id", "documentid", "document_id", "queryid", "query_id"}
    | {"operationid", "operation_id", "hash", "queryhash", "query_hash", "operationhash"}
    | {"sha256hash", "persistedquery"}
)
_TEXT = re.compile(r"application/graphql(?: *; *charset=(?:utf-8|\"utf-8\"))?", re.IGNORECASE)
_VARIABLE = re.compile(r"(?:(?:0|[1-9][0-9]{0,8})\.)?variables\.")
_FOLDED = frozenset(name.casefold() for name in _MEMBERS)


@dataclass(frozen=True, slots=True)
class GraphQL:
    """One operation that a request runs."""

    kind: Kind
    name: str | None
    fields: tuple[str, ...]
    """Real names of the root fields: aliases undone, fragments followed, with those that `@skip` or
    `@include` may leave out. What runs twice, under two aliases, stands twice."""


def read_graphql(request: Request, document: Json | None) -> tuple[GraphQL, ...]:
    """What the request runs, in order; `document` is its body, if that is JSON.

    A GET with a mutation is read as what it says. Raises Unreadable.
    """
    if request.unread:
        raise Unreadable("its body is passed on unread")
    parameters = _parameters(request.query or "")
    if request.method == "GET":
        if request.body:
            raise Unreadable("a GET with a body")
        operation, _ = _read(parameters, MAX_TOKENS)
        return (operation,)
    if request.method != "POST":
        raise Unreadable("GraphQL comes by GET or POST")
    if parameters:
        raise Unreadable("GraphQL both in the query and in the body")
    if document is not None:
        return _read_document(document)
    return _read_body(request)


def _read_document(document: Json) -> tuple[GraphQL, ...]:
    batch = document if isinstance(document, list) else [document]
    if not batch:
        raise Unreadable("an empty batch")
    if len(batch) > MAX_OPERATIONS:
        raise Unreadable(f"a batch of more than {MAX_OPERATIONS} operations")
    found, left, length = [], MAX_TOKENS, 0
    for element in batch:
        if not isinstance(element, dict):
            raise Unreadable("an operation that is no object")
        if not element.keys() <= _MEMBERS:
            raise Unreadable("a member that GraphQL requests do not have")
        text = element.get("query")
        length += len(text) if isinstance(text, str) else 0
        if length > MAX_TEXT:
            raise Unreadable("GraphQL documents that are too long")
        operation, tokens = _read(element, left)
        found.append(operation)
        left -= tokens
    return tuple(found)


def _read_body(request: Request) -> tuple[GraphQL, ...]:
    content_type = request.header("content-type") or ""
    if request.header("content-encoding") not in (None, "identity"):
        raise Unreadable("its body is encoded")
    if type_name(content_type) == MULTIPART:
        return _read_document(_operations(read_multipart(content_type, request.body)))
    if not _TEXT.fullmatch(content_type):
        raise Unreadable("its Content-Type is not one of GraphQL's")
    try:
        text = request.body.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
    operation, _ = _read({"query": text}, MAX_TOKENS)
    return (operation,)


def _operations(parts: tuple[Part, ...]) -> Json:
    """What `operations` holds in an upload after the GraphQL multipart request specification: that
    part, then `map`, then files, each of which takes the place of some variables."""
    if [part.name for part in parts[:2]] != ["operations", "map"]:
        raise Unreadable("a form that does not begin with `operations` and `map`")
    operations, places, *files = parts
    if operations.filename is not None or places.filename is not None:
        raise Unreadable("a file for the operations")
    where = read_json(places.value)
    names = [file.name for file in files]
    if not isinstance(where, dict) or sorted(names) != sorted(where):
        raise Unreadable("a map that is not of its files")
    for paths in where.values():
        # Anywhere else a file would take the place of an operation's text.
        if not isinstance(paths, list) or not all(
            isinstance(path, str) and _VARIABLE.match(path) for path in paths
        ):
            raise Unreadable("a map that puts a file elsewhere than into variables")
    return read_json(operations.value)


def _parameters(query: str) -> dict[str, Json]:
    """Those of GraphQL in a URL; whatever else an API wants there is not looked at."""
    found: dict[str, Json] = {}
    for part in query.split("&"):
        raw, _, value = part.partition("=")
        name = _decoded(raw)
        if name in found:
            raise Unreadable(f"`{name}` twice")
        if name in _MEMBERS:
            found[name] = _decoded(value)
            continue
        # `Query`, `query[]` and `query.x` are `query` to some.
        folded = name.strip().casefold()
        stem = folded.partition("[")[0].partition(".")[0].strip()
        if stem in _FOLDED or stem in _PERSISTED:
            raise Unreadable("a parameter spelled nearly like one of GraphQL's")
    return found


def _decoded(text: str) -> str:
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise Unreadable("a query that is not UTF-8") from None


def _read(members: Mapping[str, Json], most_tokens: int) -> tuple[GraphQL, int]:
    text, wanted = members.get("query"), members.get("operationName")
    if not isinstance(text, str) or not text:
        raise Unreadable("an operation without its text")
    if wanted is not None and not isinstance(wanted, str):
        raise Unreadable("an operationName that is no text")
    _check_extensions(members.get("extensions"), text)
    document = read_document(text, most_tokens)
    operation = _pick(document.operations, wanted)
    return GraphQL(operation.kind, operation.name, document.fields(operation)), document.tokens


def _pick(operations: Iterable[Operation], wanted: str | None) -> Operation:
    # An empty name is none to some servers and an unknown one to others: with one operation both
    # can only run that one.
    found = [each for each in operations if not wanted or each.name == wanted]
    if len(found) != 1:
        raise Unreadable("which of its operations runs is not said")
    return found[0]


def _check_extensions(extensions: Json, text: str) -> None:
    """A hash beside the text must be the text's: some servers go by the hash alone."""
    if extensions is None:
        return
    if not isinstance(extensions, dict):
        # In a URL it is JSON in text, which two servers may read in two ways.
        raise Unreadable("extensions that are no object")
    for name, value in extensions.items():
        if name.casefold() in _PERSISTED:
            hashed = value.get("sha256Hash") if isinstance(value, dict) else None
            if name != "persistedQuery" or hashed != _sha256(text):
                raise Unreadable("a persisted operation that is not its text")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
