"""The embedded vault: first start, restarts, privileges, and everything that may go wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.secrets.access import VaultAccess
from broker.secrets.admin import VaultAdmin
from broker.secrets.api import Api
from broker.secrets.embedded import (
    EmbeddedVault,
    RecoveryKeys,
    VaultBusy,
    running,
)
from broker.secrets.login import carry, enter, leave
from broker.secrets.trouble import VaultUnavailable
from broker.secrets.vault import VaultSource
from rules.model import SecretRef
from tests.broker.secrets.test_tether import gone

pytestmark = pytest.mark.e2e

CANARY = "sk_canary_2024"
REF = SecretRef("kv", "stripe", "api_key")


def write(vault: EmbeddedVault, value: str = CANARY) -> int:
    with VaultAdmin(vault.operator_access()) as admin:
        return admin.write(REF.mount, REF.path, REF.field, value)


def read(vault: EmbeddedVault) -> str:
    source = VaultSource(vault.broker_access)
    try:
        return asyncio.run(source.read(REF)).value.reveal()
    finally:
        source.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault that was set up once and holds one secret; tests work on copies."""
    directory = tmp_path_factory.mktemp("template") / "vault"
    vault = EmbeddedVault(directory)
    vault.start()
    write(vault)
    vault.stop()
    return directory


@pytest.fixture
def vault(template: Path, tmp_path: Path) -> Iterator[EmbeddedVault]:
    """A copy of it, not running."""
    directory = tmp_path / "vault"
    shutil.copytree(template, directory, ignore=shutil.ignore_patterns("run.json"))
    vault = EmbeddedVault(directory)
    yield vault
    vault.stop()


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedVault]:
    """A copy of it, running, for tests that change nothing."""
    directory = tmp_path_factory.mktemp("shared") / "vault"
    shutil.copytree(template, directory, ignore=shutil.ignore_patterns("run.json"))
    vault = EmbeddedVault(directory)
    vault.start()
    yield vault
    vault.stop()


# --- the first start ---------------------------------------------------------------------------


def test_the_first_start_hands_the_recovery_keys_over_once(tmp_path: Path) -> None:
    vault = EmbeddedVault(tmp_path / "vault")
    with pytest.raises(VaultUnavailable, match=r"has never run|is not set up"):
        vault.broker_access()
    shown: list[RecoveryKeys] = []
    try:
        keys = vault.start(hand_over=shown.append)
        assert keys is not None
        assert shown == [keys]
        assert (len(set(keys.keys)), keys.threshold) == (3, 2)
        assert not any(key in repr(keys) for key in keys.keys)
        assert vault.ready
        write(vault)
        assert read(vault) == CANARY
        vault.stop()
        assert not vault.ready
        assert vault.start() is None
        assert read(vault) == CANARY
        kept = b"".join(p.read_bytes() for p in vault.directory.rglob("*") if p.is_file())
        assert not any(key.encode() in kept for key in keys.keys)
        assert CANARY.encode() not in kept
    finally:
        vault.stop()


def test_every_file_is_for_its_owner_only(template: Path) -> None:
    for path in [template, *template.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from broker.secrets.embedded import EmbeddedVault
vault = EmbeddedVault(Path(sys.argv[1]))
print("go", flush=True)
vault.start(hand_over=lambda keys: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize("after", [0.1, 0.5, 1.0, None])
def test_an_interrupted_first_start_begins_anew(tmp_path: Path, after: float | None) -> None:
    """Killed at some moment, or (None) in the last one, with the keys already shown."""
    directory = tmp_path / "vault"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(directory)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if after is not None:
            time.sleep(after)
            process.kill()
        assert process.wait() == -signal.SIGKILL
    vault = EmbeddedVault(directory)
    with pytest.raises(VaultUnavailable):
        vault.operator_access()
    try:
        assert vault.start() is not None
        write(vault)
        assert read(vault) == CANARY
    finally:
        vault.stop()


def test_what_fails_while_the_keys_are_shown_is_not_committed(tmp_path: Path) -> None:
    vault = EmbeddedVault(tmp_path / "vault")

    def broken_pipe(keys: RecoveryKeys) -> None:
        raise RuntimeError("nobody saw them")

    with pytest.raises(RuntimeError):
        vault.start(hand_over=broken_pipe)
    assert not (vault.directory / "ready.json").exists()
    assert vault.pid is None


# --- privileges --------------------------------------------------------------------------------


@contextmanager
def entered(access: VaultAccess) -> Iterator[Api]:
    """The API with a token of that log-in, which is given back."""
    api = Api(access)
    grant = carry(enter(access), api.answer)
    inside = Api(access, grant.token)
    try:
        yield inside
    finally:
        carry(leave(grant), api.answer)
        inside.close()
        api.close()


def allowed(access: VaultAccess, method: str, path: str, body: dict[str, object]) -> bool:
    with entered(access) as api:
        return api.ask(method, path, body or None).status not in {403, 405}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "kv/data/stripe", {"data": {}}),
        ("DELETE", "kv/data/stripe", {}),
        ("LIST", "kv/metadata", {}),
        ("GET", "kv/metadata/stripe", {}),
        ("DELETE", "kv/metadata/stripe", {}),
        ("POST", "kv/config", {"max_versions": 1}),
        ("GET", "sys/policies/acl/broker", {}),
        ("PUT", "sys/policies/acl/broker", {"policy": ""}),
        ("POST", "sys/mounts/x", {"type": "kv"}),
        ("PUT", "sys/seal", {}),
        ("GET", "sys/audit", {}),
        ("POST", "auth/token/create", {}),
        ("POST", "auth/approle/role/operator/secret-id", {}),
        ("POST", "auth/approle/role/broker/secret-id", {}),
        ("POST", "identity/entity", {"name": "x"}),
        ("PUT", "sys/generate-root/attempt", {}),
    ],
)
def test_the_broker_reads_secrets_and_nothing_else(
    shared: EmbeddedVault, method: str, path: str, body: dict[str, object]
) -> None:
    assert not allowed(shared.broker_access(), method, path, body)
    assert allowed(shared.broker_access(), "GET", "kv/data/stripe", {})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "kv/data/stripe", {}),
        ("DELETE", "kv/metadata/stripe", {}),
        ("PUT", "sys/policies/acl/operator", {"policy": ""}),
        ("PUT", "sys/seal", {}),
        ("POST", "auth/token/create", {}),
        ("POST", "auth/approle/role/broker/secret-id", {}),
    ],
)
def test_the_operator_writes_secrets_and_nothing_else(
    shared: EmbeddedVault, method: str, path: str, body: dict[str, object]
) -> None:
    assert not allowed(shared.operator_access(), method, path, body)


def test_tokens_can_be_renewed_and_do_not_hold_the_default_policy(shared: EmbeddedVault) -> None:
    with entered(shared.broker_access()) as api:
        data = api.call("GET", "auth/token/lookup-self").data
        assert data["policies"] == ["broker"]
        renewed = api.call("POST", "auth/token/renew-self", {}).body["auth"]
        assert renewed["lease_duration"] == 1200


def test_the_listener_is_on_loopback_with_a_certificate_of_its_own(shared: EmbeddedVault) -> None:
    """Whoever squats on the port while the server is down cannot collect SecretIDs."""
    assert shared.address.startswith("https://127.0.0.1:")
    stranger = VaultAccess(shared.address, None)
    with pytest.raises(VaultUnavailable, match="not trusted"):
        Api(stranger).ask("GET", "sys/health")


def test_reads_are_audited_without_their_values(shared: EmbeddedVault) -> None:
    assert read(shared) == CANARY
    audit = (shared.directory / "audit.log").read_text()
    assert "kv/data/stripe" in audit
    assert CANARY not in audit


# --- one server, many processes ----------------------------------------------------------------


def test_a_restart_keeps_the_port_and_the_secrets(vault: EmbeddedVault) -> None:
    vault.start()
    address = vault.address
    vault.stop()
    vault.start()
    assert vault.address == address
    assert read(vault) == CANARY


def test_a_moved_vault_serves(vault: EmbeddedVault, template: Path, tmp_path: Path) -> None:
    """The server holds on to the audit path it was set up with: an absolute one would keep it down.

    Every copy that these tests work on has moved; here it moves once more.
    """
    assert vault.directory != template
    moved = EmbeddedVault(vault.directory.rename(tmp_path / "elsewhere"))
    moved.start()
    try:
        assert read(moved) == CANARY
    finally:
        moved.stop()


def test_a_port_taken_meanwhile_is_replaced_and_found(vault: EmbeddedVault) -> None:
    vault.start()
    port = int(vault.address.rsplit(":", 1)[1])
    source = VaultSource(vault.broker_access)

    async def both_sides() -> None:
        assert (await source.read(REF)).value.reveal() == CANARY
        vault.stop()
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("127.0.0.1", port))
            squatter.listen()
            vault.start()
        assert not vault.address.endswith(f":{port}")
        assert (await source.read(REF)).value.reveal() == CANARY

    asyncio.run(both_sides())
    source.close()


def test_a_port_asked_for_and_taken_is_one_clear_line(vault: EmbeddedVault) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        with pytest.raises(VaultUnavailable, match=r"did not start.*address already in use"):
            vault.start(squatter.getsockname()[1])


def test_two_servers_over_one_directory_are_refused(vault: EmbeddedVault) -> None:
    vault.start()
    with pytest.raises(VaultBusy, match="Another Keybroker process runs the vault"):
        EmbeddedVault(vault.directory).start(patience=0.1)
    assert read(vault) == CANARY


def test_a_running_vault_is_joined_and_left_running(vault: EmbeddedVault) -> None:
    vault.start()
    with running(vault.directory) as joined:
        assert joined.pid is None
        assert write(joined, "changed") == 2
    assert vault.ready
    assert read(vault) == "changed"


def test_a_vault_that_is_down_is_started_for_the_while(vault: EmbeddedVault) -> None:
    with running(vault.directory) as temporary:
        assert read(temporary) == CANARY
        pid = temporary.pid
        assert pid is not None
    assert gone(pid)
    assert not vault.ready


def test_whoever_started_it_for_the_while_waits_for_those_who_joined(vault: EmbeddedVault) -> None:
    joined, leave, done = threading.Event(), threading.Event(), threading.Event()

    def guest() -> None:
        with running(vault.directory) as inside:
            joined.set()
            leave.wait(20)
            if read(inside) == CANARY:
                done.set()

    thread = threading.Thread(target=guest)
    with running(vault.directory):
        thread.start()
        assert joined.wait(20)
        threading.Timer(0.2, leave.set).start()
    thread.join()
    assert done.is_set()


def test_many_commands_at_once_share_one_server(vault: EmbeddedVault) -> None:
    failures: list[BaseException] = []

    def command(number: int) -> None:
        try:
            with running(vault.directory) as inside, VaultAdmin(inside.operator_access()) as admin:
                admin.write("kv", f"many/{number}", "k", "value")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=command, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with running(vault.directory) as inside, VaultAdmin(inside.operator_access()) as admin:
        assert [e.path for e in admin.list("kv")] == [*(f"many/{n}" for n in range(5)), "stripe"]


# --- ends and accidents ------------------------------------------------------------------------

OWNER = """
import sys, threading, time
from pathlib import Path
from broker.secrets.embedded import EmbeddedVault
vault = EmbeddedVault(Path(sys.argv[1]))
starter = threading.Thread(target=vault.start)
starter.start()
starter.join()
time.sleep(0.3)
print(vault.pid, vault.ready, flush=True)
time.sleep(600)
"""


def test_the_server_outlives_the_thread_that_started_it_but_not_the_process(
    vault: EmbeddedVault,
) -> None:
    """PR_SET_PDEATHSIG follows the thread; a supervisor starts things from passing threads."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(vault.directory)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, ready = owner.stdout.readline().split()
        assert ready == "True"
        owner.kill()
    if sys.platform == "linux":
        for _ in range(300):
            if gone(int(pid)):
                break
            time.sleep(0.02)
        assert gone(int(pid))
    vault.start()
    assert read(vault) == CANARY


def test_a_server_that_died_is_brought_back(vault: EmbeddedVault) -> None:
    vault.start()
    address = vault.address
    assert vault.tend() is None
    assert vault.pid is not None
    os.kill(vault.pid, signal.SIGKILL)
    # Reaped by the thread that keeps it, which may take a moment longer to say so.
    while (Path("/proc") / str(vault.pid)).exists():
        time.sleep(0.02)
    time.sleep(0.2)
    said = vault.tend()
    assert said == "The embedded vault had ended with status -9 and was started again."
    assert vault.tend() is None
    assert vault.address == address
    assert read(vault) == CANARY


def test_a_server_that_hangs_is_replaced(vault: EmbeddedVault) -> None:
    vault.start()
    assert vault.pid is not None
    os.kill(vault.pid, signal.SIGSTOP)
    said = [vault.tend() for _ in range(3)]
    assert said[0] == said[1] == "The embedded vault does not answer."
    assert said[2] == "The embedded vault did not answer and was started again."
    assert read(vault) == CANARY


def test_tending_what_is_not_started_starts_nothing(vault: EmbeddedVault) -> None:
    assert vault.tend() == "The embedded vault is not started."
    assert vault.pid is None


def test_a_wrong_seal_key_is_one_clear_line(vault: EmbeddedVault) -> None:
    """The process stays alive and sealed: the port says nothing, `sealed` does."""
    (vault.directory / "seal.key").write_bytes(b"x" * 32)
    with pytest.raises(VaultUnavailable, match=r"stays sealed: seal\.key does not fit"):
        vault.start()
    assert vault.pid is None


def test_a_seal_key_of_the_wrong_length_is_one_clear_line(vault: EmbeddedVault) -> None:
    (vault.directory / "seal.key").write_bytes(b"short")
    with pytest.raises(VaultUnavailable, match="did not start"):
        vault.start()


@pytest.mark.parametrize("name", ["seal.key", "broker.secret-id", "operator.secret-id"])
def test_a_missing_file_is_named(vault: EmbeddedVault, name: str) -> None:
    (vault.directory / name).unlink()
    with pytest.raises(VaultUnavailable, match=f"lacks {name}; restore it from a backup"):
        vault.start()


def test_lost_data_is_no_fresh_start(vault: EmbeddedVault) -> None:
    """An empty vault in place of a full one would be the silent mess."""
    shutil.rmtree(vault.directory / "raft")
    with pytest.raises(VaultUnavailable, match=r"lacks vault\.db"):
        vault.start()


def test_data_without_its_marker_is_left_alone(vault: EmbeddedVault) -> None:
    (vault.directory / "ready.json").unlink()
    with pytest.raises(VaultUnavailable, match=r"holds data, but ready\.json beside it is missing"):
        vault.start()
    assert (vault.directory / "raft" / "vault.db").exists()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultUnavailable, match="cannot be used: Not a directory"):
        EmbeddedVault(tmp_path / "file" / "vault").start()


def test_a_large_audit_file_is_started_anew(
    vault: EmbeddedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device's path can never change, so the file is moved and opened again."""
    vault.start()
    monkeypatch.setattr("broker.secrets.server._AUDIT_LIMIT", 1)
    assert vault.tend() is None
    for _ in range(200):
        if (vault.directory / "audit.log").exists():
            break
        time.sleep(0.02)
    assert read(vault) == CANARY
    assert (vault.directory / "audit.log").stat().st_size > 0
    assert (vault.directory / "audit.log.1").exists()
