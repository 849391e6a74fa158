"""gRPC: the service and the method that a call names (gRPC over HTTP/2, and gRPC-Web).

All of it stands in the head: the Content-Type says that it is gRPC, the path what is called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rules.errors import Unreadable
from rules.media import type_name
from rules.request import Request

_TYPE = re.compile(r"application/(?:grpc|grpc-web|grpc-web-text|connect)(?:\+[a-z0-9.-]+)?")
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_PATH = re.compile(rf"/({_NAME}(?:\.{_NAME})*)/({_NAME})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Grpc:
    """One call."""

    service: str
    """With its package: `shop.v1.Orders`."""
    method: str


def read_grpc(request: Request) -> Grpc | None:
    """What the request calls; None if it is not gRPC by its Content-Type.

    gRPC-Web and the streams of Connect name a call the same way. A single call of Connect cannot be
    told from any other JSON or protobuf; match its path. Raises Unreadable for a request that says
    it is gRPC and names no call in the one way that gRPC has.
    """
    kind = type_name(request.header("content-type"))
    if not _TYPE.fullmatch(kind):
        if kind.startswith("application/grpc"):
            raise Unreadable("its Content-Type is one that only some take for gRPC")
        return None
    if request.method != "POST":
        raise Unreadable("gRPC is always a POST")
    if request.query is not None:
        raise Unreadable("gRPC has no query")
    path = _PATH.fullmatch(request.path)
    if path is None:
        raise Unreadable("the path is not /package.Service/Method")
    return Grpc(*path.groups())
