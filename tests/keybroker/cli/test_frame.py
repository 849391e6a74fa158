"""The command line's frame: help without imports, one line for an error, inert output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import LedgerUnavailable
from broker.errors import Conflict
from keybroker.cli import COMMANDS, cli
from keybroker.cli.frame import LazyGroup, emit, guarded, inert, json_option, paint
from keybroker.workspace import create
from rules.errors import InvalidFile, Problem


def failing(error: BaseException) -> click.Command:
    def body() -> None:
        raise error

    return click.Command("failing", callback=body)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (Conflict("taken"), 1, "keybroker: taken\n"),
        (LedgerUnavailable("the disk is full"), 1, "keybroker: the disk is full\n"),
        (
            InvalidFile([Problem("p.yaml", 2, "a"), Problem("p.yaml", 4, "b")]),
            1,
            "keybroker: p.yaml:2: error: a\nkeybroker: p.yaml:4: error: b\n",
        ),
        (KeyboardInterrupt(), 130, "keybroker: interrupted\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "keybroker: Permission denied: /x\n"),
        (click.UsageError("no such thing"), 2, "keybroker: no such thing\n"),
    ],
)
def test_an_error_is_a_line_and_a_status(
    error: BaseException, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(failing(error), []) == status
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("policy", "check", "/no/such/file"), 2),
        (("policy", "check", "/tmp"), 2),
        (("policy", "check", "a", "b"), 2),
        (("policy", "test"), 2),
        (("policy", "test", "/no/such/file"), 2),
        (("policy", "explain"), 2),
        (("policy", "explain", "GET", "https://a.example/"), 2),
        (("policy", "explain", "--ass", "a", "GET", "https://a.example/"), 2),
        (("policy", "explain", "--as", "a", "GET", "https://a.example/", "--policy", "/no"), 1),
        (("policy", "explain", "c-1"), 1),
        (("policy", "diff", "/no", "/no"), 1),
        (("policy", "packs", "show", "strpe"), 1),
        (("agent", "list"), 1),
        (("audit", "verify"), 2),
    ],
)
def test_with_json_an_error_is_json_too(
    arguments: tuple[str, ...],
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEYBROKER_WORKSPACE", "/no/such/workspace")
    assert guarded(cli, [*arguments, "--json"]) == status
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told.get("error") or told.get("problems")
    assert "keybroker: " in captured.err
    assert guarded(cli, arguments) == status
    assert capsys.readouterr().out == ""


def test_what_was_told_as_json_is_not_told_twice(capsys: pytest.CaptureFixture[str]) -> None:
    @json_option
    def body(as_json: bool) -> None:
        emit({"ok": False})
        raise Conflict("taken")

    command = click.Command("failing", callback=body, params=body.__click_params__)  # type: ignore[attr-defined]
    assert guarded(command, ["--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"ok": False}
    assert captured.err == "keybroker: taken\n"


def test_an_unforeseen_error_does_not_show_what_it_holds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert guarded(failing(ValueError("sk_live_canary")), []) == 1
    captured = capsys.readouterr()
    assert "canary" not in captured.err
    assert "KEYBROKER_DEBUG=1" in captured.err
    monkeypatch.setenv("KEYBROKER_DEBUG", "1")
    with pytest.raises(ValueError, match="canary"):
        guarded(failing(ValueError("sk_live_canary")), [])


def test_help_imports_no_command() -> None:
    script = (
        "import sys; from keybroker.cli import cli; from keybroker.cli.frame import guarded\n"
        "guarded(cli, ['--help'])\n"
        "heavy = {'pydantic', 'cryptography', 'sqlite3', 'hvac', 'mitmproxy', 'yaml'}\n"
        "heavy.add('rules.words')\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")
    for name, (_, line) in COMMANDS.items():
        assert (f"  {name} " in done.stdout) == bool(line)


def _leaves(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    names = list(command.commands_at) if isinstance(command, LazyGroup) else list(command.commands)
    context = click.Context(command)
    found = []
    for name in names:
        child = command.get_command(context, name)
        assert child is not None
        found += _leaves(child, (*path, name))
    return found


@pytest.mark.parametrize("path", _leaves(cli), ids=" ".join)
def test_every_command_has_help_and_takes_the_workspace(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(cli, [*path, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--workspace DIR" in printed
    assert "Usage: keybroker " + " ".join(path) in printed


def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert paint("text", bold=True) == "text"


def test_a_group_alone_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group in ([], ["agent"]):
        assert guarded(cli, group) == 2
        assert "keybroker:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["agnet", "list"], "No such command 'agnet'. Did you mean 'agent'?"),
        (["worekr"], "No such command 'worekr'."),
        (["agent", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["user", "add", "a"], "Missing option '--role'. Choose from: viewer, approver, admin"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(cli, arguments) == 2
    _, line = capsys.readouterr().err.splitlines()
    assert line == f"keybroker: {says}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(cli, ["completion", shell]) == 0
    assert "_KEYBROKER_COMPLETE" in capsys.readouterr().out


def test_a_missing_workspace_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(cli, ["agent", "list", "--workspace", str(tmp_path)]) == 1
    assert "make one with `keybroker init" in capsys.readouterr().err


@given(st.text())
def test_inert_text_has_no_control_characters(text: str) -> None:
    assert all(c.isprintable() for c in inert(text))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["agent", "revoke", "\udcff"], "an argument is not UTF-8 text"),
        (["audit", "show", "\udcff"], "an argument is not UTF-8 text"),
        (["agent", "add", "bot", "--expires", "999999999d"], "is too large"),
    ],
)
def test_impossible_words_are_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    create(tmp_path / "ws", solo=True)
    done = subprocess.run(
        [sys.executable, "-m", "keybroker", "--workspace", str(tmp_path / "ws"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
