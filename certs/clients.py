"""What HTTP clients need to use the proxy and to trust its authority: two tables, and no code.

`docs/clients.md` is made from them, and tests/clients holds every row against the real client. A
client that ignores its variables goes past the proxy; holding it back is the network's task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Value = Literal["proxy", "bundle", "ca", "1", "", "java", "wgetrc", "curlrc", "git", "true"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: what it is set to and whom it is for.

    `proxy`: the proxy's URL; `bundle`: system roots with Keybroker's, for variables that replace
    the trust store; `ca`: Keybroker's certificate alone, for those that add to it; `java`, `git`:
    what certs.environment makes for them; `wgetrc`, `curlrc`: a file, or its folder, of the run.
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
    Variable("CURL_HOME", "curlrc", "curl; in place of a .curlrc that may name another proxy"),
    Variable("WGETRC", "wgetrc", "wget; it has no variable for certificates"),
    Variable("AWS_CA_BUNDLE", "bundle", "boto3, aws"),
    Variable("GIT_SSL_CAINFO", "bundle", "git"),
    Variable("GIT_CONFIG_COUNT", "git", "git; with KEY_n and VALUE_n; wins over a gitconfig"),
    Variable("PIP_CERT", "bundle", "pip"),
    Variable("PIP_PROXY", "proxy", "pip; wins over a pip.conf"),
    Variable("npm_config_cafile", "bundle", "npm; wins over an npmrc"),
    Variable("npm_config_proxy", "proxy", "npm; wins over an npmrc"),
    Variable("npm_config_https_proxy", "proxy", "npm; wins over an npmrc"),
    Variable("npm_config_noproxy", "", "npm; wins over an npmrc"),
    Variable("npm_config_strict_ssl", "true", "npm; wins over an npmrc"),
    Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "bundle", "gRPC"),
    Variable("NODE_EXTRA_CA_CERTS", "ca", "Node; adds to its own roots"),
    Variable("NODE_USE_ENV_PROXY", "1", "Node from 22.21 on: fetch and https use the proxy"),
    Variable("JAVA_TOOL_OPTIONS", "java", "every Java program: proxy host and port, trust store"),
    Variable("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "bundle", "gcloud"),
    Variable("HTTPLIB2_CA_CERTS", "bundle", "httplib2"),
    Variable("CARGO_HTTP_CAINFO", "bundle", "cargo"),
    Variable("DENO_CERT", "ca", "Deno; adds to its own roots"),
)
"""What `keybroker run` sets for its command."""

WITHHELD = frozenset(
    [
        # A .curlrc, an npmrc, a gitconfig of somebody's may name another proxy, or none.
        "GIT_CONFIG_PARAMETERS",
        "GIT_PROXY_COMMAND",
        "GIT_HTTP_PROXY_AUTHMETHOD",
        "JDK_JAVA_OPTIONS",
        "_JAVA_OPTIONS",
        "SOCKS_SERVER",
        # Python and Go take it for a sign of CGI, and then go direct with plain http.
        "REQUEST_METHOD",
        # What trusts anybody does not notice when it is not the proxy that it talks to.
        "GIT_SSL_NO_VERIFY",
        "NODE_TLS_REJECT_UNAUTHORIZED",
        "PYTHONHTTPSVERIFY",
    ]
)
"""What `keybroker run` takes out of its command's environment, besides every name that ends in
`proxy`: it would lead a willing client past the proxy."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client as it is, unmodified."""

    name: str
    needs: tuple[str, ...]
    """Of VARIABLES those that it needs; with these alone it gets through."""
    refused: str
    """What it shows where the agent's name and token are missing or wrong."""
    waits: int | None = None
    """Seconds after which it gives up a held call by default; None: it waits as long as it takes.
    Where it is less than `hold_wait`, give the agent a shorter one."""
    by_hand: str = ""
    """What no variable can do for it; empty: it works unmodified."""


_PROXY_407 = "407 Proxy Authentication Required"
_NODE = ("HTTPS_PROXY", "NODE_EXTRA_CA_CERTS", "NODE_USE_ENV_PROXY")
_OPENSSL = ("HTTPS_PROXY", "SSL_CERT_FILE")

CLIENTS = (
    Client("curl", ("HTTPS_PROXY", "CURL_CA_BUNDLE"), "CONNECT tunnel failed, response 407"),
    Client("wget", ("https_proxy", "WGETRC"), "Proxy Authentication Required", 900),
    Client("git", ("HTTPS_PROXY", "GIT_SSL_CAINFO"), "CONNECT tunnel failed, response 407"),
    Client("requests", ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"), _PROXY_407),
    Client("httpx", _OPENSSL, _PROXY_407, 5),
    Client(
        "aiohttp",
        _OPENSSL,
        "407",
        300,
        by_hand="`ClientSession(trust_env=True)`; without it, it goes past the proxy",
    ),
    Client("urllib", _OPENSSL, "Tunnel connection failed: 407"),
    Client("boto3", ("HTTPS_PROXY", "AWS_CA_BUNDLE"), "Failed to connect to proxy", 60),
    Client("openai", _OPENSSL, "Connection error", 600),
    Client("anthropic", _OPENSSL, "Connection error", 600),
    Client("pip", ("HTTPS_PROXY", "PIP_CERT"), "No matching distribution", 15),
    Client("uv", _OPENSSL, "proxy authorization required", 30),
    Client("Node fetch", _NODE, "fetch failed", 300),
    Client("Node https", _NODE, "407"),
    Client("undici", _NODE, "RequestAbortedError", 300),
    Client(
        "Node before 22.21",
        ("HTTPS_PROXY", "NODE_EXTRA_CA_CERTS"),
        "fetch failed",
        300,
        by_hand="`setGlobalDispatcher(new EnvHttpProxyAgent())` of undici, which its fetch then"
        " uses; without it, it goes past the proxy, as its `https` does",
    ),
    Client("axios", ("HTTPS_PROXY", "NODE_EXTRA_CA_CERTS"), "407"),
    Client("got", _NODE, "407"),
    Client("npm", ("HTTPS_PROXY", "npm_config_cafile"), "407", 300),
    Client("Go net/http", _OPENSSL, "Proxy Authentication Required"),
    Client(
        "Java HttpClient",
        ("HTTPS_PROXY", "JAVA_TOOL_OPTIONS"),
        "No credentials provided",
        by_hand="an `Authenticator` for `RequestorType.PROXY` with the name and token of"
        " `HTTPS_PROXY`; no option can give them",
    ),
    Client(
        "grpcio",
        ("https_proxy", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
        "HTTP proxy returned response code 407",
    ),
    Client("MCP over HTTP", _OPENSSL, _PROXY_407, 300),
    Client(
        "MCP over stdio",
        _OPENSSL,
        _PROXY_407,
        by_hand="what starts the server must hand these variables on, and the key's: most MCP"
        " clients pass a few harmless ones only, so name them in their configuration"
        " (`StdioServerParameters(env=dict(os.environ))`)",
    ),
)
