"""`up`, `demo`, `run`, and the hidden commands by which `up` starts its children."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keybroker.cli import complete
from keybroker.cli.frame import App, Command, json_option, pass_app

if TYPE_CHECKING:
    from keybroker.sandbox.launch import Backend
    from keybroker.values import Listen


@click.command(cls=Command)
@json_option
@click.pass_context
@pass_app
def up(app: App, context: click.Context, as_json: bool) -> None:
    """Run the proxy, the admin page and the embedded vault until SIGTERM or Ctrl-C.

    The first signal lets calls under way finish, a second one ends them. A changed policy.yaml is
    taken up within a second, and on SIGHUP; a broken one is reported and the old one stays.
    """
    from keybroker.supervisor import supervise

    context.exit(supervise(app.workspace(), as_json=as_json))


@click.command(cls=Command)
@click.option("--serve", is_flag=True, help="Start everything, print what to try, and stay.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the demo keeps its workspace; else a temporary one.",
)
@json_option
@click.pass_context
def demo(context: click.Context, serve: bool, directory: Path | None, as_json: bool) -> None:
    """Show the whole story on real parts, in a workspace of its own."""
    from keybroker import demo as story

    context.exit(story.main(serve=serve, as_json=as_json, directory=directory))


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--agent",
    required=True,
    metavar="NAME",
    help="Whose rules apply.",
    shell_complete=complete.agents,
)
@click.option("--reason", metavar="TEXT", help="Your word on what this run is for.")
@click.option(
    "--user",
    metavar="NAME",
    help="Start it as this user of the machine, as root can: one who cannot read the workspace.",
)
@click.option(
    "--sandbox",
    is_flag=True,
    help="Contain it (Linux): only the proxy can be reached, the workspace cannot be seen.",
)
@click.option(
    "--writable",
    type=click.Path(path_type=Path),
    metavar="DIR",
    multiple=True,
    help="In the sandbox: what it may change, any number; else the current directory.",
)
@click.option(
    "--readable",
    type=click.Path(path_type=Path),
    metavar="PATH",
    multiple=True,
    help="In the sandbox: show what would be hidden, ~/.npmrc for instance.",
)
@click.option(
    "--hide",
    type=click.Path(path_type=Path),
    metavar="PATH",
    multiple=True,
    help="In the sandbox: hide more; the whole home for instance.",
)
@click.option(
    "--backend",
    type=click.Choice(["bubblewrap", "unshare"]),
    help="What builds the sandbox; else bubblewrap, or unshare where that does not work.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.pass_context
@pass_app
def run(
    app: App,
    context: click.Context,
    agent: str,
    reason: str | None,
    user: str | None,
    sandbox: bool,
    writable: tuple[Path, ...],
    readable: tuple[Path, ...],
    hide: tuple[Path, ...],
    backend: Backend | None,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND as an agent: its HTTP calls go through the proxy.

    It gets a token for this run, which ends with it. Exits as the command does. Without --sandbox
    nothing forces it through the proxy.
    """
    from keybroker.runner import run_as

    confinement = None
    if sandbox and user is not None:
        raise click.UsageError("--sandbox keeps the user: leave --user out")
    if sandbox:
        from keybroker.sandbox.confine import Confinement
        from keybroker.sandbox.view import Wishes

        confinement = Confinement(Wishes(writable or None, readable, hide), backend)
    elif writable or readable or hide or backend:
        raise click.UsageError("--writable, --readable, --hide and --backend need --sandbox")
    status = run_as(
        app.workspace(),
        agent,
        command,
        reason=reason,
        by=app.actor,
        user=user,
        confinement=confinement,
    )
    context.exit(status)


INHERITED = click.IntRange(min=0)
"""A descriptor that `up` handed down."""


class Place(click.ParamType["Listen"]):
    """HOST:PORT."""

    name = "place"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Listen:
        """A usage error if it is none."""
        from keybroker.values import parse_listen

        try:
            return parse_listen(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=Command, hidden=True)
@click.option("--index", type=click.IntRange(min=0), required=True)
@click.option("--listen", type=Place(), required=True)
@click.option("--own", type=Place(), multiple=True)
@click.option("--admin-url", required=True)
@click.option("--board-fd", type=INHERITED, required=True)
@click.option("--workers", type=click.IntRange(min=1), required=True)
@click.option("--life-fd", type=INHERITED, required=True)
@click.option("--ready-fd", type=INHERITED, required=True)
@click.pass_context
@pass_app
def worker(
    app: App,
    context: click.Context,
    index: int,
    listen: Listen,
    own: tuple[Listen, ...],
    admin_url: str,
    board_fd: int,
    workers: int,
    life_fd: int,
    ready_fd: int,
) -> None:
    """One worker of the proxy. Started by `up`."""
    from keybroker.children import child

    with child(life_fd, ready_fd) as ready:
        from broker.telemetry.board import Board
        from keybroker.worker import work

        work(
            app.workspace(),
            index=index,
            listen=listen,
            own=own,
            admin_url=admin_url,
            board=Board(board_fd, workers),
            ready=ready,
        )
    context.exit(0)


@click.command(cls=Command, hidden=True)
@click.option("--socket-fd", "socket_fds", type=INHERITED, multiple=True, required=True)
@click.option("--url", required=True)
@click.option("--board-fd", type=INHERITED, required=True)
@click.option("--workers", type=click.IntRange(min=1), required=True)
@click.option("--life-fd", type=INHERITED, required=True)
@click.option("--ready-fd", type=INHERITED, required=True)
@click.pass_context
@pass_app
def admin(
    app: App,
    context: click.Context,
    socket_fds: tuple[int, ...],
    url: str,
    board_fd: int,
    workers: int,
    life_fd: int,
    ready_fd: int,
) -> None:
    """The admin page. Started by `up`."""
    from keybroker.children import child

    with child(life_fd, ready_fd) as ready:
        from broker.telemetry.board import Board
        from keybroker.admin_process import serve

        serve(
            app.workspace(),
            socket_fds=socket_fds,
            url=url,
            board=Board(board_fd, workers),
            ready=ready,
        )
    context.exit(0)
