"""The vault as the broker meets it: reachable, unsealed, willing, its token not about to end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from broker.errors import KeybrokerError
from keybroker import compose
from keybroker.doctor.clock import compared
from keybroker.doctor.finding import Finding
from keybroker.policyfile import load_policy_file
from keybroker.runstate import running
from rules.errors import RulesError
from rules.model import SecretRef

if TYPE_CHECKING:
    from broker.secrets.admin import Outlook
    from keybroker.settings import Settings, VaultSettings
    from keybroker.workspace import Workspace

SOON = timedelta(days=7)
"""A token that ends so soon, and that nobody renews, should have been replaced."""


def vault_findings(workspace: Workspace, settings: Settings) -> Iterator[Finding]:
    """Nothing is read of any secret."""
    if settings.vault is None:
        yield _embedded(workspace)
    else:
        yield from _external(workspace, settings, settings.vault)


def _embedded(workspace: Workspace) -> Finding:
    vault = compose.embedded_vault(workspace)
    if running(workspace) is None:
        return Finding("vault", "ok", "embedded; it starts with `keybroker up`")
    health = vault.health()
    if health.active:
        return Finding("vault", "ok", f"embedded: {health.sentence}")
    fix = f"look into {vault.directory / 'bao.log'}, then restart `keybroker up`"
    return Finding("vault", "wrong", f"embedded: {health.sentence}", fix)


def _external(workspace: Workspace, settings: Settings, vault: VaultSettings) -> Iterator[Finding]:
    try:
        with compose.vault_admin(workspace, settings) as admin:
            health = admin.check()
            well = health.reachable and not health.sealed
            outlook = admin.outlook(_secrets(workspace)) if well else None
    except KeybrokerError as error:
        yield Finding("vault", "wrong", str(error), "check `vault:` in keybroker.yaml")
        return
    if outlook is None:
        fix = "unseal it" if health.reachable else "start it, or correct `vault.url`"
        yield Finding("vault", "wrong", f"{vault.url}: {health.sentence}", fix)
        return
    yield Finding("vault", "ok", f"{vault.url}: {health.sentence}")
    skew = compared(health.date, "Vault", datetime.now(UTC))
    if skew is not None:
        yield skew
    yield from _of_token(vault, outlook)


def _of_token(vault: VaultSettings, outlook: Outlook) -> Iterator[Finding]:
    for ref, why in outlook.refused:
        yield Finding(
            "vault",
            "wrong",
            f"Keybroker's token may not read {ref}: {why}",
            "allow it to read that path in its Vault policy, or correct `secret:` in policy.yaml",
        )
    if vault.auth.token_file is None or outlook.ends_in is None or outlook.renewable:
        return  # a log-in gets a fresh token, and what can be renewed is
    left = timedelta(seconds=outlook.ends_in)
    if left < SOON:
        yield Finding(
            "vault",
            "warning",
            f"the token in {vault.auth.token_file} ends in {left}, and it cannot be renewed",
            "put a fresh one into the file, or let Keybroker log in (`vault.auth.approle`)",
        )


def _secrets(workspace: Workspace) -> list[SecretRef]:
    """What the policy's credentials name; none if it cannot be read, which is told elsewhere."""
    try:
        policy, _ = load_policy_file(workspace.policy_file)
    except (KeybrokerError, RulesError):
        return []
    return list(dict.fromkeys(c.secret for c in policy.credentials.values()))
