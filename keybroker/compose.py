"""The composition root: the only module that names concrete classes and says how they fit together
(with compose_vault, its part about Vault).

Imports stand inside the functions, so that a command loads only what it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import KeybrokerError
from keybroker import compose_vault
from keybroker.compose_vault import embedded_vault, external_access, vault_admin, wrapped_login
from keybroker.errors import Unusable
from keybroker.workspace import Workspace, choose

if TYPE_CHECKING:
    from audit.journal import Watch
    from audit.verify import Verdict
    from broker.pipeline import Pipeline
    from broker.secrets.admin import Entry
    from broker.services import Services
    from broker.telemetry.meters import Meters
    from certs.authority import Authority
    from keybroker.settings import Settings
    from keybroker.values import Listen
    from proxy.chain import Chain
    from proxy.dialing import PinningLoop
    from proxy.egress import EgressGuard
    from proxy.engine import Engine

__all__ = ["Services", "embedded_vault", "external_access", "vault_admin", "wrapped_login"]


def open_workspace(
    workspace: Workspace, settings: Settings | None = None, watch: Watch | None = None
) -> Services:
    """The broker's services over the workspace's store. Raises KeybrokerError; close them.

    `settings` are needed only by who holds calls: they limit how many. `watch` is told how the
    ledger's writer does.
    """
    from broker.holds import Limits
    from broker.services import open_services

    limits = Limits(settings.proxy.held_calls, settings.proxy.held_bytes) if settings else None
    return open_services(workspace.directory, limits, watch)


# --- the vault ---------------------------------------------------------------------------------


def write_secret(
    workspace: Workspace,
    services: Services,
    *,
    mount: str,
    path: str,
    field: str,
    value: str,
    by: str,
) -> int | None:
    """Writes one field and returns the new version (None: the engine keeps none); the ledger has
    it before and after."""
    from audit.record import Draft

    ref = f"{mount}/{path}#{field}"
    with vault_admin(workspace, workspace.settings(), services) as admin:
        # Durable before visible: no secret comes into force that the ledger could not take.
        begun = Draft("secret.writing", {"ref": ref, "by": by})
        services.store.write(lambda tx: tx.append(begun))
        number = admin.write(mount, path, field, value)
    done = Draft("secret.written", {"ref": ref, "version": number, "by": by})
    services.store.write(lambda tx: tx.append(done))
    return number


def list_secrets(workspace: Workspace, mount: str | None) -> list[tuple[str, Entry]]:
    """(MOUNT/PATH, its fields and version) for every secret of the engine; never a value."""
    settings = workspace.settings()
    engine = mount or (settings.vault.mount if settings.vault else "kv")
    with vault_admin(workspace, settings) as admin:
        return [(f"{engine}/{entry.path}", entry) for entry in admin.list(engine)]


# --- the ledger --------------------------------------------------------------------------------


def verify_ledger(option: Path | None, file: Path | None) -> Verdict:
    """Verifies the workspace's ledger, or `file`: a copy of it or an export.

    A copy is held against the workspace's key where there is a workspace to take it from.
    Raises AuditError, KeybrokerError.
    """
    from audit.verify import verify, verify_jsonl
    from broker.keys import Keys

    workspace = Workspace(choose(option))
    key: bytes | None = None
    try:
        workspace.check()
        key = Keys.derive(workspace.key_file.read_bytes()).ledger_head
    except (KeybrokerError, OSError, ValueError):
        if file is None:
            raise
    if file is None:
        return verify(workspace.database, head_key=key)
    if not _is_database(file):
        return verify_jsonl(file)
    return verify(file, head_key=key)


def _is_database(file: Path) -> bool:
    # https://sqlite.org/fileformat.html 1.2: every database begins with these 16 bytes.
    try:
        with file.open("rb") as opened:
            return opened.read(16) == b"SQLite format 3\0"
    except OSError as error:
        raise Unusable(f"{file} cannot be read ({error.strerror})") from error


# --- a worker ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker runs. Engine and loop are made later, since one runs on the other."""

    egress: EgressGuard
    new_loop: Callable[[], PinningLoop]
    new_engine: Callable[[], Engine]
    look: Callable[[], None]
    """Takes up a new certificate of the listener; to be called several times a second."""
    vault_ports: Callable[[], tuple[int, ...]]
    """Where the embedded vault listens now; agents must not reach it."""
    pipeline: Pipeline
    watch_vault: Callable[[], None]
    """Tells the metrics how the vault is for this worker."""
    close: Callable[[], None]


def worker_parts(
    workspace: Workspace,
    settings: Settings,
    services: Services,
    *,
    name: str,
    listen: Listen,
    own: Sequence[Listen],
    admin_url: str,
    meters: Meters,
) -> WorkerParts:
    """Everything of one worker, over its services. Raises KeybrokerError, CertsError."""

    from broker.internal import Internal
    from broker.notifiers.console import ConsoleNotifier
    from broker.parts import Limits, Parts
    from broker.pipeline import Pipeline
    from broker.services import new_id
    from certs.bundle import system_bundle
    from keybroker.compose_telemetry import observers
    from keybroker.compose_tls import proxy_serving
    from proxy.dialing import PinningLoop
    from proxy.egress import EgressGuard
    from proxy.engine import Engine
    from proxy.patience import Timeouts

    patience = settings.proxy.timeouts
    chain = egress_chain(settings)
    signer = authority(workspace)
    watching = observers(settings, name, meters)
    serving = proxy_serving(workspace, settings, signer)
    gateway = [_place(settings.proxy.gateway)] if settings.proxy.gateway else []
    egress = EgressGuard(
        settings.egress.allow_networks,
        listeners=[(place.host, place.port) for place in own],
        # A TLS proxy may stand there, on any machine.
        names=[_place(admin_url), *gateway],
        timeout=patience.resolve,
        proxy=None if chain is None else chain.place,
        by_name=chain is not None and chain.by_name,
    )
    secrets, vault = compose_vault.secret_source(workspace, settings, services)
    pipeline = Pipeline(
        Parts(
            agents=services.agents,
            policies=services.policies,
            holds=services.holds,
            sending=services.sending,
            usage=services.usage,
            tunnels=services.tunnels,
            changes=services.changes,
            secrets=secrets,
            egress=egress,
            internal=Internal(services.holds, services.policies, services.placeholders, signer.pem),
            notifier=ConsoleNotifier(admin_url),
            digest_key=services.keys.digest,
            placeholders=services.placeholders,
            new_id=new_id,
            worker=name,
            meters=meters,
            clock=services.store.clock,
            listeners=watching.listeners,
        ),
        Limits(
            hold_wait=float(settings.proxy.hold_wait),
            stage=float(patience.stage),
            body=settings.proxy.body_limit,
            waiting=settings.proxy.held_calls,
        ),
    )

    def look() -> None:
        if serving is not None:
            serving.look()  # what is wrong with a new certificate is said once, by `up`

    def close() -> None:
        secrets.close()
        watching.close()

    def vault_ports() -> tuple[int, ...]:
        return () if vault is None else vault.ports

    def new_engine() -> Engine:
        return Engine(
            pipeline,
            signer,
            egress,
            (listen.host, listen.port),
            tls=None if serving is None else serving.context,
            body_limit=settings.proxy.body_limit,
            reuse_port=True,
            ca_bundle=settings.egress.ca_bundle or system_bundle(),
            names=gateway,
            chain=chain,
            proxy_bundle=settings.egress.proxy.ca_bundle if settings.egress.proxy else None,
            traffic=meters,
            timeouts=Timeouts(
                head=patience.head,
                idle=patience.idle,
                connect=patience.connect,
                tls=patience.tls,
                first_byte=patience.first_byte,
            ),
        )

    return WorkerParts(
        egress=egress,
        new_loop=lambda: PinningLoop(egress.pins, connect_timeout=patience.connect),
        new_engine=new_engine,
        look=look,
        vault_ports=vault_ports,
        pipeline=pipeline,
        watch_vault=lambda: meters.breakers_open.set(float(secrets.health().state != "closed")),
        close=close,
    )


def egress_chain(settings: Settings) -> Chain | None:
    """The proxy that calls leave by; None if they leave directly."""
    from proxy.chain import Chain, Credentials

    proxy = settings.egress.proxy
    if proxy is None:
        return None
    return Chain(
        "https" if proxy.url.startswith("https:") else "http",
        *proxy.place,
        None if proxy.username is None else Credentials(proxy.username, proxy.password),
        by_name=proxy.resolve == "proxy",
    )


def _place(url: str) -> tuple[str, int]:
    """Host and port of a URL of the settings."""
    from urllib.parse import urlsplit

    from rules.request import DEFAULT_PORTS

    parts = urlsplit(url)
    return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]


# --- certificates ------------------------------------------------------------------------------


def authority(workspace: Workspace) -> Authority:
    """The workspace's certificate authority; made when it is first asked for."""
    from certs.authority import Authority

    return Authority.load_or_create(workspace.authority, label=workspace.directory.name)


def client_environment(folder: Path, authority: Authority, proxy_url: str) -> dict[str, str]:
    """Writes what clients must trust into `folder`; the variables that lead them to it."""
    from certs.environment import TrustFiles, client_variables

    return client_variables(TrustFiles.write(folder, authority), proxy_url)
