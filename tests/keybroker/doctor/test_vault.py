"""`doctor` with a real vault outside: its state, the token's rights and its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keybroker import workspace
from keybroker.doctor import Finding, examine
from tests.support.bao import READ_ALL, RealBao

pytestmark = pytest.mark.e2e

SELF = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "kv/data/pay" { capabilities = ["read"] }
"""
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#key", hosts: [pay.example], inject: bearer}
  crm: {secret: "kv/crm#key", hosts: [crm.example], inject: bearer}
"""


@dataclass(frozen=True)
class At:
    bao: RealBao
    directory: Path

    def findings(self, policies: list[str], **token: object) -> list[Finding]:
        """What `doctor` says of the vault with such a token."""
        return self.findings_with(self.bao.token_file(policies, **token))

    def findings_with(self, token_file: Path) -> list[Finding]:
        vault = {"url": self.bao.url, "auth": {"token_file": str(token_file)}}
        (self.directory / "keybroker.yaml").write_text(json.dumps({"vault": vault}))
        return [f for f in examine(self.directory) if f.check in ("vault", "clock")]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[At]:
    directory = tmp_path_factory.mktemp("doctor")
    with RealBao(directory / "bao") as bao:
        bao.policy("all", READ_ALL)
        bao.policy("some", SELF)
        made = workspace.create(directory / "workspace", solo=True)
        made.policy_file.write_text(POLICY)
        yield At(bao, made.directory)


def test_a_good_vault(at: At) -> None:
    assert [(f.check, f.state) for f in at.findings(["all"], ttl="720h", renewable=False)] == [
        ("vault", "ok"),
        ("clock", "ok"),
    ]


def test_a_secret_that_the_token_may_not_read(at: At) -> None:
    _, refused, _ = at.findings(["some"], ttl="720h", no_default_policy=True)
    assert refused.state == "wrong" and refused.fix
    assert refused.says.startswith("Keybroker's token may not read kv/crm#key")


@pytest.mark.parametrize("renewable", [False, True])
def test_a_token_about_to_end(at: At, renewable: bool) -> None:
    findings = at.findings(["all"], ttl="1h", renewable=renewable)
    ending = [f for f in findings if f.state == "warning"]
    assert len(ending) == (0 if renewable else 1)
    for finding in ending:
        assert "cannot be renewed" in finding.says and "approle" in finding.fix


def test_a_token_that_is_no_longer_good(at: At) -> None:
    file = at.bao.token_file(["all"])
    at.bao.root("POST", "auth/token/revoke", {"token": file.read_text().strip()})
    (wrong,) = [f for f in at.findings_with(file) if f.state == "wrong"]
    assert "token" in wrong.says and wrong.fix
    assert file.read_text().strip() not in wrong.says


def test_a_sealed_vault_and_none_at_all(at: At) -> None:
    file = at.bao.token_file(["all"])
    at.bao.seal()
    (sealed,) = [f for f in at.findings_with(file) if f.state == "wrong"]
    assert "sealed" in sealed.says and sealed.fix == "unseal it"
    at.bao.unseal()
    at.bao.stop()
    (gone,) = [f for f in at.findings_with(file) if f.state == "wrong"]
    assert gone.check == "vault" and gone.fix
