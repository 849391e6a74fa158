"""JSON Schemas (2020-12) of the policy, of packs and of files of cases, for editors.

Made from the tables that the loader reads by: a field that a table has and no description here, or
the other way round, is an error. The schema is for typing; what it lets through the loader checks.
"""

from __future__ import annotations

from rules import limits, load, matches, operators, pack, packs, schema
from rules.conditions import DAYS
from rules.editor.pieces import (
    Json,
    choice,
    fields_of,
    listed,
    mapped,
    or_null,
    pattern,
    ref,
    said,
    scalar,
    several,
    suggest,
    text,
)
from rules.include import INCLUDE
from rules.limit_schema import LIMIT, MOST_LIMITS
from rules.trial import cases, inline, outcome, requests
from rules.values import NUMERIC

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SIZE = r"^[0-9]+(B|KiB|MiB|GiB)$"
_CLOCK = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
_RUN = r"^t-[0-9a-z]{26}$"
_DURATION = r"^[0-9]+(s|m|h|d)$"


def policy_schema() -> Json:
    """Of policy.yaml."""
    return _root(
        "Keybroker policy",
        fields_of(
            load.FIELDS,
            {
                "version": said("The language; always 1.", const=load.VERSION),
                "mode": choice(schema.MODES, "shadow: nothing in this file is in force."),
                "credentials": mapped(ref("credential"), "Secrets by name, and where they may go."),
                "approvers": mapped(several(text()), "Groups of people by name, for quorums."),
                "tiers": mapped(ref("tier"), "What a risk asks of people. low, medium and high are"
                              " built in."),
                "include": listed(ref("include"), "Packs whose rules are taken in."),
                "override": mapped(ref("override"), "Changes to packs' rules, by their ids."),
                "rules": listed(ref("rule"), "What agents may do. What no rule allows is denied."),
            },
            required=("version",),
            empty=("credentials", "approvers", "tiers", "include", "override", "rules"),
        ),

    )  # fmt: skip


def tests_schema() -> Json:
    """Of a file of cases for `policy test`."""
    return _root("Keybroker policy tests", listed(_case(), "Cases.", least=1))


def pack_schema() -> Json:
    """Of a pack."""
    fields = {
        "pack": text("The pack's name: small letters, digits and hyphens."),
        "title": text("The API's name, up to 80 characters."),
        "about": text("What the pack covers and what it does not."),
        "hosts": several(text(), "Added to every match that names no host."),
        "parameters": mapped(_parameter(), "What an include fills in for ${name}."),
        "credential": said(
            "How keys go in: {inject: bearer}.",
            type=["object", "null"],
            properties={"inject": _inject()},
        ),
        "rules": listed(_pack_rule(), "Each with the class of its calls.", least=1),
    }
    required = ("pack", "title", "about", "hosts", "rules")
    root = fields_of(pack.FIELDS, fields, required=required, empty=("parameters",))
    return _root("Keybroker pack", root)


# -- rules


def _rule() -> Json:
    return fields_of(schema.RULE, _rule_fields(), required=("id", "agents", "match", "effect"))


def _override() -> Json:
    """Any field but the id; null takes one away."""
    fields = {name: or_null(field) for name, field in _rule_fields().items() if name != "id"}
    return fields_of([name for name in schema.RULE if name != "id"], fields) | {"minProperties": 1}


def _pack_rule() -> Json:
    aside = {"id", "class", "rest"}
    fields = {name: f for name, f in _rule_fields().items() if name in pack.OF_RULE}
    fields["id"] = text("Its name within the pack.")
    fields["class"] = choice(pack.CLASSES, "low: allowed; medium, high: held in that tier.")
    fields["rest"] = said("Only what no rule without `rest` has.", type="boolean")
    assert aside <= fields.keys()
    return fields_of(pack.OF_RULE, fields, required=("id", "class", "match"))


def _rule_fields() -> Json:
    return {
        "id": text("A name of its own, as refusals, cards and the audit log give it."),
        "agents": several(text(), "Agents' names, or tag:NAME."),
        "match": said("Which calls it is about; {} is every call.", **_matches()),
        "except": said("Calls that it is not about.", **_matches()),
        "effect": choice(schema.EFFECTS, "Of several rules that match, deny beats hold beats"
                          " allow."),
        "risk": suggest(("low", *schema.BUILT_IN), "The tier of a hold."),
        "summary": text("For the reviewer, with places such as {form:amount}."),
        "confirm": text("The place whose value is retyped: form:amount."),
        "impact": text("The consequence, for the reviewer."),
        "undo": text("Whether it can be taken back, or how."),
        "use": said("Credentials that are put in.", anyOf=[text(), listed(text())]),
        "body": choice(schema.BODIES, "stream: it passes unread as it comes."),
        "body_limit": pattern(_SIZE, "With body: stream, the most that may pass."),
        "limit": said("How often, or how much in sum.",
                       anyOf=[_limit(), listed(_limit(), least=1, most=MOST_LIMITS)]),
        "mode": choice(schema.MODES, "shadow: the rule is only tried."),
        "tests": or_null(fields_of(inline.TESTS, {
            "match": listed(ref("request"), "Requests that fall under the rule."),
            "no_match": listed(ref("request"), "Requests that do not."),
        })),
    }  # fmt: skip


def _limit() -> Json:
    return fields_of(LIMIT, {
        "calls": said("So many calls.", type="integer", minimum=1, maximum=limits.MAX_CALLS),
        "sum": text("The place of a number that is summed up: form:amount."),
        "max": said("The most that the sum may be.", type=["number", "string"]),
        "per": pattern(_DURATION, "In so much time: 1m, 1d."),
        "over": choice(limits.BEYOND, "What becomes of a call beyond it."),
    }, required=("per",))  # fmt: skip


# -- matches


def _matches() -> Json:
    return {"anyOf": [ref("match"), listed(ref("match"), least=1)]}


def _match() -> Json:
    return fields_of(matches.MATCH, {
        "method": several(pattern("^ *[A-Z][A-Z-]* *$"), "In capitals: GET."),
        "host": several(text(), "api.example.com, *.example.com, either with :PORT."),
        "path": several(pattern("^ */"), "/v1/*/x, /v1/{name}:run, /v1/{+name}, /v1/**."),
        "scheme": choice(matches.SCHEMES, "https unless it says http."),
        "query": _tests(_untyped(), "Query parameters."),
        "headers": _tests(_untyped(), "Headers."),
        "json": _tests(_typed(), "Values in a JSON body, by pointer.", pointers=True),
        "form": _tests(_untyped(), "Fields of a form; of a file exists and length, in bytes."),
        "body": fields_of(matches.BODY, {
            "type": several(text(), "application/json, text/*."),
            "size": _size("64KiB, or {lte: 64KiB}.", bytes_=True),
        }, "Its Content-Type and size."),
        "graphql": fields_of(matches.GRAPHQL, {
            "kind": several(choice(matches.KINDS), "Of operation."),
            "fields": several(text(), "Globs of root fields."),
        }, "An allow wants every operation and root field to match, others any."),
        "jsonrpc": fields_of(matches.JSONRPC, {
            "method": several(text(), "Globs: eth_*."),
            "params": _tests(_typed(), "By pointer: /0, /name.", pointers=True),
        }, "JSON-RPC; an allow wants every call of a batch to match, others any."),
        "mcp": fields_of(matches.MCP, {
            "method": several(text(), "Globs; tools/call with a tool."),
            "tool": several(text(), "Globs of tools' names."),
            "arguments": _tests(_typed(), "Of the tool, by pointer: /path.", pointers=True),
        }, "Messages to an MCP server; an allow wants all of a batch to match, others any."),
        "grpc": fields_of(matches.GRPC, {
            "service": several(pattern("^ *[A-Za-z0-9_.*]+ *$"), "Globs: shop.v1.Orders."),
            "method": several(pattern("^ *[A-Za-z0-9_*]+ *$"), "Globs: Cancel."),
        }, "The gRPC call."),
        "upgrade": choice(matches.UPGRADES, "Whether a WebSocket is asked for."),
        "time": fields_of(matches.TIME, {
            "days": several(suggest(DAYS), "Every day, if left out."),
            "from": pattern(_CLOCK, "09:00, in quotes."),
            "to": pattern(_CLOCK, "17:00, in quotes; up to but not including."),
            "zone": text("Whose clocks: Europe/Berlin."),
        }, "When the call comes.", required=("zone",)),
        "source": fields_of(matches.SOURCE, {
            "via": choice(matches.VIAS, "gateway: by the base URL."),
            "run": said("Whether it comes from `keybroker run`, or from which run.",
                        anyOf=[{"type": "boolean"}, several(pattern(_RUN))]),
            "tags": several(text(), "Tags of the agent; one suffices."),
        }, "Where the call comes from."),
        "when": text("An expression in CEL over `call`."),
    })  # fmt: skip


def _tests(value: Json, about: str = "", *, pointers: bool = False) -> Json:
    """`name: value`, or `name: {OPERATOR: value}`."""
    found = said(
        about,
        type="object",
        minProperties=1,
        additionalProperties={"anyOf": [value, _operators(value)]},
    )
    return found | ({"propertyNames": {"pattern": "^ */"}} if pointers else {})


def _operators(value: Json) -> Json:
    fields: Json = {
        "in": listed(value, "It is one of these.", least=1),
        "not_in": listed(value, "It is there, and none of these.", least=1),
        "exists": said("Whether it is there.", type="boolean"),
        "length": _size("Characters, items or members; of a file bytes.", bytes_=False),
    }
    fields |= {name: said("It is a number that compares so.", type="number") for name in NUMERIC}
    fields |= {name: text(f"Its {name}.") for name in operators.TEXTS}
    fields["glob"] = text(
        "Its whole text, with * for any run of characters; no regular expression."
    )
    return fields_of(operators.OPERATORS, fields) | {"minProperties": 1}


def _size(about: str, *, bytes_: bool) -> Json:
    number: Json = {"type": "integer", "minimum": 0}
    one = {"anyOf": [number, pattern(_SIZE)]} if bytes_ else number
    compared = fields_of(NUMERIC, {n: said("A bound.", **one) for n in NUMERIC})
    return said(about, anyOf=[one, compared | {"minProperties": 1}])


def _typed() -> Json:
    return {"type": ["string", "number", "boolean", "null"]}


def _untyped() -> Json:
    return {"type": ["string", "integer"]}


# -- people, secrets, packs


def _credential() -> Json:
    return fields_of(schema.CREDENTIAL, {
        "secret": text("MOUNT/PATH#FIELD; a name, never a value."),
        "hosts": several(text(), "Where it may go."),
        "inject": _inject(),
        "env": said("A variable that stands for it.", anyOf=[
            text(),
            fields_of(schema.VARIABLE, {"name": text(), "shape": text("sk_test_{hex:24}")},
                    required=("name",)),
        ]),
    }, required=("secret", "hosts", "inject"))  # fmt: skip


def _inject() -> Json:
    username = fields_of(schema.USERNAME, {"username": {"type": "string"}}, required=("username",))
    header = {"header": text(), "format": text("With {secret} exactly once.")}
    return said("How it goes into a request.", anyOf=[
        {"const": "bearer"},
        fields_of(schema.BASIC, {"basic": username}, required=("basic",)),
        fields_of(schema.HEADER, header, required=("header",)),
    ])  # fmt: skip


def _tier() -> Json:
    group = {"group": text(), "count": {"type": "integer", "minimum": 1, "maximum": 100}}
    return fields_of(schema.TIER, {
        "quorum": listed(fields_of(schema.QUORUM, group, required=("group",)),
                        "Different people for every seat; any is everybody who may approve.",
                        least=1),
        "exclude": said("Who may not vote: names, or owner.", anyOf=[text(), listed(text())]),
        "decide_within": pattern(_DURATION, "How long people have."),
        "execute_within": pattern(_DURATION, "How long an approved call may be sent."),
        "denials": said("How many denials deny the call.", type="integer", minimum=1, maximum=100),
        "reason": choice(schema.REASONS, "Of an approval."),
        "confirm": choice(schema.CONFIRMS, "Whether the approver retypes a value."),
        "passkey": choice(("optional",)),
        "grants": choice(("allowed", "never")),
        "escalate": {"const": []},
    })  # fmt: skip


def _include() -> Json:
    named = fields_of(INCLUDE, {
        "pack": suggest(packs.names(), "A shipped pack."),
        "file": text("A pack below the policy's directory: ./NAME.yaml."),
        "as": text("What its rules' ids begin with."),
        "agents": several(text(), "Agents' names, or tag:NAME."),
        "use": said("The credentials of every rule.", anyOf=[text(), listed(text())]),
        "with": mapped(several({"type": ["string", "integer"]}), "Values for parameters."),
    }, required=("agents",), empty=("with",))  # fmt: skip
    return named | {"oneOf": [{"required": ["pack"]}, {"required": ["file"]}]}


def _parameter() -> Json:
    return fields_of(pack.PARAMETER, {
        "about": text(),
        "default": several(text(), "Without one it must be given."),
        "kind": choice(pack.KINDS),
    }, required=("about",))  # fmt: skip


# -- tests


def _request() -> Json:
    pair: Json = {"type": "array", "items": scalar(), "minItems": 2, "maxItems": 2}
    named = {"type": "object", "additionalProperties": {"anyOf": [scalar(), listed(scalar())]}}
    fields: Json = {"anyOf": [named, listed(pair), {"type": "null"}]}
    found = fields_of(requests.REQUEST, {
        "method": scalar(),
        "url": scalar("The whole URL."),
        "path": scalar("In tests of rules: a path at the rule's first exact host."),
        "target": scalar("Path and query as on the wire, in place of the URL's."),
        "headers": said("{NAME: VALUE}, or [[NAME, VALUE], ...].", **fields),
        "body": scalar("As text."),
        "json": said("A JSON body, written in YAML."),
        "form": said("Fields of an urlencoded body.", **fields),
        "body_base64": text("As bytes."),
        "at": text("When it comes: 2026-03-02T09:30:00Z."),
        "via": choice(matches.VIAS),
        "run": said("Whether it comes from `keybroker run`, or from which run.",
                    anyOf=[{"type": "boolean"}, pattern(_RUN)]),
    }, required=("method",))  # fmt: skip
    return found | {"anyOf": [{"required": [name]} for name in requests.PLACES]}


def _case() -> Json:
    return fields_of(cases.CASE, {
        "name": text("What it is called in messages."),
        "as": text("The agent."),
        "tags": said("Its tags, in place of its account's.", anyOf=[text(), listed(text())]),
        "at": text("When it comes: 2026-03-02T09:30:00Z."),
        "repeat": said("How many calls alike, for limits.", type="integer", minimum=1,
                        maximum=cases.MAX_REPEAT),
        "request": ref("request"),
        "expect": fields_of(cases.EXPECT, {
            "effect": choice(cases.EFFECTS),
            "risk": or_null(suggest(("low", *schema.BUILT_IN))),
            "rule": or_null(text("One of the deciding rules.")),
            "rules": or_null(said("All deciding rules.", anyOf=[text(), listed(text())])),
            "code": or_null(choice(outcome.CODES)),
            "sentence": text("A part of the sentence."),
        }) | {"minProperties": 1},
    }, required=("as", "request", "expect"))  # fmt: skip


_DEFINITIONS = {
    "rule": _rule,
    "override": _override,
    "match": _match,
    "credential": _credential,
    "tier": _tier,
    "include": _include,
    "request": _request,
}


def _root(title: str, root: Json) -> Json:
    found: Json = {"$schema": DIALECT, "title": title, **root}
    needed: dict[str, Json] = {}
    pending = _references(found)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed[name] = _DEFINITIONS[name]()
            pending |= _references(needed[name])
    return found | {"$defs": dict(sorted(needed.items()))}


def _references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {str(value["$ref"]).rpartition("/")[2]} if "$ref" in value else set()
        return own.union(*map(_references, value.values()))
    if isinstance(value, list):
        return set().union(*map(_references, value))
    return set()
