"""gRPC: a call has one name, and what says that it is gRPC names one."""

from __future__ import annotations

import pytest

from rules.errors import Unreadable
from rules.reading.grpc import Grpc, read_grpc
from rules.request import Request


def request(path: str, kind: str | None = "application/grpc", method: str = "POST") -> Request:
    path, _, query = path.partition("?")
    headers = () if kind is None else (("content-type", kind),)
    return Request(method, "https", "api.example.com", 443, path, query or None, headers, b"")


@pytest.mark.parametrize(
    ("path", "service", "method"),
    [
        ("/shop.v1.Orders/Cancel", "shop.v1.Orders", "Cancel"),
        ("/Orders/cancel_all2", "Orders", "cancel_all2"),
        ("/a.b.c.D_/E", "a.b.c.D_", "E"),
    ],
)
def test_the_path_names_service_and_method(path: str, service: str, method: str) -> None:
    assert read_grpc(request(path)) == Grpc(service, method)


@pytest.mark.parametrize(
    "kind",
    [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+json",
        "Application/GRPC",
        "application/grpc; charset=utf-8",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/connect+proto",
    ],
)
def test_content_types_that_are_grpc(kind: str) -> None:
    assert read_grpc(request("/a.B/C", kind)) == Grpc("a.B", "C")


@pytest.mark.parametrize(
    "kind",
    [None, "", "application/json", "application/proto", "text/grpc", "application/connectx"],
)
def test_content_types_that_are_not(kind: str | None) -> None:
    assert read_grpc(request("/a.B/C", kind)) is None


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a.B",
        "/a.B/",
        "/a.B/C/",
        "/a.B/C/D",
        "/api/a.B/C",
        "/a..B/C",
        "/.a.B/C",
        "/a.B./C",
        "/a.B/C.D",
        "/a.B/%43",
        "/a.B/Ç",
        "/a.B/C\n",
        "/1a.B/C",
        "/a.B/C?x=1",
    ],
)
def test_other_paths_are_unreadable(path: str) -> None:
    with pytest.raises(Unreadable):
        read_grpc(request(path))


@pytest.mark.parametrize("kind", ["application/grpcx", "application/grpc-foo", "application/grpc+"])
def test_a_type_that_only_begins_like_grpc_is_unreadable(kind: str) -> None:
    with pytest.raises(Unreadable, match="only some take for gRPC"):
        read_grpc(request("/a.B/C", kind))


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
def test_other_methods_are_unreadable(method: str) -> None:
    with pytest.raises(Unreadable, match="always a POST"):
        read_grpc(request("/a.B/C", method=method))
