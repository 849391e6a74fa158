"""The server process: its files, its port, and one that was left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509

from broker.secrets.server import Server, make_certificate

IMPOSTOR = "import sys, time; print(flush=True); time.sleep(600)"


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def stand_in(*words: str) -> subprocess.Popen[bytes]:
    """A process with these words on its command line."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", IMPOSTOR, *words], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def left_behind(server: Server, pid: int) -> None:
    (server.directory / "run.json").write_text(json.dumps({"port": 4711, "pid": pid}))


def test_a_server_left_behind_is_ended(server: Server) -> None:
    with stand_in(f"-config={server.directory}/bao.json") as process:
        left_behind(server, process.pid)
        assert server.end_stale()
        assert process.wait() == -15
    assert not server.end_stale()


def test_another_program_with_that_process_id_is_left_alone(server: Server) -> None:
    """Process ids are used again; only the command line tells."""
    with stand_in(f"-config={server.directory}/other.json") as process:
        left_behind(server, process.pid)
        assert not server.end_stale()
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pid": "1", "port": "x"}'])
def test_a_run_file_that_makes_no_sense_is_as_none(server: Server, content: str) -> None:
    (server.directory / "run.json").write_text(content)
    assert server.port is None
    assert not server.end_stale()


def test_the_last_port_is_known(server: Server) -> None:
    assert server.port is None
    left_behind(server, os.getpid())
    assert server.port == 4711


def test_the_last_words_are_the_last_error(server: Server) -> None:
    assert server.last_words() == ""
    (server.directory / "bao.log").write_text("Error one\nERROR two\n==> started\n")
    assert server.last_words() == "ERROR two"


def test_a_certificate_is_for_the_loopback_address_alone(tmp_path: Path) -> None:
    make_certificate(tmp_path / "c.pem", tmp_path / "k.pem")
    certificate = x509.load_pem_x509_certificate((tmp_path / "c.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["127.0.0.1"]
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600


def test_ending_what_never_ran_does_nothing(server: Server) -> None:
    server.terminate()
    server.tend_audit()
    assert server.exit_status is None


@pytest.mark.e2e
def test_a_port_that_is_taken_ends_the_server_with_a_word(server: Server) -> None:
    server.seal_key.write_bytes(b"k" * 32)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        server.launch(squatter.getsockname()[1])
        while server.exit_status is None:
            time.sleep(0.02)
        assert "address already in use" in server.last_words()
        server.terminate()
