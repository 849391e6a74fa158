"""Mutated requests without end, run by hand: `python -m tests.fuzz canonical|decide --seconds 60`.

`canonical`: whatever arrives has one canonical form or is refused with a sentence; the form is its
own canonical form, and no lenient reading of its path leads elsewhere. `decide`: every decision is
made, and what an allow lets through, a deny with the same match would have stopped. A failure is
printed with the seed that makes it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from rules.canonical import canonicalise
from rules.decide import Rulebook
from rules.errors import Ambiguous
from rules.load import load_policy
from rules.model import Subject
from rules.paths import ENCODED_SLASH
from rules.request import RawRequest, Request
from tests.support.raw import as_raw
from tests.support.vectors import load_vectors

BOT = Subject("bot", frozenset({"ci"}))
WORDS = """
. .. / // \\ ; ? # % %2e %2E %2f %2F %5c %00 %25 %C3%A9 %C0%AF %20 \u00e9 \u212a \uff0f \0
& = + [ ] a=1 a=2 A=1 _method amount %5fmethod %6d
{ } " : , \\u005f \\ud800 1e400 9007199254740993 null true "a":1 "A":2 [[[[ ]]]] {"a":
query mutation {a} ...f fragment "query" "method" "tools/call" "params" "name"
"""
PART = '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
TOKENS = [*WORDS.split(), PART, "\ufeff", " ", "\t", "\r\n"]
LINES = [
    (name.encode(), value.encode("latin-1"))
    for name, value in (
        ("Content-Type", "application/json"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Type", "multipart/form-data; boundary=b"),
        ("Content-Type", "application/graphql"),
        ("Content-Type", "application/grpc"),
        ("Content-Type", "application/json; charset=utf-16"),
        ("Content-Encoding", "gzip"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "x-a, close"),
        ("Cookie", "a=b"),
        ("X-A", "1"),
        ("X-A", "\xe9"),
        ("X_A", "1"),
        ("Prefer", 'respond-async, x="'),
        ("Expect", "100-continue"),
        ("X-HTTP-Method-Override", "DELETE"),
    )
]
BODIES = [
    b'{"a": 1, "amount": 10, "items": [{"id": 1}, {"id": 2}], "text": "x"}',
    b"a=1&amount=10&items[]=1&text=a+b",
    b'--b\r\nContent-Disposition: form-data; name="amount"\r\n\r\n10\r\n--b--\r\n',
    b'{"query": "mutation A { deleteIssue(id: 1) { id } ...f } fragment f on Mutation { b }"}',
    b'[{"query": "{ viewer { id } }"}, {"query": "mutation { x }", "operationName": null}]',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "delete_file",'
    b' "arguments": {"/path": "/etc/x"}}}',
    b"\0\0\0\0\x05hello",
]
MATCHES = [
    "{host: api.example.com, path: /v1/**}",
    '{host: "*.example.com", method: [GET, POST], path: "/{a}/*"}',
    "{host: api.example.com, path: '/v1/{+name}/**'}",
    "{host: api.example.com, query: {a: {in: ['1', b]}, limit: {exists: false}}}",
    "{host: api.example.com, headers: {x-a: {prefix: '1'}, accept: {exists: false}}}",
    "{host: api.example.com, json: {/amount: {lte: 50}, '/items/*/id': {gt: 0}}}",
    "{host: api.example.com, json: {/text: {length: {lte: 3}}, /a: {not_in: [2, x]}}}",
    "{host: api.example.com, form: {amount: {gte: 1, lt: 20}, text: {glob: 'a*'}}}",
    "{host: api.example.com, body: {type: application/*, size: {lte: 200}}}",
    "{host: api.example.com, graphql: {kind: mutation, fields: ['delete*', b]}}",
    "{host: api.example.com, graphql: {kind: query}}",
    "{host: api.example.com, mcp: {method: tools/call, tool: 'delete_*'}}",
    "{host: api.example.com, mcp: {arguments: {/path: {prefix: /etc}}}}",
    "{host: api.example.com, jsonrpc: {method: '*'}}",
    "{host: api.example.com, grpc: {service: '*', method: '*'}}",
    "{host: api.example.com, upgrade: none, source: {via: proxy, tags: [ci]}}",
]


@dataclass(slots=True)
class Count:
    """What has happened so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    """Seconds of CPU for one request."""
    slowest_at: int = 0


class Mutator:
    """Requests near the vectors: mostly well-formed, with a few things wrong."""

    def __init__(self) -> None:
        self.seeds = [vector.raw for vector in load_vectors()]
        self.good = [v.raw for v in load_vectors() if v.canonical is not None]

    def raw(self, chance: random.Random) -> RawRequest:
        raw = chance.choice(self.seeds if chance.random() < 0.5 else self.good)
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            raw = self._changed(raw, chance)
        return raw

    def request_body(self, chance: random.Random) -> bytes:
        body = chance.choice(BODIES)
        for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
            body = _spoilt(body, chance)
        return body

    def _changed(self, raw: RawRequest, chance: random.Random) -> RawRequest:
        other = chance.choice(self.seeds)
        lines = list(raw.headers)
        match chance.randrange(11):
            case 0:
                return replace(raw, target=_spoilt(raw.target.encode(), chance).decode("latin-1"))
            case 1:
                return replace(raw, target=raw.target + other.target)
            case 2:
                return replace(raw, method=chance.choice((other.method, raw.method + "X")))
            case 3:
                lines.insert(chance.randrange(len(lines) + 1), chance.choice(LINES))
            case 4 if lines:
                lines.append(chance.choice(lines))
            case 5 if lines:
                at = chance.randrange(len(lines))
                name, value = lines[at]
                lines[at] = (name, _spoilt(value, chance))
            case 6 if lines:
                at = chance.randrange(len(lines))
                lines[at] = (_spoilt(lines[at][0], chance), lines[at][1])
            case 7:
                return replace(raw, body=_spoilt(raw.body or chance.choice(BODIES), chance))
            case 8:
                return replace(raw, connect=other.connect, sni=other.sni)
            case 9:
                return replace(raw, authority=other.authority, http_version=other.http_version)
            case _:
                return replace(raw, body=chance.choice(BODIES))
        return replace(raw, headers=tuple(lines))


def _spoilt(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    to = min(len(data), at + chance.choice((0, 0, 1, 3, 10)))
    token = chance.choice(TOKENS).encode() * chance.choice((1, 1, 1, 2, 50))
    match chance.randrange(5):
        case 0:
            return data[:at] + data[to:]
        case 1:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:to] + data[at:to] + data[to:]
        case _:
            return data[:at] + token + data[to:]


def check_canonical(mutator: Mutator, chance: random.Random) -> str:
    """One request to `canonicalise`; its outcome. Raises AssertionError."""
    raw = mutator.raw(chance)
    try:
        request = canonicalise(raw)
    except Ambiguous as error:
        check_sentence(error.sentence)
        return "refused"
    assert request.target == raw.target and request.method == raw.method
    if raw.gateway is None:
        assert canonicalise(as_raw(request)) == request
    for name, value in request.headers:
        assert name == name.lower() and "_" not in name
        assert value.isascii() and value.replace("\t", " ").isprintable()
    check_path(request.path)
    return "canonical"


def check_sentence(sentence: str) -> None:
    """It can be shown anywhere."""
    assert sentence.isascii() and sentence.isprintable(), sentence


def check_path(path: str) -> None:
    """No server's reading of the path has other segments than its own."""
    for reading in (path, unquote(path), unquote(unquote(path))):
        for text in (reading, unicodedata.normalize("NFKC", reading)):
            assert text.count("/") == path.count("/"), path
            assert "\\" not in text and ";" not in reading, path
            assert not any(part.strip(" ") in (".", "..") for part in text.split("/")), path
            assert not any(unicodedata.category(c) == "Cc" for c in text), path


class Books:
    """The same matches, to allow and to deny."""

    def __init__(self) -> None:
        self.allow, self.deny = (
            [self._book(effect, match) for match in MATCHES] for effect in ("allow", "deny")
        )
        self.except_ = [self._book("allow", MATCHES[0], hole) for hole in MATCHES]
        self.mutator = Mutator()

    @staticmethod
    def _book(effect: str, match: str, hole: str | None = None) -> Rulebook:
        rule = f"  - {{id: one, agents: [bot], match: {match}, effect: {effect}"
        rule += f", except: {hole}}}\n" if hole else "}\n"
        return Rulebook(load_policy(f"version: 1\nrules:\n{rule}")[0])

    def check(self, chance: random.Random) -> str:
        """One canonical request to all rules. Raises AssertionError."""
        request = self._request(chance)
        if request is None:
            return "refused"
        allowed = 0
        for at, (allow, deny, hole) in enumerate(
            zip(self.allow, self.deny, self.except_, strict=True)
        ):
            decisions = [book.decide(BOT, request) for book in (allow, deny, hole)]
            for decision in decisions:
                assert "failed to decide" not in decision.sentence, decision.sentence
            if decisions[0].effect == "allow":
                allowed += 1
                said = decisions[1].rules or (ENCODED_SLASH in request.path and ("one",))
                assert said == ("one",), f"{MATCHES[at]} matches only narrowly"
                assert decisions[2].effect == "deny", f"{MATCHES[at]} makes too small a hole"
        return "allowed" if allowed > 1 else "denied"

    def _request(self, chance: random.Random) -> Request | None:
        mutator = self.mutator
        kind = chance.choice(LINES[:6])
        path = "/shop.Orders/Cancel" if kind[1] == b"application/grpc" else "/v1/x"
        raw = RawRequest(
            scheme="https",
            connect=("api.example.com", 443),
            sni=None,
            authority=None,
            method=chance.choice(("GET", "POST", "POST")),
            target=path + chance.choice(("", "", "?a=1", "?a=1&A=2", "?amount=3", "?query={a}")),
            headers=((b"Host", b"api.example.com"), kind, *chance.sample(LINES[6:], 1)),
            body=mutator.request_body(chance),
        )
        if chance.random() < 0.5:
            raw = replace(raw, headers=raw.headers[:2])
        if chance.random() < 0.2:
            raw = mutator.raw(chance)
        try:
            return canonicalise(raw, slashes=True)
        except Ambiguous:
            return None


def targets() -> dict[str, Callable[[], Callable[[random.Random], str]]]:
    """What can be fuzzed, by name."""

    def canonical() -> Callable[[random.Random], str]:
        mutator = Mutator()
        return lambda chance: check_canonical(mutator, chance)

    return {"canonical": canonical, "decide": lambda: Books().check}


def run(check: Callable[[random.Random], str], seed: int, times: int, seconds: float) -> Count:
    """Runs `check` until either is used up. Each run has its own seed, counted up from `seed`."""
    count = Count()
    until = time.monotonic() + seconds
    for each in range(seed, seed + times):
        began = time.process_time()
        try:
            count.outcomes[check(random.Random(each))] += 1
        except Exception:
            print(f"failed with --seed {each} --times 1", file=sys.stderr)
            raise
        took = time.process_time() - began
        if took > count.slowest:
            count.slowest, count.slowest_at = took, each
        if time.monotonic() > until:
            break
    return count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=targets())
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=int, default=sys.maxsize >> 1)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    began = time.monotonic()
    count = run(targets()[options.target](), options.seed, options.times, options.seconds)
    print(
        f"{options.target}: {count.outcomes.total():,} requests in {time.monotonic() - began:.0f} s"
        f" from seed {options.seed}: {dict(count.outcomes)};"
        f" slowest {count.slowest * 1000:.1f} ms (seed {count.slowest_at})"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
