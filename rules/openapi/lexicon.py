"""The words by which an operation's risk is told, each with the reason that a person reads.

Verbs say what an operation does, nouns what it does it to. A word stands for its plural, and verbs
for their third person (`deletes`). What is in no list says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Risk = Literal["low", "medium", "high"]
ORDER: Mapping[Risk, int] = {"low": 0, "medium": 1, "high": 2}


@dataclass(frozen=True, slots=True)
class Kind:
    """What an operation does, in the words of a card."""

    name: str
    risk: Risk
    why: str
    """Ends the sentence "the name says X: ..."."""
    impact: str
    undo: str


_KINDS = (
    Kind("delete", "high", "it deletes", "What is deleted is gone for everyone who uses it.", "no"),
    Kind("money", "high", "it moves money", "Money moves, or somebody has to pay.", "no"),
    Kind(
        "publish",
        "high",
        "it makes something public",
        "Others see it at once; copies stay after it is taken back.",
        "no",
    ),
    Kind(
        "send",
        "high",
        "it sends something to people",
        "It reaches people or systems outside and cannot be called back.",
        "no",
    ),
    Kind(
        "access",
        "high",
        "it changes who may do what",
        "Somebody gains or loses access.",
        "set it back; what was seen or done meanwhile stays so",
    ),
    Kind(
        "secret",
        "high",
        "it makes, changes or gives out a secret",
        "Whoever holds the secret can act in your name.",
        "replace the secret everywhere it is used",
    ),
    Kind(
        "code",
        "high",
        "it changes what runs, or is taken into use",
        "Running systems or shared code change at once.",
        "bring back the former state, if it was kept",
    ),
    Kind(
        "channel",
        "high",
        "it opens a way into a running system",
        "Commands or data reach a running system unseen.",
        "no",
    ),
    Kind(
        "guard",
        "high",
        "it changes a protection, or where data is sent",
        "A safeguard, a route or a destination of data changes.",
        "set it back; what passed meanwhile stays so",
    ),
    Kind(
        "carrier",
        "high",
        "it carries other calls, of any class",
        "Calls inside it are not seen one by one.",
        "depends on the calls inside",
    ),
    Kind(
        "admin",
        "high",
        "it belongs to administration",
        "Settings that hold for everybody change.",
        "set it back, if the former setting is known",
    ),
    Kind(
        "run",
        "medium",
        "it starts or stops work",
        "Work starts or stops, with its costs and effects.",
        "stop or start it again; what it did stays",
    ),
    Kind(
        "close",
        "medium",
        "it ends something",
        "Something ends or is put away for those who use it.",
        "open it again, where the service can",
    ),
    Kind(
        "remove",
        "medium",
        "it takes something away",
        "Something is taken away from those who use it.",
        "add it again, if what it was is known",
    ),
    Kind(
        "detach",
        "medium",
        "it only takes a mark or an entry away",
        "A mark, setting or entry is taken away.",
        "add it again",
    ),
    Kind(
        "create",
        "medium",
        "it adds something",
        "Something is added that was not there.",
        "take away what was added",
    ),
    Kind(
        "change",
        "medium",
        "it changes something",
        "What was there is changed or replaced.",
        "write the former values again, if they are known",
    ),
    Kind(
        "personal",
        "medium",
        "it gives out personal data in bulk",
        "Personal data of many people leaves the service.",
        "no",
    ),
    Kind(
        "export",
        "medium",
        "it gives out data in bulk",
        "A large part of the data leaves the service.",
        "no",
    ),
    Kind("confidential", "medium", "its answer may hold a secret", "A secret may leave.", "no"),
    Kind(
        "records",
        "medium",
        "it reads what only administrators see",
        "Data that only administrators see leaves the service.",
        "no",
    ),
    Kind("search", "low", "it only searches or computes", "", ""),
    Kind("read", "low", "it only reads", "", ""),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}


def _table(lists: Mapping[str, str]) -> dict[str, str]:
    return {word: kind for kind, words in lists.items() for word in words.split()}


def word_set(words: str) -> frozenset[str]:
    """The words of a list that is written as one text."""
    return frozenset(words.split())


VERBS: Mapping[str, str] = _table(
    {
        "delete": "delete destroy purge erase wipe drop truncate terminate flush obliterate "
        "deregister decommission expunge nuke shred empty",
        "money": "pay charge refund transfer payout capture withdraw purchase buy topup disburse "
        "reimburse donate tip settle bill checkout void",
        "publish": "publish release announce broadcast unpublish",
        "send": "send email mail sms dial fax resend redeliver",
        "access": "grant revoke invite authorize impersonate promote demote share unshare elevate "
        "ban unban suspend unsuspend reinstate",
        "secret": "rotate regenerate reveal mint decrypt sign reissue",
        "code": "deploy redeploy merge rollback failover reimage rebuild reinstall undeploy",
        "channel": "exec execute eval attach portforward connect shell proxy",
        "guard": "protect unprotect bypass",
        "run": "run rerun trigger dispatch invoke start restart reboot stop shutdown pause resume "
        "retry replay schedule launch import install uninstall upgrade migrate drain evict scale "
        "resize restore power abort kill sync "
        "refresh process",
        "remove": "remove disconnect clear",
        "close": "cancel close archive unarchive expire reject lock unlock disable deactivate "
        "enable activate approve decline dismiss finalize submit confirm complete resolve accept "
        "end finish block unblock",
        "detach": "unstar unfollow unlike unpin unwatch unmute unsubscribe unassign unlink "
        "unmark unvote unfavorite unbookmark detach dissociate disassociate untag",
        "create": "create add insert new register request reopen post upload append open fork "
        "clone copy duplicate make generate subscribe follow star comment",
        "change": "update edit set replace modify patch change rename move put upsert assign mark "
        "configure save write reorder rate vote reset verify revert",
        "search": "search query render preview validate lint calculate estimate compute convert "
        "translate parse lookup suggest autocomplete compare simulate dryrun count filter "
        "aggregate summarize format markdown tokenize embed classify detect "
        "forecast rank diff",
        "read": "get list fetch read retrieve show find view describe download exist is has head "
        "browse poll watch scan inspect peek stat status info whoami ping check index",
    }
)
"""Word: name of its kind."""

BARE = frozenset({"get", "post", "put", "patch", "delete", "head", "options", "query"})
"""At the head of an id these may be no more than the method's name."""

NOUNS: Mapping[str, str] = _table(
    {
        "secret": "secret token credential password passphrase passwd apikey kubeconfig mfa "
        "otp totp 2fa pin keypair jwk certificate cert accesskey connectionstring appsetting sas",
        "access": "collaborator member membership permission role acl invitation invite owner "
        "grant sso saml scim iam authorization policy rolebinding clusterrolebinding "
        "entitlement consent sharing impersonation ownership binding "
        "serviceaccount access",
        "money": "payment charge refund payout transfer invoice billing purchase checkout topup "
        "payroll dispute withdrawal deposit wire donation order trade debit",
        "code": "deployment release",
        "guard": "protection ruleset webhook hook firewall dns domain nameserver ipset "
        "allowlist whitelist denylist blocklist runner networkpolicy securitygroup "
        "mutatingwebhookconfiguration validatingwebhookconfiguration",
        "admin": "admin administration administrator superuser root sudo",
    }
)

PHRASES: Mapping[str, str] = {
    "api key": "secret",
    "connection string": "secret",
    "app setting": "secret",
    "callback url": "secret",
    "presigned url": "secret",
    "signed url": "secret",
    "list key": "secret",
    "auth key": "secret",
    "admin key": "secret",
    "master key": "secret",
    "shared key": "secret",
    "login link": "secret",
    "magic link": "secret",
    "access key": "secret",
    "private key": "secret",
    "secret key": "secret",
    "signing key": "secret",
    "deploy key": "secret",
    "ssh key": "secret",
    "gpg key": "secret",
    "encryption key": "secret",
    "service key": "secret",
    "account key": "secret",
    "recovery code": "secret",
    "backup code": "secret",
    "service account": "access",
    "security group": "guard",
    "network policy": "guard",
    "branch protection": "guard",
    "bank account": "money",
    "payment method": "money",
    "gift card": "money",
}
"""Two words that mean more together."""

HARMLESS = (
    "secret scanning",
    "page token",
    "sync token",
    "continuation token",
    "next token",
    "token count",
    "count token",
    "public key",
    "primary key",
    "foreign key",
    "license key",
    "key value",
    "key result",
    "sort order",
    "order by",
    "root cause",
    "pull request",
    "domain model",
    "cancellation policy",
    "return policy",
    "retention policy",
    "status check",
    "password policy",
    "role model",
    "access log",
    "access time",
    "check run",
    "check suite",
)
"""Two words of which one sounds worse than both are; "pull request" only because it is common."""

CARRIERS = word_set("batch graphql jsonrpc xmlrpc multicall")
"""Last words of paths to which other calls are posted."""

MILD = word_set(
    "reaction star follow following follower like label bookmark favorite favourite vote upvote "
    "downvote watch watcher pin mute highlight emoji assignee reminder starred liked pinned "
    "followed favorited favourited bookmarked watched muted"
)
"""Nouns of which little is lost when one is deleted. Not among them: subscription, which may be
one that is paid for, and tag, which may be all that keeps what it names."""

PEOPLE = word_set(
    "user customer contact member employee patient subscriber lead person people guest student "
    "attendee applicant candidate participant recipient buyer cardholder tenant resident profile "
    "collaborator owner admin client"
)
IDENTIFYING = word_set(
    "ssn social_security_number national_id passport_number tax_id date_of_birth birth_date "
    "birthdate birthday dob iban account_number card_number phone phone_number mobile "
    "mobile_phone home_address street_address salary"
)
"""Names of values that are personal wherever they stand."""
CONTACT = frozenset({"email", "email_address", "emails", "mail"})
"""Names of values that are personal in a list of people."""

READABLE = word_set("certificate cert jwk keypair mfa pin 2fa") | {
    "deploy key",
    "ssh key",
    "gpg key",
}
"""Nouns of secrets whose readable part is public, or says only that there are some."""

BULK = word_set("export dump backup audit auditlog")
"""Nouns and verbs of answers that hold much at once."""

SECRET_VALUES = word_set(
    "token access_token refresh_token id_token secret client_secret api_key apikey private_key "
    "password passphrase secret_key secret_access_key signing_secret webhook_secret "
    "session_token kubeconfig credentials encoded_jit_config auth_token bearer_token "
    "connection_string admin_password master_key recovery_codes"
)
"""Names of values that are secrets."""

FINAL = re.compile(
    r"\b(?:permanent(?:ly)?|irreversibl[ey]|(?:cannot|can(?:no|['\u2019])t) be (?:undone|reversed|"
    r"recovered|restored)|no way to (?:undo|recover)|not (?:be )?(?:recoverable|reversible))\b",
    re.IGNORECASE,
)
"""What a description says of that which cannot be undone."""

_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+[a-z]*")
_IRREGULAR = {"people": "people", "status": "status", "address": "address", "dns": "dns"}


def words_of(text: str) -> tuple[str, ...]:
    """The words of a name or sentence in lower case and in the singular: `listDeployKeys` is
    list, deploy, key."""
    return tuple(singular(word.lower()) for word in _SPLIT.findall(text))


def written(text: str) -> list[str]:
    """The words of a name in lower case, each in the number in which it stands there."""
    return [word.lower() for word in _SPLIT.findall(text)]


def singular(word: str) -> str:
    """`policies` is policy, `keys` key, `deletes` delete; what looks like no plural stays."""
    if word in _IRREGULAR or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1]


def spoken(words: Iterable[str]) -> str:
    """Words as one text in which phrases are looked for, with what is harmless taken out."""
    text = f" {' '.join(words)} "
    for phrase in HARMLESS:
        text = text.replace(f" {phrase} ", " ")
    return text


def nouns_in(words: Iterable[str]) -> dict[str, str]:
    """The telling nouns and phrases among `words`, with the names of their kinds."""
    text = spoken(words)
    found = {phrase: kind for phrase, kind in PHRASES.items() if f" {phrase} " in text}
    found.update({word: NOUNS[word] for word in text.split() if word in NOUNS})
    return found
