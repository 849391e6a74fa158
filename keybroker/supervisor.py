"""`keybroker up`: owns the lock, the ports, the vault and the policy file; keeps children running.

It carries no call itself. A child that dies is replaced, and the calls it had in flight become
`unknown` first, so that nobody takes them for unsent. The first SIGTERM or SIGINT drains, a second
one kills; SIGHUP reads the policy file again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from importlib.metadata import version
from types import FrameType
from typing import TYPE_CHECKING

import click

from audit.record import Draft
from broker.errors import KeybrokerError
from broker.telemetry.board import Board, Row
from keybroker import children, compose, compose_telemetry, compose_tls, listeners, logs
from keybroker.children import Child
from keybroker.cli.frame import paint
from keybroker.first_start import keep_link
from keybroker.logs import complain, tell, warn
from keybroker.places import Place
from keybroker.policyfile import PolicyFile
from keybroker.precheck import check_egress, warn_of_clear_text
from keybroker.runstate import Running, UpLock
from keybroker.service_manager import ServiceManager
from keybroker.settings import Settings
from keybroker.values import Listen
from keybroker.vault_keeper import VaultKeeper
from keybroker.watch import CertificateWatch, PolicyWatch
from keybroker.worker import worker_name
from keybroker.workspace import Workspace

if TYPE_CHECKING:
    from broker.services import Services

TICK = 0.1
"""Seconds between looks at children and signals."""
SWEEP = 1.0
"""Seconds between looks for approvals whose time is over."""
DRAIN_MARGIN = 10.0
"""Seconds beyond `hold_wait` that calls under way have to finish in a drain."""
BY = "keybroker up"


def say_published(number: int, in_force: int | None) -> str:
    """What a new version of the policy changes: nothing, if it is all shadow."""
    if number == in_force:
        return f"policy version {number} is in force"
    return f"policy version {number} is in shadow; version {in_force} stays in force"


def supervise(workspace: Workspace, *, as_json: bool) -> int:
    """Runs everything until it is told to stop; returns the exit status.

    Raises KeybrokerError or InvalidFile with what to mend if it cannot start.
    """
    settings = workspace.settings()
    logs.start("up", compose_telemetry.log_style(settings))
    with ExitStack() as stack:
        lock = UpLock(workspace)
        stack.callback(lock.release)
        return Supervisor(workspace, settings, lock, stack).run(as_json=as_json)


class Supervisor:
    """One run of `up`. Whatever it takes is given back through `stack`, last first."""

    def __init__(
        self, workspace: Workspace, settings: Settings, lock: UpLock, stack: ExitStack
    ) -> None:
        self._workspace = workspace
        self._settings = settings
        self._lock = lock
        self._stack = stack
        self._manager = ServiceManager()
        self._stops = 0
        self._reload = False
        self._said = ""
        self._wake = threading.Event()
        self._services: Services
        self._watch: PolicyWatch
        self._certificates: list[CertificateWatch] = []
        self._workers: list[Place] = []
        self._admin: Place
        self._board: Board
        self._row: Row

    def run(self, *, as_json: bool) -> int:
        """Starts everything in order of what can fail cheaply, then looks after it."""
        check_egress(self._settings)
        self._certificates = self._load_certificates()
        warn_of_clear_text(self._settings)
        proxy, admin = self._claim_ports()
        self._board = Board.create(self._settings.proxy.worker_count)
        self._stack.callback(self._board.close)
        self._row = self._board.row("up")
        self._services = compose.open_workspace(self._workspace, watch=self._row.meters)
        self._stack.callback(self._services.close)
        self._watch = PolicyWatch(
            self._workspace.policy_file, publish=self._publish, complain=self._rejected
        )
        self._watch.first()
        self._handle_signals()
        vault = VaultKeeper(self._workspace, self._settings, self._services)
        self._stack.callback(vault.stop)
        vault.start()
        self._recover(None)
        places = [*listeners.places(proxy), *listeners.places(admin)]
        self._plan_children(proxy, admin, places)
        self._stack.callback(self._kill_all)
        if not self._first_children():
            return 1 if self._stops == 0 else 0
        self._record(
            "broker.started", {"workers": len(self._workers), "version": version("keybroker")}
        )
        self._announce(places[0], self._url(admin), as_json)
        self._manager.ready()
        vault.tend()
        self._look_after()
        self._manager.stopping()
        self._drain()
        self._record("broker.stopped", {})
        return 0

    # --- starting ------------------------------------------------------------------------------

    def _load_certificates(self) -> list[CertificateWatch]:
        """Those that somebody else renews; the children follow them, here it is said."""
        loaded = {
            "admin.tls": compose_tls.admin_serving(self._settings),
            "proxy.tls": compose_tls.proxy_serving(self._workspace, self._settings),
        }
        return [
            CertificateWatch(setting, serving, tell=warn, complain=complain)
            for setting, serving in loaded.items()
            if serving is not None and not serving.renews_itself
        ]

    def _claim_ports(self) -> tuple[list[socket.socket], list[socket.socket]]:
        proxy = listeners.claim_shared(self._settings.proxy.listen, "proxy")
        self._stack.callback(listeners.close, proxy)
        admin = listeners.claim(self._settings.admin.listen, "admin")
        self._stack.callback(listeners.close, admin)
        return proxy, admin

    def _url(self, admin: list[socket.socket]) -> str:
        port = listeners.places(admin)[0].port
        return self._settings.admin.page(port)

    def _publish(self, found: PolicyFile) -> None:
        number, warnings = self._services.policies.publish(
            found.text, BY, str(found.path), found.sources
        )
        for problem in warnings:
            warn(str(problem))
        if self._workers:
            tell(say_published(number, self._services.policies.in_force()))

    def _rejected(self, sentence: str) -> None:
        self._row.meters.policy_rejected.add()
        complain(sentence)

    def _recover(self, worker: str | None) -> None:
        """What was in flight becomes `unknown`: of one worker, or of all at the start."""
        found = self._services.recover(worker)
        if found:
            warn(f"{found} calls were under way and their results are not known")

    def _plan_children(
        self, proxy: list[socket.socket], admin: list[socket.socket], own: list[Listen]
    ) -> None:
        directory = self._workspace.directory
        listen = Listen(self._settings.proxy.listen.host, listeners.places(proxy)[0].port)
        url = self._url(admin)
        shared = [f"--board-fd={self._board.fd}", f"--workers={self._settings.proxy.worker_count}"]
        common = [f"--admin-url={url}", *shared, *(f"--own={place}" for place in own)]
        kept = (self._lock.fd, self._board.fd)

        def start_worker(index: int) -> Child:
            arguments = ["worker", f"--index={index}", f"--listen={listen}", *common]
            return children.start(worker_name(index), directory, arguments, keep=kept)

        def start_admin() -> Child:
            fds = [sock.fileno() for sock in admin]
            arguments = ["admin", f"--url={url}", *shared, *(f"--socket-fd={f}" for f in fds)]
            return children.start("the admin page", directory, arguments, keep=(*kept, *fds))

        self._workers = [
            Place(worker_name(index), lambda index=index: start_worker(index))  # type: ignore[misc]
            for index in range(self._settings.proxy.worker_count)
        ]
        self._admin = Place("the admin page", start_admin)

    def _first_children(self) -> bool:
        """Starts all; False if one cannot serve, or if a signal came meanwhile."""
        started = [place.start() for place in self._places]
        complaints = {why for child in started if (why := child.report()) is not None}
        if self._stops:
            return False
        for why in sorted(complaints):
            complain(why)
        return not complaints

    def _announce(self, proxy: Listen, url: str, as_json: bool) -> None:
        place = Listen(proxy.reach, proxy.port)
        base = self._settings.proxy.url(place)
        gateway = self._settings.proxy.gateway_url(place)
        self._lock.publish(Running(os.getpid(), place.host, place.port, url, base, gateway))
        setup: str | None = None
        if not self._services.people.any():
            setup = f"{url}/setup?token={self._services.people.first_user_link()}"
        file = keep_link(self._workspace, setup)
        if as_json:
            facts = {
                "proxy": str(place),
                "gateway": gateway,
                "admin": url,
                "setup_url": setup if file is None else None,
                "setup_file": None if file is None else str(file),
                "pid": os.getpid(),
            }
            click.echo(json.dumps(facts))
        else:
            click.echo(f"{paint('proxy', bold=True)}  {base.replace('://', '://AGENT:TOKEN@', 1)}")
            click.echo(f"{paint('admin', bold=True)}  {url}")
            if file is not None:
                click.echo(
                    "There is no user yet. The link that makes the first one (once, within 24"
                    f" hours) is in this file; open it, then delete the file:\n  {file}"
                )
            elif setup is not None:
                click.echo(
                    f"There is no user yet. Make the first one (once, within 24 hours):\n  {setup}"
                )
            click.echo("Ctrl-C stops it.")
        sys.stdout.flush()

    # --- running -------------------------------------------------------------------------------

    @property
    def _places(self) -> list[Place]:
        return [*self._workers, self._admin]

    def _look_after(self) -> None:
        swept = time.monotonic()
        while not self._stops:
            self._wake.wait(TICK)
            self._manager.alive()
            self._row.beat()
            if not self._stops:
                self._wake.clear()
            reload, self._reload = self._reload, False
            self._watch.look(now=reload)
            for certificate in self._certificates:
                certificate.look()
            for place in self._places:
                self._replace(place)
            if time.monotonic() - swept > SWEEP:
                swept = time.monotonic()
                self._expire()

    def _expire(self) -> None:
        """Ends approvals whose clocks ran out, and drops what counts for no limit any more. Calls
        look at the clocks themselves."""
        try:
            self._services.holds.expire_due()
            self._services.usage.prune()
        except KeybrokerError as error:
            if str(error) != self._said:
                complain(str(error))
            self._said = str(error)
        else:
            self._said = ""

    def _replace(self, place: Place) -> None:
        if (status := place.fell()) is not None:
            self._row.meters.restarts.add()
            warn(f"{place.name} ended ({_ending(status)}); it is started again")
        if not place.due:
            return
        try:
            if place is not self._admin:
                self._recover(place.name)
            child = place.start()
        except (KeybrokerError, OSError) as error:
            complain(f"{place.name} is not started again yet: {error}")
            place.postpone()
            return
        threading.Thread(target=_watch_start, args=(child,), daemon=True).start()

    def _record(self, kind: str, data: dict[str, str | int]) -> None:
        self._services.store.write(lambda tx: tx.append(Draft(kind, data)))

    # --- stopping ------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        def stop(number: int, _: FrameType | None) -> None:
            self._stops += 1
            self._wake.set()

        def reload(number: int, _: FrameType | None) -> None:
            self._reload = True
            self._wake.set()

        for number, handler in (
            (signal.SIGTERM, stop),
            (signal.SIGINT, stop),
            (signal.SIGHUP, reload),
        ):
            signal.signal(number, handler)

    def _drain(self) -> None:
        """Workers finish what is under way, people may decide meanwhile, then the page stops."""
        grace = self._settings.proxy.hold_wait + DRAIN_MARGIN
        for group in (self._workers, [self._admin]):
            alive = [p.child for p in group if p.child is not None]
            for child in alive:
                child.process.send_signal(signal.SIGTERM)
            until = time.monotonic() + grace
            while any(child.process.poll() is None for child in alive):
                if self._stops > 1 or time.monotonic() > until:
                    break
                time.sleep(TICK / 2)
        if self._stops > 1:
            complain("stopped at once: calls under way were cut off")

    def _kill_all(self) -> None:
        for place in self._places:
            if place.child is not None:
                if place.child.process.poll() is None:
                    place.child.process.kill()
                place.child.process.wait()
                place.child.release()


def _watch_start(child: Child) -> None:
    if (why := child.report()) is not None:
        complain(why)


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
