"""A call as the rules read it: its request, taken apart piece by piece when first asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cached_property
from typing import cast

from rules.errors import Unreadable
from rules.media import type_name
from rules.model import Subject
from rules.places import Place
from rules.reading.forms import (
    FORM,
    MULTIPART,
    Pairs,
    guess_fields,
    looks_like_fields,
    may_be,
    read_form,
    read_pairs,
)
from rules.reading.graphql import GraphQL, read_graphql
from rules.reading.json import (
    Json,
    json_text,
    looks_like_json,
    names_in,
    pointer_steps,
    read_json,
    step_into,
)
from rules.reading.jsonrpc import Rpc, read_jsonrpc
from rules.reading.mcp import read_mcp
from rules.reading.multipart import Part, read_multipart
from rules.request import Request
from rules.variables import Variables

NOBODY = Subject("")
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Never looked at: who asks for the time makes sure that it is known."""
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_KEEPS_ASCII = re.compile(
    r"utf-?8|(?:us-)?ascii|iso-8859-[0-9]+|latin-?1|windows-125[0-9]|gbk|gb2312|gb18030|big5"
    r"|euc-jp|euc-kr|koi8-[ru]"
)
"""Character sets in which ASCII is what it looks like."""


class Reading:
    """One call. Whatever of its body has no one reading raises Unreadable, each time."""

    def __init__(self, request: Request, subject: Subject = NOBODY) -> None:
        self.request = request
        self.subject = subject
        """Who makes the call."""

    @cached_property
    def _kept(self) -> dict[str, object]:
        """What was read, or why it could not be: an agent chose what that costs."""
        return {}

    @cached_property
    def _variables(self) -> dict[bool, Variables]:
        return {}

    def at(self, place: Place) -> str | None:
        """The value at `place` as text, None if there is none.

        A parameter or header given several times shows all its values, joined by ", ": which of
        them the upstream will take is not known, so none is hidden.
        """
        match place.kind:
            case "query":
                return _joined(v for n, v in self.query[0] if n == place.name)
            case "header":
                return self.request.header(place.name)
            case "form":
                return _joined(v for n, v in self.form or () if n == place.name)
            case "json":
                return self._json_at(place.name)

    @cached_property
    def query(self) -> tuple[Pairs, bool]:
        """The query's fields, and whether there is only one reading of them."""
        return read_pairs(self.request.query or "")

    @property
    def form(self) -> Pairs | None:
        """The fields of a form, for people; None if the body is none, or has no one reading."""
        try:
            if not self._is_form:
                return None
            pairs = self.form_pairs(wide=False)
            parts = self._form_parts
        except Unreadable:
            return None
        return tuple([(p.name, p.text) for p in parts if p.text is not None]) if parts else pairs

    @property
    def files(self) -> tuple[Part, ...]:
        """What else a form has, for people."""
        if self.form is None:
            return ()
        return tuple([part for part in self._form_parts if part.text is None])

    @property
    def json(self) -> Json:
        """The JSON body. Raises Unreadable if it is not one, or has no one reading."""
        if not self._is_json:
            raise Unreadable("it is not JSON by its Content-Type")
        return self.document(wide=False)

    # -- for conditions on the body

    @cached_property
    def media_type(self) -> str:
        """What the body says it is, lower case; empty if it does not say."""
        return type_name(self.request.header("content-type"))

    @property
    def has_no_body(self) -> bool:
        """Whether there certainly is none."""
        return not self.request.body and not self.request.unread

    @property
    def body_size(self) -> int:
        """Bytes of the body. Raises Unreadable if they are still to come, unannounced."""
        if not self.request.unread:
            return len(self.request.body)
        if self.request.length is None:
            raise Unreadable("the length of its body is not known")
        return self.request.length

    def form_pairs(self, *, wide: bool) -> Pairs:
        """The fields of a form, none if the body is something else. Raises Unreadable.

        Widely, what says that it is something else is a form too if it looks like one.
        """
        if self.has_no_body:
            return ()
        if self._is_form:
            return self._once("form", self._read_form)
        if self.request.unread:
            raise Unreadable("its body has not been read")
        if wide and self._is_veiled:
            self._check_encoding()
        return self._guessed_fields if wide and self._may_be_form else ()

    @cached_property
    def form_files(self) -> tuple[Part, ...]:
        """The parts of a multipart form that are files, or to some server may be. Raises
        Unreadable.
        """
        return tuple([part for part in self._form_parts if part.kind != "field"])

    def body_beside_query(self, name: str | None = None) -> Pairs:
        """The fields of the body that servers merge with the query's, all or those that may be of
        this name. Raises Unreadable."""
        if self.request.unread or self.has_no_body:
            return ()
        if self._is_form:
            return self.form_pairs(wide=False)
        if self._is_json:
            try:
                return self.members(wide=False)
            except Unreadable:
                if name is None or any(may_be(n, name) for n in names_in(self.request.body)):
                    raise
                return ()
        # Rack takes these for forms too.
        if not self.media_type or self.media_type.startswith("multipart/"):
            return self._guessed_fields
        return ()

    def document(self, *, wide: bool) -> Json | None:
        """The JSON body; None if it is none. Raises Unreadable.

        Narrowly it is none unless its Content-Type says so. Widely it is one if it looks like it.
        """
        if self.has_no_body:
            return None
        if self.request.unread:
            raise Unreadable("its body has not been read")
        if self._is_json or (wide and self._may_be_json):
            return self._once("json", self._read_json)
        return None

    def members(self, *, wide: bool) -> Pairs:
        """The outermost members of a JSON body as fields: Rails, Laravel and Express have them
        where they have those of a form, and the first two those of the query. Raises Unreadable."""
        document = self.document(wide=wide)
        if not isinstance(document, dict):
            return ()
        return tuple([(name, json_text(value)) for name, value in document.items()])

    def graphql(self, *, wide: bool) -> tuple[GraphQL, ...]:
        """The operations that it runs as GraphQL. Raises Unreadable."""
        document = self.document(wide=wide)
        name = "graphql" if document is None else "graphql in JSON"
        return self._once(name, lambda: read_graphql(self.request, document))

    def jsonrpc(self, *, wide: bool) -> tuple[Rpc, ...]:
        """Its messages as JSON-RPC. Raises Unreadable."""
        document = self._json_by_type(wide=wide)
        return self._once("jsonrpc", lambda: read_jsonrpc(document))

    def mcp(self, *, wide: bool) -> tuple[Rpc, ...]:
        """Its messages as MCP, which has headers too. Raises Unreadable."""
        document = self._json_by_type(wide=wide)
        return self._once("mcp", lambda: read_mcp(self.request, document))

    def variables(self, *, wide: bool) -> Variables:
        """The call as expressions see it, in one of its two readings; one and the same if the body
        is just what it looks like."""
        wide = wide and self._looks_otherwise
        found = self._variables.get(wide)
        if found is None:
            found = self._variables[wide] = self._new_variables(wide=wide)
        return found

    def _new_variables(self, *, wide: bool) -> Variables:
        return Variables(
            self.request,
            query=lambda: self.query,
            form=lambda: self.form_pairs(wide=wide),
            json=lambda: self.document(wide=wide),
            files=lambda: [part.name for part in self.form_files],
            beside_query=lambda: [
                *[name for name, _ in self.body_beside_query()],
                *[part.name for part in self.form_files],
            ],
            agent=self.subject.name,
            tags=self.subject.tags,
            at=self.request.moment or _NO_TIME,
        )

    @property
    def _looks_otherwise(self) -> bool:
        """Whether the body looks like something that its Content-Type does not say."""
        if self.has_no_body:
            return False
        return (not self._is_form and self._may_be_form) or (
            not self._is_json and self._may_be_json
        )

    @cached_property
    def _may_be_form(self) -> bool:
        """Whether there are servers that look for fields in the body, whatever its Content-Type. If
        it says nothing, Rack does."""
        return not self.media_type or self._is_veiled or looks_like_fields(self.request.body)

    @cached_property
    def _may_be_json(self) -> bool:
        """Likewise, that read it as JSON."""
        return self._is_veiled or looks_like_json(self.request.body)

    @cached_property
    def _is_veiled(self) -> bool:
        """Whether its looks say nothing of what is in the body."""
        if self._is_compressed:
            return True
        return not all(map(_KEEPS_ASCII.fullmatch, self._charsets))

    @cached_property
    def _is_form(self) -> bool:
        return self.media_type in (FORM, MULTIPART)

    @cached_property
    def _is_json(self) -> bool:
        return self.media_type == "application/json" or self.media_type.endswith("+json")

    def _read_form(self) -> Pairs:
        self._check_encoding()
        if self.media_type == FORM:
            return read_form(self.request.body)
        try:
            return tuple(
                [(p.name, p.value.decode()) for p in self._form_parts if p.kind == "field"]
            )
        except UnicodeDecodeError:
            raise Unreadable("a field of its form is not UTF-8") from None

    @property
    def _form_parts(self) -> tuple[Part, ...]:
        if self.media_type != MULTIPART or self.has_no_body or self.request.unread:
            return ()
        content_type = self.request.header("content-type") or ""
        return self._once("parts", lambda: read_multipart(content_type, self.request.body))

    @property
    def _guessed_fields(self) -> Pairs:
        kind, body = self.request.header("content-type") or "", self.request.body
        return self._once("fields", lambda: guess_fields(kind, body))

    def _json_by_type(self, *, wide: bool) -> Json:
        document = self.document(wide=wide)
        if document is None:
            raise Unreadable("it is not JSON by its Content-Type")
        return document

    def _read_json(self) -> Json:
        self._check_encoding()
        return read_json(self.request.body)

    def _check_encoding(self) -> None:
        if self._is_compressed:
            raise Unreadable("its body is compressed")
        if not self._charsets <= _CHARSETS:
            raise Unreadable("its body is not in UTF-8")

    @property
    def _is_compressed(self) -> bool:
        return self.request.header("content-encoding") not in (None, "identity")

    @property
    def _charsets(self) -> frozenset[str]:
        """Those that its Content-Type names, lower case."""
        _, *parameters = (self.request.header("content-type") or "").lower().split(";")
        pairs = [parameter.strip().partition("=") for parameter in parameters]
        return frozenset(value.strip('"') for name, _, value in pairs if name == "charset")

    def _once[T](self, name: str, read: Callable[[], T]) -> T:
        """What `read` returns or raises, the same each time."""
        if name not in self._kept:
            try:
                self._kept[name] = read()
            except Unreadable as error:
                self._kept[name] = error
        found = self._kept[name]
        if isinstance(found, Unreadable):
            raise Unreadable(str(found))
        return cast(T, found)

    def _json_at(self, pointer: str) -> str | None:
        try:
            value = self.json
        except Unreadable:
            return None
        for step in pointer_steps(pointer):
            inside = list(step_into(value, step))
            if not inside:
                return None
            (value,) = inside
        return json_text(value)


def _joined(values: Iterable[str]) -> str | None:
    found = list(values)
    return ", ".join(found) if found else None
