"""Injectors: how a secret goes into a request, by pure functions.

A credential owns one header, its slot. Whatever the agent wrote there is removed (`place`), and
only after the decision is the secret put there, once (`inject`). Nothing here does I/O, and no
error raised here carries a value. This is the one place that calls `Secret.reveal()`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace

from broker.errors import Refusal, SecretUnavailable
from broker.grpc import ACCEPT_ENCODINGS, has_messages
from broker.secret import SecretVersion
from broker.spellings import MIN_LENGTH
from rules.hosts import pattern_matches
from rules.model import Credential, Injection
from rules.request import DEFAULT_PORTS, Request

_PLACEHOLDER = "{secret}"


def slot(injection: Injection) -> str:
    """The header that the credential owns, lower case."""
    return injection.header


def preview(credential: Credential) -> tuple[str, str]:
    """The slot, and its value with the credential's name where the secret will be.

    `("authorization", "Bearer {stripe}")`. For reviewers and for the digest, so everything but the
    secret that shapes the header is in it; a basic user name too: `Basic base64(user:{crm})`.
    """
    injection = credential.inject
    stand_in = f"{{{credential.name}}}"
    if injection.username is not None:
        stand_in = f"base64({injection.username}:{stand_in})"
    return slot(injection), injection.format.replace(_PLACEHOLDER, stand_in)


def place(request: Request, credentials: Sequence[Credential]) -> Request:
    """The request with every credential's slot emptied of what the agent put there.

    Where there is a credential, it also asks upstream for an unencoded answer, messages of gRPC
    included, which can be scrubbed as it streams. The result is what reviewers see, what is
    digested and stored; placing twice changes nothing.
    """
    if not credentials:
        return request
    emptied = {slot(credential.inject) for credential in credentials} | {"accept-encoding"}
    asked = [("accept-encoding", "identity")]
    if has_messages(request.header("content-type")):
        emptied |= ACCEPT_ENCODINGS
        asked += [(name, "identity") for name in sorted(ACCEPT_ENCODINGS) if request.header(name)]
    kept = _without(request, emptied)
    return replace(request, headers=(*kept, *asked))


def inject(
    request: Request, filled: Sequence[tuple[Credential, SecretVersion]]
) -> tuple[Request, tuple[bytes, ...]]:
    """The request with the secrets in their slots, and every value to mask in the response.

    To be masked are each secret, what a basic pair was rendered to, and the header value, without
    duplicates. This is the last gate of law 5: `Refusal` where a credential may not go to this
    place at all; `SecretUnavailable` where a secret cannot stand in a header, or is too short to be
    masked; `ValueError` where the caller paired things wrongly (two credentials for one slot,
    another reference's secret).
    """
    masked: dict[bytes, None] = {}
    headers: list[tuple[str, str]] = []
    for credential, version in filled:
        _check(request, credential, version)
        name = slot(credential.inject)
        if name in (taken for taken, _ in headers):
            raise ValueError(f"two credentials share the header {name}")
        rendered, value = _render(credential, version)
        headers.append((name, value))
        masked.update(dict.fromkeys((version.value.reveal().encode(), rendered, value.encode())))
    kept = _without(request, {name for name, _ in headers})
    return replace(request, headers=(*kept, *headers)), tuple(masked)


def _without(request: Request, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    dropped = frozenset([name.lower() for name in names])
    return tuple([pair for pair in request.headers if pair[0].lower() not in dropped])


def _check(request: Request, credential: Credential, version: SecretVersion) -> None:
    if version.ref != credential.secret:
        raise ValueError(f"credential {credential.name} was paired with another secret's value")
    if credential.inject.format.count(_PLACEHOLDER) != 1:
        raise ValueError(f"credential {credential.name}: the format must hold {{secret}} once")
    default_port = DEFAULT_PORTS[request.scheme]
    if request.scheme != "https" or not any(
        pattern_matches(pattern, request.host, request.port, default_port)
        for pattern in credential.hosts
    ):
        raise Refusal(
            "policy_denied",
            f"The credential {credential.name} may not go to "
            f"{request.scheme}://{request.authority}; it leaves over https for its own hosts only.",
        )


def _render(credential: Credential, version: SecretVersion) -> tuple[bytes, str]:
    """What stands for the secret in the header, and the whole header value."""
    injection = credential.inject
    rendered = version.value.reveal()
    if 0 < len(rendered) < MIN_LENGTH:
        raise SecretUnavailable(_short(credential))
    if injection.username is not None:
        # RFC 7617 section 2: the user-id has no colon, the pair no control characters; UTF-8.
        if ":" in injection.username or not _is_text(injection.username + rendered):
            raise SecretUnavailable(_unfit(credential))
        pair = f"{injection.username}:{rendered}".encode()
        rendered = base64.b64encode(pair).decode()
    value = injection.format.replace(_PLACEHOLDER, rendered)
    # RFC 9110 section 5.5, narrowed to visible ASCII, blanks inside only: one reading everywhere.
    if not rendered or not value.isascii() or not _is_text(value) or value != value.strip():
        raise SecretUnavailable(_unfit(credential))
    return rendered.encode(), value


def _is_text(value: str) -> bool:
    """Whether it is free of control characters and of what UTF-8 cannot carry."""
    return value.isprintable()


def _short(credential: Credential) -> str:
    return (
        f"The secret {credential.secret} is shorter than {MIN_LENGTH} characters and cannot be "
        "masked in what comes back, so it is not used."
    )


def _unfit(credential: Credential) -> str:
    return (
        f"The secret {credential.secret} cannot stand in the header {slot(credential.inject)}: it "
        "is empty or holds characters that a header cannot carry; write it again with "
        f"`keybroker secret set {credential.secret.mount}/{credential.secret.path} "
        f"{credential.secret.field} --stdin`."
    )
