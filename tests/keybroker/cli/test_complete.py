"""Shell completion: the shells' own functions are run, and what they offer is in the store."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.stores.sqlite import Transaction
from keybroker.compose import open_workspace
from keybroker.workspace import Workspace
from tests.keybroker.cli.conftest import Run

POLICY = """\
version: 1
credentials:
  stripe: {secret: "kv/stripe#api_key", hosts: [api.stripe.com], inject: bearer}
rules:
  - id: stripe-read
    agents: [billing-bot]
    match: {host: api.stripe.com}
    effect: allow
    use: [stripe]
"""
# The directory of the program under test comes first, so that bash runs this `keybroker`.
BIN = str(Path(sys.executable).parent)


@pytest.fixture
def filled(workspace: Path, run: Run) -> Path:
    run("agent", "add", "billing-bot")
    run("agent", "add", "build-bot")
    run("agent", "add", "gone")
    run("agent", "revoke", "gone")
    run("user", "add", "alice", "--role", "admin")
    run("user", "add", "albert", "--role", "viewer")
    services = open_workspace(Workspace(workspace))
    services.policies.publish(POLICY, "cli:test")
    services.close()
    return workspace


def words_of(line: str) -> list[str]:
    return shlex.split(line) + ([""] if line.endswith(" ") else [])


def surroundings(workspace: Path) -> dict[str, str]:
    path = f"{BIN}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "KEYBROKER_WORKSPACE": str(workspace), "TERM": "dumb"}


def run_in(shell: list[str], script: str, workspace: Path) -> tuple[list[str], str]:
    done = subprocess.run(
        [*shell, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=surroundings(workspace),
    )
    return done.stdout.splitlines(), done.stderr


def bash(workspace: Path, line: str) -> tuple[list[str], str]:
    """What bash offers after `line`, and what was said on stderr."""
    words = words_of(line)
    array = " ".join(shlex.quote(word) for word in words)
    script = (
        f"source <(keybroker completion bash)\n"
        f"COMP_WORDS=({array}) COMP_CWORD={len(words) - 1}\n"
        "_keybroker_completion keybroker\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    offered, said = run_in(["bash", "--norc"], script, workspace)
    return list(filter(None, offered)), said


def zsh(workspace: Path, line: str) -> tuple[list[str], str]:
    """The same of zsh, whose two functions that show what is offered print it here."""
    words = words_of(line)
    array = " ".join(shlex.quote(word) for word in words)
    script = (
        "compdef() { }\n"
        'compadd() { print -l -- "${completions[@]}" }\n'
        '_describe() { print -l -- "${completions_with_descriptions[@]%%:*}" }\n'
        'eval "$(keybroker completion zsh)"\n'
        f"words=({array}) CURRENT={len(words)}\n"
        "_keybroker_completion\n"
    )
    offered, said = run_in(["zsh", "-f"], script, workspace)
    return list(filter(None, offered)), said


def fish(workspace: Path, line: str) -> tuple[list[str], str]:
    """The same of fish."""
    script = f"keybroker completion fish | source\ncomplete --do-complete {shlex.quote(line)}\n"
    offered, said = run_in(["fish", "--no-config"], script, workspace)
    return [one.partition("\t")[0] for one in offered], said


OTHERS = {"zsh": zsh, "fish": fish}


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest) -> Callable[[Path, str], tuple[list[str], str]]:
    """A shell besides bash; skips where it is not there, which CI does not allow."""
    if shutil.which(request.param) is None:
        told = f"{request.param} is not there; run scripts/ensure-shells"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    return OTHERS[request.param]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("keybroker agent revoke ", {"billing-bot", "build-bot"}),
        ("keybroker agent rotate bu", {"build-bot"}),
        ("keybroker user role albert a", {"approver", "admin"}),
        ("keybroker secret set kv/stripe ", {"api_key"}),
        ("keybroker audit search --rule s", {"stripe-read"}),
        ("keybroker agent ro", {"rotate"}),
        ("keybroker user add al", set()),
    ],
)
def test_the_others_offer_the_same(
    filled: Path,
    other: Callable[[Path, str], tuple[list[str], str]],
    line: str,
    offered: set[str],
) -> None:
    found, said = other(filled, line)
    assert (set(found), said) == (offered, "")


@pytest.mark.e2e
@pytest.mark.parametrize("other", ["zsh"], indirect=True)
@pytest.mark.usefixtures("other")
def test_a_person_at_a_zsh_gets_it_with_the_tab_key(filled: Path) -> None:
    """With nothing stood in for: at a terminal, as docs/cli.md says to set it up."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=surroundings(filled),
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""

    def until(expected: bytes) -> None:
        nonlocal shown
        end = time.monotonic() + 40
        while expected not in shown:
            assert time.monotonic() < end, shown
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 65536)
        shown = b""

    try:
        setup = 'autoload -U compinit; compinit -u -D; eval "$(keybroker completion zsh)"'
        os.write(ours, f"LISTMAX=0; {setup}; echo RE''ADY\n".encode())
        until(b"READY")
        os.write(ours, b"keybroker agent rotate bu\t")
        until(b"build-bot")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


@pytest.mark.e2e
def test_what_an_agent_says_offers_nothing(
    filled: Path, other: Callable[[Path, str], tuple[list[str], str]]
) -> None:
    """A summary of its words stands beside the id of its held call, in each shell's own format."""
    hostile = "x\nplain\nevil-1\t,plain,evil-2\r\x1b[2J\u202e:evil-3 `touch evil`"
    services = open_workspace(Workspace(filled))
    try:
        card = json.dumps({"summaries": [hostile]})

        def hold(tx: Transaction) -> None:
            columns = tx.db.execute("PRAGMA table_info(approvals)").fetchall()
            given = {"id": "a-1", "agent": "billing-bot", "state": "pending", "card": card}
            empty = {"INTEGER": 0, "BLOB": b""}
            values = [given.get(name, empty.get(kind, "")) for _, name, kind, *_ in columns]
            marks = ", ".join("?" * len(columns))
            tx.db.execute(f"INSERT INTO approvals VALUES ({marks})", values)

        services.store.write(hold)
    finally:
        services.close()
    for shell in (bash, other):
        found, said = shell(filled, "keybroker approvals show ")
        assert (found, said) == (["a-1"], "")
        found, said = shell(filled, "keybroker approvals approve ")
        assert (found, said) == (["a-1"], ""), "whatever stands beside it"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("keybroker agent revoke ", ["billing-bot", "build-bot"]),
        ("keybroker agent rotate bu", ["build-bot"]),
        ("keybroker agent add x --owner ", ["albert", "alice"]),
        ("keybroker run --agent bi", ["billing-bot"]),
        ("keybroker user disable al", ["albert", "alice"]),
        ("keybroker user add al", []),
        ("keybroker user role albert a", ["approver", "admin"]),
        ("keybroker audit search --rule ", ["stripe-read"]),
        ("keybroker audit search --secret kv", ["kv/stripe#api_key"]),
        ("keybroker audit search --outcome ex", ["expired"]),
        ("keybroker audit search --type agent.r", ["agent.revoked"]),
        ("keybroker secret set kv", ["kv/stripe"]),
        ("keybroker secret set kv/stripe ", ["api_key"]),
        ("keybroker approvals approve ", []),
    ],
)
def test_bash_offers_what_is_there(filled: Path, line: str, offered: list[str]) -> None:
    assert bash(filled, line) == (offered, "")


def test_sessions_and_tokens_are_those_of_the_person(filled: Path, run: Run) -> None:
    run("user", "token", "alice", "--name", "nightly")
    [token] = run("user", "tokens", "alice", "--json").json
    assert bash(filled, "keybroker user revoke-token alice ") == ([token["id"]], "")
    assert bash(filled, "keybroker user revoke-token albert ") == ([], "")
    services = open_workspace(Workspace(filled))
    session = services.sessions.start(services.people.get("alice"))
    services.close()
    assert bash(filled, "keybroker user end-sessions alice --session ") == ([session.id], "")


@pytest.mark.parametrize("spoil", ["missing", "garbage", "empty", "no-policy"])
def test_it_is_silent_whatever_is_wrong(filled: Path, spoil: str) -> None:
    database = filled / "state" / "keybroker.db"
    if spoil == "no-policy":
        services = open_workspace(Workspace(filled))
        services.store.write(lambda tx: tx.db.execute("UPDATE policies SET text = '['"))
        services.close()
    elif spoil == "garbage":
        for file in (filled / "state").glob("keybroker.db-*"):
            file.unlink()
        database.write_bytes(b"no database" * 1000)
    else:
        database.unlink()
        if spoil == "empty":
            database.touch()
    assert bash(filled, "keybroker audit search --rule ") == ([], "")
    if spoil == "missing":
        assert not database.exists(), "looking makes nothing"
