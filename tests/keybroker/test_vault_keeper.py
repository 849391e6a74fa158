"""The keeper of the vault: order of its life, and a thread that nothing ends but `stop`.

(Real vaults are kept in tests/e2e/test_vaults.py.)
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import KeybrokerError
from broker.services import Services
from keybroker import compose, vault_keeper
from keybroker.settings import Settings, load_settings
from keybroker.vault_keeper import VaultKeeper
from keybroker.workspace import Workspace
from tests.support.services import Clock, open_services


class Embedded:
    """Stands in for the server in the workspace."""

    def __init__(self, says: list[object]) -> None:
        self.told: list[str] = []
        self.seen = threading.Event()
        self._says = says

    def start(self, *, hand_over: object) -> None:
        self.told.append("start")

    def tend(self) -> str | None:
        if not self._says:
            self.seen.set()
            return None
        said = self._says.pop(0)
        if isinstance(said, Exception):
            raise said
        return str(said)

    def stop(self) -> None:
        self.told.append("stop")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    opened = open_services(tmp_path / "kb.db", Clock())
    yield opened
    opened.close()


def test_whatever_goes_wrong_it_is_looked_after_until_it_is_stopped(
    tmp_path: Path,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    vault = Embedded(["it is back", KeybrokerError("no disk"), RuntimeError("s3cret")])
    monkeypatch.setattr(compose, "embedded_vault", lambda _: vault)
    monkeypatch.setattr(vault_keeper, "TEND", 0.001)
    keeper = VaultKeeper(Workspace(tmp_path), Settings(), services)
    keeper.start()
    keeper.tend()
    assert vault.seen.wait(10)
    keeper.stop()
    assert vault.told == ["start", "stop"]
    lines = [r.getMessage() for r in caplog.records if r.name == "keybroker.up"]
    assert lines == [
        "it is back",
        "no disk",
        "the vault could not be looked after (RuntimeError)",
    ]
    vault.seen.clear()
    assert not vault.seen.wait(0.05), "a stopped vault is not brought back"


def test_a_vault_that_cannot_be_reached_is_told_of_and_nothing_is_kept(
    tmp_path: Path, services: Services
) -> None:
    (tmp_path / "token").write_text("t")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        text = f"vault: {{url: '{url}', auth: {{token_file: token}}}}"
        settings = load_settings(text, file="keybroker.yaml", base=tmp_path)
        keeper = VaultKeeper(Workspace(tmp_path), settings, services)
        with pytest.raises(KeybrokerError, match="no connection"):
            keeper.start()
    keeper.tend()
    keeper.stop()
