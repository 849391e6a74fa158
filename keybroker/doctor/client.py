"""An agent's environment: whether willing clients go through the proxy and trust its certificate.

For who starts agents, with what the agent has: no workspace is needed. The tables are those of
`keybroker run` (certs.clients). Tokens are never shown.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from certs.clients import VARIABLES
from certs.environment import leads_past
from keybroker.doctor.finding import Finding
from keybroker.workspace import Workspace, choose

INTERNAL = "http://keybroker.internal"
RUN = "start the agent with `keybroker run`"
_MOST = 64 * 1024


def examine_client(environment: Mapping[str, str], option: Path | None) -> list[Finding]:
    """All findings about this environment. `option` names a workspace that must stay unread."""
    findings = list(_proxy(environment))
    found: bytes | None = None
    if not any(finding.state == "wrong" for finding in findings):
        answer = _asked(environment)
        findings.append(answer[0])
        found = answer[1]
    findings += variable_findings(environment, found)
    findings += _containment(option)
    return findings


def variable_findings(environment: Mapping[str, str], ca_pem: bytes | None) -> Iterator[Finding]:
    """What leads past the proxy, and whom clients trust; `ca_pem` is Keybroker's certificate."""
    yield from _exceptions(environment)
    yield from _trust(environment, ca_pem)
    if ca_pem is not None:
        yield from _validity(ca_pem)


def _proxy(environment: Mapping[str, str]) -> Iterator[Finding]:
    names = [v.name for v in VARIABLES if v.value == "proxy" and _plain(v.name)]
    set_ = {name: environment[name] for name in names if environment.get(name)}
    if not set_.keys() & {"HTTPS_PROXY", "https_proxy"}:
        says = "HTTPS_PROXY is not set: clients go direct"
        yield Finding("proxy", "wrong", says, f"{RUN}, or set it to the agent's proxy URL")
        return
    if len(set(set_.values())) > 1:
        says = f"{', '.join(set_)} name different proxies: which one counts differs by client"
        yield Finding("proxy", "wrong", says, "set all of them to the agent's proxy URL")
        return
    missing = [name for name in names if name not in set_]
    if missing:
        says = f"not set: {', '.join(missing)}; clients that read them alone go direct"
        yield Finding("proxy", "warning", says, "set them to the same URL")
    url = next(iter(set_.values()))
    try:
        place = urlsplit(url)
        whole = bool(place.hostname and place.port and place.username and place.password)
    except ValueError:
        whole = False
    if not whole:
        yield Finding(
            "proxy",
            "wrong",
            "the proxy URL has no name and token, or no host and port",
            "write http://AGENT:TOKEN@HOST:PORT, as `keybroker agent add` prints it",
        )


def _plain(name: str) -> bool:
    """Whether it is one of the four that name the proxy."""
    return name.lower() in ("http_proxy", "https_proxy")


def _asked(environment: Mapping[str, str]) -> tuple[Finding, bytes | None]:
    """What the proxy says of this agent, and its certificate."""
    url = environment.get("HTTPS_PROXY") or environment["https_proxy"]
    place = urlsplit(url)
    where = f"{place.hostname}:{place.port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": url}))
    try:
        with opener.open(f"{INTERNAL}/ca.pem", timeout=10) as answer:
            pem = answer.read(_MOST)
            ours = answer.headers.get("Keybroker-Request-Id") is not None
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 407:
                says = f"the proxy at {where} does not know {place.username} with this token"
                fix = f"get a new one (`keybroker agent rotate {place.username}`), or {RUN}"
                return Finding("proxy", "wrong", says, fix), None
            says = f"{where} answered {error.code}: it is no Keybroker, or an ill one"
            return Finding(
                "proxy", "wrong", says, "correct the proxy URL; `keybroker doctor`"
            ), None
    except (OSError, ValueError) as error:
        says = f"the proxy at {where} does not answer ({type(error).__name__})"
        return Finding("proxy", "wrong", says, "start `keybroker up`, or correct the URL"), None
    if not ours or b"BEGIN CERTIFICATE" not in pem:
        says = f"what answers at {where} is no Keybroker"
        return Finding("proxy", "wrong", says, "correct the proxy URL"), None
    return Finding("proxy", "ok", f"{where} knows this agent as {place.username}"), pem


def _exceptions(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that lead past the proxy, or to another. Those four that name it are told first."""
    proxies = {environment[n] for n in environment if _plain(n)}
    fitting: Mapping[str, set[str]] = {"proxy": proxies, "": {""}, "1": {"1"}}
    known = {v.name: fitting.get(v.value, set()) for v in VARIABLES}
    for name, value in sorted(environment.items()):
        if not value or not leads_past(name) or _plain(name) or value in known.get(name, set()):
            continue
        fix = f"set {name} to nothing" if name in known else f"unset {name}"
        says = f"{name} is set, which can lead clients past the proxy or let them trust anybody"
        yield Finding("direct", "wrong", says, f"{fix}, or {RUN}")


def _trust(environment: Mapping[str, str], ca_pem: bytes | None) -> Iterator[Finding]:
    files = [v for v in VARIABLES if v.value in ("bundle", "ca")]
    missing = [v.name for v in files if not environment.get(v.name)]
    if missing:
        says = f"not set: {', '.join(missing)}; clients that read them refuse Keybroker's answers"
        yield Finding("trust", "warning", says, f"{RUN}, or set them as docs/clients.md says")
    ours = None if ca_pem is None else _certificates(ca_pem)
    well = True
    for variable in files:
        path = environment.get(variable.name)
        if not path:
            continue
        try:
            held = _certificates(Path(path).read_bytes())
        except OSError as error:
            well = False
            says = f"{variable.name} names {path}, which cannot be read ({error.strerror})"
            yield Finding("trust", "wrong", says, f"{RUN}, or let it name a file that is there")
            continue
        if ours is not None and not ours <= held:
            well = False
            says = f"{variable.name} names {path}, which lacks Keybroker's present certificate"
            fix = (
                "add what `keybroker ca show` prints to the file (http://keybroker.internal/ca.pem)"
            )
            yield Finding("trust", "wrong", says, fix)
    if well and ours is not None:
        yield Finding("trust", "ok", "the files that are named hold Keybroker's certificate")


def _certificates(pem: bytes) -> set[bytes]:
    """The certificates in a PEM text, by what stands between their marks."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    return {b"".join(part.partition(end)[0].split()) for part in pem.split(begin)[1:]}


def _validity(ca_pem: bytes) -> Iterator[Finding]:
    certificate = x509.load_pem_x509_certificate(ca_pem)
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        says = (
            f"it is {now:%Y-%m-%d} here, and Keybroker's certificate is valid from"
            f" {certificate.not_valid_before_utc:%Y-%m-%d} to"
            f" {certificate.not_valid_after_utc:%Y-%m-%d}"
        )
        yield Finding("clock", "wrong", says, "set the clock of this machine (NTP keeps it right)")


def _containment(option: Path | None) -> Iterator[Finding]:
    workspace = Workspace(choose(option))
    if os.access(workspace.state, os.R_OK | os.X_OK):
        yield Finding(
            "containment",
            "wrong",
            f"this user can read the workspace {workspace.directory}, and so act as an"
            " administrator",
            "use `run --sandbox`, or run the agent as another user",
        )
    else:
        yield Finding("containment", "ok", f"this user cannot read {workspace.directory}")
