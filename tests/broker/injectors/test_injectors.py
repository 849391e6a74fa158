"""Injection: the credential's slot and nothing else, whatever the agent put there."""

from __future__ import annotations

import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Refusal, SecretUnavailable
from broker.injectors import inject, place, preview, slot
from broker.secret import Secret, SecretVersion
from rules.model import Credential, HostPattern, Injection, SecretRef
from rules.request import Request

CANARY = "sk_live_canary-4242"
BEARER = Injection("authorization", "Bearer {secret}")
BASIC = Injection("authorization", "Basic {secret}", username="u")
API_KEY = Injection("x-api-key", "key={secret};v=1")


def credential(inject: Injection = BEARER, name: str = "stripe") -> Credential:
    return Credential(
        name,
        SecretRef("kv", name, "api_key"),
        (HostPattern("api.stripe.com", wildcard=False, port=None),),
        inject,
    )


def version(of: Credential, value: str = CANARY) -> SecretVersion:
    return SecretVersion(of.secret, 1, Secret(value))


def request(
    *headers: tuple[str, str], scheme: str = "https", host: str = "api.stripe.com"
) -> Request:
    assert scheme in {"http", "https"}
    return Request(
        method="GET",
        scheme="https" if scheme == "https" else "http",
        host=host,
        port=443 if scheme == "https" else 80,
        path="/v1/charges",
        query=None,
        headers=headers,
        body=b"",
    )


def injected(
    cred: Credential, *headers: tuple[str, str], value: str = CANARY
) -> tuple[Request, tuple[bytes, ...]]:
    return inject(place(request(*headers), [cred]), [(cred, version(cred, value))])


def test_the_slot_is_the_header_of_the_injection() -> None:
    assert slot(API_KEY) == "x-api-key"


@pytest.mark.parametrize(
    ("inject_as", "shown"),
    [
        (BEARER, ("authorization", "Bearer {stripe}")),
        (BASIC, ("authorization", "Basic base64(u:{stripe})")),
        (API_KEY, ("x-api-key", "key={stripe};v=1")),
    ],
)
def test_a_preview_names_the_credential_in_place_of_the_secret(
    inject_as: Injection, shown: tuple[str, str]
) -> None:
    assert preview(credential(inject_as)) == shown


def test_previews_differ_where_the_header_would() -> None:
    """The preview is part of the digest, so what shapes the header must be in it."""
    forms = [BEARER, BASIC, API_KEY, Injection("authorization", "Basic {secret}", username="w")]
    assert len({preview(credential(form)) for form in forms}) == len(forms)


def test_placing_removes_all_that_the_agent_put_into_the_slot() -> None:
    placed = place(
        request(("authorization", "Bearer mine"), ("accept", "*/*"), ("authorization", "Basic x")),
        [credential()],
    )
    assert placed.headers == (("accept", "*/*"), ("accept-encoding", "identity"))


def test_placing_removes_spellings_that_are_not_canonical() -> None:
    placed = place(
        request(("Authorization", "Bearer mine"), ("AUTHORIZATION", "x")), [credential()]
    )
    assert placed.values("authorization") == ()
    assert "Authorization" not in dict(placed.headers)


def test_placing_asks_for_an_unencoded_answer_once() -> None:
    asked = (("accept-encoding", "gzip, br"), ("accept-encoding", "zstd"))
    placed = place(request(*asked), [credential()])
    assert placed.values("accept-encoding") == ("identity",)
    assert place(placed, [credential()]) == placed


def test_without_a_credential_nothing_is_touched() -> None:
    """There is nothing to mask, so the agent may have its compressed answer."""
    asked = request(("accept-encoding", "gzip, br"), ("authorization", "Bearer mine"))
    assert place(asked, []) == asked


def test_placing_touches_nothing_else() -> None:
    kept = (("accept", "a"), ("x-two", "1"), ("x-two", "2"), ("cookie", "s=1"))
    assert place(request(*kept), [credential()]).headers[:-1] == kept


def test_a_bearer_token_is_injected_and_masked() -> None:
    result, masked = injected(credential(), ("authorization", "Bearer mine"))
    assert result.values("authorization") == (f"Bearer {CANARY}",)
    assert set(masked) == {CANARY.encode(), f"Bearer {CANARY}".encode()}


def test_injection_replaces_the_slot_even_where_nobody_placed() -> None:
    cred = credential()
    result, _ = inject(
        request(("authorization", "a"), ("Authorization", "b")), [(cred, version(cred))]
    )
    assert [v for n, v in result.headers if n.lower() == "authorization"] == [f"Bearer {CANARY}"]


def test_basic_follows_rfc_7617() -> None:
    """The example of RFC 7617 section 2: user Aladdin, password `open sesame`."""
    cred = credential(Injection("authorization", "Basic {secret}", username="Aladdin"))
    result, masked = injected(cred, value="open sesame")
    assert result.values("authorization") == ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",)
    assert {b"open sesame", b"QWxhZGRpbjpvcGVuIHNlc2FtZQ=="} <= set(masked)


def test_basic_is_utf_8_and_may_have_an_empty_user() -> None:
    """RFC 7617 section 2.1: charset UTF-8; many APIs want the key alone, with an empty user."""
    cred = credential(Injection("authorization", "Basic {secret}", username=""))
    result, _ = injected(cred, value="pässwort:£")
    pair = base64.b64decode(result.values("authorization")[0].removeprefix("Basic "))
    assert pair.decode() == ":pässwort:£"


def test_a_format_is_filled_by_replacement_and_not_interpreted() -> None:
    cred = credential(Injection("x-api-key", "{0} {secret} {secret.__class__}"))
    assert injected(cred, value="value")[0].values("x-api-key") == ("{0} value {secret.__class__}",)


def test_a_secret_that_looks_like_a_placeholder_is_injected_as_it_is() -> None:
    assert injected(credential(), value="{secret}")[0].values("authorization") == (
        "Bearer {secret}",
    )


def test_several_credentials_fill_their_own_slots() -> None:
    first, second = credential(), credential(API_KEY, name="crm")
    result, masked = inject(request(), [(first, version(first)), (second, version(second, "key2"))])
    assert result.headers == (("authorization", f"Bearer {CANARY}"), ("x-api-key", "key=key2;v=1"))
    assert {CANARY.encode(), b"key2"} <= set(masked)


def test_without_credentials_nothing_changes() -> None:
    assert inject(request(("a", "b")), []) == (request(("a", "b")), ())


def test_two_credentials_for_one_slot_are_refused() -> None:
    first, second = credential(), credential(BASIC, name="other")
    with pytest.raises(ValueError, match="share the header authorization"):
        inject(request(), [(first, version(first)), (second, version(second))])


def test_a_value_of_another_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="another secret") as caught:
        inject(request(), [(credential(), version(credential(name="crm")))])
    assert_silent(caught.value, CANARY)


@pytest.mark.parametrize("form", ["Bearer", "{secret}{secret}"])
def test_a_format_holds_its_placeholder_exactly_once(form: str) -> None:
    cred = credential(Injection("authorization", form))
    with pytest.raises(ValueError, match="once"):
        inject(request(), [(cred, version(cred))])


@pytest.mark.parametrize(
    ("scheme", "host"),
    [("https", "evil.example"), ("https", "x.api.stripe.com"), ("http", "api.stripe.com")],
)
def test_a_credential_leaves_for_its_own_hosts_over_https_only(scheme: str, host: str) -> None:
    """Law 5, at the last gate before the wire."""
    cred = credential()
    with pytest.raises(Refusal) as caught:
        inject(request(scheme=scheme, host=host), [(cred, version(cred))])
    assert caught.value.code == "policy_denied"
    assert "its own hosts only" in str(caught.value)
    assert_silent(caught.value, CANARY)


UNFIT = [
    "",
    "\r\nx-evil: 1",
    "a\nb",
    "a\0b",
    "a\x7fb",
    "a\u2028b",
    "tr\u00e4nen",
    "\u20ac",
    "\ud800",
    "trailing ",
]


@pytest.mark.parametrize("value", UNFIT)
def test_what_a_header_cannot_carry_is_refused_without_showing_it(value: str) -> None:
    cred = credential()
    with pytest.raises(SecretUnavailable, match="kv/stripe#api_key cannot stand") as caught:
        injected(cred, value=CANARY + value if value else "")
    assert_silent(caught.value, CANARY)


@pytest.mark.parametrize("form", [BEARER, BASIC, API_KEY])
def test_what_is_too_short_to_be_masked_is_not_injected(form: Injection) -> None:
    with pytest.raises(SecretUnavailable, match="shorter than 4 characters and cannot be masked"):
        injected(credential(form), value="xyz")
    assert injected(credential(form), value="wxyz")


@pytest.mark.parametrize("value", ["a\r\nb", "\ud800", "a\tb"])
def test_a_basic_pair_holds_no_control_characters(value: str) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        injected(credential(BASIC), value=CANARY + value)
    assert_silent(caught.value, CANARY)


def test_a_basic_user_has_no_colon() -> None:
    """RFC 7617 section 2: with one, the server would cut the pair elsewhere."""
    cred = credential(Injection("authorization", "Basic {secret}", username="a:b"))
    with pytest.raises(SecretUnavailable):
        injected(cred)


@given(st.text(max_size=30), st.sampled_from([BEARER, BASIC, API_KEY]))
def test_no_secret_can_add_a_header_or_break_a_line(value: str, form: Injection) -> None:
    cred = credential(form)
    try:
        result, masked = injected(
            cred, ("authorization", "agent's"), ("x-api-key", "agent's"), value=value
        )
    except SecretUnavailable:
        return
    [header] = result.values(slot(form))
    assert header.isascii()
    assert header.isprintable()
    assert (
        len(result.headers)
        == len(place(request(("x-api-key", ""), ("authorization", "")), [cred]).headers) + 1
    )
    assert header.encode() in masked
    assert value.encode() in masked


def assert_silent(error: BaseException, canary: str) -> None:
    """Nothing that shows the error, or anything it hangs on to, shows the value."""
    seen: list[BaseException] = [error]
    for one in seen:
        shown = (
            "".join(traceback.format_exception(one)) + repr(one) + repr(one.args) + repr(vars(one))
        )
        assert canary not in shown
        seen += [e for e in (one.__cause__, one.__context__) if e is not None and e not in seen]


def test_messages_are_asked_for_uncompressed_too() -> None:
    asked = request(
        ("content-type", "application/grpc"),
        ("grpc-accept-encoding", "identity, gzip"),
        ("grpc-encoding", "gzip"),
    )
    placed = place(asked, [credential()])
    assert placed.values("grpc-accept-encoding") == ("identity",)
    assert placed.values("grpc-encoding") == ("gzip",), "of what the agent itself sends"
    assert place(placed, [credential()]) == placed
    assert place(asked, []) == asked
