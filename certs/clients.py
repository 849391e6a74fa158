"""Which environment variables make clients use the proxy and trust its authority: a table.

A client that ignores them goes past the proxy; holding it back is the network's task, not theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Value = Literal["proxy", "bundle", "ca", "1", ""]


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: what it is set to and whom it is for.

    `proxy`: the proxy's URL; `bundle`: system roots with Keybroker's, for variables that replace
    the trust store; `ca`: Keybroker's certificate alone, for those that add to it.
    """

    name: str
    value: Value
    clients: str


VARIABLES = (
    Variable("HTTP_PROXY", "proxy", "Python clients, Go, Node; curl ignores it"),
    Variable("HTTPS_PROXY", "proxy", "curl, git, Python clients, Go, Node, npm"),
    Variable("http_proxy", "proxy", "curl, wget"),
    Variable("https_proxy", "proxy", "wget, gRPC: lower case only"),
    # A loopback exception would lead past the proxy, to the admin page among others.
    Variable("NO_PROXY", "", "all of them"),
    Variable("no_proxy", "", "all of them"),
    Variable("SSL_CERT_FILE", "bundle", "OpenSSL, urllib, httpx, aiohttp, openai, uv, Go, gh"),
    Variable("REQUESTS_CA_BUNDLE", "bundle", "requests; it ignores SSL_CERT_FILE"),
    Variable("CURL_CA_BUNDLE", "bundle", "curl"),
    Variable("AWS_CA_BUNDLE", "bundle", "boto3, aws"),
    Variable("GIT_SSL_CAINFO", "bundle", "git"),
    Variable("PIP_CERT", "bundle", "pip"),
    Variable("npm_config_cafile", "bundle", "npm; wins over an npmrc"),
    Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "bundle", "gRPC"),
    Variable("NODE_EXTRA_CA_CERTS", "ca", "Node; adds to its own roots"),
    Variable("NODE_USE_ENV_PROXY", "1", "Node 22 and later: fetch and https use the proxy"),
)


def trust_environment(ca_file: Path, bundle_file: Path, proxy_url: str) -> dict[str, str]:
    """Variables for a child process whose HTTP calls shall go through the proxy.

    `proxy_url` holds the agent's token. Names of both cases are set: clients differ.
    """
    values: Mapping[Value, str] = {
        "proxy": proxy_url,
        "bundle": str(bundle_file),
        "ca": str(ca_file),
        "1": "1",
        "": "",
    }
    return {variable.name: values[variable.value] for variable in VARIABLES}
