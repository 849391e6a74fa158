"""What HTTP has between a request and its response (expectations, interim answers, ranges, answers
that dribble or stand still), with real clients through the running program."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import HTTP

import pytest
from h2.errors import ErrorCodes

from tests.proxy.harness import RawH2
from tests.support.two_upstreams import TwoUpstreams, running
from tests.support.upstream import Conversation, Received, Reply

pytestmark = pytest.mark.e2e

SECRET = "sk_live_exchanges_7Hq2"
IDLE = 2
RULES = """
  - id: paid
    agents: [bot]
    match: {host: [$BOTH], path: /**}
    except: {path: [/held/**, /no/**]}
    effect: allow
    use: [pay]
  - id: held
    agents: [bot]
    match: {host: [$BOTH], path: /held/**}
    effect: hold
    use: [pay]
"""


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoUpstreams]:
    directory = tmp_path_factory.mktemp("exchanges")
    idle = f"timeouts: {{idle: {IDLE}s}}"
    with running(directory, rules=RULES, secret=SECRET, proxy_settings=idle) as at:
        yield at


@pytest.fixture(autouse=True)
def clean(at: TwoUpstreams) -> None:
    at.h1.clear()
    at.h2.clear()


def read_until(tls: ssl.SSLSocket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = tls.recv(65536)
        if not more:
            break
        data += more
    return data


# --- Expect: 100-continue


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
@pytest.mark.parametrize("side", ["h1", "h2"])
def test_curl_waits_for_a_continue_and_gets_one(at: TwoUpstreams, option: str, side: str) -> None:
    """It would wait a minute by itself; the upstream is not asked whether the agent may go on."""
    upstream = at.h1 if side == "h1" else at.h2
    reply = at.kb.curl(
        at.bot, upstream.url + "/echo", option, "-d", "amount=7",
        "-H", "Expect: 100-continue", "--expect100-timeout", "50", "--max-time", "30",
    )  # fmt: skip
    assert (reply.exit, reply.status) == (0, 200), reply.stderr
    [arrived] = upstream.requests
    assert arrived.body == b"amount=7" and arrived.header("expect") is None
    assert arrived.values("authorization") == [f"Bearer {SECRET}"]


def test_a_denied_body_is_answered_by_one_refusal(at: TwoUpstreams) -> None:
    with at.tls() as tls:
        tls.sendall(at.head("PUT", "/no/thing", "Content-Length: 4", "Expect: 100-continue"))
        data = tls.recv(65536)
        if data.startswith(b"HTTP/1.1 100"):  # the body is a part of what is decided on
            tls.sendall(b"four")
            data = read_until(tls, b"}")
        assert data.startswith(b"HTTP/1.1 403") and b"policy_denied" in data
        tls.sendall(at.head("GET", "/status/200"))
        assert read_until(tls, b"status 200").startswith(b"HTTP/1.1 200")
    assert [r.path for r in at.h1.requests] == ["/status/200"]


def test_a_held_body_is_asked_for_before_people_are(at: TwoUpstreams) -> None:
    """Reviewers see the body, so it has to come first; then the agent waits for the answer."""
    with at.tls() as tls:
        tls.sendall(at.head("PUT", "/held/x", "Content-Length: 4", "Expect: 100-continue"))
        assert read_until(tls, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        assert at.kb.api(at.boss, "/api/v1/approvals?state=pending")[1]["approvals"] == []
        tls.sendall(b"four")
        [card] = at.kb.pending(at.boss)
        assert at.h1.requests == []
        assert at.kb.vote(at.boss, card["id"], "approve")[0] == 200
        assert read_until(tls, b"no such path").startswith(b"HTTP/1.1 404")
    [arrived] = at.h1.requests
    assert arrived.body == b"four" and arrived.header("expect") is None


# --- interim answers of the upstream


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
@pytest.mark.parametrize("side", ["h1", "h2"])
def test_interim_answers_stay_here(at: TwoUpstreams, option: str, side: str) -> None:
    """Early hints may hold the credential and come before the head is judged; many clients take
    them for the answer."""
    upstream = at.h1 if side == "h1" else at.h2
    hints = (("Link", f"</{SECRET}>; rel=preload"),)
    upstream.answer("/hints", Reply(body=b"the answer", early=hints))
    reply = at.kb.curl(at.bot, upstream.url + "/hints", option, "--verbose")
    assert (reply.status, reply.body) == (200, b"the answer"), reply.stderr
    assert " 103" not in reply.stderr and SECRET not in reply.stderr


def test_a_client_that_knows_no_early_hints_gets_the_answer(at: TwoUpstreams) -> None:
    """http.client, and with it requests and boto3, skips 100 only."""
    raw = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    final = b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nmade"
    at.h1.answer("/processing", Reply(raw=raw + final))
    connection = at.kb.tunnel(at.bot, at.h1.url)
    connection.request("POST", "/processing", b"x")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (201, b"made")
    connection.close()


# --- ranges

DOCUMENT = b"".join(b"line %04d of the document, " % n for n in range(40))
DOCUMENT = DOCUMENT[:300] + SECRET.encode() + DOCUMENT[300:] + SECRET.encode() + b" and the end.\n"
MASKED = DOCUMENT.replace(SECRET.encode(), b"[keybroker:masked][keybroker:masked]"[: len(SECRET)])
ETAG = '"v1"'


def ranged(request: Received) -> Reply:
    """RFC 9110 section 14, as far as the tests ask for it."""
    base = [
        ("Accept-Ranges", "bytes"),
        ("ETag", ETAG),
        ("Last-Modified", "Mon, 02 Nov 2026 08:00:00 GMT"),
    ]
    asked, condition = request.header("range"), request.header("if-range")
    if asked is None or condition not in (None, ETAG):
        whole = [("Content-Type", "text/plain"), ("Content-Length", str(len(DOCUMENT)))]
        return Reply(headers=[*base, *whole], body=DOCUMENT)
    parts = []
    for spec in asked.removeprefix("bytes=").split(","):
        first, _, last = spec.strip().partition("-")
        begin = int(first) if first else len(DOCUMENT) - int(last)
        end = min(int(last) if last and first else len(DOCUMENT) - 1, len(DOCUMENT) - 1)
        if begin > end:
            return Reply(416, "No", [("Content-Range", f"bytes */{len(DOCUMENT)}")], b"")
        parts.append((begin, end))
    if len(parts) == 1:
        [(begin, end)] = parts
        place = ("Content-Range", f"bytes {begin}-{end}/{len(DOCUMENT)}")
        headers = [*base, place, ("Content-Type", "text/plain")]
        return Reply(206, "Part", headers, DOCUMENT[begin : end + 1])
    body = b"".join(
        b"--sep\r\nContent-Type: text/plain\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s\r\n"
        % (begin, end, len(DOCUMENT), DOCUMENT[begin : end + 1])
        for begin, end in parts
    )
    kind = ("Content-Type", "multipart/byteranges; boundary=sep")
    return Reply(206, "Parts", [*base, kind], body + b"--sep--\r\n")


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
@pytest.mark.parametrize("side", ["h1", "h2"])
def test_a_document_fetched_in_ranges_is_put_together_rightly(
    at: TwoUpstreams, option: str, side: str
) -> None:
    """Masks are as long as what they cover, so every byte is where its range says."""
    upstream = at.h1 if side == "h1" else at.h2
    upstream.answer("/document", ranged)
    got = bytearray(b"?" * len(DOCUMENT))
    for spec in ("0-399", "400-999", "-" + str(len(DOCUMENT) - 1000)):
        reply = at.kb.curl(at.bot, upstream.url + "/document", option, "--range", spec)
        assert reply.status == 206, reply
        place = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.headers["content-range"])
        assert place is not None
        first, last, whole = map(int, place.groups())
        assert (whole, len(reply.body)) == (len(DOCUMENT), last + 1 - first)
        got[first : last + 1] = reply.body
    assert bytes(got) == MASKED


def test_several_ranges_at_once_keep_their_places(at: TwoUpstreams) -> None:
    at.h1.answer("/document", ranged)
    reply = at.kb.curl(at.bot, at.h1.url + "/document", "--range", "10-19,290-350,1000-")
    assert reply.status == 206
    kind = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode()
    parts = message_from_bytes(kind + reply.body, policy=HTTP).get_payload()
    assert isinstance(parts, list) and len(parts) == 3
    for part in parts:
        assert isinstance(part, EmailMessage)
        first, last = map(int, re.findall(r"\d+", str(part["Content-Range"]))[:2])
        body = part.get_payload(decode=True)
        assert isinstance(body, bytes)
        assert body.removesuffix(b"\r\n") == MASKED[first : last + 1].removesuffix(b"\r\n")
    assert SECRET.encode() not in reply.body


def test_a_download_that_broke_off_goes_on_where_it_stopped(at: TwoUpstreams) -> None:
    at.h1.answer("/document", ranged)
    half = at.kb.start_curl(at.bot, at.h1.url + "/document", "--range", "0-699")
    assert half.wait().status == 206
    done = at.kb.curl(at.bot, at.h1.url + "/document", "--continue-at", "700")
    assert (done.exit, done.status) == (0, 206), done.stderr
    assert half.body.read_bytes() + done.body == MASKED


@pytest.mark.parametrize(("condition", "status"), [(ETAG, 206), ('"v0"', 200)])
def test_a_condition_on_a_range_is_the_upstreams(
    at: TwoUpstreams, condition: str, status: int
) -> None:
    at.h1.answer("/document", ranged)
    options = ("--range", "290-350", "-H", f"If-Range: {condition}")
    reply = at.kb.curl(at.bot, at.h1.url + "/document", *options)
    assert reply.status == status
    assert at.h1.requests[-1].header("if-range") == condition
    if status == 206:
        assert reply.body == MASKED[290:351]
    else:
        assert SECRET.encode() not in reply.body and reply.body.startswith(DOCUMENT[:300])
        # What was made of it is no longer what the upstream's tag stands for.
        assert "etag" not in reply.headers and "content-range" not in reply.headers


def test_a_range_that_is_not_there(at: TwoUpstreams) -> None:
    at.h1.answer("/document", ranged)
    reply = at.kb.curl(at.bot, at.h1.url + "/document", "--range", "99999-")
    assert reply.status == 416
    assert reply.headers["content-range"] == f"bytes */{len(DOCUMENT)}"


def test_what_may_be_asked_for_is_told_by_the_head(at: TwoUpstreams) -> None:
    at.h1.answer("/document", ranged)
    reply = at.kb.curl(at.bot, at.h1.url + "/document", "--head")
    assert reply.headers["content-length"] == str(len(DOCUMENT))
    assert (reply.headers["accept-ranges"], reply.headers["etag"]) == ("bytes", ETAG)


# --- answers that dribble or stand still


def events(*steps: bytes | float) -> Reply:
    """Server-sent events: bytes are sent, numbers are pauses in seconds."""

    def body() -> Iterator[bytes]:
        for step in steps:
            if isinstance(step, bytes):
                yield step
            else:
                time.sleep(step)

    return Reply(headers=(("Content-Type", "text/event-stream"),), body=body())


def one_event(over: threading.Event) -> Callable[[Received, Conversation], None]:
    """An upstream that sends one event and then waits until it is hung up on."""

    def serve(_: Received, connection: Conversation) -> None:
        connection.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nd\r\ndata: first\n\n\r\n"
        )
        while connection.read(100):
            pass
        over.set()

    return serve


def stream(
    at: TwoUpstreams, path: str
) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
    connection = at.kb.tunnel(at.bot, at.h1.url)
    connection.request("GET", path)
    return connection, connection.getresponse()


def test_events_with_a_heartbeat_outlive_the_idle_time(at: TwoUpstreams) -> None:
    beats = [step for _ in range(6) for step in (b": beat\n\n", IDLE / 4)]
    at.h1.answer("/beats", lambda _: events(b"data: first\n\n", *beats, b"data: last\n\n"))
    connection, answer = stream(at, "/beats")
    body = answer.read()
    connection.close()
    assert body.startswith(b"data: first\n\n") and body.endswith(b"data: last\n\n")
    assert at.result(answer.headers["keybroker-request-id"])[0] == "call.completed"


def test_events_that_cease_are_given_up(at: TwoUpstreams) -> None:
    over = threading.Event()
    at.h1.heads["/ceased"] = one_event(over)
    connection, answer = stream(at, "/ceased")
    assert answer.readline() == b"data: first\n", "the first event is not kept back"
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    connection.close()
    kind, failed = at.result(answer.headers["keybroker-request-id"])
    assert (kind, failed["sent"]) == ("call.failed", True)
    assert f"sent nothing for {IDLE} s in the middle of its response" in str(failed["sentence"])
    assert over.wait(10), "the upstream's connection is closed"


def test_an_agent_that_leaves_its_events_is_not_served_on(at: TwoUpstreams) -> None:
    """The upstream learns of it although it has nothing to send at the moment."""
    over = threading.Event()
    at.h1.heads["/left"] = one_event(over)
    connection, answer = stream(at, "/left")
    call = answer.headers["keybroker-request-id"]
    assert answer.readline() == b"data: first\n"
    answer.close()
    connection.close()
    assert over.wait(10)
    kind, failed = at.result(call)
    assert (kind, failed["sent"]) == ("call.failed", True)
    assert "agent hung up" in str(failed["sentence"])


def test_an_http2_agent_that_gives_its_events_up_is_not_served_on(at: TwoUpstreams) -> None:
    """One stream of several: the connection lives on, and serves the next call."""
    over = threading.Event()
    at.h1.heads["/left-h2"] = one_event(over)
    with at.tls("h2") as tls:
        agent = RawH2(tls, f"localhost:{at.h1.port}")
        stream = agent.request("/left-h2")
        while b"first" not in agent.bodies.get(stream, b""):
            assert agent.read()
        agent.h2.reset_stream(stream, ErrorCodes.CANCEL)
        agent.flush()
        assert over.wait(10), "the upstream's connection is closed"
        assert agent.wait(agent.request("/status/200")) == 200
    sent = [r for r in at.kb.records(type="call.sent") if r["data"]["what"]["path"] == "/left-h2"]
    kind, failed = at.result(sent[-1]["call"])
    assert (kind, failed["sent"]) == ("call.failed", True)
    assert "agent hung up" in str(failed["sentence"])


def test_the_ledger_is_whole_after_all_that(at: TwoUpstreams) -> None:
    at.kb.verify()
    assert SECRET not in at.kb.log.read_text()
