"""Parts by themselves: the ledger's rate, what a decision costs."""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from audit.journal import Journal
from audit.record import Draft
from broker.services import create_state, open_services
from rules.canonical import canonicalise
from rules.decide import Rulebook
from rules.lint.check import check
from rules.load import load_policy
from rules.model import Subject
from rules.request import RawRequest, Request
from tests.bench.measure import Report, quantile, row

COLUMNS = ("keybroker",)


def ledger(report: Report, rows: int) -> None:
    """Durable records, as many as one process can write."""
    with tempfile.TemporaryDirectory() as directory:
        workspace = Path(directory)
        (workspace / "state").mkdir()
        create_state(workspace)
        services = open_services(workspace)
        services.close()
        journal = Journal(
            workspace / "state" / "keybroker.db",
            clock=lambda: datetime.now(UTC),
            head_key=services.keys.ledger_head,
        )
        draft = Draft("call.completed", {"status": 200, "received": "0" * 64}, "c-1", "bot")
        began = time.perf_counter()
        done = [journal.commit(lambda tx: tx.append(draft)) for _ in range(rows)]
        for future in done:
            future.result()
        elapsed = time.perf_counter() - began
        journal.close()
    report.head("parts", COLUMNS)
    report.add(row("durable ledger rows", "1/s", {"keybroker": [rows / elapsed]}), COLUMNS)


def decisions(report: Report) -> None:
    """decide() with few rules and with many."""
    subject = Subject("bot")
    for count in (10, 100, 1_000, 10_000):
        hosts = max(1, count // 20)
        rules = "\n".join(
            f"  - {{id: r{n}, agents: [bot], match: {{method: GET, host: h{n % hosts}.example,"
            f" path: /a/{n}/*}}, effect: allow}}"
            for n in range(count)
        )
        book = Rulebook(load_policy(f"version: 1\nrules:\n{rules}\n")[0])
        host = f"h{hosts // 2}.example"
        raw = RawRequest(
            "https",
            (host, 443),
            host,
            None,
            "GET",
            f"/a/{hosts // 2}/x",
            ((b"Host", host.encode()), (b"Accept", b"*/*"), (b"User-Agent", b"bench")),
            b"",
        )
        request = canonicalise(raw)
        assert book.decide(subject, request).effect == "allow"
        times = []
        for _ in range(2000):
            start = time.perf_counter()
            book.decide(subject, request)
            times.append((time.perf_counter() - start) * 1e6)
        what = f"decide(), {count} rules over {hosts} hosts"
        for name in (50, 99):
            found = {"keybroker": [quantile(times, name)]}
            report.add(row(f"{what}, p{name}", "us", found), COLUMNS)
    _decisions_anywhere(report)


def _decisions_anywhere(report: Report) -> None:
    """decide() about calls all over a large policy, that were all made before, by what comes of
    them."""
    effects = ("allow", "allow", "allow", "hold")
    rules = "\n".join(
        f"  - {{id: r{n}, agents: [bot], match: {{method: GET, host: h{n % 500}.example,"
        f" path: /a/{n}/*}}, effect: {effects[n % 4]}}}"
        for n in range(10_000)
    )
    book = Rulebook(load_policy(f"version: 1\nrules:\n{rules}\n")[0])
    chance, subject = random.Random(1), Subject("bot")
    times: defaultdict[str, list[float]] = defaultdict(list)
    for again in (False, True):
        for n in chance.sample(range(20_000), 20_000):
            host, path = f"h{n % 500}.example", f"/a/{n}/x"  # every other one names no rule
            request = Request("GET", "https", host, 443, path, None, (("accept", "*/*"),), b"")
            start = time.perf_counter()
            effect = book.decide(subject, request).effect
            if again:
                times[effect].append((time.perf_counter() - start) * 1e6)
    for effect, each in sorted(times.items()):
        for name in (50, 99):
            what = f"decide(), 10000 rules, calls all over them, {effect}, p{name}"
            made = row(what, "us", {"keybroker": [quantile(each, name)]})
            if name == 99:
                made.bar, made.met = "below 20 us", quantile(each, name) < 20
            report.add(made, COLUMNS)


def lint(report: Report) -> None:
    """`policy check` of many rules, from text to findings; then of rules all about one place."""
    for hosts in (50, 5):
        text = _policy(1_000, hosts)
        assert len(check(text).findings) > 100
        _lint(report, f"policy check, 1000 rules over {hosts} hosts", text)
    for name, text in adversarial(1_000).items():
        _lint(report, f"policy check, 1000 rules for one place, {name}", text)


def _lint(report: Report, what: str, text: str) -> None:
    times = []
    for _ in range(3):
        start = time.process_time()
        found = check(text)
        times.append(time.process_time() - start)
    assert found.valid
    made = row(f"{what}, CPU, p50", "s", {"keybroker": [quantile(times, 50)]})
    made.bar, made.met = "below 2 s", quantile(times, 50) < 2
    report.add(made, COLUMNS)


def adversarial(rules: int) -> dict[str, str]:
    """Policies of rules that must all be compared with each other, by what tells them apart."""
    where = "host: x.example, path: /v1/**"
    shapes: dict[str, Callable[[int], str]] = {
        "ranges in JSON": lambda n: (
            f"match: {{method: POST, {where}, "
            f"json: {{/amount: {{gt: {n}}}, /k{n}: {{prefix: p}}}}}}"
        ),
        "expressions": lambda n: f"match: {{method: POST, {where}, when: 'call.json.n > {n}'}}",
        "exceptions": lambda n: f"match: {{{where}}}, except: {{json: {{/k{n}: true}}}}",
        "paths": lambda n: f"match: {{method: [POST, DELETE], host: x.example, path: /v{n}/**}}",
        "lists of paths": lambda n: (
            "match: {method: POST, host: x.example, path: [/a/**, /b/**, /c/*, /d/*], "
            f"json: {{/t{n}: {{in: [x{n}, y]}}}}}}"
        ),
        "lists in any of two": lambda n: (
            "match: [{method: [POST, PUT], host: [x.example, '*.example.org'], path: [/v1/**, "
            f"'/v2/{{id}}/**'], json: {{/t{n % 7}: {{in: [a{n}, b, c]}}}}}}, "
            f"{{host: x.example, path: /f{n % 5}/**, form: {{q: {{gte: {n}}}}}}}]"
        ),
        "root fields": lambda n: (
            f"match: {{host: x.example, path: /g, graphql: {{kind: mutation, fields: ['f{n}*']}}}}"
        ),
        "headers": lambda n: f"match: {{{where}, headers: {{x-key: v{n}}}}}",
        "prefixes in JSON": lambda n: (
            f"match: {{method: POST, {where}, json: {{/name: {{prefix: p{n}}}}}}}"
        ),
        "tools": lambda n: (
            f"match: {{method: POST, host: x.example, path: /m, mcp: {{tool: 't{n}*', "
            f"arguments: {{/a{n}: {{prefix: x}}}}}}}}"
        ),
        "parameters": lambda n: f"match: {{{where}, query: {{k{n}: {{gt: {n}}}}}}}",
    }
    return {
        name: "version: 1\nrules:\n"
        + "".join(
            f"  - {{id: r{n}, agents: [a], {of(n)}, effect: {'hold' if n % 2 else 'allow'}}}\n"
            for n in range(rules)
        )
        for name, of in shapes.items()
    }


def _policy(rules: int, hosts: int) -> str:
    """Rules of every effect, some of which look at bodies or use a credential, for a few agents."""
    lines = ["version: 1", "credentials:"]
    lines += [
        f"  k{n}: {{secret: 'kv/k{n}#v', hosts: [h{n}.example], inject: bearer}}"
        for n in range(hosts)
    ]
    lines.append("rules:")
    kinds = (("GET", "allow"), ("POST", "hold"), ("POST", "allow"), ("DELETE", "deny"))
    for n in range(rules):
        method, effect = kinds[n % 4]
        body = ", json: {/amount: {gt: 10}}" if n % 8 == 1 else ""
        use = f", use: [k{n % hosts}]" if effect != "deny" and n % 3 == 0 else ""
        lines.append(
            f"  - {{id: r{n}, agents: [bot{n % 5}], match: {{method: {method}, host:"
            f" h{n % hosts}.example, path: '/a/{{x}}/{n // 8}/**'{body}}}, effect: {effect}{use}}}"
        )
    return "\n".join(lines) + "\n"
