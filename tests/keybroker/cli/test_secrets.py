"""`keybroker secret`: a value comes from stdin only. Writing it is tested with a real vault."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from tests.keybroker.cli.conftest import Run

CANARY = "sk_live_canary_77"


def test_a_value_is_never_an_argument(run: Run) -> None:
    done = run("secret", "set", "kv/stripe", "api_key", CANARY)
    assert done.status == 2
    assert "unexpected extra argument" in done.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (["stripe", "api_key", "--stdin"], CANARY, "write the secret as MOUNT/PATH FIELD"),
        (["kv/stripe#api_key", "x", "--stdin"], CANARY, "write the secret as MOUNT/PATH FIELD"),
        (["kv/stripe", "api_key", "--stdin"], "\n", "the value is empty"),
        (["kv/stripe", "api_key"], CANARY, "there is no terminal to ask on"),
    ],
)
def test_what_cannot_be_written_is_refused(
    run: Run, arguments: list[str], stdin: str, says: str
) -> None:
    done = run("secret", "set", *arguments, stdin=stdin)
    assert done.status == 2
    assert says in done.err
    assert CANARY not in done.err + done.out


@pytest.mark.e2e
def test_a_written_secret_is_listed_by_name_and_its_value_is_nowhere(
    workspace: Path, run: Run
) -> None:
    first = run("secret", "set", "kv/stripe", "api_key", "--stdin", "--json", stdin=CANARY + "\n")
    assert first.json == {"secret": "kv/stripe#api_key", "version": 1}
    kept = workspace / "state" / "recovery-keys.txt"
    assert f"recovery keys of the new vault are in {kept}" in first.err
    keys = kept.read_text().splitlines()[1:]
    assert len(keys) == 3 and not any(key.strip() in first.err + first.out for key in keys)
    second = run("secret", "set", "kv/stripe", "other", "--stdin", "--json", stdin=CANARY)
    assert second.json["version"] == 2
    assert "recovery keys" not in second.err
    listed = run("secret", "list", "--json")
    assert listed.json == [{"secret": "kv/stripe", "fields": ["api_key", "other"], "version": 2}]
    records = run("audit", "search", "--type", "secret.written", "--json").out.splitlines()
    assert [json.loads(line)["data"]["version"] for line in records] == [2, 1]
    for path in workspace.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.e2e
def test_no_secret_comes_into_force_that_the_log_cannot_take(workspace: Path, run: Run) -> None:
    """Law 9, here with a log that another process keeps locked."""
    run("secret", "set", "kv/stripe", "api_key", "--stdin", stdin=CANARY)
    with (workspace / "state" / "keybroker.db-ledger.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run("secret", "set", "kv/stripe", "api_key", "--stdin", stdin="another-value")
    assert done.status == 1
    assert "locked" in done.err
    (listed,) = run("secret", "list", "--json").json
    assert listed["version"] == 1
