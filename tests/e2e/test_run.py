"""`keybroker run`: unmodified clients get through, with a token that ends with the run."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.bao import free_port
from tests.support.program import AgentKey, Program, environment, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

SECRET = "sk_live_run_5Pz3"
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer,
        env: {name: PAY_API_KEY, shape: "sk_test_{hex:24}"}}
  idle: {secret: "kv/idle#api_key", hosts: ["$HOST"], inject: bearer, env: IDLE_KEY}
rules:
  - {id: read, agents: [bot], match: {method: GET, host: "$HOST", path: /**}, effect: allow,
     use: [pay]}
  - {id: write, agents: [bot], match: {method: POST, host: "$HOST", path: /**}, effect: hold}
  - {id: in-runs, agents: [bot], match: {method: PUT, host: "$HOST", source: {run: true}},
     effect: allow}
  - {id: pass, agents: [bot], match: {host: "opaque.localhost:$TUNNEL"}, effect: tunnel}
"""
CLIENTS = {
    "curl": ["curl", "--silent", "--show-error", "URL"],
    "urllib": [
        sys.executable,
        "-c",
        "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())",
        "URL",
    ],
    "requests": [
        sys.executable,
        "-c",
        "import sys, requests; print(requests.get(sys.argv[1]).text)",
        "URL",
    ],
    "httpx": [
        sys.executable,
        "-c",
        "import sys, httpx; print(httpx.get(sys.argv[1]).text)",
        "URL",
    ],
    "httpx over HTTP/2": [
        sys.executable,
        "-c",
        "import sys, httpx; print(httpx.Client(http2=True).get(sys.argv[1]).text)",
        "URL",
    ],
}


@dataclass(frozen=True)
class Setup:
    kb: Program
    tunnel: Upstream
    bot: AgentKey
    """With a token that is no run's."""

    def run(
        self, *command: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.kb.run("run", "--agent", "bot", *options, "--", *command, env=env)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Upstream() as upstream, Upstream() as tunnel:
        policy = POLICY.replace("$TUNNEL", str(tunnel.port))
        with Program(tmp_path_factory.mktemp("run"), upstream, policy=policy) as kb:
            kb.secret("kv/pay", "api_key", SECRET)
            yield Setup(kb, tunnel, kb.agent("bot", "--owner", "owen"))


@pytest.mark.parametrize("client", CLIENTS)
def test_an_unmodified_client_gets_through(at: Setup, client: str) -> None:
    count = len(at.kb.upstream.requests)
    url = f"{at.kb.upstream.url}/echo?client=1"
    done = at.run(*(url if word == "URL" else word for word in CLIENTS[client]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target"] == "/echo?client=1"
    (arrived,) = at.kb.upstream.requests[count:]
    assert arrived.header("authorization") == f"Bearer {SECRET}"
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("status", [0, 7, 255])
def test_it_exits_as_the_command_does(at: Setup, status: int) -> None:
    assert at.run("sh", "-c", f"exit {status}").returncode == status


def test_a_command_that_a_signal_ended(at: Setup) -> None:
    assert at.run("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_its_output_and_input_are_the_commands_own(at: Setup) -> None:
    done = subprocess.run(
        at.kb.command("run", "--agent", "bot", "--", "cat"),
        input="through",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(),
    )
    assert done.stdout == "through"
    assert "acting as an administrator" in done.stderr  # said plainly, every time


def test_the_token_ends_with_the_run(at: Setup) -> None:
    done = at.run("sh", "-c", 'echo "$HTTPS_PROXY"')
    proxy = done.stdout.strip()
    assert proxy.startswith("http://bot:") and proxy.endswith(f"@127.0.0.1:{at.kb.proxy_port}")
    left = subprocess.run(
        ["curl", "-s", "--proxy", proxy, "--cacert", str(at.kb.ca_file), "-o", os.devnull,
         "-w", "%{http_connect}", at.kb.upstream.url + "/echo"],
        capture_output=True, text=True, timeout=60, check=False, env=environment(),
    )  # fmt: skip
    assert left.stdout == "407"
    types = [r["type"] for r in at.kb.records(agent="bot") if r["type"].startswith("agent.token")]
    assert types.count("agent.token") == types.count("agent.token_ended") > 0


def test_a_rule_about_runs_is_for_them_only(at: Setup) -> None:
    """Whose token it is says which run it is; nothing that a call claims does."""
    url = at.kb.upstream.url + "/echo"
    done = at.run("curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "-X", "PUT", url)
    assert done.stdout == "200"
    run = at.kb.records(type="call.sent", agent="bot")[-1]["data"]["what"]["run"]
    begun = [r["data"]["run"] for r in at.kb.records(type="agent.token", agent="bot")]
    assert begun[-1] == run
    count = len(at.kb.upstream.requests)
    for claim in ("Keybroker-Run", "X-Keybroker-Run", "Keybroker-Token", "X-Run-Id"):
        outside = at.kb.curl(at.bot, url, "-X", "PUT", "-H", f"{claim}: {run}")
        assert outside.code == "policy_denied", (claim, outside)
    for name in (run, f"bot+{run}", f"bot;run={run}"):
        claimed = replace(at.bot, proxy_url=at.bot.proxy_url.replace("//bot:", f"//{name}:"))
        assert at.kb.curl(claimed, url, "-X", "PUT").status != 200
    assert len(at.kb.upstream.requests) == count


def test_the_command_gets_no_key_to_keybroker_or_the_vault(at: Setup) -> None:
    env = {
        "KEYBROKER_TOKEN": "reviewer-token",
        "KEYBROKER_WORKSPACE": str(at.kb.workspace),
        "VAULT_TOKEN": "vault-token",
        "NO_PROXY": "localhost",
        "ALL_PROXY": "http://127.0.0.1:9",
        "KEPT": "yes",
    }
    done = at.run(
        sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))", env=env
    )
    seen = json.loads(done.stdout)
    assert seen["KEPT"] == "yes" and seen["NO_PROXY"] == "" and "ALL_PROXY" not in seen
    assert not {name for name in seen if name.startswith("KEYBROKER") or "VAULT" in name}
    assert str(at.kb.workspace) not in json.dumps(
        {k: v for k, v in seen.items() if k not in ("PWD", "OLDPWD", "PYTEST_CURRENT_TEST")}
    )
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert not Path(seen[name]).exists()  # the folder went with the run


def test_variables_of_the_agents_credentials_hold_placeholders(at: Setup) -> None:
    """A real key that the parent has is not handed on; of credentials of others there is none."""
    env = {"PAY_API_KEY": SECRET}
    script = 'echo "$PAY_API_KEY"; echo "${IDLE_KEY-none}"'
    first, second = (at.run("sh", "-c", script, env=env) for _ in range(2))
    placeholder, idle = first.stdout.split()
    assert re.fullmatch(r"sk_test_[0-9a-f]{24}", placeholder) and idle == "none"
    assert second.stdout == first.stdout  # the same in every run
    url = f"{at.kb.upstream.url}/echo"
    done = at.run("sh", "-c", f'curl -sS -H "Authorization: Bearer $PAY_API_KEY" {url}')
    assert done.returncode == 0, done.stderr
    assert at.kb.upstream.requests[-1].header("authorization") == f"Bearer {SECRET}"
    moved = at.run("sh", "-c", f'curl -sS "{url}?key=$PAY_API_KEY"')
    assert json.loads(moved.stdout)["code"] == "placeholder_misplaced"


SMUGGLED = {
    "NO_PROXY": "*", "no_proxy": "*", "No_Proxy": "*", "npm_config_noproxy": "localhost",
    "NPM_CONFIG_NOPROXY": "localhost", "npm_config_https-proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9", "PIP_PROXY": "http://127.0.0.1:9",
    "GIT_CONFIG_PARAMETERS": "'http.proxy='", "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "http.proxy", "GIT_CONFIG_VALUE_0": "", "GIT_SSL_NO_VERIFY": "1",
    "NODE_USE_ENV_PROXY": "0", "REQUEST_METHOD": "GET",
    "JAVA_TOOL_OPTIONS": "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9",
    "_JAVA_OPTIONS": "-Dhttps.proxyPort=9", "SSL_CERT_FILE": "/nowhere",
}  # fmt: skip
"""Each would lead some willing client past the proxy, or to another."""


def test_nothing_of_the_parents_leads_past_the_proxy(at: Setup, tmp_path: Path) -> None:
    (tmp_path / ".curlrc").write_text('noproxy = "*"\ninsecure\n')
    (tmp_path / ".wgetrc").write_text("use_proxy = off\n")
    (tmp_path / ".gitconfig").write_text("[http]\nproxy = \nsslVerify = false\n")
    env = SMUGGLED | {"CURL_HOME": str(tmp_path), "HOME": str(tmp_path)}
    env["WGETRC"] = str(tmp_path / ".wgetrc")
    for name, command in {
        "curl": ["curl", "-sS"],
        "wget": ["wget", "-nv", "-O", "-"],
        "git": ["git", "ls-remote"],
        "urllib": CLIENTS["urllib"][:-1],
        "requests": CLIENTS["requests"][:-1],
    }.items():
        count = len(at.kb.upstream.requests)
        at.run(*command, f"{at.kb.upstream.url}/echo?by={name}", env=env)
        arrived = at.kb.upstream.requests[count:]
        assert arrived, f"{name} did not get through"
        for request in arrived:  # past the proxy there would be no credential
            assert request.header("authorization") == f"Bearer {SECRET}", name


def test_the_reason_of_the_run_is_shown_to_the_reviewer(at: Setup) -> None:
    alice = at.kb.user("alice")
    command = at.kb.command(
        "run", "--agent", "bot", "--reason", "nightly clean-up", "--",
        "curl", "-s", "-d", "x=1", at.kb.upstream.url + "/echo",
    )  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
    )
    (card,) = at.kb.pending(alice)
    shown = at.kb.api(alice, f"/api/v1/approvals/{card['id']}")[1]
    assert "nightly clean-up" in json.dumps(shown)
    assert at.kb.vote(alice, card["id"], "approve")[0] == 200
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(out)["body"] == "x=1"


def test_a_tunnelled_host_is_passed_on_undecrypted(at: Setup) -> None:
    """The client verifies the upstream itself; the ledger knows of the tunnel, not of the call."""
    url = at.tunnel.url_for("opaque.localhost") + "/echo?t=SECRETPATH99"
    done = at.run("curl", "-sS", "--cacert", str(at.tunnel.ca_file), url)
    assert done.returncode == 0, done.stderr
    (arrived,) = at.tunnel.requests
    assert arrived.header("authorization") is None
    (opened,) = at.kb.records(type="tunnel.opened")
    assert (opened["data"]["host"], opened["data"]["port"]) == (
        "opaque.localhost",
        at.tunnel.port,
    )
    wait_until(lambda: bool(at.kb.records(type="tunnel.closed")), what="the tunnel is closed")
    (closed,) = at.kb.records(type="tunnel.closed")
    assert closed["data"]["received_bytes"] > 0 and closed["data"]["sent_bytes"] > 0
    assert "SECRETPATH99" not in at.kb.cli("audit", "export")


def test_a_long_command_is_told_to_stop(at: Setup) -> None:
    process = subprocess.Popen(
        at.kb.command("run", "--agent", "bot", "--", "sh", "-c", "echo up; exec sleep 60"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    process.stdout.close()


def test_what_cannot_run_is_said_in_one_line(at: Setup) -> None:
    at.kb.agent("gone")
    at.kb.cli("agent", "revoke", "gone")
    for arguments, said in (
        (("run", "--agent", "bot", "--", "no-such-command-here"), "no-such-command-here"),
        (("run", "--agent", "nobody", "--", "true"), "nobody"),
        (("run", "--agent", "gone", "--", "true"), "revoked"),
    ):
        done = at.kb.run(*arguments)
        assert done.returncode != 0 and said in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not [r for r in at.kb.records(type="agent.token") if r["agent"] != "bot"]


def test_without_a_proxy_nothing_is_run(at: Setup, tmp_path: Path) -> None:
    other = Program(tmp_path, at.kb.upstream, proxy_port=free_port())
    other.init()
    other.agent("bot")
    done = other.run("run", "--agent", "bot", "--", "sh", "-c", f"touch {tmp_path}/ran")
    assert done.returncode != 0 and "keybroker up" in done.stderr
    assert not (tmp_path / "ran").exists()


_TYPIST = 'print ioctl(STDIN, 0x5412, my $key = "x") ? "typed" : "refused"'
"""TIOCSTI, in perl: git brings it, and any user may start it."""


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts commands as others")
def test_another_user_cannot_type_into_the_terminal() -> None:
    """Who has the terminal of its owner could give commands to that owner's shell."""
    script = (
        "import os; from keybroker.account import named; from keybroker.runner import _open_apart;"
        f" _open_apart(['perl', '-e', {_TYPIST!r}], dict(os.environ), named('nobody')).wait()"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir("/")
        os.execv(sys.executable, [sys.executable, "-c", script])
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while piece := os.read(terminal, 4096):
            said += piece
    os.close(terminal)
    os.waitpid(pid, 0)
    assert said == b"refused"
