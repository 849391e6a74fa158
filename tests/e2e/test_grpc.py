"""gRPC with a real client and server through the running program: four kinds, decided by path."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.support.grpc_upstream import GrpcUpstream
from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

SECRET = "sk_live_grpc_9mQ4zz"
POLICY = """
version: 1
credentials:
  pay: {{secret: "kv/pay#api_key", hosts: ["localhost:{port}"], inject: bearer}}
tiers:
  medium: {{exclude: []}}
rules:
  - id: echo
    agents: [bot]
    match: {{method: POST, host: "localhost:{port}", path: "/test.Echo/*"}}
    except: {{path: ["/test.Echo/Held", "/test.Echo/Other"]}}
    effect: allow
    body: stream
    use: [pay]
  - id: careful
    agents: [careful, "tag:careful"]
    match: {{method: POST, host: "localhost:{port}", path: "/test.Echo/*"}}
    effect: hold
    summary: "Call {{path}}"
    use: [pay]
"""


@dataclass(frozen=True)
class Setup:
    kb: Program
    server: GrpcUpstream
    bot: AgentKey
    careful: AgentKey
    boss: str

    def channel(self, agent: AgentKey | None = None, **options: Any) -> grpc.Channel:
        return grpc.secure_channel(
            f"localhost:{self.server.port}",
            grpc.ssl_channel_credentials(self.kb.ca_file.read_bytes()),
            options=[
                ("grpc.http_proxy", (agent or self.bot).proxy_url),
                ("grpc.use_local_subchannel_pool", 1),
                *options.items(),
            ],
        )


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Upstream() as upstream, GrpcUpstream(upstream.ca) as server:
        policy = POLICY.format(port=server.port)
        directory = tmp_path_factory.mktemp("grpc")
        with Program(directory, upstream, policy=policy, hold_wait="20s") as kb:
            kb.secret("kv/pay", "api_key", SECRET)
            yield Setup(kb, server, kb.agent("bot"), kb.agent("careful"), kb.user("boss"))


@pytest.fixture
def channel(at: Setup) -> Iterator[grpc.Channel]:
    with at.channel() as channel:
        yield channel


def result(at: Setup, path: str, kind: str = "call.completed") -> dict[str, Any]:
    """The data of the newest result of a call to `path`."""
    found: dict[str, Any] = {}

    def look() -> bool:
        calls = [
            r["call"] for r in at.kb.records(type="call.sent") if r["data"]["what"]["path"] == path
        ]
        records = at.kb.records(call=calls[-1], type=kind) if calls else []
        found.update(records[0]["data"] if records else {})
        return bool(found)

    wait_until(look, what=f"{kind} for {path}")
    return found


def test_unary_with_the_credential_and_trailers(at: Setup, channel: grpc.Channel) -> None:
    answer, call = channel.unary_unary("/test.Echo/Unary").with_call(b"hello", timeout=20)
    assert answer == b"echo:hello"
    assert dict(call.trailing_metadata())["x-done"] == "yes"
    method, metadata = at.server.calls[-1]
    assert (method, metadata["authorization"]) == ("Unary", f"Bearer {SECRET}")
    done = result(at, "/test.Echo/Unary")
    assert (done["status"], done["body_size"], done["body_whole"]) == (200, 10, True)


def test_a_secret_in_messages_and_trailers_is_masked_and_lengths_stay_true(
    channel: grpc.Channel,
) -> None:
    answer, call = channel.unary_unary("/test.Echo/Unary").with_call(b"token", timeout=20)
    assert answer.startswith(b"you are [keybroker:masked]") and answer.endswith(b".")
    assert len(answer) == len(f"you are {SECRET}.")
    assert dict(call.trailing_metadata())["x-token"] == "<[keybroker:masked]>"


def test_a_status_is_an_error_of_the_client(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Echo/Unary")(b"fail", timeout=20)
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == "not for [keybroker:masked], you know"


def test_a_method_that_is_not_there_is_the_servers_answer(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Echo/Nowhere")(b"x", timeout=20)
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_each_message_of_a_download_arrives_before_the_next_is_made(
    at: Setup, channel: grpc.Channel
) -> None:
    messages = channel.unary_stream("/test.Echo/Download")(b"3", timeout=20)
    for number in range(3):
        assert next(messages) == f"message {number} {SECRET[:4]}".encode()
        at.server.go_on.release()
    assert list(messages) == []


def test_an_upload_streams(at: Setup, channel: grpc.Channel) -> None:
    block = bytes(range(256)) * 4096
    # 24 MiB, more than is ever buffered.
    answer = channel.stream_unary("/test.Echo/Upload")(iter([block] * 24), timeout=60)
    assert answer == f"24 {24 << 20}".encode()
    assert result(at, "/test.Echo/Upload")["body_size"] == 24 * ((1 << 20) + 5)


def test_a_conversation_goes_to_and_fro(channel: grpc.Channel) -> None:
    said: queue.Queue[bytes | None] = queue.Queue()
    heard = channel.stream_stream("/test.Echo/Chat")(iter(said.get, None), timeout=20)
    for number in range(5):
        # Ends as a spelling of the secret begins.
        said.put(f"{number} {SECRET[:7]}".encode())
        assert next(heard) == f"heard {number} {SECRET[:7]}".encode()
    said.put(None)
    assert list(heard) == []


def test_a_compressed_request_is_the_servers_business_and_answers_come_plain(
    at: Setup,
) -> None:
    with at.channel() as channel:
        answer = channel.unary_unary("/test.Echo/Unary")(
            b"a" * 2000, timeout=20, compression=grpc.Compression.Gzip
        )
    assert answer == b"echo:" + b"a" * 2000
    assert at.server.calls[-1][1].get("grpc-accept-encoding", "identity") == "identity"


def test_a_deadline_and_a_cancel_reach_the_server(at: Setup, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Echo/Sleep")(b"x", timeout=1)
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert at.server.cancelled.wait(10)
    assert result(at, "/test.Echo/Sleep", "call.failed")["sent"] is True
    at.server.cancelled.clear()
    future = channel.unary_unary("/test.Echo/Sleep").future(b"x", timeout=30)
    before = len(at.server.calls)
    wait_until(lambda: len(at.server.calls) > before - 1, what="the call arrives")
    time.sleep(0.3)
    future.cancel()
    assert at.server.cancelled.wait(10)


@pytest.mark.parametrize("path", ["/test.Echo/Other", "/test.Other/Unary", "/test.Echo/Unary/x"])
def test_another_path_is_denied(at: Setup, channel: grpc.Channel, path: str) -> None:
    count = len(at.server.calls)
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(path)(b"x", timeout=20)
    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "No rule lets agent" in failed.value.details()
    assert len(at.server.calls) == count


def test_a_held_unary_call_waits_for_people(at: Setup) -> None:
    with at.channel(at.careful) as channel:
        call: Future[bytes] = channel.unary_unary("/test.Echo/Unary").future(b"held", timeout=30)
        [card] = at.kb.pending(at.boss)
        assert at.kb.vote(at.boss, card["id"], "approve")[0] == 200
        assert call.result(30) == b"echo:held"
    assert at.server.calls[-1][1]["authorization"] == f"Bearer {SECRET}"


def refusal(failed: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str, str]:
    """Status, sentence, and Keybroker's code."""
    error: Any = failed.value
    metadata = {**dict(error.initial_metadata()), **dict(error.trailing_metadata())}
    return error.code(), error.details(), metadata["keybroker-code"]


@pytest.mark.parametrize(
    ("options", "metadata"),
    [
        (("--hold-wait", "0s"), ()),
        (("--hold-wait", "0s", "--pending-status", "202"), ()),
        (("--hold-wait", "0s", "--pending-status", "429"), ()),
        ((), (("prefer", "respond-async"),)),
    ],
    ids=["503", "202", "429", "asked-for"],
)
def test_a_call_that_still_waits_says_so_and_goes_out_when_repeated(
    at: Setup, options: tuple[str, ...], metadata: tuple[tuple[str, str], ...]
) -> None:
    number = len(at.kb.records(type="agent.added"))
    agent = at.kb.agent(f"waiting-{number}", "--tag", "careful", *options)
    message = f"pending {number}".encode()
    with at.channel(agent) as channel:
        ask = channel.unary_unary("/test.Echo/Unary")
        with pytest.raises(grpc.RpcError) as failed:
            ask(message, timeout=20, metadata=metadata)
        code, details, told = refusal(failed)
        again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert code in again and told == "approval_pending"
        [card] = at.kb.pending(at.boss)
        assert card["id"] in details
        assert at.kb.vote(at.boss, card["id"], "approve")[0] == 200
        assert ask(message, timeout=20) == b"echo:" + message


def test_a_denial_by_people_is_a_status_with_their_reason(at: Setup) -> None:
    with at.channel(at.careful) as channel:
        call: Any = channel.unary_unary("/test.Echo/Unary").future(b"risky", timeout=30)
        [card] = at.kb.pending(at.boss)
        assert at.kb.vote(at.boss, card["id"], "deny", "not on a Friday")[0] == 200
        with pytest.raises(grpc.RpcError) as failed:
            call.result(30)
    code, details, told = refusal(failed)
    assert (code, told) == (grpc.StatusCode.PERMISSION_DENIED, "approval_denied")
    assert "not on a Friday" in details


def test_a_held_stream_of_answers_flows_once_it_is_approved(at: Setup) -> None:
    with at.channel(at.careful) as channel:
        messages = channel.unary_stream("/test.Echo/Download")(b"2", timeout=30)
        [card] = at.kb.pending(at.boss)
        assert at.kb.vote(at.boss, card["id"], "approve")[0] == 200
        assert next(messages).startswith(b"message 0")
        at.server.go_on.release()
        assert next(messages).startswith(b"message 1")
        assert list(messages) == []


def test_a_held_upload_is_whole_before_people_are_asked(at: Setup) -> None:
    with at.channel(at.careful) as channel:
        said: queue.Queue[bytes | None] = queue.Queue()
        call: Any = channel.stream_unary("/test.Echo/Upload").future(
            iter(said.get, None), timeout=30
        )
        said.put(b"one")
        said.put(b"two")
        time.sleep(0.3)
        assert at.kb.api(at.boss, "/api/v1/approvals?state=pending")[1]["approvals"] == []
        said.put(None)
        [card] = at.kb.pending(at.boss)
        assert at.kb.vote(at.boss, card["id"], "approve")[0] == 200
        assert call.result(30) == b"2 6"


def test_the_ledger_is_whole_after_all_that(at: Setup) -> None:
    at.kb.verify()
    assert SECRET not in at.kb.log.read_text()
