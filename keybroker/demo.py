"""`keybroker demo`: the whole story in under a minute, without a person, on real parts.

Every step is done by the commands and the API that users have, against a real proxy, OpenBao and
TLS upstream, and checked; the exit status is 0 only if every step held.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keybroker.cli.frame import paint
from keybroker.demo_workspace import DemoWorkspace
from keybroker.errors import Unusable
from keybroker.sample import SamplePayments

CURL_LIMIT = 30
"""Seconds that one curl may take."""


def main(*, serve: bool, as_json: bool, directory: Path | None = None) -> int:
    """Tells the story, or with `serve` starts everything and stays. Returns the exit status.

    Raises Unusable if something it needs is missing.
    """
    if shutil.which("curl") is None:
        raise Unusable("the demo calls through curl: install it (Debian: apt-get install curl)")
    with _place(directory) as place, SamplePayments(place / "sample") as sample:
        workspace = DemoWorkspace(place / "workspace", sample)
        if serve:
            return workspace.serve()
        story = Story(workspace, sample, quiet=as_json)
        began = time.monotonic()
        with workspace.running():
            story.tell()
        if as_json:
            click.echo(json.dumps({"held": story.held, "steps": story.steps}))
        else:
            seconds = time.monotonic() - began
            verdict = "every step held" if story.held else "NOT every step held"
            click.echo(f"\n{paint(verdict, bold=True)} ({seconds:.0f} s)")
        return 0 if story.held else 1


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="keybroker-demo-") as temporary:
        yield Path(temporary)


class Story:
    """The steps. Each says what to see in it, does it, and checks it."""

    def __init__(self, workspace: DemoWorkspace, sample: SamplePayments, *, quiet: bool) -> None:
        self._workspace = workspace
        self._sample = sample
        self._quiet = quiet
        self.steps: list[dict[str, Any]] = []
        self.held = True

    def tell(self) -> None:
        """All of it, in order."""
        self._say(
            "An agent works for a payment service. It has a proxy URL with a token of its own,"
            " and no API key.\nThe key lies in a real OpenBao; the service is a real HTTPS server."
        )
        self._allowed_read()
        self._denied_call()
        self._held_and_approved()
        self._held_and_denied()
        self._reflected_secret()
        self._rotated_secret()
        self._ledger()

    def _allowed_read(self) -> None:
        self._step("An allowed read goes through; the service gets the key, the agent never does")
        reply = self._curl("/v1/charges")
        arrived = self._sample.calls("GET", "/v1/charges")
        self._check("the agent gets its answer (200)", reply.status == 200)
        self._check(
            "the service saw `Authorization: Bearer <key from Vault>`",
            bool(arrived) and arrived[-1].authorization == f"Bearer {self._workspace.key}",
        )
        self._check("the key is nowhere in what the agent got", self._unseen(reply))

    def _denied_call(self) -> None:
        self._step("A call that no rule allows is denied, with a sentence the agent can act on")
        reply = self._curl("/v1/customers/7", "-X", "DELETE")
        self._check("403 policy_denied", (reply.status, reply.code) == (403, "policy_denied"))
        self._show(reply.problem.get("detail", ""))
        self._check(
            "nothing reached the service", not self._sample.calls("DELETE", "/v1/customers/7")
        )

    def _held_and_approved(self) -> None:
        self._step("A refund is held until a person approves exactly this request")
        curl = self._start_curl("/v1/refunds", "-d", "charge=ch_81&amount=4200")
        card = self._pending()
        self._show(f"the reviewer reads: {card['summaries'][0]} | {' '.join(card['impacts'])}")
        self._check(
            "nothing reached the service while it waits",
            not self._sample.calls("POST", "/v1/refunds"),
        )
        self._vote(card, "approve", "matches ticket 17", confirm="4200")
        reply = self._finish(curl)
        self._check("alice approves, and the waiting call gets its 200", reply.status == 200)
        self._check("it was sent once", len(self._sample.calls("POST", "/v1/refunds")) == 1)

    def _held_and_denied(self) -> None:
        self._step("Another refund is denied, and the agent is told why")
        curl = self._start_curl("/v1/refunds", "-d", "charge=ch_81&amount=990000")
        card = self._pending()
        self._show(f"the reviewer reads: {card['summaries'][0]}")
        self._vote(card, "deny", "more than was ever charged")
        reply = self._finish(curl)
        self._check("403 approval_denied", (reply.status, reply.code) == (403, "approval_denied"))
        self._show(reply.problem.get("detail", ""))
        self._check(
            "it never reached the service", len(self._sample.calls("POST", "/v1/refunds")) == 1
        )

    def _reflected_secret(self) -> None:
        self._step("A careless service echoes the key in its answer; the agent gets a mask")
        reply = self._curl("/v1/debug")
        self._show(reply.body.strip())
        self._check("the answer came through (200)", reply.status == 200)
        self._check("masked", "[keybroker:masked]" in reply.body and self._unseen(reply))

    def _rotated_secret(self) -> None:
        self._step("The key is rotated in Vault; the very next call uses the new one")
        before = self._workspace.key
        version = self._workspace.rotate_key()
        reply = self._curl("/v1/charges")
        arrived = self._sample.calls("GET", "/v1/charges")[-1].authorization
        self._check(f"the key is now version {version}", version == 2)
        self._check("the call went through (200)", reply.status == 200)
        self._check(
            "the service saw the new key, nothing was restarted",
            arrived == f"Bearer {self._workspace.key}" != f"Bearer {before}",
        )

    def _ledger(self) -> None:
        self._step("The ledger proves what happened")
        status, verdict, _ = self._workspace.keybroker("audit", "verify", accept=(0, 1, 2))
        self._show(verdict.strip())
        self._check("it verifies (exit 0)", status == 0)
        records = self._workspace.copy_ledger()
        self._check(
            "no secret is in any of its records",
            not any(key in records.read_bytes().decode("latin-1") for key in self._workspace.keys),
        )
        self._step("Somebody changes a copy: the denied refund becomes an approved one")
        _tamper(records)
        status, verdict, faults = self._workspace.keybroker(
            "audit", "verify", "--file", str(records), accept=(0, 1, 2)
        )
        self._show("\n".join([verdict.strip(), *faults.splitlines()[:2]]))
        self._check("caught (exit 1)", status == 1)

    # How the steps do what they do

    def _curl(self, path: str, *arguments: str) -> Reply:
        return self._finish(self._start_curl(path, *arguments))

    def _start_curl(self, path: str, *arguments: str) -> subprocess.Popen[str]:
        command = self._workspace.curl(path, *arguments)
        shown = [self._workspace.shorten(argument) for argument in command]
        self._show("$ " + shlex.join(shown), quiet_colour=True)
        return subprocess.Popen(
            [*command, "--silent", "--show-error", "--include", "--max-time", str(CURL_LIMIT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={},
        )

    def _finish(self, curl: subprocess.Popen[str]) -> Reply:
        output, _ = curl.communicate(timeout=CURL_LIMIT + 5)
        return Reply(output)

    def _pending(self) -> dict[str, Any]:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            cards = self._api("/api/v1/approvals?state=pending")["approvals"]
            if cards:
                card: dict[str, Any] = cards[0]
                return card
            time.sleep(0.05)
        raise Unusable("the call was not held within 10 s")

    def _vote(self, card: dict[str, Any], decision: str, reason: str, confirm: str = "") -> None:
        self._api(
            f"/api/v1/approvals/{card['id']}/votes",
            {"decision": decision, "reason": reason, "confirm": confirm},
        )

    def _api(self, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own admin page
            self._workspace.admin_url + path,
            data=None if document is None else json.dumps(document).encode(),
            headers={
                "Authorization": f"Bearer {self._workspace.reviewer_token}",
                "Content-Type": "application/json",
            },
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def _unseen(self, reply: Reply) -> bool:
        return not any(key in reply.output for key in self._workspace.keys)

    # How they tell

    def _say(self, text: str) -> None:
        if not self._quiet:
            click.echo(text)

    def _step(self, title: str) -> None:
        self.steps.append({"title": title, "checks": []})
        self._say(f"\n{paint(f'{len(self.steps)}. {title}', bold=True)}")

    def _show(self, text: str, *, quiet_colour: bool = False) -> None:
        for line in text.splitlines():
            self._say("   " + (paint(line, dim=True) if quiet_colour else line))

    def _check(self, what: str, held: bool) -> None:
        self.steps[-1]["checks"].append({"what": what, "held": held})
        self.held = self.held and held
        mark = paint("ok", fg="green") if held else paint("FAILED", fg="red")
        self._say(f"   {mark}  {what}")


class Reply:
    """What curl printed: head and body."""

    def __init__(self, output: str) -> None:
        self.output = output
        head, _, body = output.replace("\r\n", "\n").partition("\n\n")
        # The proxy's own "200 Connection established" comes first.
        if " 200 " in head.splitlines()[0] and "onnection" in head.splitlines()[0]:
            head, _, body = body.partition("\n\n")
        self.body = body
        words = head.split()
        self.status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document; empty if it is none."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    @property
    def code(self) -> str | None:
        return self.problem.get("code")


def _tamper(copy: Path) -> None:
    """Does what someone with the file but without the workspace's key could do."""
    with sqlite3.connect(copy) as db:
        db.execute("DROP TRIGGER ledger_update")
        db.execute(
            "UPDATE ledger SET data = replace(data, '\"deny\"', '\"approve\"')"
            " WHERE type = 'approval.voted' AND data LIKE '%\"deny\"%'"
        )
    db.close()
