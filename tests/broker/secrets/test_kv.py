"""What Vault's answers mean, and that no sentence about them carries a value."""

from __future__ import annotations

import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import SecretUnavailable
from broker.secrets import kv
from rules.model import SecretRef

REF = SecretRef("kv", "stripe/live", "api_key")
V2 = kv.Engine("kv", versioned=True)
V1 = kv.Engine("kv", versioned=False)
CANARY = "sk_canary_77"


def answer(data: object, version: object = 4) -> bytes:
    return json.dumps({"data": {"data": data, "metadata": {"version": version}}}).encode()


def sentence(status: int, body: bytes) -> str:
    with pytest.raises(SecretUnavailable) as caught:
        kv.version_of(REF, V2, status, body)
    error = caught.value
    assert CANARY not in "".join(traceback.format_exception(error)) + repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "kv/stripe/live" in str(error)
    return str(error)


def test_a_version_is_the_reference_the_number_and_the_value() -> None:
    found = kv.version_of(REF, V2, 200, answer({"api_key": CANARY, "other": 1}))
    assert (found.ref, found.version, found.value.reveal()) == (REF, 4, CANARY)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "it is empty"),
        ("abc", "it is shorter than 4 characters and cannot be masked"),
        (7, "it is not text"),
        (None, "it is not text"),
        ([CANARY], "it is not text"),
        (CANARY + "\n", "line break"),
        (CANARY + "\0", "control character"),
        (CANARY + "\x7f", "control character"),
        (f" {CANARY}", "begins or ends with a blank"),
        (CANARY + "\u20ac", "outside ASCII"),
        (CANARY + "\u00e4", "outside ASCII"),
        (CANARY * 2000, "longer than 16384"),
    ],
)
def test_an_unusable_value_is_named_by_its_fault(value: object, why: str) -> None:
    text = sentence(200, answer({"api_key": value}))
    assert why in text
    assert "`keybroker secret set kv/stripe/live api_key --stdin`" in text


DELETED = {"data": {"data": None, "metadata": {"deletion_time": "2026-01-01T00:00:00Z"}}}
DESTROYED = {"data": {"data": None, "metadata": {"deletion_time": "", "destroyed": True}}}
GONE = json.dumps(
    {"data": {"data": {"api_key": CANARY}, "metadata": {"version": 3, "destroyed": True}}}
).encode()
WRAPPED = {"data": None, "wrap_info": {"token": CANARY, "ttl": 600}}


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, answer({"other": CANARY}), "has no field api_key"),
        (200, json.dumps(WRAPPED).encode(), "control group"),
        (200, b"{}", "control group or an empty answer"),
        (200, b'{"data": {"api_key": "sk_canary_77"}}', "not that of a KV version 2 engine"),
        (200, answer({"api_key": CANARY}, version=True), "not that of a KV version 2 engine"),
        (200, answer([CANARY]), "not that of a KV version 2 engine"),
        (200, b'{"data": {"data": {"api_key": "sk_canary_77', "empty answer"),
        (200, b"\xff" + CANARY.encode(), "empty answer"),
        (200, b"[" * 100_000, "empty answer"),
        (403, b"{}", "policy `read` kv/data/stripe/live"),
        (404, b'{"errors": []}', "does not exist in Vault"),
        (404, json.dumps(DELETED).encode(), "newest version of kv/stripe/live#api_key is deleted"),
        (404, json.dumps(DESTROYED).encode(), "is destroyed"),
        (200, GONE, "not that of a KV version 2 engine"),
        (200, answer({"api_key": CANARY}, version=0), "not that of a KV version 2 engine"),
        (500, CANARY.encode(), "status 500"),
        (204, b"", "status 204"),
    ],
)
def test_each_refusal_has_its_sentence(status: int, body: bytes, why: str) -> None:
    assert why in sentence(status, body)


@given(st.integers(100, 599), st.binary(max_size=60))
def test_no_answer_does_worse_than_unavailable(status: int, body: bytes) -> None:
    with pytest.raises(SecretUnavailable):
        kv.version_of(REF, V2, status, body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["data", "metadata", "version", "api_key"]), inner)
        ),
        max_leaves=12,
    )
)
def test_no_json_does_worse_than_unavailable(value: object) -> None:
    try:
        found = kv.version_of(REF, V2, 200, json.dumps(value).encode())
    except SecretUnavailable:
        return
    assert kv.fault_of(found.value.reveal()) is None


@pytest.mark.parametrize(
    ("engine", "whole", "path"),
    [
        (V2, "kv/stripe/live", "/v1/kv/data/stripe/live"),
        (V1, "kv/stripe/live", "/v1/kv/stripe/live"),
        (V2, "kv", "/v1/kv/data"),
        (V1, "kv", "/v1/kv"),
        (kv.Engine("team a/kv", versioned=True), "team a/kv/x?y#z%2f",
         "/v1/team%20a/kv/data/x%3Fy%23z%252f"),
        (kv.Engine("kv", versioned=True), "kv/kv/kv", "/v1/kv/data/kv/kv"),
    ],
)  # fmt: skip
def test_paths_are_encoded_once(engine: kv.Engine, whole: str, path: str) -> None:
    assert engine.path("data", whole) == path


@pytest.mark.parametrize(
    "whole",
    ["kv/..", "kv/a/../../sys", "kv/a//b", "kv/", "/a", "kv/../a", "kv/a\nb", "kv//a", "kv/./a", "",
     "kv/a\r\nX-Vault-Token: x"],
)  # fmt: skip
def test_a_reference_cannot_address_another_part_of_the_api(whole: str) -> None:
    with pytest.raises(ValueError, match="segment"):
        kv.mounts_path(whole)


def test_a_version_1_engine_gives_a_value_without_a_version() -> None:
    body = json.dumps({"data": {"api_key": CANARY, "data": {"api_key": "no"}}}).encode()
    found = kv.version_of(REF, V1, 200, body)
    assert (found.value.reveal(), found.version) == (CANARY, None)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b'{"data": {"other": "x"}}', "has no field api_key"),
        (200, b'{"data": {"api_key": ""}}', "it is empty"),
        (200, b'{"data": null}', "an empty answer"),
        (403, b"{}", "policy `read` kv/stripe/live"),
        (404, b'{"errors": []}', "does not exist"),
    ],
)
def test_a_version_1_engine_refuses_in_the_same_words(status: int, body: bytes, why: str) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        kv.version_of(REF, V1, status, body)
    assert why in str(caught.value)


def test_the_engine_is_what_vault_says_it_is() -> None:
    def engine(**data: object) -> kv.Engine:
        return kv.engine_of("team/kv/x", data)

    two = engine(path="team/kv/", type="kv", options={"version": "2"})
    assert two == kv.Engine("team/kv", versioned=True)
    for options in (None, {}, {"version": "1"}):
        one = engine(path="team/kv/", type="kv", options=options)
        assert one == kv.Engine("team/kv", versioned=False)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"path": "kv/", "type": "kv"},
        {"path": "team/k", "type": "kv"},
        {"path": "team/kv", "type": "kv"},
        {"path": 7, "type": "kv"},
        {"path": "", "type": "kv"},
        {"path": "/", "type": "kv"},
        {"path": "team/kv/", "type": "database"},
        {"path": "team/kv/", "type": ["kv"]},
    ],
)
def test_an_engine_elsewhere_or_of_another_kind_is_refused(data: dict[str, object]) -> None:
    """A hostile answer must not lead a read to another part of the API."""
    with pytest.raises(SecretUnavailable, match=r"team/kv"):
        kv.engine_of("team/kv/x", data)
