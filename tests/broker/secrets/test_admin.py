"""VaultAdmin against a real OpenBao: what is written and listed, and what never shows."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import InvalidInput
from broker.secrets.access import AppRole, TokenFile, VaultAccess
from broker.secrets.admin import Entry, VaultAdmin
from broker.secrets.trouble import VaultUnavailable
from tests.support.bao import ADMINISTER, RealBao, free_port
from tests.support.servers import Answer, Recorder, answering

CANARY = "sk_canary_5150"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBao]:
    with RealBao(tmp_path_factory.mktemp("bao")) as server:
        server.policy("broker")
        server.policy("operator", ADMINISTER)
        yield server


@pytest.fixture
def access(bao: RealBao) -> VaultAccess:
    bao.put_secret("stripe", {"api_key": CANARY})
    role_id, secret_id = bao.approle("broker", ["broker"])
    return VaultAccess(bao.url, AppRole(role_id, secret_id_file=secret_id))


@pytest.fixture
def token(tmp_path: Path) -> TokenFile:
    file = tmp_path / "token"
    file.write_text("hvs.canary-token\n")
    return TokenFile(file)


@pytest.fixture
def operator(bao: RealBao) -> VaultAccess:
    return VaultAccess(bao.url, TokenFile(bao.token_file(["operator"])))


@pytest.mark.e2e
def test_writing_one_field_keeps_the_others(bao: RealBao, operator: VaultAccess) -> None:
    bao.put_secret("crm", {"user": "u", "key": "old", "nested": {"a": 1}})
    with VaultAdmin(operator) as admin:
        assert admin.write("kv", "crm", "key", "newer") == 2
    assert bao.get_secret("crm") == {"user": "u", "key": "newer", "nested": {"a": 1}}


@pytest.mark.e2e
def test_a_secret_can_be_written_anew_after_it_was_deleted(
    bao: RealBao, operator: VaultAccess
) -> None:
    bao.put_secret("again", {"old": "x"})
    bao.root("DELETE", "kv/data/again")
    with VaultAdmin(operator) as admin:
        assert admin.write("kv", "again", "k", "value") == 2
        bao.root("PUT", "kv/destroy/again", {"versions": [2]})
        assert admin.write("kv", "again", "k", "other") == 3
    assert bao.get_secret("again") == {"k": "other"}


@pytest.mark.e2e
async def test_writers_at_once_lose_nothing(bao: RealBao, operator: VaultAccess) -> None:
    """Check-and-set: the second reads again instead of writing over the first."""

    def write(number: int) -> int:
        with VaultAdmin(operator) as admin:
            return admin.write("kv", "busy", f"f{number}", "value")

    versions = await asyncio.gather(*(asyncio.to_thread(write, n) for n in range(3)))
    assert sorted(versions) == [1, 2, 3]
    assert set(bao.get_secret("busy")) == {"f0", "f1", "f2"}


@pytest.mark.e2e
@pytest.mark.parametrize("value", ["", "a\n", " a", "\u20ac"])
def test_what_could_not_be_used_is_not_written(
    bao: RealBao, operator: VaultAccess, value: str
) -> None:
    with VaultAdmin(operator) as admin, pytest.raises(InvalidInput, match="cannot be used: it"):
        admin.write("kv", "unfit", "k", value)
    assert bao.request("GET", "kv/data/unfit", token=bao.root_token)[0] == 404


@pytest.mark.e2e
def test_names_that_are_none_are_refused(operator: VaultAccess) -> None:
    with VaultAdmin(operator) as admin:
        with pytest.raises(InvalidInput, match="no path of a secret"):
            admin.write("kv", "../sys", "k", "value")
        with pytest.raises(InvalidInput, match="printable name"):
            admin.write("kv", "x", "", "value")


@pytest.mark.e2e
def test_listing_gives_names_and_versions_and_never_a_value(
    bao: RealBao, operator: VaultAccess
) -> None:
    bao.root("POST", "sys/mounts/listed", {"type": "kv", "options": {"version": "2"}})
    bao.policy("lister", ADMINISTER.replace("kv/", "listed/"))
    with VaultAdmin(VaultAccess(bao.url, TokenFile(bao.token_file(["lister"])))) as admin:
        until_ready(bao, "listed")
        assert admin.list("listed") == []
        bao.put_secret("b/deep/er", {"z": CANARY, "a": CANARY}, mount="listed")
        bao.put_secret("a", {"k": CANARY}, mount="listed")
        bao.put_secret("gone", {"k": CANARY}, mount="listed")
        bao.root("DELETE", "listed/data/gone")
        found = admin.list("listed")
    assert found == [
        Entry("a", ("k",), 1),
        Entry("b/deep/er", ("a", "z"), 1),
        Entry("gone", (), 0),
    ]
    assert CANARY not in repr(found)


@pytest.mark.e2e
def test_who_may_not_write_or_list_is_told(access: VaultAccess) -> None:
    with VaultAdmin(access) as reader:
        with pytest.raises(
            VaultUnavailable, match=r"stripe#api_key was not written.*403"
        ) as caught:
            reader.write("kv", "stripe", "api_key", CANARY)
        assert CANARY not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(VaultUnavailable, match=r"kv could not be listed.*403"):
            reader.list("kv")


@pytest.mark.e2e
def test_a_check_logs_in(bao: RealBao, operator: VaultAccess) -> None:
    with VaultAdmin(operator) as admin:
        assert admin.check().active
    with (
        VaultAdmin(VaultAccess(bao.url, AppRole("no", secret_id="no"))) as stranger,
        pytest.raises(VaultUnavailable, match="refuses the log-in at auth/approle"),
    ):
        stranger.check()


@pytest.mark.e2e
def test_a_check_tells_a_refused_token_from_one_that_may_little(
    bao: RealBao, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(bao.token([bao.policy("broker")], no_default_policy=True))
    with VaultAdmin(VaultAccess(bao.url, TokenFile(file))) as admin:
        assert admin.check().active
    file.write_text("s.of-nobody")
    with (
        VaultAdmin(VaultAccess(bao.url, TokenFile(file))) as admin,
        pytest.raises(VaultUnavailable, match="refuses the token"),
    ):
        admin.check()


def test_a_check_of_what_is_not_there_says_so(token: TokenFile) -> None:
    with VaultAdmin(VaultAccess(f"http://127.0.0.1:{free_port()}", token)) as admin:
        health = admin.check()
    assert health.sentence == "Vault cannot be reached."
    assert "cannot be used: no connection" in health.cause


def test_a_write_that_never_wins_gives_up_without_showing_the_value(token: TokenFile) -> None:
    engine = b'{"data": {"path": "kv/", "type": "kv", "options": {"version": "2"}}}'
    present = b'{"data": {"data": {"a": "sk_canary_5150"}, "metadata": {"version": 1}}}'

    def script(method: str, path: str) -> Answer:
        if method == "POST":
            return 400, {}, b"{}"
        return 200, {}, engine if "mounts" in path else present

    with (
        answering(script) as server,
        VaultAdmin(VaultAccess(server.url, token)) as admin,
        pytest.raises(VaultUnavailable, match="refused it 5 times") as caught,
    ):
        admin.write("kv", "x", "k", CANARY)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert written(server) == 5


def written(server: Recorder) -> int:
    """How many writes there were; each must name the version it means to follow."""
    bodies = [json.loads(body) for method, _, _, body in server.asked if method == "POST"]
    assert all(body["options"] == {"cas": 1} for body in bodies)
    return len(bodies)


def until_ready(bao: RealBao, mount: str) -> None:
    for _ in range(500):
        if bao.request("GET", f"{mount}/config", token=bao.root_token)[0] == 200:
            return
    raise AssertionError("the engine did not get ready")
