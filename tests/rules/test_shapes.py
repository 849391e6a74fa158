"""Names of variables and shapes of placeholders: what is taken, what is refused, what is made."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.clients import VARIABLES, WITHHELD
from rules.shapes import DEFAULT_SHAPE, MAX_LENGTH, fill_shape, parse_shape, parse_variable


@pytest.mark.parametrize(
    "name",
    [
        "STRIPE_API_KEY", "GITHUB_TOKEN", "GH_TOKEN", "OPENAI_API_KEY", "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "NODE_AUTH_TOKEN", "UV_PUBLISH_TOKEN", "DD_API_KEY",
        "GOOGLE_API_KEY", "HF_TOKEN", "TWILIO_AUTH", "SENTRY_DSN", "X",
    ],
)  # fmt: skip
def test_variables_for_keys(name: str) -> None:
    assert parse_variable(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "NODE_OPTIONS",
        "PYTHONPATH", "PYTHONSTARTUP", "HTTPS_PROXY", "NO_PROXY", "ANY_PROXY", "BASH_ENV", "ENV",
        "IFS", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "GIT_SSH_COMMAND", "GIT_ASKPASS",
        "SSL_CERT_FILE", "SSLKEYLOGFILE", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "KUBECONFIG",
        "AWS_ENDPOINT_URL", "OPENAI_BASE_URL", "PGHOST", "KEYBROKER_TOKEN", "KEYBROKER_WORKSPACE",
        "VAULT_TOKEN", "VAULT_SECRET_ID", "BAO_TOKEN", "PS4", "PROMPT_COMMAND", "SSH_AUTH_SOCK",
        "GLIBC_TUNABLES", "GCONV_PATH", "LC_ALL", "UV_INSECURE_HOST", "CURL_HOME", "WGETRC",
    ],
)  # fmt: skip
def test_variables_that_change_programs(name: str) -> None:
    with pytest.raises(ValueError, match="changes what programs do"):
        parse_variable(name)


@pytest.mark.parametrize("name", ["", "lower", "1X", "A-B", "A B", "A=B", "Ä", "A\n", "A" * 101])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a name for a variable"):
        parse_variable(name)


@pytest.mark.parametrize("name", sorted({v.name for v in VARIABLES} | WITHHELD))
def test_no_variable_of_a_run_can_be_taken(name: str) -> None:
    """What `keybroker run` sets or withholds is never a placeholder's."""
    with pytest.raises(ValueError, match=r"variable|programs"):
        parse_variable(name)


@pytest.mark.parametrize(
    ("shape", "looks"),
    [
        ("sk_test_{hex:24}", r"sk_test_[0-9a-f]{24}"),
        ("AKIA{upper:16}", r"AKIA[A-Z0-9]{16}"),
        ("ghp_{alnum:36}", r"ghp_[A-Za-z0-9]{36}"),
        ("xoxb-{digits:12}-{digits:12}-{alnum:24}", r"xoxb-\d{12}-\d{12}-[A-Za-z0-9]{24}"),
        (DEFAULT_SHAPE, r"kb_placeholder_[0-9a-f]{32}"),
    ],
)
def test_shapes(shape: str, looks: str) -> None:
    assert parse_shape(shape) == shape
    assert re.fullmatch(looks, fill_shape(shape, 2**2000 - 12345))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("sk_test_", "too little"),
        ("{hex:15}", "too little"),
        ("{digits:19}", "too little"),
        ("{hex:201}", "at most 200"),
        ("x" * 190 + "{hex:16}", "at most 200"),
        ("{octal:40}", "is unknown"),
        ("{hex:0}{hex:20}", "a shape is"),
        ("{hex}", "a shape is"),
        ("{secret}", "a shape is"),
        ("{{hex:20}}", "a shape is"),
        ("a b{hex:20}", "a shape is"),
        ("$(x){hex:20}", "a shape is"),
        ("ü{hex:20}", "a shape is"),
        ("{hex:20}\n", "a shape is"),
    ],
)
def test_shapes_that_are_none(shape: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_shape(shape)


@given(st.integers(min_value=0, max_value=2**2048), st.integers(16, MAX_LENGTH))
def test_every_number_fills_a_shape(number: int, length: int) -> None:
    assert re.fullmatch(rf"[0-9a-f]{{{length}}}", fill_shape(f"{{hex:{length}}}", number))
