"""What operators see of the running program: metrics that add up, readiness with real failures."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from broker.telemetry.metrics import METRICS
from tests.support.collector import Collector
from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

CANARY = "sk_live_CANARY_91kQz7Tm"
POLICY = """
version: 1
credentials:
  pay: {secret: "kv/pay#api_key", hosts: ["$HOST"], inject: bearer}
  lost: {secret: "kv/lost#api_key", hosts: ["$HOST"], inject: {header: X-Lost, format: "{secret}"}}
tiers:
  brief: {quorum: [{group: any, count: 1}], exclude: [], decide_within: 1s}
rules:
  - {id: read, agents: [named-bot], match: {method: GET, host: "$HOST", path: /**}, effect: allow,
     use: [pay]}
  - {id: write, agents: [named-bot, "tag:hasty"], match: {method: POST, host: "$HOST", path: /**},
     effect: hold, use: [pay]}
  - {id: brief, agents: [named-bot], match: {method: PUT, host: "$HOST", path: /**}, effect: hold,
     risk: brief}
  - {id: tried, agents: [named-bot], match: {method: GET, host: "$HOST", path: /**}, effect: deny,
     mode: shadow}
  - {id: lost, agents: [named-bot], match: {method: GET, host: "$HOST", path: /lost},
     effect: allow, use: [lost]}
"""
type Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Watched:
    """The program, with one agent and one person, its numbers and its traces."""

    def __init__(self, kb: Program, collector: Collector) -> None:
        self.kb = kb
        self.collector = collector
        self.bot: AgentKey
        self.alice: str

    def page(self) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.kb.admin_url + "/metrics", timeout=20) as response:
            text: str = response.read().decode()
        return text

    def samples(self) -> Samples:
        return {
            (s.name, frozenset(s.labels.items())): s.value
            for family in parse(self.page())
            for s in family.samples
        }

    def present(self) -> Samples:
        """As of now: a page is kept for a second."""
        time.sleep(1.1)
        return self.samples()

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[name, frozenset(labels.items())]

    def becomes(self, expected: float, name: str, **labels: str) -> None:
        wait_until(
            lambda: self.samples().get((name, frozenset(labels.items()))) == expected,
            what=f"{name}{labels} = {expected}",
        )

    def ready(self) -> tuple[int, dict[str, str]]:
        status, document = self.kb.api(None, "/readyz")
        return status, document["checks"]

    def fails(self, check: str) -> None:
        """Waits until exactly this check fails."""
        wait_until(
            lambda: [n for n, v in self.ready()[1].items() if v != "ok"] == [check],
            what=f"{check} alone fails",
        )
        assert self.ready()[0] == 503
        assert self.kb.api(None, "/healthz") == (200, {"status": "ok"})

    def recovers(self) -> None:
        wait_until(lambda: self.ready()[0] == 200, what="all checks are well", timeout=40)

    def get(self, path: str = "/echo") -> int:
        return self.kb.curl(self.bot, self.kb.upstream.url + path).status


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Upstream() as upstream, Collector() as collector:
        directory = tmp_path_factory.mktemp("telemetry")
        headers = directory / "headers"
        headers.write_text("Authorization: Bearer collector-token\n")
        extra = f"telemetry: {{otlp: {collector.url}, headers_file: {headers}}}\n"
        with Program(directory, upstream, policy=POLICY, workers=2, extra_settings=extra) as kb:
            watched = Watched(kb, collector)
            kb.secret("kv/pay", "api_key", CANARY)
            watched.alice = kb.user("alice")
            watched.bot = kb.agent("named-bot", "--owner", "owen")
            yield watched


def test_calls_are_counted_over_all_workers(at: Watched) -> None:
    for _ in range(6):
        assert at.get() == 200
    assert at.get("/reflect?as=raw") == 200
    assert at.kb.curl(at.bot, at.kb.upstream.url + "/echo", "-X", "DELETE").code == "policy_denied"
    held = at.kb.start_curl(at.bot, at.kb.upstream.url + "/echo", "-d", "amount=7")
    (card,) = at.kb.pending(at.alice)
    at.becomes(1, "keybroker_approvals_pending", risk="medium")
    at.becomes(1, "keybroker_calls_held")
    assert at.kb.vote(at.alice, card["id"], "approve")[0] == 200
    assert held.wait().status == 200
    at.becomes(8, "keybroker_calls_total", outcome="completed", code="none")
    found = at.samples()

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("keybroker_calls_total", outcome="denied", code="policy_denied") == 1
    assert value("keybroker_call_duration_seconds_count") == 9
    assert value("keybroker_hold_seconds_count", outcome="approved") == 1
    assert value("keybroker_vault_request_duration_seconds_count", result="ok") == 8
    assert value("keybroker_call_stage_duration_seconds_count", stage="commit") == 8
    assert value("keybroker_upstream_responses_total", **{"class": "2xx"}) == 8
    assert value("keybroker_masked_secrets_total") >= 1
    assert value("keybroker_body_bytes_total", body="request") == len("amount=7")
    assert value("keybroker_ledger_records_total", type="call.sent") == 8
    assert value("keybroker_shadow_calls_total", decided="allow", shadow="deny") == 7
    tried = {"effect": "deny", "rules": [{"rule": "tried", "effect": "deny"}]}
    sent = [record["data"] for record in at.kb.records(type="call.sent")]
    assert [data.get("shadow") for data in sent] == [tried] * 7 + [None]
    assert value("keybroker_ledger_lag_seconds_count") > 16
    assert value("keybroker_approvals_pending", risk="medium") == 0
    assert value("keybroker_workers", state="accepting") == 2
    assert value("keybroker_vault_up") == 1
    assert value("keybroker_connections_total") >= 9


def test_a_stranger_is_counted_once(at: Watched) -> None:
    labels = {"outcome": "denied", "code": "agent_unauthenticated"}
    before = at.value("keybroker_calls_total", **labels)
    assert at.kb.curl(None, at.kb.upstream.url + "/echo").exit != 0
    at.becomes(before + 1, "keybroker_calls_total", **labels)
    assert at.kb.curl(None, "http://localhost:1/echo").status == 407
    at.becomes(before + 2, "keybroker_calls_total", **labels)


def test_every_way_that_a_call_ends_is_counted(at: Watched) -> None:
    kb, url = at.kb, at.kb.upstream.url
    before = at.present()

    def one_more(outcome: str, code: str) -> None:
        labels = {"outcome": outcome, "code": code}
        key = ("keybroker_calls_total", frozenset(labels.items()))
        at.becomes(before[key] + 1, "keybroker_calls_total", **labels)

    hasty = kb.agent("hasty", "--hold-wait", "0s", "--tag", "hasty")
    assert kb.curl(hasty, url + "/echo", "-d", "amount=8").code == "approval_pending"
    one_more("pending", "approval_pending")
    (card,) = kb.pending(at.alice)
    at.becomes(1, "keybroker_approvals_pending", risk="medium")
    wait_until(
        lambda: at.value("keybroker_approvals_oldest_pending_seconds") > 0, what="its age is shown"
    )
    assert kb.vote(at.alice, card["id"], "deny", "no")[0] == 200
    assert kb.curl(hasty, url + "/echo", "-d", "amount=8").code == "approval_denied"
    one_more("denied", "approval_denied")

    assert kb.curl(at.bot, url + "/echo", "-X", "PUT", "-d", "amount=9").code == "approval_expired"
    one_more("denied", "approval_expired")

    left = kb.start_curl(at.bot, url + "/echo", "-d", "amount=10")
    (card,) = kb.pending(at.alice)
    left.process.kill()
    left.wait()
    one_more("abandoned", "none")
    assert kb.vote(at.alice, card["id"], "deny", "no")[0] == 200

    assert kb.curl(at.bot, "http://keybroker.internal/v1/whoami").status == 200
    one_more("answered", "none")
    assert kb.curl(at.bot, url + "/reset").exit != 0
    one_more("failed", "upstream_unreachable")
    assert kb.curl(at.bot, url + "/lost").code == "secret_unavailable"
    one_more("denied", "secret_unavailable")
    for status in (302, 404, 503):
        assert at.get(f"/status/{status}") == status

    after = at.present()

    def grew(name: str, by: float, **labels: str) -> None:
        key = (name, frozenset(labels.items()))
        # Of a type of record there is no series before the first one.
        assert after[key] - before.get(key, 0) == by, (name, labels)

    grew("keybroker_hold_seconds_count", 2, outcome="denied")
    grew("keybroker_hold_seconds_count", 1, outcome="expired")
    grew("keybroker_vault_request_duration_seconds_count", 1, result="failed")
    for kind in ("3xx", "4xx", "5xx"):
        grew("keybroker_upstream_responses_total", 1, **{"class": kind})
    grew("keybroker_ledger_records_total", 1, type="call.failed")
    grew("keybroker_ledger_records_total", 1, type="agent.added")
    assert after["keybroker_call_stage_duration_seconds_count", frozenset({("stage", "hold")})] > 0


def test_connections_are_counted_while_they_are_open(at: Watched) -> None:
    at.becomes(0, "keybroker_connections")
    total = ("keybroker_connections_total", frozenset[tuple[str, str]]())
    opened = at.present()[total]
    tunnel = at.kb.tunnel(at.bot, at.kb.upstream.url)
    at.becomes(1, "keybroker_connections")
    tunnel.close()
    at.becomes(0, "keybroker_connections")
    assert at.present()[total] == opened + 1


def test_the_page_has_what_the_guide_says_and_nothing_else(at: Watched) -> None:
    families = {family.name: family for family in parse(at.page())}
    expected = {m.name.removesuffix("_total"): m for m in METRICS}
    assert set(families) == set(expected)
    guide = Path("docs/metrics.md").read_text()
    for name, family in families.items():
        metric = expected[name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert f"| `{metric.name}` | {metric.kind} |" in guide
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_the_page_tells_no_names_and_no_secrets(at: Watched) -> None:
    text = at.page()
    for word in ("named-bot", "alice", "owen", "localhost", "127.0.0.1", CANARY, "/echo", "kv/pay"):
        assert word not in text, word


def test_agents_cannot_reach_it_through_the_proxy(at: Watched) -> None:
    for path in ("/metrics", "/readyz", "/healthz"):
        for host in ("127.0.0.1", "localhost"):
            reply = at.kb.curl(at.bot, f"http://{host}:{at.kb.admin_port}{path}")
            assert reply.status == 403 and b"keybroker_" not in reply.body


def test_no_client_can_make_a_series(at: Watched) -> None:
    """Whatever agents and strangers send, the same names and labels stand there."""
    before = {key for key in at.samples() if "process" not in str(key)}
    strange = 'x"} 1\nkeybroker_evil 7\n'
    for index in range(40):
        at.kb.curl(
            at.bot, f"{at.kb.upstream.url}/echo/{index}", "-X", f"M{index}",
            "-H", f"User-Agent: {index}", "-H", f"X-{index}: {strange!r}",
        )  # fmt: skip
    at.kb.raw(f"GET http://{index}.example/ HTTP/1.1\r\nHost: a\r\n\r\n".encode(), timeout=1)
    after = {key for key in at.samples() if "process" not in str(key)}
    assert after == before
    assert "evil" not in at.page()


def test_an_agents_trace_is_continued(at: Watched) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    parent = f"00-{trace}-{span}-01"
    url = f"{at.kb.upstream.url}/echo/pathsecret88?q=querysecret99"
    reply = at.kb.curl(
        at.bot, url, "-H", f"traceparent: {parent}", "-H", "tracestate: x=statesecret"
    )
    assert parent in reply.body.decode()  # what was matched is what went out

    def arrived() -> list[Any]:
        return [s for s in at.collector.spans() if s["traceId"] == trace]

    wait_until(lambda: len(arrived()) == 7, what="the spans arrive")
    found = {s["name"]: s for s in arrived()}
    root = found.pop("keybroker.call")
    assert root["parentSpanId"] == span
    assert {s["parentSpanId"] for s in found.values()} == {root["spanId"]}
    assert set(found) == {
        f"keybroker.{stage}"
        for stage in ("decide", "route", "fetch", "commit", "upstream", "deliver")
    }
    for stage in found.values():
        assert int(stage["startTimeUnixNano"]) <= int(stage["endTimeUnixNano"])
    facts = {a["key"]: a["value"] for a in root["attributes"]}
    assert facts["keybroker.call"] == {"stringValue": reply.headers["keybroker-request-id"]}
    assert facts["keybroker.agent"] == {"stringValue": "named-bot"}
    path, headers, document = at.collector.got[-1]
    assert (path, headers["Authorization"]) == ("/v1/traces", "Bearer collector-token")
    [instance] = [
        a["value"]["stringValue"]
        for a in document["resourceSpans"][0]["resource"]["attributes"]
        if a["key"] == "service.instance.id"
    ]
    assert instance.startswith("worker-")
    everything = str(at.collector.got)
    for secret in (CANARY, at.bot.token, "pathsecret88", "querysecret99", "statesecret", "alice"):
        assert secret not in everything


def test_a_call_does_not_wait_for_the_collector(at: Watched) -> None:
    """It hangs for longer than anybody would wait."""
    at.collector.delay = 30
    try:
        assert [at.get() for _ in range(5)] == [200] * 5
    finally:
        at.collector.delay = 0


def test_spans_that_the_collector_does_not_take_are_counted(at: Watched) -> None:
    assert at.value("keybroker_trace_spans_total", result="exported") > 0
    failed = at.value("keybroker_trace_spans_total", result="failed")
    at.collector.status = 400
    try:
        assert at.get() == 200
        wait_until(
            lambda: at.value("keybroker_trace_spans_total", result="failed") > failed,
            what="they are counted",
        )
    finally:
        at.collector.status = 200


def test_no_counter_falls_when_a_worker_is_killed(at: Watched) -> None:
    before = len(at.kb.records(type="call.completed"))
    at.becomes(before, "keybroker_calls_total", outcome="completed", code="none")
    restarts = at.value("keybroker_worker_restarts_total")
    assert at.kb.process is not None
    at.kb.process.send_signal(signal.SIGSTOP)  # `up` must not mend it before it was seen
    try:
        for pid in at.kb.processes("worker"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: at.ready()[1]["workers"] == "fail", what="no worker takes calls")
    finally:
        at.kb.process.send_signal(signal.SIGCONT)
    at.recovers()
    wait_until(lambda: at.value("keybroker_workers", state="accepting") == 2, what="both are back")
    assert at.value("keybroker_calls_total", outcome="completed", code="none") == before
    assert at.value("keybroker_worker_restarts_total") == restarts + 2
    assert at.get() == 200
    at.becomes(before + 1, "keybroker_calls_total", outcome="completed", code="none")


def test_a_broken_policy_stays_out_and_calls_go_on(at: Watched) -> None:
    rejected = at.value("keybroker_policy_rejected_total")
    at.kb.write_policy("version: 1\nrules: [{id: broken")
    wait_until(
        lambda: at.value("keybroker_policy_rejected_total") > rejected, what="it was rejected"
    )
    assert at.ready()[0] == 200 and at.get() == 200
    at.kb.write_policy(at.kb.policy)


def test_a_store_that_is_locked_is_not_ready(at: Watched) -> None:
    with closing(sqlite3.connect(at.kb.database, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        at.fails("store")
        assert at.value("keybroker_ready", check="store") == 0  # the page is there all the same
        status, told = at.kb.api(at.alice, "/readyz")
        assert status == 503 and "store" in told["faults"]
        refused = at.kb.curl(at.bot, at.kb.upstream.url + "/echo")
        assert (refused.status, refused.code) == (503, "ledger_unavailable")
        wait_until(lambda: at.value("keybroker_ledger_failed_total") > 0, what="it is counted")
        db.execute("ROLLBACK")
    at.recovers()


def test_a_store_that_cannot_be_written_is_not_ready(at: Watched) -> None:
    """As on a disk without room: readable, and no file can grow."""
    (admin,) = at.kb.processes("admin")
    limits = resource.prlimit(admin, resource.RLIMIT_FSIZE)
    resource.prlimit(admin, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        at.fails("store")
    finally:
        resource.prlimit(admin, resource.RLIMIT_FSIZE, limits)
    at.recovers()


def test_a_vault_that_hangs_or_died_is_not_ready(at: Watched) -> None:
    (server,) = at.kb.processes("server")
    os.kill(server, signal.SIGSTOP)
    try:
        at.fails("vault")
        assert at.value("keybroker_vault_up") == 0
        # Both workers read until their breakers open.
        asking = [at.kb.start_curl(at.bot, at.kb.upstream.url + "/echo") for _ in range(20)]
        assert "secret_unavailable" in {curl.wait().code for curl in asking}
        assert at.value("keybroker_vault_request_duration_seconds_count", result="timeout") > 0
        wait_until(
            lambda: at.value("keybroker_vault_breakers_open") > 0, what="the breakers are shown"
        )
    finally:
        with suppress(ProcessLookupError):  # `up` replaces one that is silent for long
            os.kill(server, signal.SIGCONT)
    at.recovers()
    (server,) = at.kb.processes("server")
    os.kill(server, signal.SIGKILL)
    wait_until(  # `up` brings it back
        lambda: at.kb.processes("server") not in ([], [server]), what="another server runs"
    )
    at.recovers()
    wait_until(  # a breaker closes with the first read that its worker gets
        lambda: at.get() == 200 and at.value("keybroker_vault_breakers_open") == 0,
        what="secrets are read again",
    )


AT_REST = frozenset(
    {
        "keybroker_approvals_oldest_pending_seconds",
        "keybroker_approvals_pending",
        "keybroker_calls_held",
        "keybroker_connections",
        "keybroker_vault_breakers_open",
    }
)
"""What is 0 again by now; the tests above saw it above that."""


def test_nothing_on_the_page_stands_still(at: Watched) -> None:
    """After all that every metric has moved: none is there for show."""
    families = {family.name: family for family in parse(at.page())}
    still = {
        metric.name
        for metric in METRICS
        if not any(s.value for s in families[metric.name.removesuffix("_total")].samples)
    }
    assert still <= AT_REST
    at.kb.verify()
