"""A client of TLS 1.3 that changes its keys (RFC 8446 4.6.3), for which Python's TLS has no call.

Python shakes hands and reads; records to the server are sealed here, by what its key log tells:

    with by_hand(raw, "localhost", ca_file=ca, key_log=tmp_path / "keys") as client:
        client.send(b"..")
        client.change_keys(both=False)
        client.tls.recv(65536)
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_Suite = tuple[hashes.HashAlgorithm, type[AESGCM] | type[ChaCha20Poly1305], int]
_SUITES: dict[str, _Suite] = {
    "TLS_AES_128_GCM_SHA256": (hashes.SHA256(), AESGCM, 16),
    "TLS_AES_256_GCM_SHA384": (hashes.SHA384(), AESGCM, 32),
    "TLS_CHACHA20_POLY1305_SHA256": (hashes.SHA256(), ChaCha20Poly1305, 32),
}
"""RFC 8446 B.4, as OpenSSL names them: hash, seal, bytes of its key."""
_HANDSHAKE, _APPLICATION_DATA = 22, 23
_KEY_UPDATE = b"\x18\x00\x00\x01"
_TAG = 16
KEY_UPDATE_SIZE = len(_KEY_UPDATE) + 1 + 1 + _TAG
"""Bytes of the sealed content of a record that is one: message, type of the content, tag."""


class ByHand:
    """One connection, after its handshake."""

    def __init__(self, tls: ssl.SSLSocket, secret: bytes) -> None:
        self.tls = tls
        """To read from; whoever writes to it breaks the count of records."""
        cipher = tls.cipher()
        assert cipher is not None
        self._hash, self._kind, self._size = _SUITES[cipher[0]]
        self._begin(secret)

    def send(self, data: bytes) -> None:
        """In one record: 16 KiB at most."""
        self._record(_APPLICATION_DATA, data)

    def change_keys(self, *, both: bool) -> None:
        """From the next record on; `both`: asks the server to do so, too."""
        self._record(_HANDSHAKE, _KEY_UPDATE + bytes([both]))
        self._begin(self._expand("traffic upd", self._hash.digest_size))

    def coming(self) -> int:
        """Bytes of sealed content in the next record from the server; waits for it."""
        head = socket.socket.recv(self.tls, 5, socket.MSG_PEEK | socket.MSG_WAITALL)
        return int.from_bytes(head[3:])

    def _begin(self, secret: bytes) -> None:
        """RFC 8446 7.3."""
        self._secret = secret
        self._seal = self._kind(self._expand("key", self._size))
        self._iv = int.from_bytes(self._expand("iv", 12))
        self._count = 0

    def _expand(self, label: str, size: int) -> bytes:
        """HKDF-Expand-Label without a context (RFC 8446 7.1)."""
        full = f"tls13 {label}".encode()
        info = size.to_bytes(2) + bytes([len(full)]) + full + b"\0"
        return HKDFExpand(self._hash, size, info).derive(self._secret)

    def _record(self, kind: int, content: bytes) -> None:
        """RFC 8446 5.2, 5.3."""
        inner = content + bytes([kind])
        head = b"\x17\x03\x03" + (len(inner) + _TAG).to_bytes(2)
        nonce = (self._iv ^ self._count).to_bytes(12)
        self._count += 1
        socket.socket.sendall(self.tls, head + self._seal.encrypt(nonce, inner, head))


@contextmanager
def by_hand(raw: socket.socket, host: str, *, ca_file: Path, key_log: Path) -> Iterator[ByHand]:
    """Shakes hands over `raw`, which is closed at the end."""
    context = ssl.create_default_context(cafile=str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(key_log)
    with context.wrap_socket(raw, server_hostname=host) as tls:
        lines = (line.split(" ") for line in key_log.read_text().splitlines())
        (secret,) = (line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0")
        yield ByHand(tls, bytes.fromhex(secret))
