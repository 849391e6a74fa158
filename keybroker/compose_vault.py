"""The composition root's part about Vault: from settings to the way in.

Imports stand inside the functions, so that a command loads only what it uses.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from keybroker.errors import Unusable

if TYPE_CHECKING:
    from broker.secrets.access import Auth, VaultAccess
    from broker.secrets.admin import VaultAdmin
    from broker.secrets.embedded import EmbeddedVault
    from broker.secrets.handover import Handover
    from broker.secrets.vault import VaultSource
    from broker.secrets.wrapped import WrappedLogin
    from broker.services import Services
    from keybroker.settings import Settings, VaultAuth, VaultSettings
    from keybroker.workspace import Workspace


def embedded_vault(workspace: Workspace) -> EmbeddedVault:
    """The OpenBao that lives in the workspace, running or not."""
    from broker.secrets.embedded import EmbeddedVault

    return EmbeddedVault(workspace.vault)


def external_access(settings: VaultSettings) -> VaultAccess:
    """How to reach and enter the vault that the settings name."""
    from broker.secrets.access import VaultAccess

    return VaultAccess(
        settings.url,
        _external_auth(settings.auth),
        namespace=settings.namespace,
        ca_bundle=settings.ca_bundle,
        client_certificate=settings.client_certificate,
        client_key=settings.client_key,
    )


def _external_auth(auth: VaultAuth) -> Auth:
    from broker.secrets.access import AppRole, JwtFile, TokenFile, WrappedAppRole

    if (role := auth.approle) is not None:
        if role.wrapped:
            return WrappedAppRole(role.role_id, role.secret_id_file, role.mount)
        return AppRole(role.role_id, secret_id_file=role.secret_id_file, mount=role.mount)
    if auth.token_file is not None:
        return TokenFile(auth.token_file)
    if (jwt := auth.kubernetes or auth.jwt) is not None:
        return JwtFile(jwt.role, jwt.jwt_file, jwt.mount)
    raise Unusable("vault.auth: give a way to log in")


def handover(services: Services) -> Handover:
    """The token for Vault that the workspace's processes share, where only one can log in."""
    from broker.secrets.handover import Handover

    return Handover(services.store, services.keys.vault, secrets.token_bytes)


def wrapped_login(settings: Settings, services: Services) -> WrappedLogin | None:
    """The log-in that the supervisor makes for all; None where each process logs in by itself."""
    from broker.secrets.access import WrappedAppRole
    from broker.secrets.wrapped import WrappedLogin

    if settings.vault is None:
        return None
    access = external_access(settings.vault)
    if not isinstance(access.auth, WrappedAppRole):
        return None
    return WrappedLogin(access, access.auth, handover(services))


def secret_source(
    workspace: Workspace, settings: Settings, services: Services
) -> tuple[VaultSource, EmbeddedVault | None]:
    """What a worker reads secrets from, and the embedded vault if it is that."""
    from broker.secrets.access import WrappedAppRole
    from broker.secrets.handover import Relayed
    from broker.secrets.vault import VaultSource

    if settings.vault is None:
        vault = embedded_vault(workspace)
        # Asked again after a failure: a vault that was started again may be elsewhere.
        return VaultSource(vault.broker_access), vault
    access = external_access(settings.vault)
    limit = float(settings.vault.timeout)
    if isinstance(access.auth, WrappedAppRole):
        shared = handover(services)
        return VaultSource(access, limit=limit, entrance=lambda *_: Relayed(shared)), None
    return VaultSource(access, limit=limit), None


@contextmanager
def vault_admin(
    workspace: Workspace, settings: Settings, services: Services | None = None
) -> Iterator[VaultAdmin]:
    """The vault as the operator uses it. An embedded one is started for the while if it is down.

    `services` are needed for a log-in that `up` holds for all; without them they are opened.
    """
    from broker.secrets.access import WrappedAppRole
    from broker.secrets.admin import VaultAdmin
    from broker.secrets.handover import taken

    if settings.vault is not None:
        access = external_access(settings.vault)
        grant = None
        if isinstance(access.auth, WrappedAppRole):
            # A log-in of a command's own would use the wrapping token up.
            from broker.services import open_services

            with ExitStack() as stack:
                if services is None:
                    services = stack.enter_context(closing(open_services(workspace.directory)))
                grant = taken(handover(services).read(), own=False)
        with VaultAdmin(access, grant) as admin:
            yield admin
        return
    from broker.secrets.embedded import running
    from keybroker.cli.frame import warn
    from keybroker.first_start import keys_to_operator

    with (
        running(workspace.vault, hand_over=keys_to_operator(workspace, warn)) as vault,
        VaultAdmin(vault.operator_access()) as admin,
    ):
        yield admin
