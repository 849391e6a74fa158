"""`keybroker user`: the people who approve, look and administer."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

import click

from keybroker.cli import complete
from keybroker.cli.agents import Duration
from keybroker.cli.frame import App, Group, emit, json_option, note, pass_app, table


@click.group(cls=Group)
def user() -> None:
    """People, their roles, passwords, sessions and API tokens. Takes effect at once."""


def read_line(prompt: str, *, confirm: bool = False) -> str:
    """One line typed unseen, on a terminal only. Raises UsageError elsewhere."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{prompt}: there is no terminal to ask on; give it on stdin")
    answer: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


@user.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "approver", "admin"]),
    required=True,
    help="What this person may do.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line.")
@json_option
@pass_app
def add(app: App, name: str, role: str, password_stdin: bool, as_json: bool) -> None:
    """Add the person NAME.

    The password is read from stdin or asked for on the terminal. Without either there is none: the
    person then acts by API token only.
    """
    password: str | None = None
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty() and not as_json:
        password = read_line(f"Password of {name}", confirm=True)
    added = app.services().people.add(name, role, password, by=app.actor)
    if as_json:
        emit({"user": added.name, "role": added.role, "password": added.has_password})
        return
    click.echo(f"{added.name} is added as {added.role}")
    if not added.has_password:
        note(f"Without a password; `keybroker user token {added.name}` makes an API token.")


@user.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List everybody with an account."""
    from broker.stores.sqlite import to_text

    people = app.services().people.list()
    if as_json:
        emit(
            [
                {
                    "user": one.name,
                    "role": one.role,
                    "password": one.has_password,
                    "created_at": to_text(one.created_at),
                    "disabled_at": one.disabled_at and to_text(one.disabled_at),
                }
                for one in people
            ]
        )
        return
    table(
        ("NAME", "ROLE", "STATE"),
        [(one.name, one.role, "disabled" if one.disabled_at else "active") for one in people],
    )


@user.command()
@click.argument("name", shell_complete=complete.users)
@click.option("--name", "label", default="", metavar="TEXT", help="What it is for, to tell it by.")
@click.option("--expires", type=Duration(), metavar="30d", help="When it stops working.")
@json_option
@pass_app
def token(app: App, name: str, label: str, expires: int | None, as_json: bool) -> None:
    """Make an API token for NAME and print it, once."""
    lasts = None if expires is None else timedelta(seconds=expires)
    made = app.services().tokens.new(name, by=app.actor, label=label, lasts=lasts)
    if as_json:
        emit({"user": name, "token": made})
        return
    click.echo(made)
    note("The token is shown this once; only its hash is kept.")


@user.command()
@click.argument("name", shell_complete=complete.users)
@json_option
@pass_app
def tokens(app: App, name: str, as_json: bool) -> None:
    """List the API tokens of NAME that still work; never their values."""
    services = app.services()
    found = services.tokens.list(services.people.get(name).name)
    if as_json:
        from broker.stores.sqlite import to_text

        emit(
            [
                {
                    "id": one.id,
                    "name": one.name,
                    "created_at": to_text(one.created_at),
                    "last_used_at": one.last_used_at and to_text(one.last_used_at),
                    "expires_at": one.expires_at and to_text(one.expires_at),
                }
                for one in found
            ]
        )
        return
    table(
        ("ID", "NAME", "MADE", "LAST USED", "ENDS"),
        [
            (
                one.id,
                one.name or None,
                _when(one.created_at),
                _when(one.last_used_at) or "never",
                _when(one.expires_at) or "never",
            )
            for one in found
        ],
    )


@user.command("revoke-token")
@click.argument("name", shell_complete=complete.users)
@click.argument("id_", metavar="ID", shell_complete=complete.tokens)
@json_option
@pass_app
def revoke_token(app: App, name: str, id_: str, as_json: bool) -> None:
    """End the API token ID of NAME, at once."""
    app.services().tokens.revoke(id_, name, by=app.actor)
    _done({"user": name, "token": id_, "revoked": True}, f"{id_} is revoked", as_json)


@user.command()
@click.argument("name", shell_complete=complete.users)
@json_option
@pass_app
def sessions(app: App, name: str, as_json: bool) -> None:
    """List the page sessions of NAME that are open."""
    services = app.services()
    found = services.sessions.list(services.people.get(name).name)
    if as_json:
        from broker.stores.sqlite import to_text

        emit(
            [
                {
                    "id": one.id,
                    "client": one.client,
                    "created_at": to_text(one.created_at),
                    "last_seen_at": to_text(one.last_seen_at),
                    "expires_at": to_text(one.expires_at),
                }
                for one in found
            ]
        )
        return
    table(
        ("ID", "CLIENT", "SINCE", "LAST SEEN", "ENDS"),
        [
            (
                one.id,
                one.client or None,
                _when(one.created_at),
                _when(one.last_seen_at),
                _when(one.expires_at),
            )
            for one in found
        ],
    )


@user.command("end-sessions")
@click.argument("name", shell_complete=complete.users)
@click.option(
    "--session", "id_", metavar="ID", help="Only this one.", shell_complete=complete.sessions
)
@json_option
@pass_app
def end_sessions(app: App, name: str, id_: str | None, as_json: bool) -> None:
    """Sign NAME out of the page everywhere, at once."""
    services = app.services()
    services.people.get(name)
    if id_ is None:
        ended = services.sessions.end_all(name, by=app.actor)
    else:
        services.sessions.end_one(id_, name, by=app.actor)
        ended = 1
    _done({"user": name, "ended": ended}, f"{ended} ended", as_json)


@user.command()
@click.argument("name", shell_complete=complete.users)
@click.argument("role", type=click.Choice(["viewer", "approver", "admin"]))
@json_option
@pass_app
def role(app: App, name: str, role: str, as_json: bool) -> None:
    """Give NAME another role. A viewer's votes no longer count for what is undecided."""
    now = app.services().people.set_role(name, role, by=app.actor)
    _done({"user": name, "role": now.role}, f"{name} is {now.role}", as_json)


@user.command()
@click.argument("name", shell_complete=complete.users)
@json_option
@pass_app
def reset(app: App, name: str, as_json: bool) -> None:
    """Print a one-time link with which NAME sets a new password, within an hour.

    The present password stops working and the person is signed out. API tokens stay.
    """
    from keybroker.runstate import admin_url

    url = admin_url(app.workspace())
    link = f"{url}/reset?token={app.services().people.reset(name, by=app.actor)}"
    if as_json:
        emit({"user": name, "url": link})
        return
    click.echo(link)
    note(f"Give it to {name} over a channel that you trust. It works once.")


@user.command()
@click.argument("name", shell_complete=complete.users)
@json_option
@pass_app
def disable(app: App, name: str, as_json: bool) -> None:
    """Close the account of NAME: no log-in, no token, no session, no vote from now on."""
    app.services().people.disable(name, by=app.actor)
    _done({"user": name, "disabled": True}, f"{name} is disabled", as_json)


@user.command()
@click.argument("name", shell_complete=complete.users)
@json_option
@pass_app
def enable(app: App, name: str, as_json: bool) -> None:
    """Open the account of NAME again. Tokens and votes from before stay void."""
    app.services().people.enable(name, by=app.actor)
    _done({"user": name, "disabled": False}, f"{name} is enabled", as_json)


def _done(value: dict[str, object], sentence: str, as_json: bool) -> None:
    if as_json:
        emit(value)
    else:
        click.echo(sentence)


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M}Z"
