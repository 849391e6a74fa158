"""An agent's environment, looked over: each usual trouble is found and comes with its fix."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.clients import VARIABLES, WITHHELD
from certs.environment import TrustFiles, client_variables
from keybroker.doctor import Finding, examine_client
from keybroker.doctor.client import variable_findings

PROXY = "http://bot:token-7@127.0.0.1:8080"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def good(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `keybroker run` sets."""
    return client_variables(TrustFiles.write(tmp_path_factory.mktemp("run"), authority), PROXY)


def unwell(findings: Iterator[Finding] | list[Finding]) -> dict[str, Finding]:
    found = {f.says: f for f in findings if f.state != "ok"}
    assert all(finding.fix for finding in found.values())
    return found


def test_what_a_run_sets_is_well(authority: Authority, good: dict[str, str]) -> None:
    assert unwell(variable_findings(good, authority.pem)) == {}


@pytest.mark.parametrize(
    "name",
    sorted(WITHHELD)
    + [v.name for v in VARIABLES if v.value == ""]
    + ["PIP_PROXY", "npm_config_https_proxy", "ALL_PROXY", "No_Proxy", "NODE_USE_ENV_PROXY",
       "NPM_CONFIG_NOPROXY", "npm_config_https-proxy", "grpc_proxy"],
)  # fmt: skip
def test_going_direct(name: str, authority: Authority, good: dict[str, str]) -> None:
    ((says, finding),) = unwell(
        variable_findings(good | {name: "elsewhere"}, authority.pem)
    ).items()
    assert says.startswith(f"{name} is set, which can lead clients past the proxy")
    assert (finding.check, finding.state) == ("direct", "wrong")
    assert name in finding.fix


def test_a_file_without_the_certificate(
    authority: Authority, good: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.load_or_create(tmp_path / "other-ca").pem)
    changed = good | {"CURL_CA_BUNDLE": str(other), "NODE_EXTRA_CA_CERTS": str(tmp_path / "none")}
    found = unwell(variable_findings(changed, authority.pem))
    assert [says.split(" names")[0] for says in found] == ["CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"]
    lacking, absent = found.values()
    assert "lacks Keybroker's present certificate" in lacking.says and "ca show" in lacking.fix
    assert "cannot be read" in absent.says


def test_variables_that_are_missing(authority: Authority, good: dict[str, str]) -> None:
    del good["GIT_SSL_CAINFO"]
    (finding,) = unwell(variable_findings(good, authority.pem)).values()
    assert (finding.state, finding.check) == ("warning", "trust")
    assert finding.says.startswith("not set: GIT_SSL_CAINFO;")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "HTTPS_PROXY is not set: clients go direct"),
        ({"HTTP_PROXY": PROXY}, "HTTPS_PROXY is not set: clients go direct"),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "http://a:b@c:1"}, "name different proxies"),
        ({"HTTPS_PROXY": "http://127.0.0.1:8080"}, "no name and token"),
        ({"HTTPS_PROXY": "http://bot@127.0.0.1:8080"}, "no name and token"),
        ({"HTTPS_PROXY": "http://bot:t@127.0.0.1:port"}, "no name and token"),
        ({"HTTPS_PROXY": "http://bot:token-7@127.0.0.1:1"}, "does not answer"),
    ],
)
def test_no_way_to_the_proxy(environment: dict[str, str], says: str, tmp_path: Path) -> None:
    findings = examine_client(environment, tmp_path)
    wrong = [finding for finding in findings if finding.state == "wrong"]
    assert [f.check for f in wrong] == ["proxy"] and says in wrong[0].says and wrong[0].fix
    assert not any("token-7" in f.says + f.fix for f in findings)


@pytest.mark.parametrize(
    ("status", "says"),
    [(407, "does not know bot with this token"), (502, "answered 502"), (200, "is no Keybroker")],
)
def test_another_answers_there(status: int, says: str, tmp_path: Path) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://bot:token-7@127.0.0.1:{server.server_port}"
        findings = examine_client({"HTTPS_PROXY": url}, tmp_path)
    (wrong,) = [finding for finding in findings if finding.state == "wrong"]
    assert says in wrong.says and wrong.fix
    assert "token-7" not in wrong.says + wrong.fix


def test_an_agent_that_can_read_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    findings = examine_client({}, tmp_path)
    (found,) = [f for f in findings if f.check == "containment"]
    assert found.state == "wrong" and "act as an administrator" in found.says
