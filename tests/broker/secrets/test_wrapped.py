"""Wrapped SecretIDs against a real OpenBao: used once, by us, or somebody hears of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.errors import SecretUnavailable
from broker.keys import Keys
from broker.secrets.access import VaultAccess, WrappedAppRole
from broker.secrets.handover import Handover, Relayed, taken
from broker.secrets.trouble import VaultUnavailable
from broker.secrets.vault import VaultSource
from broker.secrets.wrapped import WrappedLogin
from broker.stores.sqlite import Store
from rules.model import SecretRef
from tests.support.bao import RealBao

pytestmark = pytest.mark.e2e

REF = SecretRef("kv", "stripe", "api_key")
KEYS = Keys.derive(bytes(32))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    bao: RealBao
    store: Store
    file: Path
    role_id: str
    clock: Clock = field(default_factory=Clock)

    @property
    def handover(self) -> Handover:
        return Handover(self.store, KEYS.vault, secrets.token_bytes)

    @property
    def access(self) -> VaultAccess:
        return VaultAccess(self.bao.url, WrappedAppRole(self.role_id, self.file))

    def login(self) -> WrappedLogin:
        access = self.access
        assert isinstance(access.auth, WrappedAppRole)
        return WrappedLogin(access, access.auth, self.handover, self.clock)

    def wrap(self, path: str = "auth/approle/role/wrapped/secret-id", ttl: str = "60s") -> str:
        token = self.bao.wrapped(path, ttl)
        self.file.write_text(token + "\n")
        return token

    def records(self) -> list[str]:
        rows = self.store.read().execute("SELECT type FROM ledger ORDER BY seq").fetchall()
        return [row[0] for row in rows if row[0].startswith("vault.")]

    def source(self) -> VaultSource:
        return VaultSource(self.access, entrance=lambda *_: Relayed(self.handover))

    def dump(self) -> bytes:
        return b"".join(p.read_bytes() for p in self.store.path.parent.iterdir() if p.is_file())


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBao]:
    with RealBao(tmp_path_factory.mktemp("bao")) as server:
        server.policy("broker")
        server.put_secret("stripe", {"api_key": "sk_canary_5150"})
        yield server


@pytest.fixture
def bench(bao: RealBao, tmp_path: Path) -> Iterator[Bench]:
    role_id, _ = bao.approle(
        "wrapped", ["broker"], token_ttl="60s", token_max_ttl="90s", secret_id_num_uses=2
    )
    (tmp_path / "state").mkdir()
    store = Store(
        tmp_path / "state" / "keybroker.db",
        clock=lambda: datetime.now(UTC),
        head_key=KEYS.ledger_head,
        create=True,
    )
    yield Bench(bao, store, tmp_path / "wrapping-token", role_id)
    store.close()


async def test_one_log_in_serves_any_number_of_workers(bench: Bench) -> None:
    wrapping = bench.wrap()
    login = bench.login()
    login.start()
    workers = [bench.source() for _ in range(3)]
    found = await asyncio.gather(*(worker.read(REF) for worker in workers))
    assert {version.value.reveal() for version in found} == {"sk_canary_5150"}
    token = taken(bench.handover.read(), own=False).token
    for worker in workers:
        worker.close()
    # Workers do not give back what is not theirs.
    assert bench.bao.request("GET", "auth/token/lookup-self", token=token)[0] == 200
    assert bench.records() == ["vault.unwrapping", "vault.unwrapped"]
    dump = bench.dump()
    assert token.encode() not in dump
    assert wrapping.encode() not in dump
    login.stop()
    assert bench.bao.request("GET", "auth/token/lookup-self", token=token)[0] == 403
    assert bench.handover.read().grant is None


def test_after_a_stop_the_spent_token_is_named_and_a_new_one_asked_for(bench: Bench) -> None:
    bench.wrap()
    login = bench.login()
    login.start()
    login.stop()
    with pytest.raises(VaultUnavailable, match="was used by this Keybroker at") as caught:
        bench.login().start()
    assert "Issue a new one: `vault write -wrap-ttl=10m" in str(caught.value)
    assert bench.records() == ["vault.unwrapping", "vault.unwrapped"]
    bench.wrap()
    again = bench.login()
    again.start()
    again.stop()


def test_after_a_crash_the_token_that_was_left_serves_on(bench: Bench) -> None:
    bench.wrap()
    bench.login().start()  # and is killed
    token = taken(bench.handover.read(), own=False).token
    resumed = bench.login()
    resumed.start()
    assert taken(bench.handover.read(), own=False).token == token
    # The SecretID is gone: once the token cannot be renewed any more, people are asked.
    bench.bao.root("POST", "auth/token/revoke", {"token": token})
    asyncio.run(bench.handover.refuse(bench.handover.read().serial))
    sentence = resumed.tend()
    assert sentence is not None and "Issue a new one" in sentence
    assert bench.handover.read().trouble == sentence
    assert resumed.tend() is None  # said once
    bench.wrap()
    assert resumed.tend() == "Keybroker is logged in to Vault again."
    assert bench.handover.read().grant is not None
    resumed.stop()


@pytest.mark.parametrize("after_look", [False, True])
def test_a_token_that_somebody_else_used_is_an_alarm(
    bench: Bench, after_look: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapping = bench.wrap()

    def steal() -> None:
        stolen = bench.bao.request("POST", "sys/wrapping/unwrap", {}, wrapping)[1]
        assert stolen["data"]["secret_id"]

    if after_look:
        using = Handover.using

        def slow(self: Handover, token: str, record: Any) -> None:
            using(self, token, record)
            steal()

        monkeypatch.setattr(Handover, "using", slow)
    else:
        steal()
    for _ in range(2):
        with pytest.raises(VaultUnavailable) as caught:
            bench.login().start()
    assert "in other hands" in str(caught.value)
    assert bench.records().count("vault.unwrapping_refused") == 1
    rows = bench.store.read().execute("SELECT * FROM ledger").fetchall()
    text = str([tuple(row) for row in rows])
    assert "SOMEBODY ELSE" in text
    assert wrapping not in text + str(caught.value)


def test_a_token_from_another_place_is_not_used(bench: Bench) -> None:
    """Somebody who can write the file must not make us log in as them, or leak what is wrapped."""
    wrapping = bench.wrap("auth/approle/role/wrapped/role-id")
    with pytest.raises(VaultUnavailable, match=r"in place of another\. It was not used"):
        bench.login().start()
    assert bench.bao.request("POST", "sys/wrapping/unwrap", {}, wrapping)[0] == 200
    assert bench.records() == ["vault.unwrapping_refused"]


@pytest.mark.parametrize("content", [None, "", "two words", "hvs.neverwas"])
def test_a_file_that_holds_no_wrapping_token_is_named(bench: Bench, content: str | None) -> None:
    if content is not None:
        bench.file.write_text(content)
    with pytest.raises(VaultUnavailable, match=str(bench.file)):
        bench.login().start()


def test_the_token_is_renewed_then_replaced_then_people_are_asked(bench: Bench) -> None:
    """token_ttl 60 s, token_max_ttl 90 s, and a SecretID good for two log-ins."""
    bench.wrap()
    login = bench.login()
    login.start()
    tokens = [taken(bench.handover.read(), own=False).token]
    assert login.tend() is None
    for _ in range(12):
        # Renewal is for less and less, as 90 s after the log-in are the end.
        bench.clock.now += 41
        if (sentence := login.tend()) is not None:
            break
        tokens.append(taken(bench.handover.read(), own=False).token)
        bench.bao.root("POST", "auth/token/revoke", {"token": tokens[-1]})
    assert len(set(tokens)) == 2
    assert sentence is not None
    assert "refuses the log-in at auth/approle (400)" in sentence
    assert "Issue a new one" in sentence
    login.stop()


async def test_a_refused_token_is_replaced_while_reads_wait(bench: Bench) -> None:
    bench.wrap()
    login = bench.login()
    login.start()
    worker = bench.source()
    await worker.read(REF)
    token = taken(bench.handover.read(), own=False).token
    bench.bao.root("POST", "auth/token/revoke", {"token": token})
    over = asyncio.Event()

    def tend() -> None:
        while not over.is_set():
            login.tend()
            time.sleep(0.02)

    tending = asyncio.create_task(asyncio.to_thread(tend))
    found = await asyncio.gather(*(worker.read(REF) for _ in range(10)))
    over.set()
    await tending
    assert {version.value.reveal() for version in found} == {"sk_canary_5150"}
    assert taken(bench.handover.read(), own=False).token != token
    worker.close()
    login.stop()


async def test_a_worker_says_what_the_supervisor_knows(bench: Bench) -> None:
    worker = bench.source()

    async def says(what: str) -> None:
        with pytest.raises(SecretUnavailable, match=what):
            await worker.read(REF)

    await says("has not logged in to Vault, and only it can")
    bench.handover.publish(None, "The SecretID is used up.")
    await says("The SecretID is used up.")
    assert worker.health().state == "closed"
    worker.close()


def test_a_sealed_vault_is_trouble_and_no_theft(bench: Bench) -> None:
    wrapping = bench.wrap()
    bench.bao.seal()
    try:
        with pytest.raises(VaultUnavailable, match="sealed"):
            bench.login().start()
    finally:
        bench.bao.unseal()
    assert bench.handover.used(wrapping) is None
    login = bench.login()
    login.start()
    login.stop()
