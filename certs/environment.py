"""The environment of a child process whose HTTP calls shall go through the proxy.

The files that its variables point to, and what is taken out or put on top of what the process
would have had. It guides a willing program; it does not contain an unwilling one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.utils import CryptographyDeprecationWarning

from certs.authority import Authority
from certs.bundle import write_bundle
from certs.clients import VARIABLES, WITHHELD, Value

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
STORE_PASSWORD = "changeit"  # noqa: S105 - Java's customary one; the store holds certificates only


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """What clients must trust, in the formats that they read; all in one folder, none secret."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Keybroker's certificate alone, PEM."""
        return self.folder / "ca.pem"

    @property
    def bundle(self) -> Path:
        """The system's roots and Keybroker's, PEM."""
        return self.folder / "bundle.pem"

    @property
    def java(self) -> Path:
        """The same as a trust store, PKCS #12."""
        return self.folder / "truststore.p12"

    @property
    def wgetrc(self) -> Path:
        """Names the bundle."""
        return self.folder / "wgetrc"

    @property
    def curlrc(self) -> Path:
        """Empty; curl looks for it in the folder that CURL_HOME names."""
        return self.folder / ".curlrc"

    @classmethod
    def write(cls, folder: Path, authority: Authority) -> TrustFiles:
        """Writes them into `folder`, readable for everybody. Raises BundleUnavailable."""
        files = cls(folder)
        files.ca.write_bytes(authority.pem)
        write_bundle(files.bundle, authority)
        files.java.write_bytes(_java_store(files.bundle.read_bytes()))
        files.wgetrc.write_text(f"ca_certificate = {files.bundle}\n")
        files.curlrc.write_text("# in place of another .curlrc\n")
        for file in (files.ca, files.bundle, files.java, files.wgetrc, files.curlrc):
            file.chmod(0o644)
        return files


def _java_store(bundle: bytes) -> bytes:
    entries = [
        pkcs12.PKCS12Certificate(root, f"root-{number}".encode())
        for number, root in enumerate(_readable(bundle))
    ]
    password = BestAvailableEncryption(STORE_PASSWORD.encode())
    return pkcs12.serialize_java_truststore(entries, password)


def _readable(bundle: bytes) -> Iterator[x509.Certificate]:
    """The certificates that can be read. Systems ship roots that are not as RFC 5280 wants them;
    one of these must not cost the others."""
    for pem in _PEM.findall(bundle):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", CryptographyDeprecationWarning)
                certificate = x509.load_pem_x509_certificate(pem)
        except (ValueError, CryptographyDeprecationWarning):
            continue
        yield certificate


GIT = (("http.proxy", ""), ("http.version", "HTTP/1.1"))
"""Settings of git; "" is the proxy's URL. Over HTTP/2 git and libcurl now and then wait for each
other in the middle of a large push: git's reader is asked once more behind the end (seen with git
2.39 and libcurl 7.88, the push never leaving the client)."""


def client_variables(files: TrustFiles, proxy_url: str) -> dict[str, str]:
    """What VARIABLES stand for. `proxy_url` holds the agent's token."""
    values: Mapping[Value, str] = {
        "proxy": proxy_url,
        "bundle": str(files.bundle),
        "ca": str(files.ca),
        "1": "1",
        "true": "true",
        "": "",
        "java": " ".join(_java_options(files, proxy_url)),
        "wgetrc": str(files.wgetrc),
        "curlrc": str(files.folder),
        "git": str(len(GIT)),
    }
    made = {variable.name: values[variable.value] for variable in VARIABLES}
    for number, (key, value) in enumerate(GIT):
        made |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value or proxy_url}
    return made


def _java_options(files: TrustFiles, proxy_url: str) -> Iterator[str]:
    place = urlsplit(proxy_url)
    for scheme in ("http", "https"):
        yield f"-D{scheme}.proxyHost={place.hostname}"
        yield f"-D{scheme}.proxyPort={place.port}"
    # Java goes past a proxy for loopback names by default.
    yield "-Dhttp.nonProxyHosts="
    # Java refuses Basic inside CONNECT by default, and it is how agents authenticate.
    yield "-Djdk.http.auth.tunneling.disabledSchemes="
    yield f"-Djavax.net.ssl.trustStore={files.java}"
    yield f"-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"
    yield "-Djavax.net.ssl.trustStoreType=PKCS12"


def led_through(present: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """`present` without what leads past the proxy, and `ours` (client_variables) on top."""
    replaced = {_spelling(name) for name in ours}
    kept = {
        name: value
        for name, value in present.items()
        if not leads_past(name)
        and not name.startswith(("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"))
        and (name in ours or _spelling(name) not in replaced)
    }
    return {**kept, **ours, **_joined(present, ours)}


def leads_past(name: str) -> bool:
    """Whether a variable of this name can lead a willing client past the proxy, or elsewhere."""
    # In any case and with either dash: npm reads npm_config_https-proxy and NPM_CONFIG_NOPROXY.
    return _spelling(name).endswith("proxy") or name in WITHHELD


def _spelling(name: str) -> str:
    return name.lower().replace("-", "_")


def _joined(present: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """Lists to which ours is added rather than put in their place; of several, the last counts."""
    joined = {}
    if "JAVA_TOOL_OPTIONS" in present and "JAVA_TOOL_OPTIONS" in ours:
        both = (present["JAVA_TOOL_OPTIONS"], ours["JAVA_TOOL_OPTIONS"])
        joined["JAVA_TOOL_OPTIONS"] = " ".join(both)
    theirs = [pair for pair in _git_config(present) if not pair[0].lower().startswith("http.")]
    pairs = [*theirs, *_git_config(ours)]
    for number, (key, value) in enumerate(pairs):
        joined[f"GIT_CONFIG_KEY_{number}"] = key
        joined[f"GIT_CONFIG_VALUE_{number}"] = value
    return joined | ({"GIT_CONFIG_COUNT": str(len(pairs))} if pairs else {})


def _git_config(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The settings that git would take from there; none where it would complain."""
    count = environment.get("GIT_CONFIG_COUNT", "0")
    if not count.isdecimal() or len(count) > 3:
        return []
    pairs = (
        (environment.get(f"GIT_CONFIG_KEY_{n}"), environment.get(f"GIT_CONFIG_VALUE_{n}"))
        for n in range(int(count))
    )
    return [(key, value) for key, value in pairs if key is not None and value is not None]
