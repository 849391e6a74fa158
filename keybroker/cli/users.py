"""`keybroker user`: the people who approve, look and administer."""

from __future__ import annotations

import sys

import click

from keybroker.cli.frame import App, Group, emit, json_option, note, pass_app, table


@click.group(cls=Group)
def user() -> None:
    """Add, list and disable people; make their API tokens."""


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
@click.argument("name")
@json_option
@pass_app
def token(app: App, name: str, as_json: bool) -> None:
    """Make an API token for NAME and print it, once."""
    made = app.services().people.new_api_token(name, by=app.actor)
    if as_json:
        emit({"user": name, "token": made})
        return
    click.echo(made)
    note("The token is shown this once; only its hash is kept.")


@user.command()
@click.argument("name")
@json_option
@pass_app
def disable(app: App, name: str, as_json: bool) -> None:
    """Close the account of NAME: no log-in, no token, no vote from now on."""
    app.services().people.disable(name, by=app.actor)
    if as_json:
        emit({"user": name, "disabled": True})
    else:
        click.echo(f"{name} is disabled")
