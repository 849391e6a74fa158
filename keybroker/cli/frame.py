"""What every command shares: lazy loading, the workspace option, output for people and machines,
and the one place where errors become a line and an exit status.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

if TYPE_CHECKING:
    from keybroker.compose import Services
    from keybroker.workspace import Workspace

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
FILE = click.Path(path_type=Path, dir_okay=False)
"""A file that a command takes; directories are refused."""
FILE_OR_STDIN = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
"""The same, or `-`."""


class App:
    """What one invocation knows: which workspace it was told of, and the services once opened."""

    def __init__(self) -> None:
        self.option: Path | None = None
        self.as_json = False
        """Whether `--json` was given: then an error is JSON on stdout too."""
        self.told = False
        """Whether stdout has its JSON."""

    def workspace(self) -> Workspace:
        """The checked workspace. Raises Unusable."""
        from keybroker import workspace

        return workspace.find(self.option)

    def has_workspace(self) -> bool:
        """Whether there is one where it is looked for, in order or not."""
        from keybroker import workspace

        return workspace.Workspace(workspace.choose(self.option)).settings_file.exists()

    def services(self) -> Services:
        """The opened services, closed when the command ends."""
        from keybroker.compose import open_workspace

        services = open_workspace(self.workspace())
        click.get_current_context().call_on_close(services.close)
        return services

    @property
    def actor(self) -> str:
        """Who acts, for the audit log: the account that runs this, whatever its variables say."""
        import pwd

        try:
            return f"cli:{pwd.getpwuid(os.geteuid()).pw_name}"
        except KeyError:
            return f"cli:uid-{os.geteuid()}"


pass_app = click.make_pass_decorator(App, ensure=True)


def _remember_workspace(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(App).option = value


def _workspace_option() -> click.Option:
    return click.Option(
        ["--workspace"],
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        expose_value=False,
        callback=_remember_workspace,
        help="The workspace; else $KEYBROKER_WORKSPACE, else the user's data directory.",
    )


class Command(click.Command):
    """A command that takes `--workspace` wherever it is written."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(_workspace_option())


class Group(click.Group):
    """A group of such commands."""

    command_class: ClassVar[type[click.Command]] = Command  # type: ignore[misc]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(_workspace_option())


class LazyGroup(Group):
    """A group that knows its commands' names and lines, and imports one when it is run."""

    def __init__(
        self, *arguments: Any, commands_at: Mapping[str, tuple[str, str]], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands for people, in the table's order."""
        return [name for name, (_, line) in self.commands_at.items() if line]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command; None if there is none of that name."""
        if cmd_name not in self.commands_at:
            return None
        module, _, attribute = self.commands_at[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but near names come from the table: click knows loaded commands only."""
        name = args[0]
        if not (ctx.resilient_parsing or name.startswith("-") or name in self.commands_at):
            from difflib import get_close_matches

            near = get_close_matches(name, self.list_commands(ctx), 1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The lines of the table, so that help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, line) for name, (_, line) in self.commands_at.items() if line]
            )


def json_option[F: Callable[..., object]](function: F) -> F:
    """Adds `--json` as the parameter `as_json`."""
    return click.option(
        "--json",
        _AS_JSON,
        is_flag=True,
        is_eager=True,  # so that it is known when another parameter is wrong
        callback=_remember_json,
        help="Print JSON for machines.",
    )(function)


_AS_JSON = "as_json"


def _remember_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    context.ensure_object(App).as_json = value
    return value


def emit(value: object) -> None:
    """Prints `value` as one line of JSON on stdout."""
    context = click.get_current_context(silent=True)
    app = context.find_object(App) if context else None
    if app is not None:
        app.told = True
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def paint(text: str, *, err: bool = False, **style: Any) -> str:
    """`text` in colour where it goes to a terminal and NO_COLOR is not set (no-color.org)."""
    stream = sys.stderr if err else sys.stdout
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    # A stream that the caller closed is None.
    if plain or stream is None or not stream.isatty():
        return text
    return click.style(text, **style)


def inert(text: object) -> str:
    """`text` with control characters escaped: what an agent wrote must not drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows in aligned columns; nothing but the heads if there are none."""
    cells = [[inert("-" if cell is None else cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()

    click.echo(paint(line(heads), bold=True))
    for row in cells:
        click.echo(line(row))


def note(text: str) -> None:
    """A remark beside the output, on stderr."""
    click.echo(paint(text, err=True, dim=True), err=True)


def warn(text: str) -> None:
    """A warning on stderr."""
    click.echo(f"{paint('warning:', err=True, fg='yellow', bold=True)} {text}", err=True)


def complain(text: str) -> None:
    """An error on stderr; each line of `text` is one of them."""
    for line in text.splitlines() or [""]:
        click.echo(f"{paint('keybroker:', err=True, fg='red', bold=True)} {line}", err=True)


def guarded(command: click.Command, arguments: Sequence[str] | None) -> int:
    """Runs `command`; whatever happens becomes an exit status, and an error one clear line. With
    `--json` that line is on stdout too, as `{"error": ..}`, unless the command has told its own."""
    app = App()

    def refuse(text: str, *, as_json: bool = False) -> None:
        if (app.as_json or as_json) and not app.told:
            emit({"error": text})
        complain(text)

    from audit.errors import AuditError
    from broker.errors import KeybrokerError
    from certs.errors import CertsError
    from rules.errors import RulesError

    try:
        status = command.main(args=arguments, prog_name="keybroker", standalone_mode=False, obj=app)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        if error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        # click sets choices below each other; an error is one line here.
        refuse(" ".join(error.format_message().split()), as_json=_asks_for_json(error, arguments))
        return EXIT_USAGE
    except click.ClickException as error:
        refuse(error.format_message())
        return EXIT_FAILED
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`): there is nobody to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (KeybrokerError, RulesError, AuditError, CertsError) as error:
        if os.environ.get("KEYBROKER_DEBUG"):
            raise
        refuse(str(error))
        return EXIT_FAILED
    except Exception as error:
        if os.environ.get("KEYBROKER_DEBUG"):
            raise
        refuse(_foreign(error))
        return EXIT_FAILED


def _asks_for_json(error: click.UsageError, arguments: Sequence[str] | None) -> bool:
    """Whether a command that could not even read its options was given `--json`."""
    options = error.ctx.command.params if error.ctx is not None else ()
    words = sys.argv[1:] if arguments is None else arguments
    return "--json" in words and any(option.name == _AS_JSON for option in options)


def _foreign(error: Exception) -> str:
    """A foreign error as one line; its text only where it is known to hold no secret."""
    import sqlite3

    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, UnicodeEncodeError):
        return "an argument is not UTF-8 text"
    if isinstance(error, OverflowError):
        return "a number or a time is too large"
    if isinstance(error, OSError | sqlite3.Error):
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"{type(error).__name__}: this should not happen (KEYBROKER_DEBUG=1 shows where)"
