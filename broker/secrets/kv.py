"""KV engines read: references, what Vault answered, and which values can be used.

Pure. Each fault is one sentence that names the reference and how to mend it; no sentence and no
exception raised here carries a value or a piece of Vault's answer.
Sources: https://openbao.org/api-docs/secret/kv/kv-v1/ and kv-v2/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from broker.errors import SecretUnavailable
from broker.secret import Secret, SecretVersion
from broker.spellings import MIN_LENGTH
from rules.model import SecretRef

MAX_LENGTH = 16_384
"""Characters in a secret; no server takes a longer header line."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A KV engine as Vault has it: its mount (which may have several segments) and its kind."""

    mount: str
    versioned: bool
    """KV version 2; version 1 keeps no versions and knows no check-and-set."""

    def path(self, kind: str, whole: str) -> str:
        """The API path (from `/v1/` on) of `whole`, which is `MOUNT/PATH`.

        `kind` is `data`, `metadata` or `subkeys`; a version 1 engine has one kind of path only.
        """
        rest = whole.removeprefix(self.mount).strip("/")
        return api_path(self.mount, *([kind] if self.versioned else []), *([rest] if rest else []))

    def policy_path(self, ref: SecretRef) -> str:
        """What a policy must allow to `read` for this reference."""
        rest = whole_of(ref).removeprefix(f"{self.mount}/")
        return f"{self.mount}/data/{rest}" if self.versioned else f"{self.mount}/{rest}"


def whole_of(ref: SecretRef) -> str:
    """`MOUNT/PATH`; where the one ends and the other begins, Vault alone knows."""
    return f"{ref.mount}/{ref.path}"


def api_path(*parts: str) -> str:
    """`/v1/` and the parts, percent-encoded.

    Raises ValueError where a segment is empty, `.`, `..` or not printable: such a path could
    address something else, like `kv/../sys/x`.
    """
    for part in parts:
        for segment in part.split("/"):
            if segment in {"", ".", ".."} or not segment.isprintable():
                raise ValueError("a segment is empty, a dot segment or not printable")
    return "/v1/" + "/".join(quote(part) for part in parts)


def mounts_path(whole: str) -> str:
    """The API path that says which engine `whole` lies in (from `sys/` on). Raises ValueError."""
    return api_path("sys/internal/ui/mounts", whole).removeprefix("/v1/")


def engine_of(whole: str, data: Mapping[str, Any]) -> Engine:
    """The engine that `whole` lies in, from `data` of the answer to `mounts_path`.

    Raises SecretUnavailable where it is none, or the answer is about another place.
    """
    mount, kind = data.get("path"), data.get("type")
    if not isinstance(mount, str) or not mount.endswith("/") or not f"{whole}/".startswith(mount):
        raise SecretUnavailable(
            f"Vault does not say which engine {whole} lies in; check what stands before it."
        )
    if kind not in ("kv", "generic"):
        raise SecretUnavailable(
            f"{mount.rstrip('/')} is no KV engine, so no secret can be read from {whole}; mend the "
            "reference in the policy."
        )
    return Engine(mount.rstrip("/"), _dict(data.get("options")).get("version") == "2")


def mend(ref: SecretRef) -> str:
    """The command that writes this reference's value."""
    return f"`keybroker secret set {ref.mount}/{ref.path} {ref.field} --stdin`"


def fault_of(value: object) -> str | None:
    """Why a value cannot be a secret that goes into a header ("it is empty"); None if it can.

    Visible ASCII with blanks inside only, MIN_LENGTH to MAX_LENGTH: anything else would be read
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
    if len(value) < MIN_LENGTH:
        return f"it is shorter than {MIN_LENGTH} characters and cannot be masked"
    if len(value) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    return None


def version_of(ref: SecretRef, engine: Engine, status: int, body: bytes) -> SecretVersion:
    """The secret in Vault's answer to the read, or SecretUnavailable."""
    answer = parse(body)
    data = answer.get("data")
    if status != 200 or not isinstance(data, dict):
        raise SecretUnavailable(_refusal(ref, engine, status, answer))
    fields: object = data
    version: int | None = None
    if engine.versioned:
        metadata = _dict(data.get("metadata"))
        fields, version = data.get("data"), metadata.get("version")
        if (
            not isinstance(fields, dict)
            or type(version) is not int
            or version < 1
            or metadata.get("destroyed") is True
        ):
            raise SecretUnavailable(
                f"Vault's answer for {ref} is not that of a KV version 2 engine; check the mount "
                f"{engine.mount}."
            )
    assert isinstance(fields, dict)
    if ref.field not in fields:
        raise SecretUnavailable(
            f"The secret {ref} does not exist: {whole_of(ref)} has no field {ref.field}; "
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


def _refusal(ref: SecretRef, engine: Engine, status: int, answer: dict[str, Any]) -> str:
    """Why there is no secret in an answer. Vault as a whole being ill is said elsewhere."""
    path = engine.policy_path(ref)
    if status == 200:
        return (
            f"Vault holds {ref} back (a control group or an empty answer), so it cannot be used; "
            f"allow the broker to read {path} directly."
        )
    if status == 403:
        return (
            f"Vault refuses the read of {ref} (403); let the broker's policy `read` {path}, or "
            "renew its log-in."
        )
    if status == 404:
        metadata = _dict(_dict(answer.get("data")).get("metadata"))
        if metadata.get("destroyed"):
            return f"The newest version of {ref} is destroyed; write it again with {mend(ref)}."
        if metadata.get("deletion_time"):
            return (
                f"The newest version of {ref} is deleted; undelete it, or write it again with "
                f"{mend(ref)}."
            )
        return f"The secret {ref} does not exist in Vault; write it with {mend(ref)}."
    return f"Vault failed to give {ref} (status {status}); look into its log."
