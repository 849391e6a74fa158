"""VaultSource against a real OpenBao, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.errors import SecretUnavailable
from broker.secret import SecretVersion
from broker.secrets.access import AppRole, TokenFile, VaultAccess
from broker.secrets.breaker import Breaker
from broker.secrets.server import make_certificate
from broker.secrets.vault import VaultSource
from rules.model import SecretRef
from tests.support.bao import READ_ALL, RealBao, free_port
from tests.support.faults import FaultProxy
from tests.support.servers import Answer, answering, hanging

CANARY = "sk_canary_5150"
REF = SecretRef("kv", "stripe", "api_key")


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBao]:
    with RealBao(tmp_path_factory.mktemp("bao")) as server:
        server.policy("broker")
        yield server


@pytest.fixture
def access(bao: RealBao) -> VaultAccess:
    bao.put_secret("stripe", {"api_key": CANARY})
    role_id, secret_id = bao.approle("broker", ["broker"])
    return VaultAccess(bao.url, AppRole(role_id, secret_id_file=secret_id))


@pytest.fixture
async def source(access: VaultAccess) -> AsyncIterator[VaultSource]:
    source = VaultSource(access)
    yield source
    source.close()


async def refusal(source: VaultSource, ref: SecretRef = REF) -> str:
    """The sentence of a read that must fail, which shows no value and no token anywhere."""
    with pytest.raises(SecretUnavailable) as caught:
        await source.read(ref)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert CANARY not in shown
    assert "hvs." not in shown
    assert f"{ref.mount}/{ref.path}" in str(caught.value)
    return str(caught.value)


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.e2e
async def test_the_newest_version_is_read_each_time(bao: RealBao, source: VaultSource) -> None:
    """Nothing is cached: what was rotated in Vault is what the next read gives."""
    first = await source.read(REF)
    assert first.value.reveal() == CANARY
    number = bao.put_secret("stripe", {"api_key": "rotated"})
    second = await source.read(REF)
    assert (second.value.reveal(), second.version) == ("rotated", number)
    assert second.version == first.version + 1


@pytest.mark.e2e
async def test_nested_paths_and_odd_names_are_read(bao: RealBao, source: VaultSource) -> None:
    bao.put_secret("team%20a/x%3Fy%25", {"a#b": "value"})
    assert (await source.read(SecretRef("kv", "team a/x?y%", "a#b"))).value.reveal() == "value"


@pytest.mark.e2e
async def test_what_is_not_there_is_named(bao: RealBao, source: VaultSource) -> None:
    assert "does not exist in Vault" in await refusal(source, SecretRef("kv", "nowhere", "k"))
    assert "has no field pin" in await refusal(source, SecretRef("kv", "stripe", "pin"))
    nowhere = await refusal(source, SecretRef("other", "stripe", "k"))
    assert "does not say which engine other/stripe lies in (403" in nowhere
    assert "cannot be read: a segment" in await refusal(source, SecretRef("kv", "../sys", "k"))
    bao.put_secret("gone", {"k": CANARY})
    bao.root("DELETE", "kv/data/gone")
    assert "is deleted" in await refusal(source, SecretRef("kv", "gone", "k"))
    bao.root("PUT", "kv/destroy/gone", {"versions": [1]})
    assert "is destroyed" in await refusal(source, SecretRef("kv", "gone", "k"))


@pytest.mark.e2e
@pytest.mark.parametrize("value", ["", 7, None, {"a": CANARY}, CANARY + "\n", CANARY + "\u20ac"])
async def test_a_value_that_no_header_carries_is_refused(
    bao: RealBao, source: VaultSource, value: object
) -> None:
    bao.put_secret("odd", {"k": value})
    assert "cannot be used: it" in await refusal(source, SecretRef("kv", "odd", "k"))


@pytest.mark.e2e
async def test_a_control_group_is_no_empty_secret(bao: RealBao, access: VaultAccess) -> None:
    """OpenBao answers 200 with `data: null` and a wrapping token."""
    bao.policy(
        "held",
        """path "kv/data/*" { capabilities = ["read"]
            control_group = { ttl = "10m"
              factor "human" { controlled_capabilities = ["read"]
                identity { group_names = ["approvers"] approvals = 1 } } } }""",
    )
    role_id, secret_id = bao.approle("held", ["held"])
    source = VaultSource(VaultAccess(bao.url, AppRole(role_id, secret_id_file=secret_id)))
    assert "control group" in await refusal(source)
    source.close()


@pytest.mark.e2e
async def test_a_revoked_token_costs_one_new_log_in(bao: RealBao, source: VaultSource) -> None:
    """However many reads are under way."""
    await source.read(REF)
    bao.root("PUT", "sys/leases/revoke-prefix/auth/approle/login")
    before = len(bao.root("LIST", "auth/token/accessors")["data"]["keys"])
    results = await asyncio.gather(*(source.read(REF) for _ in range(30)))
    assert {result.value.reveal() for result in results} == {CANARY}
    assert len(bao.root("LIST", "auth/token/accessors")["data"]["keys"]) == before + 1


@pytest.mark.e2e
async def test_a_policy_taken_away_is_said(bao: RealBao, source: VaultSource) -> None:
    await source.read(REF)
    bao.root("PUT", "sys/policies/acl/broker", {"policy": 'path "x" { capabilities = ["deny"] }'})
    try:
        assert "Vault refuses the read of kv/stripe#api_key (403)" in await refusal(source)
    finally:
        bao.policy("broker", READ_ALL)
    assert (await source.read(REF)).value.reveal() == CANARY


@pytest.mark.e2e
async def test_a_sealed_vault_is_said_and_forgotten_when_unsealed(
    bao: RealBao, source: VaultSource, access: VaultAccess
) -> None:
    await source.read(REF)
    fresh = VaultSource(access)
    bao.seal()
    try:
        assert "sealed" in await refusal(source)
        assert "sealed" in await refusal(fresh)
    finally:
        bao.unseal()
    assert (await source.read(REF)).value.reveal() == CANARY
    fresh.close()


@pytest.mark.e2e
async def test_a_wrong_secret_id_is_said(bao: RealBao, access: VaultAccess) -> None:
    assert isinstance(access.auth, AppRole)
    wrong = VaultSource(VaultAccess(bao.url, AppRole(access.auth.role_id, secret_id="wrong")))
    assert "refuses the log-in at auth/approle (400)" in await refusal(wrong)
    wrong.close()


@pytest.mark.e2e
async def test_a_token_file_is_a_way_in(bao: RealBao, access: VaultAccess) -> None:
    """And when the token in it has ended, the file is read again."""
    file = bao.token_file(["broker"])
    source = VaultSource(VaultAccess(bao.url, TokenFile(file)))
    assert (await source.read(REF)).value.reveal() == CANARY
    bao.root("POST", "auth/token/revoke", {"token": file.read_text().strip()})
    assert "(403)" in await refusal(source)
    file.write_text(bao.token(["broker"]))
    assert (await source.read(REF)).value.reveal() == CANARY
    source.close()
    assert bao.request("GET", "auth/token/lookup-self", token=file.read_text())[0] == 200


@pytest.mark.e2e
async def test_closing_revokes_the_token_and_refuses_reads(
    bao: RealBao, source: VaultSource
) -> None:
    await source.read(REF)
    before = len(bao.root("LIST", "auth/token/accessors")["data"]["keys"])
    source.close()
    assert len(bao.root("LIST", "auth/token/accessors")["data"]["keys"]) == before - 1
    assert "is stopping" in await refusal(source)


@pytest.mark.e2e
async def test_a_hanging_vault_is_given_up_in_bounded_time(
    bao: RealBao, access: VaultAccess
) -> None:
    source = VaultSource(access, limit=0.3)
    await source.read(REF)
    bao.hang()
    try:
        async with asyncio.timeout(10):
            refusals = await asyncio.gather(*(refusal(source) for _ in range(20)))
    finally:
        bao.resume()
    assert all("in time" in text for text in refusals)
    patient = VaultSource(access)
    assert (await patient.read(REF)).value.reveal() == CANARY
    patient.close()
    source.close()


@pytest.mark.e2e
async def test_an_external_vault_is_verified_by_its_ca_bundle(tmp_path: Path) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    make_certificate(certificate, key)
    with RealBao(tmp_path / "bao", tls=(certificate, key)) as bao:
        bao.policy("broker")
        bao.put_secret("stripe", {"api_key": CANARY})
        auth = TokenFile(bao.token_file(["broker"]))
        trusting = VaultSource(VaultAccess(bao.url, auth, ca_bundle=certificate))
        assert (await trusting.read(REF)).value.reveal() == CANARY
        trusting.close()
        strict = VaultSource(VaultAccess(bao.url, auth))
        assert "its certificate is not trusted" in await refusal(strict)
        strict.close()
        by_name = VaultSource(
            VaultAccess(bao.url.replace("127.0.0.1", "localhost"), auth, ca_bundle=certificate)
        )
        assert "its certificate is not trusted" in await refusal(by_name)
        by_name.close()


# --- servers that misbehave --------------------------------------------------------------------


@pytest.fixture
def token(tmp_path: Path) -> TokenFile:
    file = tmp_path / "token"
    file.write_text("hvs.canary-token\n")
    return TokenFile(file)


FOUND = b'{"data": {"data": {"api_key": "v-canary"}, "metadata": {"version": 1}}}'
ENGINE = b'{"data": {"path": "kv/", "type": "kv", "options": {"version": "2"}}}'


def reading(answer: Answer) -> Callable[[str, str], Answer]:
    """Denies a look at the token, as a narrow policy would, and answers reads so."""

    def script(method: str, path: str) -> Answer:
        if path.endswith("lookup-self"):
            return 403, {}, b"{}"
        if path.endswith("ui/mounts/kv/stripe"):
            return 200, {}, ENGINE
        return answer

    return script


async def test_an_unreachable_vault_is_said(token: TokenFile) -> None:
    source = VaultSource(VaultAccess(f"http://127.0.0.1:{free_port()}", token))
    assert "no connection; check that it runs" in await refusal(source)
    source.close()


async def test_the_token_does_not_follow_a_redirect(token: TokenFile) -> None:
    """Neither the log-in's nor the read's."""
    with answering(lambda method, path: (200, {}, b"{}")) as other:
        away = {"Location": f"{other.url}/v1/kv/data/stripe"}
        for script in (reading((307, away, b"")), lambda method, path: (302, away, b"")):
            with answering(script) as server:
                source = VaultSource(VaultAccess(server.url, token))
                assert "redirect" in await refusal(source)
                source.close()
                assert all(headers["x-vault-token"] for _, _, headers, _ in server.asked)
    assert other.asked == []


async def test_a_server_that_never_answers_is_given_up(token: TokenFile) -> None:
    with hanging() as url:
        source = VaultSource(VaultAccess(url, token), limit=0.2)
        async with asyncio.timeout(5):
            assert "does not answer in time. It had 0.2 s" in await refusal(source)
        source.close()


async def test_an_endless_answer_is_cut(token: TokenFile) -> None:
    body = json.dumps({"data": {"data": {"api_key": CANARY * 200_000}}}).encode()
    with answering(reading((200, {}, body))) as server:
        source = VaultSource(VaultAccess(server.url, token))
        assert "its answer is too long" in await refusal(source)
        source.close()


async def test_a_broken_answer_is_no_secret(token: TokenFile) -> None:
    with answering(reading((200, {}, f'{{"data": {{"api_key": "{CANARY}'.encode()))) as server:
        source = VaultSource(VaultAccess(server.url, token))
        assert "empty answer" in await refusal(source)
        source.close()


async def test_a_refused_read_is_tried_again_once(token: TokenFile) -> None:
    with answering(reading((403, {}, b"{}"))) as server:
        source = VaultSource(VaultAccess(server.url, token))
        assert "(403)" in await refusal(source)
        source.close()
    assert [path for _, path, _, _ in server.asked].count("/v1/kv/data/stripe") == 2


async def test_the_namespace_goes_along(token: TokenFile) -> None:
    body = b'{"data": {"data": {"api_key": "value"}, "metadata": {"version": 1}}}'
    with answering(reading((200, {}, body))) as server:
        source = VaultSource(VaultAccess(server.url, token, namespace="team/a"))
        assert (await source.read(REF)).value.reveal() == "value"
        source.close()
    assert {headers["x-vault-namespace"] for _, _, headers, _ in server.asked} == {"team/a"}


async def test_a_vault_that_moved_is_found(token: TokenFile) -> None:
    """`locate` is asked again when the connection fails, and the read still succeeds."""
    body = b'{"data": {"data": {"api_key": "value"}, "metadata": {"version": 1}}}'
    with answering(reading((200, {}, body))) as server:
        places = [f"http://127.0.0.1:{free_port()}", server.url]
        source = VaultSource(lambda: VaultAccess(places.pop(0), token))
        assert (await source.read(REF)).value.reveal() == "value"
        source.close()


async def test_a_kept_connection_that_died_is_replaced(token: TokenFile) -> None:
    body = b'{"data": {"data": {"api_key": "value"}, "metadata": {"version": 1}}}'
    with answering(reading((200, {"Connection": "close"}, body))) as server:
        source = VaultSource(VaultAccess(server.url, token))
        for _ in range(3):
            assert (await source.read(REF)).version == 1
        source.close()


# --- trouble that lasts ------------------------------------------------------------------------


async def test_a_vault_that_is_ill_is_not_asked_for_a_while(token: TokenFile) -> None:
    """After five failures in a row reads fail at once, with the cause and since when."""
    status = 503

    def script(method: str, path: str) -> Answer:
        return reading((200, {}, FOUND))(method, path) if status == 200 else (status, {}, b"{}")

    clock = [100.0]
    breaker = Breaker(clock=lambda: clock[0], now=lambda: datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC))
    with answering(script) as server:
        source = VaultSource(VaultAccess(server.url, token), breaker=breaker)
        for _ in range(5):
            assert "sealed or down" in await refusal(source)
        asked = len(server.asked)
        said = await refusal(source)
        assert "has not served since 2026-05-04 03:02:01 UTC" in said and "sealed" in said
        assert len(server.asked) == asked
        health = source.health()
        assert (health.state, health.last_error, health.short_circuited) == ("open", "sealed", 1)
        assert health.failures == {"sealed": 5}
        status = 200
        clock[0] += 1.0
        results = await asyncio.gather(
            *(source.read(REF) for _ in range(9)), return_exceptions=True
        )
        assert sum(isinstance(result, SecretVersion) for result in results) == 1  # the one trial
        assert source.health().state == "closed"
        assert (await source.read(REF)).version == 1
        source.close()


@pytest.mark.parametrize("status", [403, 404, 400])
async def test_a_no_is_no_illness(token: TokenFile, status: int) -> None:
    with answering(reading((status, {}, b"{}"))) as server:
        source = VaultSource(VaultAccess(server.url, token))
        for _ in range(8):
            assert "has not served" not in await refusal(source)
        assert source.health().state == "closed"
        source.close()


async def test_only_so_many_ask_at_a_time(token: TokenFile) -> None:
    gate = threading.Event()
    most = now = 0
    lock = threading.Lock()

    def script(method: str, path: str) -> Answer:
        nonlocal most, now
        if "/data/" not in path:
            return reading((200, {}, FOUND))(method, path)
        with lock:
            now += 1
            most = max(most, now)
        gate.wait(10)
        with lock:
            now -= 1
        return 200, {}, FOUND

    with answering(script) as server:
        source = VaultSource(VaultAccess(server.url, token), bulkhead=3)
        reads = [asyncio.create_task(source.read(REF)) for _ in range(12)]
        while now < 3:
            await asyncio.sleep(0.01)
        health = source.health()
        assert (health.in_flight, health.waiting) == (3, 9)
        gate.set()
        assert {(await read).value.reveal() for read in reads} == {"v-canary"}
        assert most == 3
        assert source.health().latency.count == 12
        source.close()


async def test_who_waits_in_vain_for_a_turn_is_told_and_blames_nobody(token: TokenFile) -> None:
    gate = threading.Event()

    def script(method: str, path: str) -> Answer:
        if "/data/" in path:
            gate.wait(10)
        return reading((200, {}, FOUND))(method, path)

    with answering(script) as server:
        source = VaultSource(VaultAccess(server.url, token), bulkhead=1, limit=0.3)
        said = await asyncio.gather(*(refusal(source) for _ in range(4)))
        assert sum("other reads have been waiting" in text for text in said) == 3
        assert source.health().failures == {"timeout": 1, "busy": 3}
        gate.set()
        source.close()


async def test_an_answer_that_drips_is_given_up_in_time(token: TokenFile) -> None:
    with (
        answering(reading((200, {}, FOUND))) as server,
        FaultProxy(int(server.url.rsplit(":", 1)[1])) as way,
    ):
        source = VaultSource(VaultAccess(f"http://127.0.0.1:{way.port}", token), limit=0.4)
        await source.read(REF)
        way.slow(0.05)
        async with asyncio.timeout(10):
            assert "It had 0.4 s" in await refusal(source)
        source.close()


async def test_a_rate_limit_is_waited_for_where_there_is_time(token: TokenFile) -> None:
    answers = [(429, {"Retry-After": "1"}, b"{}")]

    def script(method: str, path: str) -> Answer:
        if "/data/" in path and answers:
            return answers.pop()
        return reading((200, {}, FOUND))(method, path)

    with answering(script) as server:
        source = VaultSource(VaultAccess(server.url, token))
        assert (await source.read(REF)).version == 1
        answers.append((429, {"Retry-After": "3600"}, b"{}"))
        assert "limits the rate of requests (429)" in await refusal(source)
        before = len(server.asked)
        assert "limits the rate of requests (429)" in await refusal(source)
        assert len(server.asked) == before  # nobody asks while it said not to
        assert source.health().state == "closed"
        source.close()


@pytest.mark.e2e
async def test_a_quota_of_a_real_vault_slows_reads_down_and_loses_none(
    bao: RealBao, access: VaultAccess
) -> None:
    source = VaultSource(access)
    await source.read(REF)
    quota = {"path": "kv", "rate": 3, "interval": "1s"}
    bao.root("POST", "sys/quotas/rate-limit/slow", quota)
    try:
        results = await asyncio.gather(*(source.read(REF) for _ in range(5)))
        assert {found.value.reveal() for found in results} == {CANARY}
        limited = await asyncio.gather(
            *(source.read(REF) for _ in range(60)), return_exceptions=True
        )
        told = {str(found) for found in limited if isinstance(found, SecretUnavailable)}
        assert told and all("429" in text or "waiting for Vault" in text for text in told)
        assert source.health().state == "closed"
    finally:
        bao.root("DELETE", "sys/quotas/rate-limit/slow")
    source.close()


# --- a hostile answer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"path": "sys/", "type": "kv", "options": {"version": "2"}},
        {"path": "kv/stripe/../../sys/", "type": "kv"},
        {"path": "kv/../", "type": "kv"},
        {"path": "kv\r\nX-Vault-Token: x/", "type": "kv"},
    ],
)
async def test_no_answer_leads_a_read_elsewhere(token: TokenFile, data: dict[str, object]) -> None:
    def script(method: str, path: str) -> Answer:
        if "mounts" in path:
            return 200, {}, json.dumps({"data": data}).encode()
        return (403, {}, b"{}") if path.endswith("lookup-self") else (200, {}, FOUND)

    with answering(script) as server:
        source = VaultSource(VaultAccess(server.url, token))
        assert "does not say which engine" in await refusal(source)
        source.close()
    assert {path for _, path, _, _ in server.asked} <= {
        "/v1/auth/token/lookup-self",
        "/v1/sys/internal/ui/mounts/kv/stripe",
    }


@pytest.mark.parametrize("size", [17_000, 900_000])
async def test_a_value_that_would_cost_the_scrubber_dear_is_refused(
    token: TokenFile, size: int
) -> None:
    body = {"data": {"data": {"api_key": "x" * size}, "metadata": {"version": 1}}}
    with answering(reading((200, {}, json.dumps(body).encode()))) as server:
        source = VaultSource(VaultAccess(server.url, token))
        assert "longer than 16384 characters" in await refusal(source)
        source.close()
