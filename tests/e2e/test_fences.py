"""What the whole program keeps out of reach, whatever its settings, its umask or its luck."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.program import Program
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

POLICY = """
version: 1
rules:
  - {id: open, agents: [bot], match: {host: "$HOST", path: /**}, effect: allow}
  - {id: page, agents: [bot], match: {host: "page.localhost:PORT", path: /**}, effect: allow}
"""


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Its page is opened through the upstream, as if that were a TLS proxy before it."""
    with Upstream() as upstream:
        policy = POLICY.replace("PORT", str(upstream.port))
        program = Program(tmp_path_factory.mktemp("fences"), upstream, policy=policy)
        program.init()
        settings = program.workspace / "keybroker.yaml"
        listen = f"admin: {{listen: 127.0.0.1:{program.admin_port}"
        url = f', url: "https://page.localhost:{upstream.port}"'
        settings.write_text(settings.read_text().replace(listen, listen + url))
        program.start()
        yield program
        program.stop()


def test_the_page_is_not_reached_by_the_name_that_people_use(kb: Program) -> None:
    """Law 4, with a TLS proxy before the page and a rule that is too wide."""
    bot = kb.agent("bot")
    assert kb.curl(bot, kb.upstream.url + "/echo").status == 200
    count = len(kb.upstream.requests)
    reply = kb.curl(bot, f"https://page.localhost:{kb.upstream.port}/login")
    assert (reply.status, reply.code) == (403, "egress_refused")
    assert len(kb.upstream.requests) == count
