"""The whole program with one agent, one person and two upstreams, of HTTP/1.1 and of HTTP/2.

    with running(tmp_path, rules=RULES, secret="sk_live_canary") as at:
        done = at.kb.curl(at.bot, at.h2.url + "/echo")

In the rules `$BOTH` stands for the two hosts, `$HOST` for the first; `use: [pay]` puts the secret
in. One person is enough for a medium risk.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Upstream

_HEAD = """\
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: [$BOTH], inject: bearer}
tiers:
  medium: {exclude: []}
rules:
"""


@dataclass(frozen=True)
class TwoUpstreams:
    """Everything that a test of it needs."""

    kb: Program
    bot: AgentKey
    h1: Upstream
    h2: Upstream
    """Speaks HTTP/1.1 as well."""
    boss: str
    """The person's API token."""

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(
            proxy=self.bot.proxy_url,
            verify=ssl.create_default_context(cafile=str(self.kb.ca_file)),
            timeout=60,
            trust_env=False,
            **options,
        )

    def tls(self, protocol: str = "http/1.1") -> ssl.SSLSocket:
        """A connection in a tunnel to the first upstream, byte by byte."""
        raw = self.kb.connect(self.bot, f"localhost:{self.h1.port}")
        context = ssl.create_default_context(cafile=str(self.kb.ca_file))
        context.set_alpn_protocols([protocol])
        return context.wrap_socket(raw, server_hostname="localhost")

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """That of a request over it."""
        first = [f"{method} {path} HTTP/1.1", f"Host: localhost:{self.h1.port}"]
        return "\r\n".join([*first, *lines, "", ""]).encode()

    def record(self, call: str, *kinds: str) -> tuple[str, dict[str, Any]]:
        """Type and data of the call's first record of one of these types, once there is one."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [r for r in self.kb.records(call=call) if r["type"] in kinds]
            return bool(found)

        wait_until(look, what=f"{kinds} of {call}")
        return found[0]["type"], found[0]["data"]

    def about(self, call: str, kind: str = "call.completed") -> dict[str, Any]:
        """The data of the call's record of this type, once there is one."""
        return self.record(call, kind)[1]

    def result(self, call: str) -> tuple[str, dict[str, Any]]:
        """Type and data of what tells the call's end, once it is there."""
        return self.record(call, "call.completed", "call.failed")


@contextmanager
def running(directory: Path, *, rules: str, secret: str, **settings: Any) -> Iterator[TwoUpstreams]:
    """`settings`: as `Program` takes them."""
    with Upstream() as h1, Upstream(http2=True, ca=h1.ca) as h2:
        both = f'"localhost:{h1.port}", "localhost:{h2.port}"'
        policy = (_HEAD + rules).replace("$BOTH", both)
        with Program(directory, h1, policy=policy, **settings) as kb:
            kb.secret("kv/pay", "api_key", secret)
            yield TwoUpstreams(kb, kb.agent("bot"), h1, h2, kb.user("boss"))
