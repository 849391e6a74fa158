"""The first start of an embedded vault, by the API: engine, policies of least privilege, AppRoles.

What is made here can be made again from nothing: whoever calls it throws everything away unless it
came to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.secrets.access import VaultAccess
from broker.secrets.api import Api
from broker.secrets.trouble import VaultUnavailable

MOUNT = "kv"
RECOVERY_SHARES = 3
RECOVERY_THRESHOLD = 2
_TOKEN_TTL = 1200
_PATIENCE = 15.0
_POLL = 0.02

_SELF = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
"""
POLICIES = {
    "broker": f"""
path "{MOUNT}/data/*" {{ capabilities = ["read"] }}
{_SELF}""",
    "operator": f"""
path "{MOUNT}/data/*"     {{ capabilities = ["create", "update", "read"] }}
path "{MOUNT}/metadata/*" {{ capabilities = ["list"] }}
path "{MOUNT}/subkeys/*"  {{ capabilities = ["read"] }}
{_SELF}""",
}
"""Policy and AppRole by name. Neither holds the default policy, so what a token may do to itself is
granted here; neither can reach engines, policies, other tokens or the seal."""


@dataclass(frozen=True, slots=True)
class RecoveryKeys:
    """What the operator must keep: any `threshold` of `keys` (hex) can make a new root token."""

    keys: tuple[str, ...] = field(repr=False)
    threshold: int


@dataclass(frozen=True, slots=True)
class Identity:
    """An AppRole's two halves."""

    role_id: str
    secret_id: str = field(repr=False)


class Provisioning:
    """One first start. Every step raises VaultUnavailable."""

    def __init__(self, access: VaultAccess) -> None:
        self._access = access
        self._api = Api(access, timeout=_PATIENCE)

    def initialise(self) -> RecoveryKeys:
        """Initialises the server, which unseals itself, and waits until it serves."""
        made = self._api.call(
            "PUT",
            "sys/init",
            {"recovery_shares": RECOVERY_SHARES, "recovery_threshold": RECOVERY_THRESHOLD},
        ).body
        self._api.close()
        self._api = Api(self._access, made["root_token"], timeout=_PATIENCE)
        self._until(lambda: self._api.health().active, "serve")
        return RecoveryKeys(tuple(made["recovery_keys"]), RECOVERY_THRESHOLD)

    def furnish(self) -> dict[str, Identity]:
        """Makes the engine, the policies and the AppRoles; returns each AppRole's identity."""
        call = self._api.call
        call("POST", f"sys/mounts/{MOUNT}", {"type": "kv", "options": {"version": "2"}})
        call("POST", "sys/auth/approle", {"type": "approle"})
        identities = {}
        for name, policy in POLICIES.items():
            call("PUT", f"sys/policies/acl/{name}", {"policy": policy})
            call(
                "POST",
                f"auth/approle/role/{name}",
                {
                    "token_policies": [name],
                    "token_no_default_policy": True,
                    # Renewable for ever; unused, it ends after this many seconds.
                    "token_period": _TOKEN_TTL,
                    # Workers log in anew after each restart, so the SecretID may be used often.
                    "secret_id_num_uses": 0,
                    "secret_id_ttl": 0,
                },
            )
            role = call("GET", f"auth/approle/role/{name}/role-id").data
            secret = call("POST", f"auth/approle/role/{name}/secret-id", {}).data
            identities[name] = Identity(role["role_id"], secret["secret_id"])
        # A new KV version 2 engine refuses everything for about half a second.
        self._until(
            lambda: self._api.ask("GET", f"{MOUNT}/config").status == 200, "open its engine"
        )
        return identities

    def revoke_root(self) -> None:
        """Gives the root token up; from here on only the AppRoles can log in."""
        self._api.call("POST", "auth/token/revoke-self", {})

    def close(self) -> None:
        self._api.close()

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise VaultUnavailable(f"The new vault at {self._access.url} does not {what}.")
            time.sleep(_POLL)
