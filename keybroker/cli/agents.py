"""`keybroker agent`: the programs that make calls, and their tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from keybroker.cli import complete
from keybroker.cli.frame import App, Group, emit, json_option, note, pass_app, table

if TYPE_CHECKING:
    from broker.model import Agent


class Duration(click.ParamType[int]):
    """`4s`, `15m`, `2h`, `30d`, as whole seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Seconds; a usage error if it is no duration."""
        from rules.yamlfile import parse_duration

        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group(cls=Group)
def agent() -> None:
    """Add, list, rotate and revoke agents. Each takes effect on the next call."""


def _announce(app: App, name: str, token: str, as_json: bool) -> None:
    from keybroker.runstate import gateway_url, proxy_url

    url = proxy_url(app.workspace(), name, token)
    base = gateway_url(app.workspace(), name)
    if as_json:
        emit({"agent": name, "token": token, "proxy_url": url, "gateway_url": base})
        return
    click.echo(f"agent: {name}\ntoken: {token}\nproxy: {url}\ngateway: {base}/HOST/PATH")
    note("The token is shown this once; only its hash is kept.")


@agent.command()
@click.argument("name")
@click.option(
    "--owner",
    metavar="USER",
    help="The person who answers for it.",
    shell_complete=complete.users,
)
@click.option("--tag", "tags", multiple=True, metavar="T", help="A tag that rules may name.")
@click.option("--hold-wait", type=Duration(), metavar="4s", help="Instead of the proxy's setting.")
@click.option(
    "--pending-status",
    type=click.Choice(["503", "429", "202"]),
    default="503",
    show_default=True,
    help="The status of the answer to a call that is still held.",
)
@click.option("--expires", type=Duration(), metavar="30d", help="When its tokens stop working.")
@json_option
@pass_app
def add(
    app: App,
    name: str,
    owner: str | None,
    tags: tuple[str, ...],
    hold_wait: int | None,
    pending_status: str,
    expires: int | None,
    as_json: bool,
) -> None:
    """Add the agent NAME and print its token, once."""
    until = None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
    made, token = app.services().agents.add(
        name,
        owner=owner,
        tags=tags,
        hold_wait=hold_wait,
        pending_status=int(pending_status),
        expires_at=until,
        by=app.actor,
    )
    _announce(app, made.name, token, as_json)


@agent.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List all agents; never their tokens."""
    agents = app.services().agents.list()
    if as_json:
        emit([_describe(one) for one in agents])
        return
    table(
        ("NAME", "OWNER", "TAGS", "STATE"),
        [(a.name, a.owner, ",".join(sorted(a.tags)) or None, _state(a)) for a in agents],
    )


def _state(agent: Agent) -> str:
    if agent.revoked_at:
        return f"revoked {agent.revoked_at:%Y-%m-%d %H:%M}Z"
    if agent.expires_at and agent.expires_at <= datetime.now(UTC):
        return f"expired {agent.expires_at:%Y-%m-%d %H:%M}Z"
    return "active"


def _describe(agent: Agent) -> dict[str, object]:
    from broker.stores.sqlite import to_text

    return {
        "agent": agent.name,
        "owner": agent.owner,
        "tags": sorted(agent.tags),
        "hold_wait": agent.hold_wait,
        "pending_status": agent.pending_status,
        "created_at": to_text(agent.created_at),
        "expires_at": agent.expires_at and to_text(agent.expires_at),
        "revoked_at": agent.revoked_at and to_text(agent.revoked_at),
    }


@agent.command()
@click.argument("name", shell_complete=complete.agents)
@json_option
@pass_app
def rotate(app: App, name: str, as_json: bool) -> None:
    """Give NAME a new token; the old ones stop working."""
    _announce(app, name, app.services().agents.rotate(name, by=app.actor), as_json)


@agent.command()
@click.argument("name", shell_complete=complete.agents)
@json_option
@pass_app
def revoke(app: App, name: str, as_json: bool) -> None:
    """Refuse every further call of NAME, on open connections too."""
    app.services().agents.revoke(name, by=app.actor)
    if as_json:
        emit({"agent": name, "revoked": True})
    else:
        click.echo(f"{name} is revoked: its next call is refused")
