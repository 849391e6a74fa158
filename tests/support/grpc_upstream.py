"""A real gRPC server for tests: one service of bytes with the four kinds of method.

/test.Echo/Unary        answers `echo:` and the message; `fail` ends with FAILED_PRECONDITION,
                        `token` answers with the credential it was called with
/test.Echo/Download     as many messages as the request says, each once the test lets it go
/test.Echo/Upload       answers with the number of messages and bytes that came
/test.Echo/Chat         answers each message at once
/test.Echo/Sleep        never answers, until it is cancelled
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from tests.support.throwaway_ca import ThrowawayCA


class GrpcUpstream:
    """The server; a context manager."""

    def __init__(self, ca: ThrowawayCA, names: Sequence[str] = ()) -> None:
        """`names` are further host names for its certificate."""
        self.calls: list[tuple[str, dict[str, str]]] = []
        """Methods, with their metadata."""
        self.go_on = threading.Semaphore(0)
        """Let go once for each message of a download."""
        self.cancelled = threading.Event()
        key, mark, chain = ca.issue(["localhost", *names]).partition(b"-----BEGIN CERTIFICATE-----")
        self._server = grpc.server(
            ThreadPoolExecutor(16), handlers=[self._service()], options=[("grpc.so_reuseport", 0)]
        )
        credentials = grpc.ssl_server_credentials([(key, mark + chain)])
        self.port = self._server.add_secure_port("localhost:0", credentials)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop(0).wait(5)

    def _service(self) -> Any:
        return grpc.method_handlers_generic_handler(
            "test.Echo",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
                "Download": grpc.unary_stream_rpc_method_handler(self._download),
                "Upload": grpc.stream_unary_rpc_method_handler(self._upload),
                "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
                "Sleep": grpc.unary_unary_rpc_method_handler(self._sleep),
            },
        )

    def _note(self, method: str, context: grpc.ServicerContext) -> dict[str, str]:
        metadata = {str(k): str(v) for k, v in context.invocation_metadata()}
        self.calls.append((method, metadata))
        return metadata

    def _unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = self._note("Unary", context)
        token = metadata.get("authorization", "").removeprefix("Bearer ")
        context.set_trailing_metadata((("x-done", "yes"), ("x-token", f"<{token}>")))
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"not for {token}, you know")
        if request == b"token":
            return f"you are {token}.".encode()
        return b"echo:" + request

    def _download(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        token = self._note("Download", context).get("authorization", "").removeprefix("Bearer ")
        for number in range(int(request)):
            if number:
                self.go_on.acquire(timeout=20)
            # Ends as the secret begins: nothing of it may wait for the next one.
            yield f"message {number} {token[:4]}".encode()

    def _upload(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._note("Upload", context)
        sizes = [len(request) for request in requests]
        return f"{len(sizes)} {sum(sizes)}".encode()

    def _chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note("Chat", context)
        for request in requests:
            yield b"heard " + request

    def _sleep(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note("Sleep", context)
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(30)
        return b""
