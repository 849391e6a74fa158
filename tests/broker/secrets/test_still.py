"""A copy of the embedded vault's files is one moment's, whether its server runs or not."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.secrets.admin import VaultAdmin
from broker.secrets.embedded import EmbeddedVault
from broker.secrets.filelock import FileLock
from broker.secrets.still import still
from tests.broker.secrets.test_embedded import CANARY, REF, read, write
from tests.support.program import wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[EmbeddedVault]:
    vault = EmbeddedVault(tmp_path / "vault")
    vault.start()
    write(vault)
    yield vault
    vault.stop()


def copy(vault: EmbeddedVault, into: Path) -> EmbeddedVault:
    shutil.copytree(vault.directory, into, ignore=shutil.ignore_patterns("run.json", "lock"))
    return EmbeddedVault(into)


def test_copies_taken_while_it_is_written_all_come_back(
    vault: EmbeddedVault, tmp_path: Path
) -> None:
    over, written = threading.Event(), []

    def keep_writing() -> None:
        with VaultAdmin(vault.operator_access()) as admin:
            while not over.is_set():
                written.append(admin.write("kv", "busy", "n", f"value {len(written)}"))

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        copies = []
        for number in range(1, 4):
            wait_until(lambda: len(written) > number * 3, what="it is written")  # noqa: B023
            with still(vault.directory) as undisturbed:
                copies.append(copy(vault, tmp_path / f"copy-{number}"))
                assert undisturbed()
    finally:
        over.set()
        writer.join()
    assert read(vault) == CANARY  # it goes on
    for one in copies:
        one.start()
        try:
            assert read(one) == CANARY
            with VaultAdmin(one.operator_access()) as admin:
                assert {entry.path for entry in admin.list("kv")} >= {REF.path}
        finally:
            one.stop()


def test_one_that_does_not_run_cannot_be_started_meanwhile(vault: EmbeddedVault) -> None:
    vault.stop()
    other = FileLock(vault.directory / "lock")
    with still(vault.directory) as undisturbed:
        assert undisturbed()
        assert not other.take(exclusive=True, patience=0)
    assert other.take(exclusive=True, patience=0)
    other.release()


def test_a_server_that_was_replaced_is_noticed(vault: EmbeddedVault) -> None:
    assert vault.pid is not None
    with still(vault.directory) as undisturbed:
        os.kill(vault.pid, signal.SIGCONT)
        assert not undisturbed()
