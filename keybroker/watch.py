"""Follows files: policy.yaml with what it includes, and the certificates of our listeners.

Of policy.yaml a good change is published, a bad one is reported and the old policy stays.

A file is taken only once two looks found it the same, so that one which is being written is not
read in half: half a policy may lack its denials.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import KeybrokerError
from keybroker.errors import Unreadable
from keybroker.policyfile import PolicyFile, read_policy
from rules.errors import InvalidFile

if TYPE_CHECKING:
    from certs.serving import Serving

Publish = Callable[[PolicyFile], None]
"""Given what was read; raises InvalidFile if it is no policy, KeybrokerError if it could not be
kept."""
Complain = Callable[[str], None]
"""Given all that is wrong, a line each."""


class CertificateWatch:
    """Says what becomes of a listener's new certificate; `look` as often as for the policy."""

    def __init__(
        self, setting: str, serving: Serving, *, tell: Complain, complain: Complain
    ) -> None:
        self._setting = setting
        self._serving = serving
        self._tell = tell
        self._complain = complain

    def look(self) -> None:
        """Takes up a change."""
        found = self._serving.look()
        if found is True:
            until = self._serving.certificate.not_valid_after_utc
            self._tell(f"`{self._setting}`: a new certificate, valid until {until:%Y-%m-%d}")
        elif found is not False:
            self._complain(f"`{self._setting}`: {found}\nthe certificate before stays in use")


class PolicyWatch:
    """One policy file; `look` is to be called several times a second."""

    def __init__(self, path: Path, *, publish: Publish, complain: Complain) -> None:
        self._path = path
        self._publish = publish
        self._complain = complain
        self._done: PolicyFile | str | None = None
        """What (or the reason why there is nothing) was dealt with last."""
        self._seen: PolicyFile | str | None = None
        self._failing: tuple[PolicyFile | str, str] | None = None
        """What could not be kept, and why: said once, tried at every look."""

    def first(self) -> None:
        """Publishes the policy at the start. Raises InvalidFile, Unreadable: then nothing runs."""
        found = read_policy(self._path)
        self._publish(found)
        self._done = self._seen = found

    def look(self, *, now: bool = False) -> None:
        """Takes up a change that has settled. With `now` the file is taken as it stands."""
        found: PolicyFile | str
        try:
            found = read_policy(self._path)
        except Unreadable as error:
            found = str(error)
        settled, self._seen = found == self._seen, found
        if not now and (not settled or found == self._done):
            return
        try:
            if isinstance(found, str):
                raise Unreadable(found)
            self._publish(found)
        except (InvalidFile, Unreadable) as error:
            self._complain(f"{error}\nthe policy was not changed: the one before stays in force")
        except KeybrokerError as error:
            if self._failing != (found, str(error)):
                self._complain(f"{error}\nthe policy was not changed; this is tried again")
            self._failing = (found, str(error))
            return
        self._done, self._failing = found, None
