"""From the bytes of a description to a pack, and to the report on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rules.checks import hosts_overlap
from rules.errors import InvalidFile, Problem
from rules.hosts import parse_pattern
from rules.openapi.classify import READS, Verdict, classify, plain_risk
from rules.openapi.document import Document, Operation, Unfit, split_server
from rules.openapi.lexicon import ORDER
from rules.openapi.pack import (
    Draft,
    Remark,
    Remarks,
    deletable,
    kebab,
    make_rules,
    visible,
)
from rules.openapi.reading import Progress, read_description
from rules.openapi.routes import Route, arrange, template_of
from rules.openapi.writing import write_pack
from rules.spellings import parse_slot
from rules.yamlfile import MAX_CHARACTERS

_MAX_BASES = 8
_MAX_NAMED = 20
"""References that a remark names one by one."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A pack, and what there is to say of it."""

    name: str
    text: str
    title: str
    version: str
    operations: int
    counts: dict[str, int]
    """Operations by class, and `none` of those that no call can reach."""
    rules: tuple[Draft, ...]
    remarks: tuple[Remark, ...]


def import_openapi(
    data: bytes,
    *,
    file: str,
    name: str,
    hosts: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> Imported:
    """The pack of a description. Without `hosts`, those of its servers.

    Raises InvalidFile with what is wrong and what to do.
    """
    try:
        document = Document.of(read_description(data, file, progress))
        return _import(document, file, name, hosts)
    except Unfit as error:
        raise InvalidFile([Problem(file, 0, str(error))]) from None


def _import(document: Document, file: str, name: str, given: Sequence[str]) -> Imported:
    remarks = Remarks()
    hosts, bases, notes = _places(document, given)
    operations = list(document.operations())
    if not operations and not document.remote:
        raise Unfit("the description has no operations, so there is no call to make a rule of")
    verdicts: dict[int, Verdict] = {id(one): classify(one) for one in operations}
    counts = dict.fromkeys(("low", "medium", "high"), 0)
    routes: list[Route] = []
    unreachable = 0
    for operation in operations:
        made: list[Route] = []
        for host, own in _own_places(operation, document, hosts, remarks):
            below = bases if own is None else [own]
            made += _routes(operation, host, below, verdicts[id(operation)], remarks)
        unreachable += not made
        routes += made
    if operations and not routes:
        raise Unfit(
            "no call can have the paths of its operations"
            + (f" below {', '.join(map(visible, bases))}" if any(bases) else "")
            + "; mend its servers"
        )
    if not routes:
        raise Unfit(
            "no operation is in the file itself; put what its $refs name into it first: "
            "npx @redocly/cli bundle FILE -o openapi.yaml"
        )
    arranged = arrange(routes)
    for risk in {id(o): r.risk for r in arranged for o in r.operations}.values():
        counts[risk] += 1
    rules = make_rules(arranged, verdicts, deletable(operations), remarks)
    listed = [*_whole(document, notes), *remarks.listed()]
    title = visible(document.title, 80) or name
    text = write_pack(
        name=name,
        title=title,
        about=f"{title} {visible(document.version, 30)}".strip()
        + ", from its OpenAPI description; classes are a proposal.",
        source=file,
        hosts=hosts,
        inject=_injection(document),
        counts=counts,
        remarks=listed,
        rules=rules,
    )
    if len(text) > MAX_CHARACTERS:
        raise Unfit(
            f"its {len(rules):,} rules are more than a policy file may hold; cut the description "
            "to the paths that agents need"
        )
    if unreachable:
        counts["none"] = unreachable
    return Imported(
        name=name,
        text=text,
        title=title,
        version=visible(document.version, 30),
        operations=len(operations),
        counts=counts,
        rules=rules,
        remarks=tuple(listed),
    )


def _routes(
    operation: Operation, host: str, bases: Sequence[str], verdict: Verdict, remarks: Remarks
) -> list[Route]:
    """One for each base path below which the operation is served; none if no call can reach it."""
    found = []
    for base in bases:
        try:
            template, wider = template_of(operation.path, base, operation.deep)
        except ValueError as error:
            remarks.note(
                "unreachable",
                f"{operation.method} {visible(operation.path)} ({visible(str(error), 160)})",
            )
            continue
        wide = [operation.path] if wider else []
        path = base + operation.path
        risk = verdict.risk
        if wider and operation.method not in READS:  # calls that nothing was said of fall under it
            risk = max(risk, plain_risk(operation.method), key=ORDER.__getitem__)
        found.append(Route(operation.method, host, [template], [operation], [path], risk, wide))
    return found


def _own_places(
    operation: Operation, document: Document, hosts: Sequence[str], remarks: Remarks
) -> list[tuple[str, str | None]]:
    """The host of an operation with servers of its own ("" if it is one of the pack's), and its
    base path; None where it has the description's. Empty if no call can reach its servers."""
    if not operation.servers:
        return [("", None)]
    everywhere = {split_server(url)[1] for url in document.servers}
    if any(_among(authority, hosts) for authority in everywhere):
        everywhere = set()  # else the pack's hosts stand for all of the description's
    for url in operation.servers:
        scheme, authority, base = split_server(url)
        if not authority or authority in everywhere:
            return [("", base)]
        if scheme == "https" and _pattern(authority):
            return [("" if _among(authority, hosts) else authority, base)]
    at = ", ".join([visible(url) for url in operation.servers[:3]])
    remarks.note("unreachable", f"{operation.method} {visible(operation.path)} (only at {at})")
    return []


def _places(
    document: Document, given: Sequence[str]
) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """The pack's hosts, the base paths there, and what is to be said of them."""
    notes: list[tuple[str, str]] = []
    servers = [split_server(url) for url in document.servers]
    named = [a for scheme, a, _ in servers if scheme == "https" and _pattern(a)]
    hosts = list(dict.fromkeys(given or named[:1]))
    if not hosts:
        told = ", ".join(visible(url) for url in document.servers[:3]) or "none"
        raise Unfit(f"its servers ({told}) name no https host; say which with --host")
    if not given and len(set(named)) > 1:
        notes.append(("servers", f"Made for {hosts[0]}; it is also served at others: "
                      f"{', '.join(dict.fromkeys(named[1:5]))}."))  # fmt: skip
    here = [base for _, a, base in servers if a and _among(a, hosts)]
    if not here and servers:
        here = [servers[0][2]]
        if servers[0][1]:
            notes.append(
                (
                    "servers",
                    f"None of its servers is at {', '.join(hosts)}; the paths are taken as those "
                    f"below {visible(document.servers[0])}.",
                )
            )
    bases = list(dict.fromkeys(here or [""]))
    if len(bases) > _MAX_BASES:
        raise Unfit(f"its servers have more than {_MAX_BASES} base paths; keep those you use")
    if any("{" in base for base in bases):
        notes.append(("servers", "A server's base path has a variable without a default."))
    return hosts, bases, notes


def _pattern(authority: str) -> bool:
    try:
        parse_pattern(authority)
    except ValueError:
        return False
    return True


def _among(authority: str, hosts: Sequence[str]) -> bool:
    """Whether a server's host is one of the pack's."""
    try:
        own = parse_pattern(authority)
    except ValueError:
        return False
    patterns = [parse_pattern(host) for host in hosts]
    return any(hosts_overlap(own, p) and (own.port or 443) == (p.port or 443) for p in patterns)


def _injection(document: Document) -> str | dict[str, str] | None:
    """How the description's credentials go in, where a credential of the policy can."""
    for scheme in document.schemes:
        kind, way = str(scheme.get("type")), str(scheme.get("scheme")).lower()
        if kind in ("oauth2", "openIdConnect") or (kind == "http" and way == "bearer"):
            return "bearer"
        if kind == "apiKey" and scheme.get("in") == "header":
            header = str(scheme.get("name"))
            if header.lower() == "authorization":
                return "bearer"
            try:
                parse_slot(header)
            except ValueError:
                continue
            return {"header": header}
    return None


def _whole(document: Document, notes: Sequence[tuple[str, str]]) -> list[Remark]:
    """What concerns the description as a whole."""
    found = [Remark(code, sentence) for code, sentence in notes]
    if document.remote:
        named = [visible(reference) for reference in list(document.remote)[:_MAX_NAMED]]
        more = len(document.remote) - len(named)
        found.append(
            Remark(
                "references",
                "These lead out of the file, or nowhere; nothing was fetched, so what they name is "
                "not known, and operations in them have no rule. Bundle the description first: "
                "npx @redocly/cli bundle FILE -o openapi.yaml",
                (*named, *([f"and {more} more"] if more else [])),
            )
        )
    if document.webhooks or document.callbacks:
        found.append(
            Remark(
                "incoming",
                f"{document.webhooks} webhooks and {document.callbacks} callbacks are left out: "
                "they are calls that the service makes.",
            )
        )
    if document.unruled:
        named = [visible(one) for one in list(document.unruled)[:_MAX_NAMED]]
        more = len(document.unruled) - len(named)
        found.append(
            Remark(
                "no-rule",
                "No rule is made of these: a method is in small letters where the description "
                "names its own (`get:`), in capitals where it adds others (`PURGE:`), and stands "
                "over a mapping; CONNECT and TRACE are never forwarded. Calls of them are denied.",
                (*named, *([f"and {more} more"] if more else [])),
            )
        )
    if document.traces:
        found.append(Remark("trace", "TRACE is never forwarded, so there is no rule for it."))
    schemes = document.schemes
    if schemes and _injection(document) is None:
        ways = sorted({f"{s.get('type')} {s.get('in', s.get('scheme', ''))}" for s in schemes})
        found.append(
            Remark(
                "credential",
                "Its callers say who they are in a way that no credential of the policy can: "
                f"{visible(', '.join(ways))}. basic needs a user name: {{basic: {{username: u}}}}.",
            )
        )
    return found


def pack_name(text: str) -> str:
    """A name for a pack out of a file's name or a title; empty if nothing is left of it."""
    return kebab(text.lower())[:40].rstrip("-")
