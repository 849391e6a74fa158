"""JWTs that a test signs itself (ES256), and an API server that reviews them as Kubernetes does."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


class Issuer:
    """Signs JWTs (RFC 7519) with a key of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public_pem = (
            self._key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )

    def jwt(self, **claims: object) -> str:
        """A token that is good for ten minutes, unless `exp` says otherwise."""
        now = int(time.time())
        claims = {"iat": now, "nbf": now - 5, "exp": now + 600, **claims}
        text = f"{_encoded({'alg': 'ES256', 'typ': 'JWT'})}.{_encoded(claims)}"
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def service_account_claims(namespace: str, name: str) -> dict[str, object]:
    """What a projected token of a pod says."""
    return {
        "iss": "https://kubernetes.default.svc",
        "sub": f"system:serviceaccount:{namespace}:{name}",
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": f"uid-{name}"},
        },
    }


@dataclass
class Cluster:
    """The API server's port, the tokens that it knows, and those it was asked about."""

    port: int = 0
    known: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Namespace and service account by token."""
    reviewed: list[str] = field(default_factory=list)


@contextmanager
def cluster(context: ssl.SSLContext) -> Iterator[Cluster]:
    """An API server that answers TokenReview (authentication.k8s.io/v1) and nothing else."""
    state = Cluster()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            token = asked["spec"]["token"]
            state.reviewed.append(token)
            found = state.known.get(token)
            status: dict[str, object] = {"authenticated": found is not None}
            if found is not None:
                namespace, name = found
                status["user"] = {
                    "username": f"system:serviceaccount:{namespace}:{name}",
                    "uid": f"uid-{name}",
                    "groups": ["system:serviceaccounts"],
                }
            body = json.dumps({**asked, "status": status}).encode()
            self.send_response(201 if self.path.endswith("/tokenreviews") else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _encoded(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
