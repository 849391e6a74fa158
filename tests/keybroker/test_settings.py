"""Settings: strict, all problems at once with their lines, paths relative to the workspace."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from broker.secrets.access import SERVICE_ACCOUNT_TOKEN
from keybroker.settings import Settings, load_settings
from keybroker.values import Listen
from keybroker.workspace import STARTER_SETTINGS
from rules.errors import InvalidFile


def load(text: str) -> Settings:
    return load_settings(text, file="keybroker.yaml", base=Path("/ws"))


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("text", ["", STARTER_SETTINGS])
def test_defaults_are_the_documented_ones(text: str) -> None:
    settings = load(text)
    assert settings == Settings()
    assert settings.proxy.listen == Listen("127.0.0.1", 8080)
    assert settings.admin.listen == Listen("127.0.0.1", 8081)
    assert settings.proxy.hold_wait == 25
    assert settings.proxy.body_limit == 10 * 1024 * 1024
    assert settings.proxy.worker_count >= 1
    assert settings.vault is None
    assert settings.egress.ca_bundle is None


def test_everything_can_be_set_and_paths_are_relative_to_the_workspace() -> None:
    settings = load("""
proxy: {listen: "[::1]:9000", workers: 3, hold_wait: 4s, body_limit: 1MiB,
  gateway: "https://gw.example:8443/"}
admin: {listen: 0.0.0.0:9001, url: "https://keybroker.example/"}
vault:
  url: https://vault.example:8200
  namespace: team
  ca_bundle: vault.pem
  auth: {approle: {role_id: abc, secret_id_file: /run/secret-id}}
egress: {ca_bundle: certs/up.pem, allow_networks: [10.0.0.0/8, "fd00::/8"]}
""")
    assert settings.proxy.listen == Listen("::1", 9000)
    assert str(settings.proxy.listen) == "[::1]:9000"
    assert settings.proxy.worker_count == 3
    assert settings.proxy.gateway == "https://gw.example:8443"
    assert settings.admin.listen.reach == "127.0.0.1"
    assert settings.admin.url == "https://keybroker.example"
    assert settings.vault is not None
    assert settings.vault.auth.approle is not None
    assert settings.vault.ca_bundle == Path("/ws/vault.pem")
    assert settings.vault.auth.approle.secret_id_file == Path("/run/secret-id")
    assert settings.egress.ca_bundle == Path("/ws/certs/up.pem")
    assert settings.egress.allow_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def test_all_problems_come_at_once_with_their_lines() -> None:
    found = problems(
        "proxy:\n  listen: 8080\n  worker: 2\n  hold_wait: soon\n"
        "store: postgresql://db/kb\nvault: {url: http://vault.example}\n"
        "egress:\n  allow_networks:\n    - 10.0.0.1/8\n"
    )
    text = "\n".join(found)
    assert len(found) >= 6
    assert "keybroker.yaml:2: " in text
    assert "keybroker.yaml:3: " in text
    assert "workers" in text  # did you mean
    assert "keybroker.yaml:4: " in text
    assert "keybroker.yaml:5: " in text
    assert "PostgreSQL is not there yet" in text
    assert "plain http would carry secrets in the clear" in text
    assert "keybroker.yaml:9: " in text


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("vault: embeded", "write `embedded`"),
        ("vault: {url: 'https://v', auth: {}}", "exactly one of `token_file`, `approle`"),
        (
            "vault: {url: 'https://v', auth: {token_file: t, jwt: {role: r, jwt_file: j}}}",
            "exactly one of",
        ),
        (
            "vault: {url: 'https://v', client_key: k, auth: {token_file: t}}",
            "needs a `client_certificate`",
        ),
        ('vault: {url: "https://v", namespace: "a\\r\\nX: y", auth: {token_file: t}}', "ASCII"),
        ("vault: {url: 'https://v', timeout: 30s, auth: {token_file: t}}", "vault.timeout"),
        (
            "vault: {url: 'https://v', auth: {jwt: {role: r, jwt_file: j, mount: ../sys}}}",
            "no dot segments",
        ),
        (
            "vault: {url: 'https://v', auth: {kubernetes: {role: r, mount: /k8s/}}}",
            "where the auth method is mounted",
        ),
        ("admin: {url: 'ftp://x'}", "no URL of the form"),
        ("admin: {url: 'http://x/path'}", "no URL of the form"),
        ("proxy: {listen: '127.0.0.1:70000'}", "no port between"),
        ("proxy: {listen: 'a b:80'}", "is no host"),
        ("proxy: {workers: 0}", "proxy"),
        ("proxy: {workers: true}", "write `auto`"),
        ("egress: {ca_bundle: ~nobody-by-that-name/ca.pem}", "there is no such user"),
        ("store: redis", "`sqlite`"),
        ("- a\n", "must be a mapping"),
    ],
)
def test_a_refusal_says_what_to_write(text: str, because: str) -> None:
    assert because in "\n".join(problems(text))


def test_a_vault_on_this_machine_may_be_plain_http() -> None:
    settings = load("vault: {url: 'http://127.0.0.1:8200', auth: {token_file: t}}")
    assert settings.vault is not None
    assert settings.vault.auth.token_file == Path("/ws/t")


def test_every_way_into_a_vault_can_be_set() -> None:
    head = "vault: {url: 'https://v', timeout: 3s, client_certificate: c.pem, auth: "
    pod = load(head + "{kubernetes: {role: kb}}}").vault
    assert pod is not None and pod.auth.kubernetes is not None
    assert pod.auth.kubernetes.jwt_file == SERVICE_ACCOUNT_TOKEN
    assert pod.auth.kubernetes.mount == "kubernetes"
    assert (pod.timeout, pod.client_certificate, pod.client_key) == (3, Path("/ws/c.pem"), None)
    ci = load(head + "{jwt: {role: kb, jwt_file: token.jwt, mount: ci/jwt}}}").vault
    assert ci is not None and ci.auth.jwt is not None
    assert (ci.auth.jwt.jwt_file, ci.auth.jwt.mount) == (Path("/ws/token.jwt"), "ci/jwt")


def test_tls_of_the_listeners() -> None:
    settings = load("""
proxy: {tls: auto}
admin: {tls: {certificate: page.pem, key: /etc/page-key.pem}}
""")
    assert settings.proxy.tls == "auto"
    assert settings.admin.tls is not None
    assert settings.admin.tls.certificate == Path("/ws/page.pem")
    assert settings.admin.tls.key == Path("/etc/page-key.pem")
    assert settings.proxy.url(Listen("127.0.0.1", 1)) == "https://127.0.0.1:1"
    assert settings.proxy.gateway_url(Listen("::1", 1)) == "https://[::1]:1"
    assert settings.admin.page(8081) == "https://localhost:8081"
    assert Settings().proxy.url(Listen("::1", 1)) == "http://[::1]:1"
    assert Settings().admin.page(8081) == "http://localhost:8081"


def test_a_public_name_is_the_proxy_s_only_if_its_own_tls_ends_there() -> None:
    named = "proxy: {gateway: https://gw.example%s}"
    place = Listen("127.0.0.1", 8080)
    before = load(named % "").proxy
    assert (before.url(place), before.gateway_url(place)) == (
        "http://127.0.0.1:8080",
        "https://gw.example",
    )
    own = load(named % ", tls: auto").proxy
    assert own.url(place) == own.gateway_url(place) == "https://gw.example"


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("proxy: {tls: yes}", "write `auto`, or a mapping"),
        ("proxy: {tls: {certificate: a.pem}}", "key"),
        ("proxy: {tls: auto, gateway: http://gw.example}", "is an https:// URL"),
        ("proxy: {tls: auto, gateway: HTTP://gw.example}", "is an https:// URL"),
        ("admin: {tls: auto}", "tls"),
        ("admin: {tls: {certificate: a, key: b}, url: http://x.example}", "is an https:// URL"),
    ],
)
def test_tls_is_whole_or_refused(text: str, because: str) -> None:
    assert because in "\n".join(problems(text))


def test_each_stage_has_its_time() -> None:
    assert Settings().proxy.timeouts.first_byte == 600
    timeouts = load("proxy: {timeouts: {connect: 3s, first_byte: 2m, idle: 1h}}").proxy.timeouts
    assert (timeouts.connect, timeouts.first_byte, timeouts.idle) == (3, 120, 3600)
    assert timeouts.tls == 10


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("{connect: 0s}", "connect"),
        ("{idle: 2d}", "idle"),
        ("{firstbyte: 1s}", "first_byte"),
        ("{resolve: 20s}", "longer than `stage`"),
    ],
)
def test_times_that_make_no_sense_are_refused(text: str, because: str) -> None:
    assert because in "\n".join(problems(f"proxy: {{timeouts: {text}}}"))


def test_a_proxy_on_the_way_out(tmp_path: Path) -> None:
    settings = load("""
egress:
  proxy: {url: "http://corp-proxy:3128", username: kb, password_file: corp-password}
""")
    proxy = settings.egress.proxy
    assert proxy is not None
    assert proxy.place == ("corp-proxy", 3128)
    assert proxy.password_file == Path("/ws/corp-password")
    assert proxy.resolve == "here"
    whole = load("egress: {proxy: {url: https://corp.example, resolve: proxy, ca_bundle: ca.pem}}")
    assert whole.egress.proxy is not None
    assert whole.egress.proxy.place == ("corp.example", 443)
    for content, password in (("s3cret\n", "s3cret"), ("with space \r\nx", "with space ")):
        (tmp_path / "password").write_text(content)
        named = proxy.model_copy(update={"password_file": tmp_path / "password"})
        assert named.password() == password
    (tmp_path / "password").write_text("\nx")
    with pytest.raises(ValueError, match="empty"):
        named.password()
    (tmp_path / "password").write_text("a\0b\n")
    with pytest.raises(ValueError, match="control characters"):
        named.password()


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("{}", "url"),
        ("{url: corp:3128}", "is no URL"),
        ("{url: 'http://me:pw@corp:3128'}", "leave user name, password and query out"),
        ("{url: 'socks5://corp:1080'}", "is no URL"),
        ("{url: 'http://corp:3128', username: kb}", "together"),
        ("{url: 'http://corp:3128', username: 'a:b', password_file: x}", "without a colon"),
        ("{url: 'http://corp:3128', password: x}", "password_file"),
        ("{url: 'http://corp:3128', resolve: there}", "resolve"),
    ],
)
def test_a_proxy_that_cannot_be_meant_is_refused(text: str, because: str) -> None:
    found = "\n".join(problems(f"egress: {{proxy: {text}}}"))
    assert because in found
    assert "pw@" not in found


# What operators see


def test_a_collector_gets_the_path_of_traces_unless_it_has_one() -> None:
    def url(text: str) -> str | None:
        return load(f"telemetry: {{otlp: {text}}}").telemetry.otlp

    assert url("https://otel.example:4318") == "https://otel.example:4318/v1/traces"
    assert url("http://10.0.0.7:4318/") == "http://10.0.0.7:4318/v1/traces"
    assert url("https://otel.example/own/path") == "https://otel.example/own/path"
    assert load("telemetry: {sample: 1}").telemetry.sample == 1.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("telemetry: {otlp: otel.example:4318}", "is no URL of the form"),
        ("telemetry: {otlp: 'ftp://otel.example'}", "is no URL of the form"),
        ("telemetry: {otlp: 'https://u:p@otel.example'}", "leave user name, password"),
        ("telemetry: {otlp: 'https://otel.example/?k=v'}", "and query out of the URL"),
        ("telemetry: {otlp: 7}", "is no URL of the form"),
        ("telemetry: {otlp: 'http://otel.example', headers_file: h}", "in the clear"),
        ("telemetry: {sample: 1.5}", "less than or equal to 1"),
        ("telemetry: {metrics: everyone}", "'open' or 'token'"),
        ("log: {format: xml}", "'text' or 'json'"),
        ("log: {level: loud}", "'error', 'warning', 'info' or 'debug'"),
        ("log: {calls: 'yes'}", "boolean"),
    ],
)
def test_what_operators_cannot_have_is_said(text: str, complaint: str) -> None:
    [problem] = problems(text)
    assert complaint in problem


def test_headers_may_go_to_this_machine_in_the_clear() -> None:
    assert load("telemetry: {otlp: 'http://localhost:4318', headers_file: h}").telemetry.otlp
