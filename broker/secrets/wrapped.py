"""The AppRole log-in whose SecretID comes wrapped: made once, by the supervisor, for all processes.

A wrapping token can be used once, by whoever has it; that is what it is for: if ours is spent
before we used it, somebody else has the SecretID. So it is looked at first (it must be from the
AppRole's own path, or somebody put another in its place), used once, and the SecretID stays in this
process's memory. What workers need is the token, and that goes through `handover`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

from audit.record import Draft
from broker.secrets.access import AppRole, VaultAccess, WrappedAppRole
from broker.secrets.api import Api
from broker.secrets.handover import Handover
from broker.secrets.login import (
    Ask,
    Grant,
    Reply,
    carry,
    enter,
    leave,
    read_line,
    renew,
)
from broker.secrets.trouble import VaultUnavailable, kind_of, meaning_of

_RETRY = 5.0
"""Seconds between tries when Vault is not to be had."""
_DUE = 2 / 3


class WrappedLogin:
    """One for a workspace, in the process that owns it; for one thread at a time.

    `role` is an AppRole whose file holds a wrapping token.
    """

    def __init__(
        self,
        access: VaultAccess,
        role: WrappedAppRole,
        handover: Handover,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._role = role
        self._file = role.wrapping_token_file
        self._handover = handover
        self._clock = clock
        self._secret_id: str | None = None
        self._grant: Grant | None = None
        self._due = 0.0
        self._retry_at = 0.0
        self._seen: object = None
        self._said = ""

    def start(self) -> None:
        """Logs in and publishes the token. Raises VaultUnavailable with what to mend.

        A token that a crash left published is used further, unless there is a new wrapping token.
        """
        wrapping = self._look()
        left = self._handover.read().grant
        if self._handover.used(wrapping) is not None and left is not None and self._resume(left):
            return
        self._handover.publish(None, "`keybroker up` is logging in to Vault.")
        self._unwrap(wrapping)
        self._log_in()

    def tend(self) -> str | None:
        """For the supervisor, a few times a second: renews, replaces what is refused, takes up a
        new wrapping token. Returns a sentence when something is newly wrong or well again."""
        if self._clock() < self._retry_at and _mark(self._file) == self._seen:
            return None
        try:
            self._tend()
        except VaultUnavailable as error:
            self._retry_at = self._clock() + _RETRY
            return self._news(str(error))
        return self._news("")

    def stop(self) -> None:
        """Gives the token back, takes it out of the store and forgets the SecretID."""
        self._secret_id = None
        grant, self._grant = self._grant, None
        if grant is not None:
            self._leave(grant)
        self._handover.publish(None)

    # --- steps ---------------------------------------------------------------------------------

    def _tend(self) -> None:
        if _mark(self._file) != self._seen and self._is_new():
            self._unwrap(self._look())
            self._log_in()
            return
        if self._grant is None or self._handover.read().refused:
            self._log_in()
        elif self._grant.lease and self._clock() >= self._due:
            longer = None
            if self._grant.renewable:
                longer = self._carry(renew(self._access, self._grant))
            if longer is None:
                self._log_in()
            else:
                self._take(longer)

    def _look(self) -> str:
        self._seen = _mark(self._file)
        return read_line(self._file, "wrapping token")

    def _is_new(self) -> bool:
        try:
            return self._handover.used(self._look()) is None
        except VaultUnavailable:
            return False  # it is being written, or was taken away: the present token serves on

    def _resume(self, grant: Grant) -> bool:
        longer = self._carry(renew(self._access, grant)) if grant.renewable else None
        if longer is None:
            return False
        self._take(longer)
        self._handover.publish(longer)
        return True

    def _unwrap(self, wrapping: str) -> None:
        """Uses the wrapping token, once; the ledger has it before and after."""
        before = self._handover.used(wrapping)
        if before is not None:
            raise VaultUnavailable(self._spent(before.at, stolen=before.outcome == "refused"))
        try:
            path = self._carry(look_up(self._access, self._role, wrapping))
        except Suspicious as error:
            raise self._alarm(wrapping, str(error)) from None
        self._handover.using(wrapping, Draft("vault.unwrapping", {"path": path}))
        try:
            self._secret_id = self._carry(unwrap(self._access, wrapping))
        except Suspicious as error:
            raise self._alarm(wrapping, str(error)) from None
        self._handover.came_out(wrapping, "unwrapped", Draft("vault.unwrapped", {"path": path}))

    def _alarm(self, wrapping: str, why: str) -> VaultUnavailable:
        sentence = f"The wrapping token in {self._file} {why}"
        record = Draft("vault.unwrapping_refused", {"sentence": sentence})
        self._handover.came_out(wrapping, "refused", record)
        return VaultUnavailable(f"{sentence} {self._issue()}", kind="log_in")

    def _spent(self, at: str, *, stolen: bool) -> str:
        if stolen:
            return (
                f"The wrapping token in {self._file} was refused at {at} already, and the SecretID"
                f" behind it may be in other hands. {self._issue()}"
            )
        return (
            f"The wrapping token in {self._file} was used by this Keybroker at {at}, and the"
            f" SecretID behind it was forgotten when that run ended. {self._issue()}"
        )

    def _issue(self) -> str:
        return (
            "Issue a new one: `vault write -wrap-ttl=10m -f -field=wrapping_token"
            f" auth/{self._role.mount}/role/ROLE/secret-id > {self._file}`."
        )

    def _log_in(self) -> None:
        old = self._grant
        if self._secret_id is None:
            self._grant = None
            raise self._without(
                f"The token for Vault has ended, and there is no SecretID to take another with."
                f" {self._issue()}"
            )
        role = AppRole(self._role.role_id, secret_id=self._secret_id, mount=self._role.mount)
        try:
            grant = self._carry(enter(replace(self._access, auth=role)))
        except VaultUnavailable as error:
            if error.kind != "log_in":
                raise
            # Used up, expired or destroyed: asking again would change nothing.
            self._secret_id = None
            raise self._without(f"{error} {self._issue()}") from None
        self._take(grant)
        self._handover.publish(grant)
        if old is not None:
            self._leave(old)

    def _without(self, sentence: str) -> VaultUnavailable:
        if self._handover.read().trouble != sentence:
            self._handover.publish(None, sentence)
        return VaultUnavailable(sentence, kind="log_in")

    def _take(self, grant: Grant) -> None:
        self._grant = grant
        self._due = self._clock() + grant.lease * _DUE

    def _leave(self, grant: Grant) -> None:
        try:
            self._carry(leave(grant))
        except VaultUnavailable:
            return  # the token ends by itself when its lease does

    def _carry[T](self, conversation: Generator[Ask, Reply, T]) -> T:
        api = Api(self._access)
        try:
            return carry(conversation, api.answer)
        finally:
            api.close()

    def _news(self, sentence: str) -> str | None:
        if sentence == self._said:
            return None
        self._said = sentence
        return sentence or "Keybroker is logged in to Vault again."


class Suspicious(Exception):
    """The wrapping token is not what it should be: a sentence that goes on from its name."""


def look_up(access: VaultAccess, role: WrappedAppRole, wrapping: str) -> Generator[Ask, Reply, str]:
    """Where the wrapping token was made. Raises Suspicious, VaultUnavailable."""
    # Needs no log-in, and does not use it up.
    reply = yield Ask("POST", "sys/wrapping/lookup", {"token": wrapping})
    _must_be_answered(access, reply)
    path = reply.data.get("creation_path")
    if reply.status != 200 or not isinstance(path, str):
        raise Suspicious(
            "is not valid: it has expired, or SOMEBODY ELSE HAS USED IT and has the SecretID. If it"
            " had not expired, destroy that SecretID (`vault write auth/"
            f"{role.mount}/role/ROLE/secret-id-accessor/destroy secret_id_accessor=..`) and find"
            " out who could read the file."
        )
    prefix = f"(?:{re.escape(access.namespace.strip('/'))}/)?" if access.namespace else ""
    if not re.fullmatch(rf"{prefix}auth/{re.escape(role.mount)}/role/[^/]+/secret-id", path):
        raise Suspicious(
            f"was not made by auth/{role.mount}/role/ROLE/secret-id, so somebody may have put it"
            " there in place of another. It was not used; find out who could write the file."
        )
    return path


def unwrap(access: VaultAccess, wrapping: str) -> Generator[Ask, Reply, str]:
    """The SecretID in it. Raises Suspicious, VaultUnavailable."""
    reply = yield Ask("POST", "sys/wrapping/unwrap", {}, wrapping)
    _must_be_answered(access, reply)
    secret_id = reply.data.get("secret_id")
    if reply.status != 200 or not isinstance(secret_id, str) or not secret_id:
        raise Suspicious(
            "was used by SOMEBODY ELSE a moment ago, who has the SecretID now. Destroy that"
            " SecretID and find out who could read the file."
        )
    return secret_id


def _must_be_answered(access: VaultAccess, reply: Reply) -> None:
    if reply.status != 200 and kind_of(reply.status) != "refused":
        raise VaultUnavailable(
            f"Vault at {access.url} failed at the wrapping token: {meaning_of(reply.status)}.",
            reply.status,
        )


def _mark(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
