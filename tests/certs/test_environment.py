"""The environment of a child process: its files, what is set, and what is taken out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from certs.authority import Authority
from certs.environment import STORE_PASSWORD, TrustFiles, client_variables, led_through

PROXY = "http://bot:token@127.0.0.1:8080"
OURS = client_variables(TrustFiles(Path("/run")), PROXY)


def test_values() -> None:
    assert OURS["HTTPS_PROXY"] == OURS["https_proxy"] == OURS["http_proxy"] == PROXY
    assert OURS["NO_PROXY"] == OURS["no_proxy"] == OURS["npm_config_noproxy"] == ""
    assert OURS["NODE_EXTRA_CA_CERTS"] == "/run/ca.pem"
    assert OURS["NODE_USE_ENV_PROXY"] == "1"
    assert OURS["WGETRC"] == "/run/wgetrc"
    assert OURS["CURL_HOME"] == "/run"
    replaces = {name for name, value in OURS.items() if value == "/run/bundle.pem"}
    assert replaces >= {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"}


def test_java_gets_place_and_trust_store_but_no_token() -> None:
    options = OURS["JAVA_TOOL_OPTIONS"].split(" ")
    assert "-Dhttps.proxyHost=127.0.0.1" in options and "-Dhttps.proxyPort=8080" in options
    assert "-Dhttp.nonProxyHosts=" in options
    assert "-Djavax.net.ssl.trustStore=/run/truststore.p12" in options
    assert "token" not in OURS["JAVA_TOOL_OPTIONS"]  # Java prints it at every start


def test_files_are_for_everybody_to_read_and_hold_our_certificate(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    authority = Authority.load_or_create(tmp_path / "ca")
    files = TrustFiles.write(folder, authority)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    assert files.ca.read_bytes() == authority.pem
    assert files.bundle.read_bytes().endswith(authority.pem)
    assert str(files.bundle) in files.wgetrc.read_text()
    assert (folder / ".curlrc").exists()
    store = pkcs12.load_pkcs12(files.java.read_bytes(), STORE_PASSWORD.encode())
    assert len(store.additional_certs) > 1


def test_a_root_that_cannot_be_read_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.load_or_create(tmp_path / "ca")
    broken = tmp_path / "roots.pem"
    broken.write_bytes(
        b"-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))
    folder = tmp_path / "run"
    folder.mkdir()
    files = TrustFiles.write(folder, authority)
    store = pkcs12.load_pkcs12(files.java.read_bytes(), STORE_PASSWORD.encode())
    assert len(store.additional_certs) == 1


@pytest.mark.parametrize(
    "name",
    [
        "NO_PROXY", "no_proxy", "No_Proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "Https_Proxy",
        "grpc_proxy", "no_grpc_proxy", "npm_config_noproxy", "NPM_CONFIG_NOPROXY",
        "npm_config_proxy", "npm_config_https-proxy", "NPM_CONFIG_HTTPS_PROXY", "PIP_PROXY",
        "CARGO_HTTP_PROXY", "GLOBAL_AGENT_NO_PROXY", "npm_config_strict-ssl",
        "NPM_CONFIG_STRICT_SSL", "Npm_Config_CAFile", "GIT_SSL_NO_VERIFY", "GIT_CONFIG_PARAMETERS",
        "GIT_PROXY_COMMAND", "NODE_TLS_REJECT_UNAUTHORIZED", "REQUEST_METHOD", "_JAVA_OPTIONS",
        "JDK_JAVA_OPTIONS", "SOCKS_SERVER", "CURL_HOME", "WGETRC",
    ],
)  # fmt: skip
def test_what_would_lead_past_the_proxy_is_gone(name: str) -> None:
    made = led_through({"PATH": "/bin", name: "elsewhere"}, OURS)
    assert "elsewhere" not in made.values()
    assert made == OURS | {"PATH": "/bin"}


def test_settings_for_git_are_kept_but_for_those_about_http() -> None:
    present = {
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        "GIT_CONFIG_KEY_1": "HTTP.https://a.example.proxy", "GIT_CONFIG_VALUE_1": "",
        "GIT_CONFIG_KEY_2": "http.sslVerify", "GIT_CONFIG_VALUE_2": "false",
        "GIT_CONFIG_KEY_9": "http.proxy", "GIT_CONFIG_VALUE_9": "http://elsewhere",
    }  # fmt: skip
    made = led_through(present, OURS)
    assert {name: made[name] for name in made if name.startswith("GIT_CONFIG")} == {
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        "GIT_CONFIG_KEY_1": "http.proxy", "GIT_CONFIG_VALUE_1": PROXY,
        "GIT_CONFIG_KEY_2": "http.version", "GIT_CONFIG_VALUE_2": "HTTP/1.1",
    }  # fmt: skip


@pytest.mark.parametrize("count", ["", "many", "-1", "99999", "7"])
def test_settings_for_git_that_it_would_not_take_count_for_nothing(count: str) -> None:
    made = led_through({"GIT_CONFIG_COUNT": count}, OURS)
    assert made == OURS


def test_ours_come_last_for_java() -> None:
    made = led_through({"JAVA_TOOL_OPTIONS": "-Xmx1g -Dhttps.proxyHost=elsewhere"}, OURS)
    assert made["JAVA_TOOL_OPTIONS"].startswith("-Xmx1g ")
    assert made["JAVA_TOOL_OPTIONS"].endswith(OURS["JAVA_TOOL_OPTIONS"])


@pytest.mark.e2e
def test_git_takes_the_proxy_from_it_whatever_its_files_say(tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text("[http]\nproxy = http://elsewhere\n")
    made = led_through({"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, OURS)
    done = subprocess.run(
        ["git", "config", "--get-urlmatch", "http.proxy", "https://a.example/"],
        env=made, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == PROXY
