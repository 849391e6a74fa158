"""`keybroker approvals`: held calls, listed, shown, decided. A vote needs a person who logged in.

What an agent wrote is printed with control characters escaped: it must not drive the terminal.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, get_args

import click

from broker.errors import KeybrokerError, NotEntitled
from broker.model import ApprovalState
from keybroker.cli import complete
from keybroker.cli.frame import App, Group, emit, inert, json_option, paint, pass_app, table
from keybroker.cli.users import read_line
from rules.request import authority
from rules.words import describe_place

if TYPE_CHECKING:
    from broker.model import Choice, User
    from keybroker.compose import Services

TOKEN = "KEYBROKER_TOKEN"  # noqa: S105 -- the name of the variable


@click.group(cls=Group)
def approvals() -> None:
    """List, show, approve and deny held calls, whether `up` runs or not."""


@approvals.command("list")
@click.option(
    "--state",
    type=click.Choice([*get_args(ApprovalState), "all"]),
    default="pending",
    show_default=True,
    help="Only those in this state.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="How many at most.",
)
@json_option
@pass_app
def list_(app: App, state: str, limit: int, as_json: bool) -> None:
    """List held calls, newest first."""
    cards = app.services().desk.list(None if state == "all" else state, limit)
    if as_json:
        emit(list(cards))
        return
    table(
        ("ID", "STATE", "RISK", "AGENT", "CALL", "DECIDE BY"),
        [(c["id"], c["state"], c["risk"], c["agent"], _what(c), c["decide_by"]) for c in cards],
    )


def _what(card: Any) -> str:
    what = card["what"]
    return f"{what['method']} {authority(what['scheme'], what['host'], what['port'])}{what['path']}"


@approvals.command()
@click.argument("id_", metavar="ID", shell_complete=complete.approvals)
@json_option
@pass_app
def show(app: App, id_: str, as_json: bool) -> None:
    """Show what would be sent, and who decides."""
    card = app.services().desk.card(id_, None)
    if as_json:
        emit(card)
    else:
        print_card(card)


def print_card(card: Any) -> None:
    """What leaves, where to, the consequence, who and why, and which rule: in that order."""

    def line(name: str, value: object) -> None:
        if value not in (None, "", []):
            click.echo(f"{paint(name.ljust(12), bold=True)}{inert(value)}")

    for summary in card["summaries"]:
        line("does", summary)
    request = card.get("request")
    line("request", f"{request['method']} {request['url']}" if request else _what(card))
    if request:
        for header, value in request["headers"]:
            line("  header", f"{header}: {value}")
        for field, value in request.get("fields") or []:
            line("  field", f"{field} = {value}")
        if not request.get("fields") and request.get("body_size"):
            line("  body", request.get("body_text") or f"{request['body_size']} bytes, not text")
    for credential in card["credentials"]:
        line("credential", f"{credential['name']} ({credential['secret']})")
    for impact in card["impacts"]:
        line("consequence", impact)
    for undo in card.get("undos") or []:
        line("undone", undo)
    owner = f", owned by {card['owner']}" if card.get("owner") else ""
    tags = f", tagged {', '.join(card['tags'])}" if card.get("tags") else ""
    line("agent", card["agent"] + owner + tags)
    line("run for", card.get("operator_note"))
    line("its claim", card.get("claim"))
    line("why", card.get("sentence"))
    for rule in card["rules"]:
        line("rule", f"{rule['id']}: {rule['sentence']}")
    line("risk", card["risk"])
    line("state", card["state"])
    if card["state"] == "pending":
        line("decide by", card["decide_by"])
    elif card["state"] == "approved":
        line("execute by", card["execute_by"])
    else:
        line("because", (card.get("resolution") or {}).get("reason"))
    for vote in card["votes"]:
        line("vote", f"{vote['user']}: {vote['decision']} {vote.get('reason') or ''}".rstrip())
    line("needs", card.get("needs"))
    for remark in card.get("notes") or []:
        line("note", remark)


def who_votes(services: Services) -> User:
    """The person who acts: by API token in KEYBROKER_TOKEN, else by name and password.

    Raises NotEntitled when neither proves anybody.
    """
    if token := os.environ.get(TOKEN):
        user = services.tokens.user(token)
        if user is None:
            raise NotEntitled(f"the token in {TOKEN} is nobody's; `keybroker user token` makes one")
        return user
    if not sys.stdin.isatty():
        raise NotEntitled(
            f"a vote needs a person: put an API token into {TOKEN} (`keybroker user token NAME`),"
            " or run this on a terminal to be asked for name and password"
        )
    name: str = click.prompt("Your user name", err=True)
    user = services.people.check_password(name, read_line("Password"))
    if user is None:
        raise NotEntitled("wrong name or password")
    return user


def _vote(
    app: App,
    id_: str,
    decision: Choice,
    reason: str | None,
    confirm: str | None,
    as_json: bool,
) -> None:
    services = app.services()
    user = who_votes(services)
    card = services.desk.card(id_, user)
    if sys.stdin.isatty() and not as_json:
        print_card(card)
        asked = card.get("confirm")
        if decision == "approve" and asked and confirm is None:
            confirm = click.prompt(f"To approve, retype {describe_place(asked['place'])}", err=True)
    try:
        card = services.desk.vote(id_, user, decision, reason=reason, confirm=confirm, via="cli")
    except KeybrokerError as error:
        if as_json:
            emit({"error": type(error).__name__, "detail": str(error)})
        raise
    if as_json:
        emit(card)
        return
    click.echo(f"{card['id']}: {card['state']}")
    if card["state"] == "pending" and card.get("needs"):
        click.echo(inert(card["needs"]))


@approvals.command()
@click.argument("id_", metavar="ID", shell_complete=complete.pending)
@click.option("--reason", help="Why, for the record.")
@click.option("--confirm", help="The value to retype, where the tier asks for it.")
@json_option
@pass_app
def approve(app: App, id_: str, reason: str | None, confirm: str | None, as_json: bool) -> None:
    """Approve the held call ID as the person who $KEYBROKER_TOKEN or a password proves."""
    _vote(app, id_, "approve", reason, confirm, as_json)


@approvals.command()
@click.argument("id_", metavar="ID", shell_complete=complete.pending)
@click.option("--reason", help="Why; the agent is told.")
@json_option
@pass_app
def deny(app: App, id_: str, reason: str | None, as_json: bool) -> None:
    """Deny the held call ID as the person who $KEYBROKER_TOKEN or a password proves."""
    _vote(app, id_, "deny", reason, None, as_json)
