"""Who may do what on the pages and in the API: the one place where roles are compared.

Every route names a `Who`. What is decided here is only who may knock; whether this person may vote
on this call is for the desk to say.
"""

from __future__ import annotations

from typing import Literal

from broker.approvals import VOTING_ROLES
from broker.errors import NotEntitled
from broker.model import User

type Who = Literal["anyone", "person", "voter", "self_or_admin", "admin"]
"""`self_or_admin`: the person whom the path names, or an admin."""


def admit(who: Who, user: User | None, subject: str | None = None) -> None:
    """Raises NotEntitled unless `user` may enter. `subject` is the person whom the path names.

    The sentence is the same whether `subject` exists or not.
    """
    if who == "anyone":
        return
    if user is None or user.disabled_at is not None:
        raise NotEntitled("log in first")
    if who == "person" or user.role == "admin":
        return
    if who == "voter" and user.role not in VOTING_ROLES:
        raise NotEntitled(f"{user.name} is a viewer: viewers look, and do not vote")
    if who == "self_or_admin" and subject != user.name:
        raise NotEntitled("this belongs to somebody else: only an admin may look at it")
    if who == "admin":
        raise NotEntitled("this is for people with the role admin")
