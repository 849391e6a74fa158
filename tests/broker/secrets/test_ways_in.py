"""Every way into a real OpenBao, over TLS and in a namespace of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from broker.errors import SecretUnavailable
from broker.secrets.access import AppRole, Auth, JwtFile, TokenFile, VaultAccess
from broker.secrets.admin import Entry, VaultAdmin
from broker.secrets.vault import VaultSource
from rules.model import SecretRef
from tests.support.bao import ADMINISTER, RealBao
from tests.support.throwaway_ca import ThrowawayCA
from tests.support.tokens import Cluster, Issuer, cluster, service_account_claims

pytestmark = pytest.mark.e2e

CANARY = "sk_canary_5150"
REF = SecretRef("kv", "stripe", "api_key")
TEAM = "team"


@dataclass
class Bench:
    bao: RealBao
    access: VaultAccess
    issuer: Issuer
    api: Cluster

    def by(self, auth: Auth) -> VaultSource:
        return VaultSource(replace(self.access, auth=auth))

    def accessors(self) -> int:
        """How many tokens there are."""
        path = f"{TEAM}/auth/token/accessors"
        status, found = self.bao.request("LIST", path, token=self.bao.root_token)
        return 0 if status == 404 else len(found["data"]["keys"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory = tmp_path_factory.mktemp("ways")
    ca, issuer = ThrowawayCA(), Issuer()
    roots, server = directory / "ca.pem", directory / "server.pem"
    roots.write_bytes(ca.pem)
    server.write_bytes(ca.issue(["127.0.0.1"]))
    with (
        cluster(ca.server_context(["127.0.0.1"])) as api,
        RealBao(directory / "bao", tls=(server, server), roots=roots) as bao,
    ):
        bao.root("POST", f"sys/namespaces/{TEAM}", {})
        bao.root("POST", f"{TEAM}/sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
        bao.root("POST", f"{TEAM}/sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        bao.root("POST", f"{TEAM}/sys/mounts/a/b", {"type": "kv", "options": {"version": "1"}})
        bao.await_kv(f"{TEAM}/kv")
        policy = 'path "old/*" { capabilities = ["create", "update", "read", "list"] }'
        policy += policy.replace("old/", "a/b/") + ADMINISTER
        bao.root("PUT", f"{TEAM}/sys/policies/acl/broker", {"policy": policy})
        bao.put_secret("stripe", {"api_key": CANARY}, mount=f"{TEAM}/kv")
        bao.root("POST", f"{TEAM}/old/crm", {"key": CANARY, "empty": "", "number": 7})
        bao.root("POST", f"{TEAM}/a/b/deep/er", {"key": CANARY})
        bao.root("POST", f"{TEAM}/sys/auth/jwt", {"type": "jwt"})
        bao.root(
            "POST",
            f"{TEAM}/auth/jwt/config",
            {"jwt_validation_pubkeys": [issuer.public_pem], "jwt_supported_algs": ["ES256"]},
        )
        bao.root(
            "POST",
            f"{TEAM}/auth/jwt/role/kb",
            {
                "role_type": "jwt",
                "user_claim": "sub",
                "bound_audiences": ["vault"],
                "token_policies": ["broker"],
                "token_ttl": "60s",
            },
        )
        bao.root("POST", f"{TEAM}/sys/auth/k8s/one", {"type": "kubernetes"})
        bao.root(
            "POST",
            f"{TEAM}/auth/k8s/one/config",
            {
                "kubernetes_host": f"https://127.0.0.1:{api.port}",
                "kubernetes_ca_cert": ca.pem.decode(),
                "token_reviewer_jwt": issuer.jwt(**service_account_claims("bao", "reviewer")),
                "disable_local_ca_jwt": True,
            },
        )
        bao.root(
            "POST",
            f"{TEAM}/auth/k8s/one/role/kb",
            {
                "bound_service_account_names": ["keybroker"],
                "bound_service_account_namespaces": ["agents"],
                "token_policies": ["broker"],
            },
        )
        yield Bench(bao, VaultAccess(bao.url, None, TEAM, roots), issuer, api)


async def reads(source: VaultSource, ref: SecretRef = REF) -> str:
    try:
        return (await source.read(ref)).value.reveal()
    except SecretUnavailable as error:
        return str(error).replace(CANARY, "THE VALUE SHOWS")


async def test_a_jwt_of_an_issuer_that_vault_trusts(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "jwt"
    file.write_text(bench.issuer.jwt(sub="keybroker", aud="vault"))
    source = bench.by(JwtFile("kb", file))
    assert await reads(source) == CANARY
    before = bench.accessors()
    source.close()
    assert bench.accessors() == before - 1


@pytest.mark.parametrize("wrong", ["audience", "issuer", "end", "role"])
async def test_a_jwt_that_is_not_good_is_refused_in_words(
    bench: Bench, tmp_path: Path, wrong: str
) -> None:
    issuer = Issuer() if wrong == "issuer" else bench.issuer
    claims: dict[str, object] = {"sub": "x", "aud": "other" if wrong == "audience" else "vault"}
    if wrong == "end":
        claims["exp"] = int(time.time()) - 600
    file = tmp_path / "jwt"
    file.write_text(issuer.jwt(**claims))
    source = bench.by(JwtFile("nobody" if wrong == "role" else "kb", file))
    said = await reads(source)
    assert "refuses the log-in at auth/jwt (4" in said
    assert "issuer, audience, subject, end" in said
    assert file.read_text() not in said
    source.close()


async def test_a_pod_logs_in_by_its_service_account_and_again_by_a_fresh_token(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    tokens = [
        bench.issuer.jwt(jti=str(turn), **service_account_claims("agents", "keybroker"))
        for turn in range(2)
    ]
    for token in tokens:
        bench.api.known[token] = ("agents", "keybroker")
    file.write_text(tokens[0])
    source = bench.by(JwtFile("kb", file, "k8s/one"))
    assert await reads(source) == CANARY
    # The kubelet put another one there, the old one ends, and the log-in is lost.
    file.write_text(tokens[1])
    del bench.api.known[tokens[0]]
    bench.bao.root("PUT", f"{TEAM}/sys/leases/revoke-prefix/auth/k8s/one/login")
    assert await reads(source) == CANARY
    assert bench.api.reviewed[-1] == tokens[1]
    source.close()


async def test_another_pod_is_refused(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(bench.issuer.jwt(**service_account_claims("agents", "other")))
    bench.api.known[file.read_text()] = ("agents", "other")
    source = bench.by(JwtFile("kb", file, "k8s/one"))
    assert "refuses the log-in at auth/k8s/one (403)" in await reads(source)
    source.close()


def approle(bench: Bench, **settings: object) -> AppRole:
    base = f"{TEAM}/auth/approle"
    bench.bao.request("POST", f"{TEAM}/sys/auth/approle", {"type": "approle"}, bench.bao.root_token)
    bench.bao.root("POST", f"{base}/role/kb", {"token_policies": ["broker"], **settings})
    role_id = bench.bao.root("GET", f"{base}/role/kb/role-id")["data"]["role_id"]
    secret_id = bench.bao.root("POST", f"{base}/role/kb/secret-id", {})["data"]["secret_id"]
    return AppRole(role_id, secret_id=secret_id)


async def test_an_approle_is_renewed_then_replaced_and_no_read_fails(bench: Bench) -> None:
    """Tokens of two seconds, three at most: the log-in is renewed once or twice, then made anew."""
    source = bench.by(approle(bench, token_ttl="2s", token_max_ttl="3s"))
    until = time.monotonic() + 6
    while time.monotonic() < until:
        assert await reads(source) == CANARY
    health = source.health()
    assert health.renewals >= 1
    assert health.log_ins >= 2
    assert health.failures == {}
    source.close()


async def test_a_version_1_engine_is_found_out_and_read(bench: Bench, tmp_path: Path) -> None:
    source = bench.by(approle(bench))
    found = await source.read(SecretRef("old", "crm", "key"))
    assert (found.value.reveal(), found.version) == (CANARY, None)
    assert "it is empty" in await reads(source, SecretRef("old", "crm", "empty"))
    assert "it is not text" in await reads(source, SecretRef("old", "crm", "number"))
    assert "has no field pin" in await reads(source, SecretRef("old", "crm", "pin"))
    assert "does not exist" in await reads(source, SecretRef("old", "nobody", "key"))
    # `a` is no mount, `a/b` is.
    assert await reads(source, SecretRef("a", "b/deep/er", "key")) == CANARY
    source.close()


async def test_an_engine_that_becomes_version_2_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.secrets.vault._STALE", 0.0)
    bench.bao.root("POST", f"{TEAM}/sys/mounts/turns", {"type": "kv"})
    bench.bao.root("POST", f"{TEAM}/turns/x", {"key": CANARY})
    policy = 'path "turns/*" { capabilities = ["read"] }'
    bench.bao.root("PUT", f"{TEAM}/sys/policies/acl/turner", {"policy": policy})
    role = approle(bench, token_policies=["turner"])
    source = bench.by(role)
    ref = SecretRef("turns", "x", "key")
    assert (await source.read(ref)).version is None
    bench.bao.root("POST", f"{TEAM}/sys/mounts/turns/tune", {"options": {"version": "2"}})
    bench.bao.await_kv(f"{TEAM}/turns")
    assert (await source.read(ref)).version == 1
    source.close()


def test_secrets_are_written_and_listed_in_both_versions_and_a_namespace(bench: Bench) -> None:
    with VaultAdmin(replace(bench.access, auth=approle(bench))) as admin:
        assert admin.check().active
        assert admin.write("kv", "new/one", "a", "first") == 1
        assert admin.write("kv", "new/one", "b", "second") == 2
        assert Entry("new/one", ("a", "b"), 2) in admin.list("kv")
        assert admin.write("old", "new", "a", "first") is None
        assert admin.write("old", "new", "b", "second") is None
        assert Entry("new", None, None) in admin.list("old")
        assert admin.write("a", "b/new", "key", "first") is None
    fields = bench.bao.root("GET", f"{TEAM}/old/new")["data"]
    assert fields == {"a": "first", "b": "second"}


async def test_another_namespace_is_another_world(bench: Bench) -> None:
    token = bench.bao.token_file(["default"])
    outside = VaultSource(replace(bench.access, auth=TokenFile(token), namespace=None))
    assert "does not say which engine kv/stripe lies in" in await reads(outside)
    outside.close()
    nowhere = VaultSource(replace(bench.access, auth=TokenFile(token), namespace="nowhere"))
    said = await reads(nowhere)
    assert "THE VALUE SHOWS" not in said and "(40" in said
    nowhere.close()
