"""`keybroker secret`: writes secrets to the vault. No value is ever an argument or printed."""

from __future__ import annotations

import sys

import click

from keybroker.cli import complete
from keybroker.cli.frame import App, Group, emit, json_option, pass_app, table
from keybroker.cli.users import read_line

MAX_SECRET = 64 * 1024
"""Bytes; more than any header can carry."""


@click.group(cls=Group)
def secret() -> None:
    """Write secrets to the vault and list their names. Values are never shown."""


def _read_value(from_stdin: bool, reference: str) -> str:
    if not from_stdin:
        return read_line(f"Value of {reference}")
    data = sys.stdin.buffer.read(MAX_SECRET + 1)
    if len(data) > MAX_SECRET:
        raise click.UsageError(f"the value on stdin is larger than {MAX_SECRET} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise click.UsageError("the value on stdin is not UTF-8 text") from None
    # `echo value |` adds one line end that nobody means.
    return text.removesuffix("\n").removesuffix("\r")


@secret.command("set")
@click.argument("path", metavar="MOUNT/PATH", shell_complete=complete.secret_paths)
@click.argument("field", shell_complete=complete.secret_fields)
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the value from stdin.")
@json_option
@pass_app
def set_(app: App, path: str, field: str, from_stdin: bool, as_json: bool) -> None:
    """Write FIELD of the secret at MOUNT/PATH, as in `kv/stripe api_key`.

    Other fields stay. The next call that needs it uses the new version.
    """
    from keybroker.compose import write_secret

    mount, slash, rest = path.partition("/")
    if not mount or not slash or not rest or "#" in path + field or not field:
        raise click.UsageError(
            "write the secret as MOUNT/PATH FIELD, for example: kv/stripe api_key"
        )
    value = _read_value(from_stdin, f"{path}#{field}")
    if not value:
        raise click.UsageError("the value is empty")
    services = app.services()
    version = write_secret(
        app.workspace(), services, mount=mount, path=rest, field=field, value=value, by=app.actor
    )
    if as_json:
        emit({"secret": f"{path}#{field}", "version": version})
    else:
        numbered = "" if version is None else f" as version {version}"
        click.echo(f"{path}#{field} is written{numbered}")


@secret.command("list")
@click.argument("mount", required=False)
@json_option
@pass_app
def list_(app: App, mount: str | None, as_json: bool) -> None:
    """List the secrets of MOUNT (default: kv) with their fields and versions.

    A KV version 1 engine keeps no versions, and would tell fields only together with their values.
    """
    from keybroker.compose import list_secrets

    found = list_secrets(app.workspace(), mount)
    if as_json:
        emit(
            [
                {
                    "secret": secret,
                    "fields": None if entry.fields is None else list(entry.fields),
                    "version": entry.version,
                }
                for secret, entry in found
            ]
        )
        return
    rows = [
        (
            secret,
            "?" if entry.fields is None else ", ".join(entry.fields),
            "-" if entry.version is None else entry.version,
        )
        for secret, entry in found
    ]
    table(("SECRET", "FIELDS", "VERSION"), rows)
