"""The workspace, looked over by who runs Keybroker. Each check stands for itself: one that fails
hides no other, unless there is no workspace."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from audit.errors import AuditError
from broker.errors import KeybrokerError
from certs.errors import CertsError
from certs.serving import Serving, covers
from keybroker import compose, compose_tls, listeners
from keybroker.doctor.client import variable_findings
from keybroker.doctor.clock import clock_findings
from keybroker.doctor.finding import Finding
from keybroker.doctor.vault import vault_findings
from keybroker.errors import Unusable
from keybroker.policy import account_warnings
from keybroker.policyfile import load_policy_file
from keybroker.precheck import check_egress
from keybroker.runstate import running
from keybroker.sandbox.probe import state as sandbox_state
from keybroker.settings import Settings
from keybroker.values import Listen
from keybroker.workspace import Workspace, choose
from rules.errors import RulesError

SOON = timedelta(days=14)
"""A certificate that ends so soon should have been renewed."""


def examine(option: Path | None) -> list[Finding]:
    """All findings, in the order in which things depend on each other."""
    workspace = Workspace(choose(option))
    try:
        workspace.check()
    except KeybrokerError as error:
        return [Finding("workspace", "wrong", str(error), "see above")]
    findings = [Finding("workspace", "ok", str(workspace.directory))]
    settings: Settings | None = None
    try:
        settings = workspace.settings()
        findings.append(Finding("settings", "ok", str(workspace.settings_file)))
    except (KeybrokerError, RulesError) as error:
        fix = f"edit {workspace.settings_file}"
        findings.append(Finding("settings", "wrong", _line(error), fix))
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("files", lambda: _files(workspace)),
        ("first start", lambda: _left_behind(workspace)),
        ("policy", lambda: _policy(workspace)),
        ("database", lambda: _database(workspace)),
        ("authority", lambda: _authority(workspace)),
    ]
    if settings is not None:
        known = settings
        checks += [
            ("vault", lambda: vault_findings(workspace, known)),
            ("ports", lambda: _ports(workspace, known)),
            ("admin.tls", lambda: _admin_tls(known)),
            ("proxy.tls", lambda: _proxy_tls(workspace, known)),
            ("egress", lambda: _egress(known)),
        ]
    checks += [
        ("clock", lambda: clock_findings(workspace)),
        ("environment", lambda: _environment(workspace, os.environ)),
        ("containment", lambda: _containment(workspace)),
    ]
    for name, check in checks:
        try:
            findings += check()
        except (KeybrokerError, RulesError, AuditError, CertsError, OSError) as error:
            findings.append(Finding(name, "wrong", _line(error), "mend what it says"))
    return findings


def _line(error: Exception) -> str:
    return "; ".join(str(error).splitlines())


def _files(workspace: Workspace) -> Iterator[Finding]:
    for path in (workspace.directory, workspace.settings_file, workspace.policy_file):
        if path.stat().st_mode & 0o022:
            yield Finding(
                "files", "warning", f"other users can change {path}", f"chmod go-w {path}"
            )


def _left_behind(workspace: Workspace) -> Iterator[Finding]:
    """What a first start without a terminal left to be read."""
    if (file := workspace.recovery_keys_file).exists():
        says = f"the recovery keys of the vault still lie in {file}"
        yield Finding(
            "first start", "warning", says, "keep them on another machine, then delete the file"
        )
    if (file := workspace.setup_link_file).exists():
        says = f"the link that makes the first account still lies in {file}"
        yield Finding("first start", "warning", says, "make the account, then delete the file")


def _policy(workspace: Workspace) -> Iterator[Finding]:
    file = str(workspace.policy_file)
    try:
        policy, warnings = load_policy_file(workspace.policy_file)
    except RulesError as error:
        yield Finding("policy", "wrong", _line(error), f"edit {file}")
        return
    services = compose.open_workspace(workspace)
    try:
        warnings += account_warnings(policy, services.agents.list(), services.people.list(), file)
        nobody = not services.people.any()
    finally:
        services.close()
    yield Finding("policy", "ok", f"{len(policy.rules)} rules")
    for warning in warnings:
        yield Finding("policy", "warning", str(warning))
    if nobody:
        yield Finding(
            "people",
            "warning",
            "there is no user yet, so nobody can approve",
            "open the link of `keybroker up`, or `keybroker user add NAME --role admin`",
        )


def _database(workspace: Workspace) -> Iterator[Finding]:
    verdict = compose.verify_ledger(workspace.directory, None)
    if verdict.ok:
        yield Finding("audit log", "ok", f"{verdict.records} records, whole")
    else:
        first = verdict.faults[0]
        yield Finding(
            "audit log",
            "wrong",
            f"{len(verdict.faults)} faults; the first in record {first.seq}: {first.sentence}",
            "keep a copy as evidence, find out who could write to it, restore from a backup",
        )


def _authority(workspace: Workspace) -> Iterator[Finding]:
    if not workspace.authority.exists():
        yield Finding("authority", "warning", "not made yet", "`keybroker ca show` makes it")
        return
    compose.authority(workspace)
    yield Finding("authority", "ok", "clients trust it with `keybroker ca show`")
    up = running(workspace)
    changed = max(file.stat().st_mtime for file in workspace.authority.iterdir())
    if up is not None and changed > workspace.lock_file.stat().st_mtime:
        yield Finding(
            "authority",
            "wrong",
            "its files changed after `up` started, which still signs with what was there before",
            "restart `keybroker up`, and give clients the certificate of `keybroker ca show` anew",
        )


def _environment(workspace: Workspace, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Where this very environment leads clients to our proxy, whether it leads them well."""
    up = running(workspace)
    used = {environment.get(name, "") for name in ("HTTPS_PROXY", "https_proxy")}
    if up is not None and any(_place(url) == (up.proxy_host, up.proxy_port) for url in used):
        yield from variable_findings(environment, compose.authority(workspace).pem)


def _place(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _ports(workspace: Workspace, settings: Settings) -> Iterator[Finding]:
    if (up := running(workspace)) is not None:
        yield Finding("ports", "ok", f"`up` runs as pid {up.pid}, with the proxy at {up.proxy}")
        if not _answers(Listen(up.proxy_host, up.proxy_port)):
            yield Finding("ports", "wrong", "the proxy does not answer", "restart `keybroker up`")
    else:
        for name, listen in (("proxy", settings.proxy.listen), ("admin", settings.admin.listen)):
            try:
                listeners.close(listeners.claim(listen, name))
            except Unusable as error:
                yield Finding("ports", "wrong", str(error), f"change `{name}.listen`")
            else:
                yield Finding("ports", "ok", f"{listen} is free for the {name}")
    admin, proxy = settings.admin, settings.proxy
    if not (admin.listen.loopback or admin.tls or (admin.url or "").startswith("https://")):
        yield Finding(
            "ports",
            "warning",
            f"the admin page at {admin.listen} is open to the network without TLS",
            "set `admin.tls`, or put a TLS proxy before it and set `admin.url: https://..`",
        )
    if not (proxy.listen.loopback or proxy.tls):
        yield Finding(
            "ports",
            "warning",
            f"agents send their tokens to {proxy.listen} in clear text",
            "set `proxy.tls`",
        )


def _admin_tls(settings: Settings) -> Iterator[Finding]:
    serving = compose_tls.admin_serving(settings)
    yield from _certificate("admin.tls", serving, settings.admin.page(443), "admin.url")


def _proxy_tls(workspace: Workspace, settings: Settings) -> Iterator[Finding]:
    serving = compose_tls.proxy_serving(workspace, settings)
    url = settings.proxy.url(Listen(settings.proxy.listen.reach, settings.proxy.listen.port))
    yield from _certificate("proxy.tls", serving, url, "proxy.gateway")


def _certificate(setting: str, serving: Serving | None, url: str, names: str) -> Iterator[Finding]:
    if serving is None:
        return
    host = urlsplit(url).hostname or ""
    left = serving.certificate.not_valid_after_utc - datetime.now(UTC)
    if not covers(serving.certificate, host):
        fix = f"get one that does, or say by `{names}` what it names"
        yield Finding(setting, "wrong", f"the certificate does not name {host}", fix)
    elif left < SOON and not serving.renews_itself:
        says = f"the certificate ends in {left.days} days"
        yield Finding(setting, "warning", says, "renew it; a new one is taken up without a restart")
    else:
        yield Finding(setting, "ok", f"the certificate names {host}")


def _answers(place: Listen) -> bool:
    try:
        socket.create_connection((place.host, place.port), 5).close()
    except OSError:
        return False
    return True


def _egress(settings: Settings) -> Iterator[Finding]:
    check_egress(settings)
    trusted = settings.egress.ca_bundle or "the system's certificates"
    yield Finding("egress", "ok", f"upstreams are verified against {trusted}")
    proxy = settings.egress.proxy
    if proxy is None:
        return
    host, port = proxy.place
    if _answers(Listen(host, port)):
        yield Finding("egress", "ok", f"calls leave through {proxy.url}")
    else:
        fix = "correct `egress.proxy.url`, or ask whoever runs it"
        yield Finding("egress", "wrong", f"{proxy.url} does not answer", fix)
    if proxy.resolve == "proxy":
        yield Finding(
            "egress",
            "warning",
            f"{proxy.url} looks names up, so the addresses of upstreams are not checked here",
            "use `resolve: here`, or have that proxy refuse inside addresses",
        )


def _containment(workspace: Workspace) -> Iterator[Finding]:
    owner = workspace.state.stat().st_uid
    yield Finding(
        "containment",
        "warning",
        f"an agent that runs as this user (uid {owner}) can read the workspace and"
        " so act as an administrator",
        "use `run --sandbox`, or run agents as another user or in a container that reaches the"
        " proxy only",
    )
    says, fix = sandbox_state()
    yield Finding("sandbox", "warning" if fix else "ok", says, fix)
