"""KV version 2 read: references, what Vault answered, and which values can be used.

Pure. Each fault is one sentence that names the reference and how to mend it; no sentence and no
exception raised here carries a value or a piece of Vault's answer.
Source: https://openbao.org/api-docs/secret/kv/kv-v2/
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from broker.errors import SecretUnavailable
from broker.secret import Secret, SecretVersion
from rules.model import SecretRef

MAX_LENGTH = 16_384
"""Characters in a secret; no server takes a longer header line."""


def data_path(ref: SecretRef) -> str:
    """The API path (from `/v1/` on, percent-encoded) that reads the reference's newest version.

    Raises ValueError for a reference that would address something else, such as `kv/../sys/x`.
    """
    return api_path(ref.mount, "data", ref.path)


def api_path(mount: str, kind: str, path: str | None) -> str:
    """`MOUNT/KIND/PATH` under `/v1/`, or `MOUNT/KIND` for the whole engine.

    Raises ValueError where a segment is empty, `.`, `..` or not printable.
    """
    for part in (mount,) if path is None else (mount, path):
        for segment in part.split("/"):
            if segment in {"", ".", ".."} or not segment.isprintable():
                raise ValueError("a segment is empty, a dot segment or not printable")
    whole = f"/v1/{quote(mount)}/{kind}"
    return whole if path is None else f"{whole}/{quote(path)}"


def mend(ref: SecretRef) -> str:
    """The command that writes this reference's value."""
    return f"`keybroker secret set {ref.mount}/{ref.path} {ref.field} --stdin`"


def fault_of(value: object) -> str | None:
    """Why a value cannot be a secret that goes into a header ("it is empty"); None if it can.

    Visible ASCII with blanks inside only, at most MAX_LENGTH: anything else would be read
    differently by different servers, or could not be masked in what they send back.
    """
    if not isinstance(value, str):
        return "it is not text"
    if not value:
        return "it is empty"
    if not value.isascii():
        return "it holds characters outside ASCII"
    if not value.isprintable():
        return "it holds a line break or another control character"
    if value != value.strip():
        return "it begins or ends with a blank"
    if len(value) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    return None


def version_of(ref: SecretRef, status: int, body: bytes) -> SecretVersion:
    """The secret in Vault's answer to the read of `data_path(ref)`, or SecretUnavailable."""
    answer = parse(body)
    data = answer.get("data")
    if status != 200 or not isinstance(data, dict):
        raise SecretUnavailable(_refusal(ref, status, answer))
    fields = data.get("data")
    version = _dict(data.get("metadata")).get("version")
    if not isinstance(fields, dict) or type(version) is not int:
        raise SecretUnavailable(
            f"Vault's answer for {ref} is not that of a KV version 2 engine; check the mount "
            f"{ref.mount}."
        )
    if ref.field not in fields:
        raise SecretUnavailable(
            f"The secret {ref} does not exist: {ref.mount}/{ref.path} has no field {ref.field}; "
            f"write it with {mend(ref)}."
        )
    value = fields[ref.field]
    fault = fault_of(value)
    if fault is not None:
        raise SecretUnavailable(
            f"The secret {ref} cannot be used: {fault}; write it again with {mend(ref)}."
        )
    return SecretVersion(ref, version, Secret(value))


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in the body, empty if there is none. An error would carry the body along."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _refusal(ref: SecretRef, status: int, answer: dict[str, Any]) -> str:
    if status == 200:
        return (
            f"Vault holds {ref} back (a control group or an empty answer), so it cannot be used; "
            f"allow the broker to read {ref.mount}/data/{ref.path} directly."
        )
    if 300 <= status < 400:
        return (
            f"Vault answered the read of {ref} with a redirect ({status}), which is not followed "
            "because the token would travel along; point `vault.url` at the server that answers "
            "itself."
        )
    if status == 403:
        return (
            f"Vault refuses the read of {ref} (403); let the broker's policy `read` "
            f"{ref.mount}/data/{ref.path}, or renew its log-in."
        )
    if status == 404:
        metadata = _dict(_dict(answer.get("data")).get("metadata"))
        if metadata.get("deletion_time") or metadata.get("destroyed"):
            return f"The newest version of {ref} is deleted; write it again with {mend(ref)}."
        return f"The secret {ref} does not exist in Vault; write it with {mend(ref)}."
    if status == 503:
        return f"Vault is sealed or down, so {ref} cannot be read; unseal it, then repeat the call."
    return f"Vault failed to give {ref} (status {status}); look into its log."
