"""The upstream of the bench: a process of its own, TLS, as little work as can be.

`python -m tests.bench.upstream DIR` writes its CA into DIR, prints its port, serves until killed.

    GET /small       a JSON document of 1 KiB; so does every other path
    GET /events      five server-sent events, 20 ms apart; each says when it was written
    GET /down?N      N bytes
    POST /up         takes a body, says how long it was
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

from tests.support.throwaway_ca import ThrowawayCA

EVENTS, PAUSE = 5, 0.02
_CHUNK = b"x" * 65536
_SMALL = json.dumps({"id": "ch_1", "object": "charge", "note": "n" * 960}).encode()
_HEADERS = (
    b"Date: Sun, 22 Nov 2026 16:00:00 GMT\r\nServer: bench\r\nCache-Control: no-store\r\n"
    b"X-Request-Id: 0190d0c0-0000-7000-8000-000000000000\r\n"
)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line, _, fields = head.partition(b"\r\n")
            _, target, _ = line.split(b" ", 2)
            path, _, query = target.partition(b"?")
            taken = await _body(reader, fields.lower())
            if path == b"/events":
                await _events(writer)
            elif path == b"/down":
                await _down(writer, int(query))
            else:
                body = b"%d" % taken if path == b"/up" else _SMALL
                writer.write(
                    b"HTTP/1.1 200 OK\r\n%bContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (_HEADERS, len(body), body)
                )
            await writer.drain()
    writer.close()


async def _body(reader: asyncio.StreamReader, fields: bytes) -> int:
    if b"transfer-encoding: chunked" in fields:
        total = 0
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
            total += size
        await reader.readuntil(b"\r\n")
        return total
    _, found, rest = fields.partition(b"content-length:")
    length = int(rest.partition(b"\r\n")[0]) if found else 0
    left = length
    while left:
        chunk = await reader.read(min(left, 1 << 18))
        if not chunk:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(chunk)
    return length


async def _events(writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(EVENTS):
        event = b"data: %d\n\n" % time.monotonic_ns()
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
        await asyncio.sleep(PAUSE)
    writer.write(b"0\r\n\r\n")


async def _down(writer: asyncio.StreamWriter, size: int) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
        % size
    )
    while size > 0:
        writer.write(_CHUNK[:size])
        await writer.drain()
        size -= len(_CHUNK)


async def main(directory: Path) -> None:
    ca = ThrowawayCA()
    (directory / "ca.pem").write_bytes(ca.pem)
    server = await asyncio.start_server(
        _serve,
        "127.0.0.1",
        0,
        ssl=ca.server_context(["localhost"]),
        backlog=512,
        limit=1 << 18,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
