"""Canonical requests turned back into what a client would send, to canonicalise them again."""

from __future__ import annotations

from rules.request import RawRequest, Request


def as_raw(request: Request) -> RawRequest:
    """A canonical request as a client would send it to the proxy over HTTP/1.1."""
    headers = [("Host", request.authority), *request.headers]
    if request.upgrade:
        headers += [("Connection", "Upgrade"), ("Upgrade", request.upgrade)]
    if request.claim:
        headers.append(("Keybroker-Reason", request.claim))
    if request.respond_async:
        headers.append(("Prefer", "respond-async"))
    if request.unread and request.length is not None:
        headers.append(("Content-Length", str(request.length)))
    https = request.scheme == "https"
    return RawRequest(
        scheme=request.scheme,
        connect=(request.host, request.port) if https else None,
        sni=None,
        authority=None if https else request.authority,
        method=request.method,
        target=request.target,
        headers=tuple((n.encode(), v.encode()) for n, v in headers),
        body=request.body,
        unread=request.unread,
    )
