"""Requests written in YAML: what would come over the wire, and nothing tidied up on the way."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Ambiguous
from rules.load import load_policy
from rules.request import Request
from rules.source import Section, Source
from rules.trial.requests import Written, home_of, raw_request, read_request
from rules.yamlfile import parse_yaml


def reading(text: str, home: str | None = None) -> tuple[Written | None, list[str]]:
    value, lines = parse_yaml(text, "t.yaml")
    source = Source("t.yaml", lines)
    written = read_request(Section(source, ()), value, home)
    return written, [problem.message for problem in source.problems]


def written(text: str, home: str | None = None) -> Written:
    found, problems = reading(text, home)
    assert found is not None, problems
    return found


def request(text: str, home: str | None = None) -> Request:
    return written(text, home).request()


def test_https_goes_through_connect_and_http_in_absolute_form() -> None:
    tls = raw_request("POST", "https://a.example:8443/x?y=1", [("A", "b")], b"body")
    assert (tls.scheme, tls.connect, tls.sni) == ("https", ("a.example", 8443), "a.example")
    assert tls.authority is None
    assert tls.target == "/x?y=1"
    assert tls.headers == ((b"Host", b"a.example:8443"), (b"A", b"b"), (b"Content-Length", b"4"))
    clear = raw_request("GET", "http://a.example/", [], b"")
    assert (clear.scheme, clear.connect, clear.authority) == ("http", None, "a.example")


@pytest.mark.parametrize("text", ["word", "[a]", "null"])
def test_what_is_no_mapping_is_told_once(text: str) -> None:
    found, problems = reading(text)
    assert found is None and len(problems) == 1


def test_a_path_begins_with_a_slash() -> None:
    found, problems = reading("{method: GET, path: refunds}", "https://a.example")
    assert (found, problems) == (None, ['"refunds" is no path; it begins with /'])


@pytest.mark.parametrize("url", ["https://192.0.2.1/", "https://[2001:db8::1]/"])
def test_an_address_has_no_server_name(url: str) -> None:
    assert raw_request("GET", url).sni is None
    assert Written("GET", url).request().url == url


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "//a", "/%2e%2e/a", "/a;b", "/a\\b", "/a\tb", "/a\nb", "/a b", "/ä", "/%zz"],
)
def test_odd_paths_are_kept_so_that_they_are_refused(path: str) -> None:
    assert raw_request("GET", "https://a.example" + path).target == path
    with pytest.raises(Ambiguous):
        Written("GET", "https://a.example" + path).request()


def test_a_fragment_is_left_out_as_clients_do_but_not_of_a_target() -> None:
    assert raw_request("GET", "https://a.example/x#y").target == "/x"
    assert raw_request("GET", "https://a.example?q=1").target == "/?q=1"
    assert raw_request("GET", "https://a.example/", target="/x#y").target == "/x#y"


@pytest.mark.parametrize(
    "url",
    [
        "a.example/x",
        "ftp://a.example/",
        "https://",
        "https:///x",
        "https://a:x/",
        "https://[::1/",
        "https://u:p@a.example/",
        "https://bücher.example/",
        "https://a.exam\nple/",
        "https://a.example\\@b.example/",
        "",
    ],
)
def test_what_names_no_place_in_one_way_is_a_result(url: str) -> None:
    found, problems = reading(json.dumps({"method": "GET", "url": url}))
    assert problems == []
    assert found is not None
    with pytest.raises(Ambiguous):
        found.request()


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=10))
def test_any_text_is_a_request_or_ambiguous(url: str, target: str, method: str) -> None:
    for each in (Written(method, url), Written("GET", f"https://{url}", target=target)):
        with suppress(Ambiguous):
            assert isinstance(each.request(), Request)


def test_a_body_brings_its_type_unless_that_is_given() -> None:
    found = request(
        '{method: POST, url: "https://a.example/", json: {amount: 50, tags: [a, null]}}'
    )
    assert found.header("content-type") == "application/json"
    assert json.loads(found.body) == {"amount": 50, "tags": ["a", None]}
    form = request('{method: POST, url: "https://a.example/", form: {a: [1, "x y"], b: true}}')
    assert form.header("content-type") == "application/x-www-form-urlencoded"
    assert form.body == b"a=1&a=x+y&b=true"
    merge = "application/merge-patch+json"
    other = request(
        f'{{method: PATCH, url: "https://a.example/", headers: {{Content-Type: {merge}}}, json: 1}}'
    )
    assert other.header("content-type") == merge
    text = request('{method: POST, url: "https://a.example/", body: "a=1 "}')
    assert (text.header("content-type"), text.body) == (None, b"a=1 ")
    raw = base64.b64encode(b"\xff\x00").decode()
    found = request(f'{{method: POST, url: "https://a.example/", body_base64: "{raw}"}}')
    assert found.body == b"\xff\x00"


def test_headers_are_a_mapping_or_pairs() -> None:
    one = request('{method: GET, url: "https://a.example/", headers: {accept: [1, 2], x-b: yes}}')
    two = request(
        '{method: GET, url: "https://a.example/", headers: [[accept, 1], [accept, 2], [x-b, yes]]}'
    )
    assert one.headers == two.headers == (("accept", "1"), ("accept", "2"), ("x-b", "yes"))
    twice = (
        '{method: GET, url: "https://a.example/", headers: [[Host, a.example], [Host, b.example]]}'
    )
    with pytest.raises(Ambiguous):
        request(twice)


def test_a_target_stands_as_on_the_wire() -> None:
    found = written('{method: GET, url: "https://a.example/x", target: "/a/./b"}')
    with pytest.raises(Ambiguous, match="segment"):
        found.request()
    assert request('{method: GET, url: "https://a.example", target: "/b?c"}').target == "/b?c"


def test_when_and_whence_it_comes() -> None:
    found = request('{method: GET, url: "https://a.example/", at: "2026-03-02T10:30:00+01:00"}')
    assert found.moment == datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
    assert (found.via, found.run) == ("proxy", None)
    naive = request('{method: GET, url: "https://a.example/", at: 2026-03-02 09:30}').moment
    assert naive is not None
    assert naive - found.moment == timedelta(0)
    gateway = request('{method: GET, url: "https://a.example/x", via: gateway, run: true}')
    assert (gateway.via, gateway.url) == ("gateway", "https://a.example/x")
    assert gateway.run is not None
    run = "t-" + "0" * 26
    assert request(f'{{method: GET, url: "https://a.example/", run: {run}}}').run == run
    with pytest.raises(Ambiguous):
        request('{method: GET, url: "http://a.example/x", via: gateway}')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{metod: GET}", 'unknown field "metod" (did you mean "method"?)'),
        ('{url: "https://a.example/"}', '"method" is missing'),
        ("{method: GET}", '"url" is missing'),
        ("{method: GET, path: /x}", '"url" is missing; a path alone is enough only in a rule'),
        ('{method: GET, url: "https://a.example/", path: /x}', "stands in the url already"),
        ('{method: GET, url: "https://a.example/", body: {a: 1}}', "a JSON body is written json:"),
        ('{method: GET, url: "https://a.example/", body: a, json: 1}', "a request has one body"),
        ('{method: GET, url: "https://a.example/", body_base64: "é"}', "is not base64"),
        ('{method: GET, url: "https://a.example/", at: noon}', '"noon" is no time'),
        ('{method: GET, url: "https://a.example/", via: gatway}', 'did you mean "gateway"?'),
        ('{method: GET, url: "https://a.example/", run: 1}', "run must be text, not the number 1"),
        ('{method: GET, url: "https://a.example/", headers: [[a]]}', "a list of [NAME, VALUE]"),
        ('{method: GET, url: "https://a.example/", form: {a: 1.50}}', "put it in quotes"),
        ('{method: [GET], url: "https://a.example/"}', "this must be text"),
        ("[]", "must be a mapping"),
        ("", "a request is empty"),
    ],
)
def test_what_is_no_request_is_a_mistake_of_the_file(text: str, sentence: str) -> None:
    found, problems = reading(text)
    assert found is None
    assert any(sentence in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("match", "home"),
    [
        ("{host: a.example}", "https://a.example"),
        ('{host: ["*.b.example", "a.example:8443"]}', "https://a.example:8443"),
        ('{host: "*.b.example"}', "https://any.b.example"),
        ("{scheme: http, host: a.example}", "http://a.example"),
        ("[{path: /x}, {host: a.example}]", "https://a.example"),
        ("{path: /x}", None),
    ],
)
def test_a_path_alone_goes_to_the_first_exact_host(match: str, home: str | None) -> None:
    rule = f"{{id: r, agents: bot, match: {match}, effect: allow}}"
    policy, _ = load_policy(f"version: 1\nrules: [{rule}]\n")
    assert home_of(policy.rules[0]) == home
    if home is not None:
        assert request("{method: GET, path: /x?y}", home).url == f"{home}/x?y"
        assert request('{method: GET, target: "/x?y"}', home).url == f"{home}/x?y"
