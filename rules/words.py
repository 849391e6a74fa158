"""The policy in words: what a rule means to an agent, what a call asks of a reviewer.

Whatever an agent wrote is made visible before it is shown: control, format and look-alike blank
characters become escapes, long text is cut. Nothing here raises on account of a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from math import ceil

from rules.describe import all_of, any_of, describe_host, describe_match
from rules.errors import Unreadable
from rules.limits import UNREADABLE, Limit, Over, tidy
from rules.model import ANYONE, OWNER, Policy, Rule, Tier
from rules.places import Place, parse_place
from rules.reading.call import Reading
from rules.reading.json import Json, json_text
from rules.request import Request
from rules.visible import visible

ABSENT = "(absent)"
MAX_SHOWN_URL = 200
"""Characters of a URL in a sentence."""
MAX_FIELDS = 200
MAX_FIELD = 2000
"""Of the reviewer's decoded view: how many fields, and characters of each; the raw body has all."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_OF_REQUEST = ("method", "host", "path")


_KINDS = {
    "form": "form field",
    "json": "JSON value",
    "query": "query parameter",
    "header": "header",
}


def place_parts(place: str) -> tuple[str, str, str]:
    """A place in a request for people: `form:amount` is ("amount", "form field", "amount").

    The last part is the whole name: for JSON the pointer, of which the first has the end.
    """
    kind, _, name = place.partition(":")
    if kind not in _KINDS:
        return visible(place), "", ""
    return visible(name.rpartition("/")[2] or name), _KINDS[kind], visible(name)


def describe_place(place: str) -> str:
    """`the amount (form field "amount")`; `the path`."""
    short, kind, name = place_parts(place)
    return f'the {short} ({kind} "{name}")' if kind else f"the {short}"


def check_summary(template: str) -> None:
    """Returns if every placeholder of a summary can be filled in; else raises ValueError."""
    for name in _names(template):
        if name not in _OF_REQUEST:
            try:
                parse_place(name)
            except ValueError:
                raise ValueError(
                    f"{{{name}}} cannot be filled in; use {{method}}, {{host}}, {{path}} or a "
                    "place such as {form:amount}, {json:/a/b}, {query:q}, {header:x}"
                ) from None
    if "{" in (rest := _PLACEHOLDER.sub("", template)) or "}" in rest:
        raise ValueError("a brace without its partner")


def _names(template: str) -> list[str]:
    """What the placeholders name; several in one are parted by `|`."""
    return [name for found in _PLACEHOLDER.findall(template) for name in found.split("|")]


def reads_body(rule: Rule) -> bool:
    """Whether the rule's texts show something of the body."""
    places = [*_names(rule.summary or ""), rule.confirm or ""]
    return any(place.startswith(("json:", "form:")) for place in places)


def fill_summary(template: str, request: Request, reading: Reading | None = None) -> str:
    """A summary with its placeholders filled in; values are visible and cut, or `(absent)`.

    Of several places in one placeholder (`{json:/text|form:text}`) all that are there are shown,
    since which of them the upstream takes is not known. `reading` spares parsing the body again
    where the caller has one.
    """
    call = reading or Reading(request)

    def value(name: str) -> str | None:
        if name in _OF_REQUEST:
            return str(getattr(request, name))
        place = parse_place(name)
        found = call.at(place)
        return _file_at(place, call) if found is None else found

    def filled(found: re.Match[str]) -> str:
        try:
            values = dict.fromkeys(value(name) for name in found[1].split("|"))
        except ValueError:
            return found[0]
        return ", ".join(visible(text) for text in values if text is not None) or ABSENT

    return _PLACEHOLDER.sub(filled, template)


def _file_at(place: Place, call: Reading) -> str | None:
    """The files at a place, by their own names and sizes."""
    if place.kind != "form":
        return None
    files = [part for part in call.files if part.name == place.name]
    said = [f"{part.filename or '(no name)'} ({len(part.value)} bytes)" for part in files]
    return ", ".join(said) if said else None


def body_view(request: Request) -> list[tuple[str, str]]:
    """The fields of a form or JSON body for the reviewer, JSON by pointer; empty if it is neither.

    What is left out for length is said in a last entry.
    """
    reading = Reading(request)
    fields: Iterable[tuple[str, str]]
    if reading.form is not None:
        fields = reading.form
    else:
        try:
            fields = _leaves(reading.json)
        except Unreadable:
            return []
    first = list(islice(fields, MAX_FIELDS + 1))
    view = [(visible(n, MAX_FIELD), visible(v, MAX_FIELD)) for n, v in first[:MAX_FIELDS]]
    if len(first) > MAX_FIELDS:
        view.append(("…", "there is more in the raw body"))
    return view


def files_view(request: Request) -> list[dict[str, str | int]]:
    """What a multipart form has besides fields, for the reviewer, who may compare the hash with a
    file of his own; what is left out for length is in the raw body."""
    return [
        {
            "name": visible(part.name, MAX_FIELD),
            "filename": visible(part.filename or "", MAX_FIELD),
            "type": visible(part.type, MAX_FIELD),
            "size": len(part.value),
            "sha256": sha256(part.value).hexdigest(),
        }
        for part in Reading(request).files[:MAX_FIELDS]
    ]


def _leaves(value: Json) -> Iterator[tuple[str, str]]:
    """The leaves with their pointers, in order; no recursion, since an agent chose the depth."""
    pending = [iter([("", value)])]
    while pending:
        for pointer, item in pending[-1]:
            if isinstance(item, dict | list) and item:
                pending.append(_children(pointer, item))
                break
            yield pointer or "/", json_text(item)
        else:
            pending.pop()


def _children(pointer: str, value: dict[str, Json] | list[Json]) -> Iterator[tuple[str, Json]]:
    if isinstance(value, list):
        return ((f"{pointer}/{index}", item) for index, item in enumerate(value))
    return (
        (f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}", item)
        for name, item in value.items()
    )


def describe_call(request: Request) -> str:
    """The call without its query, which may hold what sentences should not repeat."""
    url = f"{request.scheme}://{request.authority}{request.path}"
    how = " as a WebSocket" if request.upgrade else ""
    return f"{visible(request.method)} {visible(url, MAX_SHOWN_URL)}{how}"


def rules_say(rules: Sequence[Rule], verb: str) -> str:
    """`Rule "a" allows`, `Rules "a", "b" allow`."""
    ids = ", ".join([f'"{rule.id}"' for rule in rules])
    if len(rules) > 1:
        return f"Rules {ids} {verb}"
    return f"Rule {ids} {verb}{'es' if verb.endswith('s') else 's'}"


def say_held(rules: Sequence[Rule], tiers: Iterable[Tier], request: Request) -> str:
    """That these rules hold the call, and whom they ask."""
    risk = "; ".join(f"{tier.name} risk: {describe_tier(tier)}" for tier in tiers)
    what = describe_call(request)
    return f"{rules_say(rules, 'hold')} {what} until people approve it ({risk})."


def describe_rule(rule: Rule, policy: Policy) -> str:
    """One sentence on what the rule does."""
    return _of_rule(rule, policy) + "."


def instruct(rule: Rule, policy: Policy) -> str:
    """The same for a model that plans its calls by it: also what it must not send."""
    sentence = _of_rule(rule, policy)
    if rule.use and rule.effect in ("allow", "hold"):
        sentence += f"; Keybroker adds the credential {all_of(rule.use)}, send none of your own"
        for name in rule.use:
            credential = policy.credentials.get(name)
            if credential is not None and credential.env is not None:
                sentence += f" ({credential.env.name} holds a placeholder for {name})"
    return sentence + "."


def _of_rule(rule: Rule, policy: Policy) -> str:
    what = _any_of([describe_match(match) for match in rule.matches])
    if rule.excepts:
        what += ", except " + _any_of([describe_match(match) for match in rule.excepts])
    match rule.effect:
        case "allow":
            return f"{what}: allowed{_limited(rule, policy)}"
        case "deny":
            return f"{what}: denied"
        case "tunnel":
            hosts = [describe_host(host) for match in rule.matches for host in match.hosts]
            return f"connections to {any_of(hosts)}: passed on undecrypted"
        case "hold":
            asked = f"held until approved ({_risk(rule.risk or '', policy)})"
            return f"{what}: {asked}{_limited(rule, policy)}"


def _limited(rule: Rule, policy: Policy) -> str:
    """`, at most 30 calls in 1 minute`; what becomes of calls beyond that, unless they are
    denied."""
    parts = []
    for limit in rule.limits:
        words = f"at most {describe_limit(limit)}"
        if limit.over == "hold":
            asked = f"until approved ({_risk(rule.tier or '', policy)})"
            words += f" (beyond that held {asked if rule.effect == 'allow' else 'all the same'})"
        parts.append(words)
    return f", {all_of(parts)}" if parts else ""


def describe_limit(limit: Limit) -> str:
    """`30 calls in 1 minute`; `5000 in sum of the amount (form field "amount") in 1 day`."""
    if limit.place is None:
        return f"{limit.most} call{'' if limit.most == 1 else 's'} in {describe_span(limit.per)}"
    return f"{limit.most} in sum of {describe_place(limit.place)} in {describe_span(limit.per)}"


def describe_span(seconds: int) -> str:
    """A stretch of time in its largest whole unit: `90 seconds`, `1 day`."""
    units = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    unit, name = next(each for each in units if seconds % each[0] == 0)
    count = seconds // unit
    return f"{count} {name}{'' if count == 1 else 's'}"


def describe_over(over: Over) -> str:
    """Two sentences: which limit, how much of it is used, and when there is room."""
    demand, limit = over.demand, over.demand.limit
    words = f'Rule "{demand.rule}" takes at most {describe_limit(limit)}, and '
    if demand.amount == UNREADABLE:
        return words + "that of this call cannot be read as one plain number."
    words += f"{over.used} {'is' if over.used == 1 else 'are'} used"
    if limit.place is not None:
        excess = tidy(over.used + demand.amount - limit.most)
        words += f"; this call asks for {demand.amount}, which is {excess} too much"
    if not over.fits:
        return words + ". By itself it is over the limit, so waiting does not help."
    if over.frees_at is None:
        return words + ". There is room once calls that wait for people have been decided."
    left = ceil((over.frees_at - over.at).total_seconds())
    moment = text_of_moment(over.frees_at)
    return words + f". There is room from {moment} on, in {describe_wait(left)}."


def describe_wait(seconds: int) -> str:
    """A time to wait, to the nearest unit that matters: `42 seconds`, `3 hours`."""
    for unit in (86400, 3600, 60):
        if seconds >= 2 * unit:
            return describe_span(-(-seconds // unit) * unit)
    return describe_span(max(seconds, 1))


def text_of_moment(moment: datetime) -> str:
    """RFC 3339 in UTC; part of a second counts as a whole one, so that it is never too early."""
    whole = (moment + timedelta(microseconds=999_999)).astimezone(UTC).replace(microsecond=0)
    return whole.isoformat().removesuffix("+00:00") + "Z"


def describe_tier(tier: Tier) -> str:
    """What a tier asks of people: `1 approver, not the agent's owner`."""
    parts = [_people(entry.count, entry.group) for entry in tier.quorum]
    words = all_of(parts)
    excluded = ["the agent's owner" if name == OWNER else name for name in tier.exclude]
    return words + (f", not {any_of(excluded)}" if excluded else "")


def _risk(name: str, policy: Policy) -> str:
    tier = policy.tiers.get(name)
    return f"{name} risk" + (f": {describe_tier(tier)}" if tier else "")


def _people(count: int, group: str) -> str:
    if group == ANYONE:
        return f"{count} approver{'' if count == 1 else 's'}"
    return f"{count} of {group}"


def _any_of(parts: Sequence[str]) -> str:
    return "; or ".join(parts)
