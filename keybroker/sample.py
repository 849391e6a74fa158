"""A sample HTTPS upstream for the demo: a small payment service that wants a bearer key.

It is a stand-in for a real API and says so in every answer; it keeps what it received, so that the
demo can show what reached it. It listens on loopback only. By itself, for trying things out:
`python -m keybroker.sample DIRECTORY --port 9443`.
"""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import click

from certs.authority import Authority

HOST = "payments.localhost"
"""A name under localhost is loopback for every resolver (RFC 6761 6.3)."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request that reached the service."""

    method: str
    path: str
    authorization: str | None
    body: str


class SamplePayments:
    """The service, in a thread of its own. Use it as a context manager."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        """`directory` keeps its authority, so that it can be trusted across restarts.

        Raises OSError if the port is taken.
        """
        authority = Authority.load_or_create(directory)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(authority.pem)
        leaf = authority.leaf(HOST)
        chain = directory / "server.pem"
        chain.touch(mode=0o600)
        chain.write_bytes(leaf.cert_pem + leaf.key_pem)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain)
        self.received: list[Received] = []
        self._server = _Server(("127.0.0.1", port), context, self.received)
        self.port: int = self._server.server_address[1]
        self.url = f"https://{HOST}:{self.port}"

    def __enter__(self) -> SamplePayments:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def calls(self, method: str, path: str) -> list[Received]:
        """What reached it."""
        return [r for r in self.received if (r.method, r.path) == (method, path)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, received: list[Received]
    ) -> None:
        super().__init__(address, _Handler)
        self.context = context
        self.received = received

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a slow handshake holds up nobody else."""
        request.settimeout(60)
        try:
            with self.context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except OSError:
            return  # the client went away or does not trust us: its business


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Silent: the demo tells what matters."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        authorization = self.headers.get("authorization")
        self.server.received.append(Received(self.command, self.path, authorization, body))
        if authorization is None or not authorization.startswith("Bearer "):
            self._reply(401, {"error": "no API key"})
        elif self.path == "/v1/charges":
            self._reply(200, {"charges": [{"id": "ch_81", "amount": 4200, "currency": "eur"}]})
        elif self.path == "/v1/refunds":
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._reply(200, {"refund": form, "status": "succeeded"})
        elif self.path == "/v1/debug":
            # Careless services do this: an error page that repeats the caller's headers.
            self._reply(200, {"you_sent": {"authorization": authorization}})
        else:
            self._reply(404, {"error": "no such thing"})

    def _reply(self, status: int, document: dict[str, Any]) -> None:
        payload = json.dumps({"sample": True, **document}).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--port", type=click.IntRange(0, 65535), default=9443, show_default=True)
def main(directory: Path, port: int) -> None:
    """Serve the sample until Ctrl-C; DIRECTORY keeps its certificates, ca.pem among them."""
    with SamplePayments(directory, port) as sample:
        click.echo(f"{sample.url} (trust {sample.ca_file})")
        threading.Event().wait()


if __name__ == "__main__":
    main()
