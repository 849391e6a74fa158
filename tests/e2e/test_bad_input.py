"""What cannot start says so: one clear line each, a status other than zero, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.bao import READ_ALL, RealBao, free_port
from tests.support.program import Program
from tests.support.servers import answering, hanging
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

POLICY = """
version: 1
rules:
  - {id: open, agents: [bot], match: {host: "$HOST", path: /**}, effect: allow}
"""


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A good workspace that is not running. At the end of it all it still is a good one."""
    with Upstream() as upstream:
        program = Program(tmp_path_factory.mktemp("bad"), upstream, policy=POLICY)
        program.init()
        bot = program.agent("bot")
        before = len(program.records())
        yield program
        program.start()
        assert program.curl(bot, upstream.url + "/echo").status == 200
        program.stop()
        assert len(program.records()) > before
        program.verify()


def refused(kb: Program, *arguments: str, lines: int = 1) -> str:
    """What the command (default: up) says on stderr when it refuses; checks its form."""
    command = arguments or ("up", "--json")
    done = kb.run(*command)
    assert done.returncode not in (0, None), done.stderr
    if "--json" in command:
        assert json.loads(done.stdout)["error"] in done.stderr.replace("keybroker: ", "")
    else:
        assert done.stdout == ""
    assert "Traceback" not in done.stderr and "this should not happen" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("warning:")]
    assert len(said) == lines, done.stderr
    assert all(line.startswith("keybroker: ") for line in said), done.stderr
    assert kb.processes("worker") == kb.processes("admin") == kb.processes("server") == []
    return "\n".join(said)


@contextmanager
def replaced(path: Path, content: bytes | str | None) -> Iterator[None]:
    """Another content (None: no file) for the while."""
    before, mode = path.read_bytes(), path.stat().st_mode
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        yield
    finally:
        path.write_bytes(before)
        path.chmod(mode)


@contextmanager
def settings(kb: Program, old: str, new: str) -> Iterator[None]:
    file = kb.workspace / "keybroker.yaml"
    text = file.read_text()
    assert old in text
    with replaced(file, text.replace(old, new)):
        yield


# --- files


def test_a_broken_policy_is_told_with_all_its_problems(kb: Program) -> None:
    file = kb.workspace / "policy.yaml"
    broken = "version: 1\nrules:\n  - id: a\n    agents: [bot]\n    efect: allow\n    match: {}\n"
    with replaced(file, broken):
        done = kb.run("up", "--json")
        said = done.stderr.splitlines()
        assert done.returncode == 1 and list(json.loads(done.stdout)) == ["error"]
        assert len(said) >= 2 and all(f"{file}:" in line for line in said)
        assert 'did you mean "effect"' in done.stderr
    for content, words in (
        (None, "there is no file"),
        (b"version: 1\nrules: [\n", "policy.yaml:"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"version: 1\nversion: 1\nrules: []\n", "version"),
    ):
        with replaced(file, content):
            assert words in refused(kb)


def test_broken_settings_are_told_with_all_their_problems(kb: Program) -> None:
    file = kb.workspace / "keybroker.yaml"
    text = "proxy: {listen: nowhere, workers: many}\nadmn: {}\nstore: oracle\n"
    with replaced(file, text):
        done = kb.run("up")
        said = done.stderr.splitlines()
        assert done.returncode != 0 and len(said) == 4, done.stderr
        assert all(line.startswith(f"keybroker: {file}:") for line in said)
        assert "did you mean" in done.stderr
    with replaced(file, None):
        assert "there is no workspace" in refused(kb)
    with settings(kb, "store: sqlite", "store: postgresql://localhost/kb"):
        assert "store" in refused(kb)


def test_a_wrong_ca_bundle(kb: Program, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    for content, words in (
        (None, "cannot be read"),
        ("", "no certificates"),
        ("junk", "no certificates"),
    ):
        if content is not None:
            bundle.write_text(content)
        with settings(kb, str(kb.upstream.ca_file), str(bundle)):
            said = refused(kb)
        assert words in said and str(bundle) in said and "egress.ca_bundle" in said


def test_a_database_that_is_none(kb: Program) -> None:
    copy = kb.directory / "database.copy"
    with closing(sqlite3.connect(kb.database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(kb.database, copy)
    for content in (b"", b"this is not a database" * 400):
        with replaced(kb.database, content):
            for leftover in kb.database.parent.glob("keybroker.db-*"):
                if not leftover.name.endswith("lock"):
                    leftover.unlink()
            said = refused(kb)
            assert str(kb.database) in said or "database" in said
    assert kb.database.read_bytes() == copy.read_bytes()


def test_a_database_of_a_newer_keybroker(kb: Program) -> None:
    with closing(sqlite3.connect(kb.database)) as db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " SELECT migration_set, 'v999', applied_at FROM _sqlite_migrations LIMIT 1"
        )
        db.commit()
    try:
        said = refused(kb)
        assert "newer Keybroker" in said and "v999" in said
        assert "newer Keybroker" in refused(kb, "agent", "list")
    finally:
        with closing(sqlite3.connect(kb.database)) as db:
            db.execute("DELETE FROM _sqlite_migrations WHERE name = 'v999'")
            db.commit()


# --- the workspace


def test_a_workspace_that_others_can_read(kb: Program) -> None:
    state = kb.workspace / "state"
    for path, mode, right in (
        (state, 0o750, 0o700),
        (state, 0o701, 0o700),
        (state / "workspace.key", 0o640, 0o600),
    ):
        path.chmod(mode)
        try:
            said = refused(kb)
            assert "others can read" in said and "chmod -R go=" in said
            assert "others can read" in refused(kb, "agent", "list")
        finally:
            path.chmod(right)


def test_a_workspace_that_is_not_ours(kb: Program) -> None:
    """It belongs to another user than the one who runs us."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    state = kb.workspace / "state"
    os.chown(state, 65534, -1)
    try:
        said = refused(kb)
        assert "belongs to another user (uid 65534)" in said
    finally:
        os.chown(state, 0, -1)


def test_a_workspace_without_its_key(kb: Program) -> None:
    key = kb.workspace / "state" / "workspace.key"
    with replaced(key, None):
        assert "is missing" in refused(kb)
    with replaced(key, b"short"):
        assert "workspace.key" in refused(kb)
    # The key of another workspace would seal a ledger that is not its own.
    with replaced(key, bytes(32)):
        said = refused(kb)
        assert "seal" in said or "key" in said


def test_no_workspace_or_one_that_is_there_already(kb: Program, tmp_path: Path) -> None:
    nowhere = kb.run("--workspace", str(tmp_path / "none"), "up")
    assert nowhere.returncode != 0 and "keybroker init" in nowhere.stderr
    again = kb.run("init", str(kb.workspace))
    assert again.returncode != 0 and "not overwritten" in again.stderr


def test_a_second_up(kb: Program) -> None:
    kb.start()
    try:
        done = kb.run("up")
        assert done.returncode != 0 and "already runs" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert str(kb.facts["pid"]) in done.stderr
        assert kb.api(None, "/healthz")[0] == 200
    finally:
        kb.stop()


# --- ports


@pytest.mark.parametrize("which", ["proxy", "admin"])
def test_a_port_in_use(kb: Program, which: str) -> None:
    port = kb.proxy_port if which == "proxy" else kb.admin_port
    with socket.create_server(("127.0.0.1", port)):
        said = refused(kb)
        assert f"127.0.0.1:{port} is in use" in said and f"{which}.listen" in said


def test_an_address_that_is_not_here(kb: Program) -> None:
    with settings(kb, f"listen: 127.0.0.1:{kb.proxy_port}", f"listen: 192.0.2.1:{kb.proxy_port}"):
        assert "no address of this machine" in refused(kb)


# --- vaults


@contextmanager
def vault(kb: Program, **fields: object) -> Iterator[None]:
    with settings(kb, "vault: embedded", f"vault: {json.dumps(fields)}"):
        yield


def token_file(directory: Path, token: str = "token") -> dict[str, str]:
    file = directory / "token"
    file.write_text(token)
    file.chmod(0o600)
    return {"token_file": str(file)}


def test_an_unreachable_or_silent_vault(kb: Program, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with vault(kb, url=url, auth=token_file(tmp_path)):
        assert url in refused(kb)
    with hanging() as url, vault(kb, url=url, auth=token_file(tmp_path)):
        assert url in refused(kb)
    with (
        answering(lambda method, path: (200, {}, b"<html>a web server</html>")) as other,
        vault(kb, url=other.url, auth=token_file(tmp_path)),
    ):
        assert other.url in refused(kb)


def test_a_refusing_or_sealed_vault(kb: Program, tmp_path: Path) -> None:
    with RealBao(tmp_path / "bao") as bao:
        bao.policy("broker", READ_ALL)
        with vault(kb, url=bao.url, auth=token_file(tmp_path, "wrong-token-3391")):
            said = refused(kb)
            assert "wrong-token-3391" not in said
            assert bao.url in said and "refuses the token" in said
        with vault(kb, url=bao.url, auth={"token_file": str(tmp_path / "no-such-file")}):
            assert "no-such-file" in refused(kb)
        approle = {"role_id": "no-such-role", "secret_id_file": token_file(tmp_path)["token_file"]}
        with vault(kb, url=bao.url, auth={"approle": approle}):
            refused(kb)
        bao.seal()
        with vault(kb, url=bao.url, auth=token_file(tmp_path, bao.root_token)):
            said = refused(kb)
            assert "sealed" in said and bao.root_token not in said


def test_an_embedded_vault_whose_seal_key_is_lost(kb: Program) -> None:
    kb.secret("kv/x", "y", "a value")
    directory = kb.workspace / "state" / "vault"
    (key,) = [p for p in directory.iterdir() if "seal" in p.name and "key" in p.name]
    with replaced(key, None):
        assert key.name in refused(kb)
    with replaced(key, os.urandom(32)):
        refused(kb)
