"""Every client of the table, unmodified, through `keybroker run`: allowed, denied, held.

The table is certs.clients.CLIENTS; how each is started stands here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from certs.clients import CLIENTS, Client
from keybroker.compose import authority, client_environment
from keybroker.workspace import Workspace
from tests.clients.origin import Origin
from tests.support.bao import free_port
from tests.support.grpc_upstream import GrpcUpstream
from tests.support.program import AgentKey, Program, environment, wait_until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
INSTALLED = ROOT / ".clients"
"""What scripts/ensure-clients puts there."""
PYTHON = INSTALLED / "venv" / "bin"
NODE = INSTALLED / "node" / "node_modules"
SECRET = "sk_live_clients_Zt6wQ1nB8r"
POLICY = """
version: 1
credentials:
  bearer: {secret: "kv/up#key", inject: bearer,
           hosts: ["*.bearer.localhost:$PORT", "*.bearer.localhost:$GRPC"],
           env: {name: OPENAI_API_KEY, shape: "sk-{alnum:48}"}}
  keyed:
    secret: "kv/up#key"
    hosts: ["*.keyed.localhost:$PORT"]
    inject: {header: X-Api-Key, format: "{secret}"}
  claude:
    secret: "kv/up#key"
    hosts: ["*.claude.localhost:$PORT"]
    inject: bearer
    env: {name: ANTHROPIC_API_KEY, shape: "sk-ant-api03-{alnum:64}"}
tiers: {medium: {exclude: []}}
rules:
  - id: allowed
    agents: [bot]
    match:
      - {host: ["allowed.bearer.localhost:$PORT", "allowed.bearer.localhost:$GRPC"]}
      - {host: "allowed.bearer.localhost:$PORT", path: "/npm/{+package}"}
    effect: allow
    use: [bearer]
  - id: held
    agents: [bot]
    match:
      - {host: ["held.bearer.localhost:$PORT", "held.bearer.localhost:$GRPC"]}
      - {host: "held.bearer.localhost:$PORT", path: "/npm/{+package}"}
    effect: hold
    use: [bearer]
  - {id: allowed-keyed, agents: [bot], match: {host: "allowed.keyed.localhost:$PORT"},
     effect: allow, use: [keyed]}
  - {id: allowed-claude, agents: [bot], match: {host: "allowed.claude.localhost:$PORT"},
     effect: allow, use: [claude]}
  - {id: held-claude, agents: [bot], match: {host: "held.claude.localhost:$PORT"}, effect: hold,
     use: [claude]}
  - {id: held-keyed, agents: [bot], match: {host: "held.keyed.localhost:$PORT"}, effect: hold,
     use: [keyed]}
"""


@dataclass(frozen=True)
class Start:
    """How a client is started; its last argument is the URL."""

    command: tuple[str, ...]
    path: str = "/echo"
    """What is asked for; clients of services add their own paths to the host."""
    slot: str = "bearer"
    """The credential of its hosts."""
    grpc: bool = False
    """It calls the gRPC server, which has a port of its own."""
    env: Mapping[str, str] = field(default_factory=dict)
    """For tries without `keybroker run`: a key to start with, or an end to its own repeats."""


def python(script: str, **options: object) -> Start:
    return Start((str(PYTHON / "python"), str(SCRIPTS / script)), **options)  # type: ignore[arg-type]


def node(script: str) -> Start:
    # A module is looked for beside the script that names it.
    return Start(("node", str(INSTALLED / "node" / script)))


def shell(script: str, **options: object) -> Start:
    return Start(("sh", str(SCRIPTS / script)), path="", **options)  # type: ignore[arg-type]


STARTS = {
    "curl": Start(("curl", "-sS", "--fail-with-body")),
    "wget": Start(("wget", "-nv", "-O", "-")),
    "git": shell("git.sh"),
    "requests": python("requests_.py"),
    "httpx": python("httpx_.py"),
    "aiohttp": python("aiohttp_.py"),
    "urllib": python("urllib_.py"),
    "boto3": python("boto3_.py", path="", slot="keyed"),
    "openai": python("openai_.py", path="", env={"OPENAI_API_KEY": "any"}),
    "anthropic": python("anthropic_.py", path="", slot="claude", env={"ANTHROPIC_API_KEY": "any"}),
    "pip": shell("pip.sh", env={"PIP_RETRIES": "0"}),
    "uv": shell("uv.sh", env={"UV_HTTP_RETRIES": "0"}),
    "Node fetch": node("fetch.mjs"),
    "Node https": node("https.mjs"),
    "undici": node("undici_.mjs"),
    "Node before 22.21": node("env_agent.mjs"),
    "axios": node("axios_.mjs"),
    "got": node("got_.mjs"),
    "npm": shell("npm.sh"),
    "Go net/http": Start((str(INSTALLED / "go" / "client"),)),
    "Java HttpClient": Start(("java", "-cp", str(INSTALLED / "java"), "Client")),
    "grpcio": python("grpc_.py", grpc=True),
    "MCP over HTTP": python("mcp_http.py", path=""),
    "MCP over stdio": python("mcp_stdio.py", env={"OPENAI_API_KEY": f"sk-{'x' * 48}"}),
}

# Programs and files without which a client cannot be tried, besides those of its own command.
PARTS = {"git": ("git",), "pip": ("pip",), "uv": ("uv",), "npm": ("npm",)}


@dataclass(frozen=True)
class Setting:
    """A running program, the upstream behind it, and who approves."""

    kb: Program
    origin: Origin
    grpc: GrpcUpstream
    boss: str
    bot: AgentKey
    variables: Mapping[str, str]
    """What the table's variables are set to, with a token of the agent's own."""

    def url(self, effect: str, start: Start) -> str:
        if start.grpc:
            return f"{effect}.bearer.localhost:{self.grpc.port}"
        return self.origin.url_for(f"{effect}.{start.slot}.localhost") + start.path

    def start(self, client: str, effect: str) -> subprocess.Popen[str]:
        """The client's call, through `keybroker run`."""
        start = STARTS[client]
        return subprocess.Popen(
            self.kb.command("run", "--agent", "bot", "--", *start.command, self.url(effect, start)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment({"PATH": search_path()}),
            start_new_session=True,
        )

    def bare(
        self, client: str, variables: Mapping[str, str], home: Path
    ) -> subprocess.CompletedProcess[str]:
        """The client's allowed call with nothing but these variables."""
        start = STARTS[client]
        bare = {"PATH": search_path(), "HOME": str(home), **start.env, **variables}
        return subprocess.run(
            [*start.command, self.url("allowed", start)],
            env=bare,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def arrived(self, client: str, effect: str) -> list[str]:
        """The credentials of the requests that reached the upstream for this client's host."""
        start = STARTS[client]
        if start.grpc:
            return [metadata["authorization"] for _, metadata in self.grpc.calls]
        host = f"{effect}.{start.slot}.localhost:{self.origin.port}"
        slot = "x-api-key" if start.slot == "keyed" else "authorization"
        here = [
            r for r in self.origin.requests if host in (r.header("host"), r.header(":authority"))
        ]
        return [request.header(slot) or "" for request in here]

    def clear(self) -> None:
        """Nothing has arrived yet."""
        self.origin.clear()
        self.grpc.calls.clear()

    @property
    def count(self) -> int:
        """How much has arrived, wherever."""
        return len(self.origin.requests) + len(self.grpc.calls)


def search_path() -> str:
    return os.pathsep.join([str(INSTALLED / "node" / "bin"), str(PYTHON), os.environ["PATH"]])


@contextmanager
def mcp_upstream() -> Iterator[int]:
    """The MCP server that the upstream passes requests on to."""
    port = free_port()
    command = [str(PYTHON / "python"), str(SCRIPTS / "mcp_upstream.py"), str(port)]
    if not Path(command[0]).exists():
        yield port  # its client is not there either, and says so
        return
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment()) as server:
        try:
            wait_until(lambda: answers(port), what="the MCP server listens")
            yield port
        finally:
            server.terminate()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    directory = tmp_path_factory.mktemp("clients")
    names = [f"{effect}.bearer.localhost" for effect in ("allowed", "held", "denied")]
    with (
        mcp_upstream() as mcp_port,
        Origin(directory, mcp_port, http2=True) as origin,
        GrpcUpstream(origin.ca, names) as grpc,
    ):
        policy = POLICY.replace("$PORT", str(origin.port)).replace("$GRPC", str(grpc.port))
        # The body of a push is whole before it is decided on.
        settings = "60s, body_limit: 32MiB"
        with Program(directory, origin, policy=policy, hold_wait=settings) as kb:
            kb.secret("kv/up", "key", SECRET)
            bot = kb.agent("bot")
            folder = directory / "trust"
            folder.mkdir()
            made = client_environment(folder, authority(Workspace(kb.workspace)), bot.proxy_url)
            yield Setting(kb, origin, grpc, kb.user("boss"), bot, made)


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Client:
    """The client of this test; skips where it is not there, which CI does not allow."""
    row: Client = request.param
    command = STARTS[row.name].command
    files = [part for part in command if part.startswith(str(ROOT))]
    programs = [command[0], *PARTS.get(row.name, ())]
    lacking = [p for p in programs if shutil.which(p, path=search_path()) is None]
    lacking += [file for file in files if not Path(file).exists()]
    if lacking:
        told = f"{', '.join(lacking)} is not there; run scripts/ensure-clients"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    return row


clients = pytest.mark.parametrize("client", CLIENTS, indirect=True, ids=lambda row: row.name)


def test_the_table_has_every_client_that_is_tried() -> None:
    assert [row.name for row in CLIENTS] == list(STARTS)


def finish(at: Setting, process: subprocess.Popen[str]) -> tuple[str, str]:
    """What the client printed. One that hangs is ended, and the failure says how far it came."""
    try:
        return process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed = process.communicate(timeout=10)
        arrived = [(r.method, r.target, len(r.body)) for r in at.origin.requests]
        ended = [(r["type"], r["data"]) for r in at.kb.records()[-12:]]
        pytest.fail(f"hangs; printed {printed}, arrived {arrived}, recorded {ended}")


@clients
def test_an_allowed_call_gets_through_with_the_credential(at: Setting, client: Client) -> None:
    at.clear()
    process = at.start(client.name, "allowed")
    out, err = finish(at, process)
    assert process.returncode == 0, out + err
    arrived = at.arrived(client.name, "allowed")
    assert arrived and all(value.endswith(SECRET) for value in arrived), arrived
    assert SECRET not in out + err


@clients
def test_a_denied_call_fails_and_does_not_leave(at: Setting, client: Client) -> None:
    at.clear()
    process = at.start(client.name, "denied")
    out, err = finish(at, process)
    assert process.returncode != 0, out + err
    if client.name in ("openai", "anthropic"):
        assert "No rule lets agent" in out + err, "the model is told why"
    assert at.count == 0
    assert at.kb.records(type="call.denied")[-1]["agent"] == "bot"


@clients
def test_a_held_call_goes_out_once_it_is_approved(at: Setting, client: Client) -> None:
    at.clear()
    goes_out_once_approved(at, client.name, at.start(client.name, "held"))


def goes_out_once_approved(at: Setting, client: str, process: subprocess.Popen[str]) -> None:
    """A tool makes several calls, and each is held."""
    approved = 0
    while process.poll() is None:
        for card in at.kb.api(at.boss, "/api/v1/approvals?state=pending")[1]["approvals"]:
            assert at.count == approved
            assert at.kb.vote(at.boss, card["id"], "approve")[0] == 200
            approved += 1
        time.sleep(0.1)
    out, err = finish(at, process)
    assert process.returncode == 0, out + err
    arrived = at.arrived(client, "held")
    assert len(arrived) == approved > 0 and all(value.endswith(SECRET) for value in arrived)
    assert SECRET not in out + err


@clients
def test_it_needs_no_more_than_the_table_says(at: Setting, client: Client, tmp_path: Path) -> None:
    at.clear()
    needed = {name: at.variables[name] for name in client.needs}
    done = at.bare(client.name, needed, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert at.arrived(client.name, "allowed")


@clients
def test_it_shows_what_the_table_says_without_a_token(
    at: Setting, client: Client, tmp_path: Path
) -> None:
    at.clear()
    nobody = f"http://127.0.0.1:{at.kb.proxy_port}"
    known = at.variables["HTTPS_PROXY"]
    changed = {name: nobody if value == known else value for name, value in at.variables.items()}
    done = at.bare(client.name, changed, tmp_path)
    assert done.returncode != 0
    assert client.refused in done.stdout + done.stderr
    assert at.count == 0


@pytest.mark.parametrize(
    ("client", "path"), [("openai", "/v1/chat/completions"), ("anthropic", "/v1/messages")]
)
def test_an_sdk_does_not_repeat_what_may_have_taken_effect(
    at: Setting, client: str, path: str, tmp_path: Path
) -> None:
    """The upstream takes the request and hangs up; by themselves they try two times more."""
    at.clear()
    at.origin.heads[path] = lambda _, connection: None
    try:
        process = start_by_base_url(at, client, "allowed", tmp_path)
        out, err = finish(at, process)
    finally:
        del at.origin.heads[path]
    assert process.returncode != 0
    assert [r.path for r in at.origin.requests] == [path]
    assert "look before you repeat it" in out + err


# --- base-URL mode: no proxy, no certificate authority, a base URL and the token ------------------

BY_BASE_URL: dict[str, Callable[[str], dict[str, str]]] = {
    "openai": lambda token: {"OPENAI_API_KEY": token},
    "anthropic": lambda token: {"ANTHROPIC_API_KEY": token},
    "git": lambda token: {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Keybroker-Token: {token}",
    },
}
"""What stands in the environment of each; as docs/gateway.md says."""
by_base_url = pytest.mark.parametrize(
    "client", [c for c in CLIENTS if c.name in BY_BASE_URL], indirect=True, ids=lambda row: row.name
)


def start_by_base_url(at: Setting, client: str, effect: str, home: Path) -> subprocess.Popen[str]:
    start = STARTS[client]
    host = f"{effect}.{start.slot}.localhost:{at.origin.port}"
    return subprocess.Popen(
        [*start.command, f"{at.bot.gateway_url}/{host}{start.path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": search_path(), "HOME": str(home), **BY_BASE_URL[client](at.bot.token)},
    )


@by_base_url
def test_an_allowed_call_by_base_url_alone(at: Setting, client: Client, tmp_path: Path) -> None:
    at.clear()
    process = start_by_base_url(at, client.name, "allowed", tmp_path)
    out, err = finish(at, process)
    assert process.returncode == 0, out + err
    arrived = at.arrived(client.name, "allowed")
    assert arrived and all(value.endswith(SECRET) for value in arrived), arrived
    assert at.kb.records(type="call.sent")[-1]["data"]["what"]["via"] == "gateway"
    for request in at.origin.requests:
        assert at.bot.token not in str(request.headers) + request.target
    assert SECRET not in out + err


@by_base_url
def test_a_denied_call_by_base_url(at: Setting, client: Client, tmp_path: Path) -> None:
    at.clear()
    process = start_by_base_url(at, client.name, "denied", tmp_path)
    out, err = finish(at, process)
    assert process.returncode != 0
    if client.name != "git":  # it shows the status alone
        assert "No rule lets agent" in out + err
    assert at.count == 0


@by_base_url
def test_a_held_call_by_base_url(at: Setting, client: Client, tmp_path: Path) -> None:
    at.clear()
    goes_out_once_approved(at, client.name, start_by_base_url(at, client.name, "held", tmp_path))
