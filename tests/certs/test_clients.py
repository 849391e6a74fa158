"""Real clients, given these variables, trust a leaf of ours; without them they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.bundle import write_bundle
from certs.clients import VARIABLES, trust_environment
from tests.support.upstream import Upstream

PROXY = "http://bot:token@127.0.0.1:8080"


def test_names_every_variable_once() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))


def test_values() -> None:
    made = trust_environment(Path("/w/ca.pem"), Path("/w/bundle.pem"), PROXY)
    assert made["HTTPS_PROXY"] == made["https_proxy"] == made["http_proxy"] == PROXY
    assert made["NO_PROXY"] == made["no_proxy"] == ""
    assert made["NODE_EXTRA_CA_CERTS"] == "/w/ca.pem"
    assert made["NODE_USE_ENV_PROXY"] == "1"
    replaces = {name for name, value in made.items() if value == "/w/bundle.pem"}
    assert replaces >= {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"}


CLIENTS = {
    "curl": ["curl", "-sS"],
    "urllib": [
        sys.executable,
        "-c",
        "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())",
    ],
    "requests": [
        sys.executable,
        "-c",
        "import sys, requests; print(requests.get(sys.argv[1]).text)",
    ],
    "httpx": [sys.executable, "-c", "import sys, httpx; print(httpx.get(sys.argv[1]).text)"],
    "git": ["git", "ls-remote"],
}


@pytest.mark.e2e
@pytest.mark.parametrize("client", CLIENTS)
def test_clients_trust_the_authority(client: str, tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "ca")
    write_bundle(tmp_path / "bundle.pem", authority)
    made = trust_environment(tmp_path / "ca" / "ca.pem", tmp_path / "bundle.pem", PROXY)
    # Without the proxy: only whom these clients trust is the question here.
    trust = {name: value for name, value in made.items() if value != PROXY}
    clean = {name: value for name, value in os.environ.items() if name not in made}
    with Upstream() as upstream:
        leaf = authority.leaf("localhost")
        (tmp_path / "leaf.pem").write_bytes(leaf.key_pem + leaf.cert_pem)
        assert upstream.context
        upstream.context.load_cert_chain(tmp_path / "leaf.pem")
        command = [*CLIENTS[client], upstream.url + "/status/200"]
        done = subprocess.run(
            command, env=clean | trust, capture_output=True, text=True, timeout=60
        )
        arrived = len(upstream.requests)
        without = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=60)
        assert arrived > 0, done.stderr
        assert len(upstream.requests) == arrived, without.stdout
        assert without.returncode != 0
