"""Paths and queries are canonical or refused; templates match what they say, in linear time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Ambiguous
from rules.paths import check_path, check_query, parse_template, wide_texts

VECTORS: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "vectors" / "paths.yaml").read_text()
)
NEAR_PATHS = st.text(alphabet="/ab.%2eEFf5cC;\\?#*{}~é\0 ", max_size=40).map(lambda t: "/" + t)
SEGMENTS = st.sampled_from(
    [
        "a",
        "B",
        "a:b",
        ":b",
        "%E2%80%8B:b",
        "x.JSON",
        "y.Json",
        "refunds",
        "caf%C3%A9",
        "CAF%C3%89",
        "%C5%BF",
        "%EF%BD%81",
        "a%20b",
        "%E2%80%8B",
    ]
)
PATHS = st.builds(
    lambda parts, slash: "/" + "/".join(parts) + ("/" if slash and parts else ""),
    st.lists(SEGMENTS, max_size=5),
    st.booleans(),
)
TEMPLATES = st.builds(
    lambda parts, end: "/" + "/".join([*parts, *end]),
    st.lists(st.one_of(SEGMENTS, st.sampled_from(["*", "{x}:b", "{y}.Json", "{+z}"])), max_size=5),
    st.sampled_from([[], ["**"], [""]]),
).filter(lambda t: "//" not in t and all(t.count(name) < 2 for name in ("{x}", "{y}", "{+z}")))


@pytest.mark.parametrize("path", VECTORS["paths"]["accepted"])
def test_a_canonical_path_passes(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(("path", "reason"), VECTORS["paths"]["refused"])
def test_an_odd_path_is_refused_with_what_to_write(path: str, reason: str) -> None:
    with pytest.raises(Ambiguous) as caught:
        check_path(path)
    assert reason in caught.value.sentence
    assert caught.value.sentence.isascii() and caught.value.sentence.isprintable()


@pytest.mark.parametrize("query", VECTORS["queries"]["accepted"])
def test_a_query_goes_to_the_letter(query: str) -> None:
    check_query(query)


@pytest.mark.parametrize(("query", "reason"), VECTORS["queries"]["refused"])
def test_an_odd_query_is_refused_with_what_to_write(query: str, reason: str) -> None:
    with pytest.raises(Ambiguous) as caught:
        check_query(query)
    assert reason in caught.value.sentence


@given(st.one_of(NEAR_PATHS, st.text()))
def test_a_check_passes_or_is_ambiguous(text: str) -> None:
    for check in (check_path, check_query):
        sentence = ""
        try:
            check(text)
        except Ambiguous as error:
            sentence = error.sentence
        assert sentence.isascii() and sentence.isprintable()


@pytest.mark.parametrize("odd", ["/\udc80", "/%C3\udca9", "/\ud800%41"])
def test_undecodable_bytes_are_refused(odd: str) -> None:
    for check, text in ((check_path, odd), (check_query, odd)):
        with pytest.raises(Ambiguous):
            check(text)


@given(st.integers(0, 255), st.booleans())
def test_each_byte_has_at_most_one_spelling(byte: int, upper: bool) -> None:
    """Of a byte as it is and its two escapes, at most one is accepted."""
    spellings = {chr(byte), f"%{byte:02X}", f"%{byte:02x}"} - {"/"}
    accepted = set()
    for spelling in spellings:
        try:
            check_path(f"/a{spelling}b")
        except Ambiguous:
            continue
        accepted.add(spelling)
    assert len(accepted) <= 1


@given(st.text(alphabet='ab.é€ "<#?^`{|}~@:', min_size=1, max_size=12))
def test_text_quoted_as_the_grammar_asks_passes(text: str) -> None:
    if text.strip(". "):  # dots and blanks alone are a dot segment to some servers
        check_path("/x/" + quote(text, safe="!$&'()*+,=:@"))


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/", "/"),
        ("/v1/refunds", "/v1/refunds"),
        ("/v1/*", "/v1/refunds"),
        ("/v1/{kind}/x", "/v1/refunds/x"),
        ("/v1/{kind}/{id}", "/v1/refunds/re_1"),
        ("/v1/**", "/v1/refunds/re_1"),
        ("/v1/**", "/v1/refunds/"),
        ("/v1/**", "/v1/"),
        ("/v1/**", "/v1"),
        ("/**", "/"),
        ("/**", "/a/b/c"),
        ("/v1/*/**", "/v1/a"),
        ("/v1/refunds/", "/v1/refunds/"),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/*", "/*"),
    ],
)
def test_a_template_matches(template: str, path: str) -> None:
    assert parse_template(template).matches(path)
    assert parse_template(template).matches(path, ignore_case=True)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/v1/*", "/v1/"),
        ("/v1/*", "/v1"),
        ("/v1/*", "/v1/a/b"),
        ("/v1/*", "/v1/a/"),
        ("/v1/refunds", "/v1/refunds/"),
        ("/v1/refunds/", "/v1/refunds"),
        ("/v1/refunds", "/v1/Refunds"),
        ("/v1/refunds", "/v1/refunds/x"),
        ("/v1/**", "/v10"),
        ("/v1/**", "/"),
        ("/v1/*/**", "/v1"),
        ("/v1/*/**", "/v1/"),
        ("/", "/a"),
        ("/a.c", "/abc"),
    ],
)
def test_a_template_matches_no_more(template: str, path: str) -> None:
    assert not parse_template(template).matches(path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/admin",
        "/V1/Admin",
        "/v1/ADMIN/",
        "/v1/%EF%BD%81dmin",  # full-width a
        "/v1/adm%E2%80%8Bin",  # zero-width space
        "/v1/admin.",  # Windows drops dots and spaces at the end of a name
        "/v1/admin%20",
        "/v1/admin%3Fx",  # decoded before the target is split
        "/v1/admin%23x/y",
        "/v1/admin.json",  # a format, to Rails
        "/v1/Admin.X1/",
        "/index.php/v1/admin",  # to Magento and Nextcloud
        "/Index.php/v1/Admin.json/",
    ],
)
def test_the_widest_reading_catches_what_lenient_servers_serve(path: str) -> None:
    template = parse_template("/v1/admin")
    assert template.matches(path, ignore_case=True)


def test_the_widest_reading_knows_letters_that_fold_to_ascii() -> None:
    assert parse_template("/users").matches("/u%C5%BFers", ignore_case=True)  # long s
    assert not parse_template("/users").matches("/u%C5%BFers")


def test_the_widest_reading_is_still_about_this_path() -> None:
    template = parse_template("/v1/admin")
    paths = ["/v1/adminx", "/v1", "/v1/admin/x", "/v2/admin", "/", "/v1/admin.a.b", "/v1/.admin"]
    paths += ["/index.phpx/v1/admin", "/x/index.php/v1/admin", "/index.php"]
    for path in paths:
        assert not template.matches(path, ignore_case=True)


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("/v2/tickets.json", "/v2/tickets", True),
        ("/v2/tickets.json", "/v2/tickets.xml", True),
        ("/v2/tickets.json", "/v2/tickets.json", True),
        ("/v2/tickets.json", "/v2/ticket", False),
        ("/v2/app.exe", "/v2/app", False),
        ("/v2/tickets/**", "/v2/tickets.json", True),
        ("/.json", "/", False),
        ("/a/.json", "/a/", False),
    ],
)
def test_a_format_at_the_end_does_not_count_widely(
    template: str, path: str, expected: bool
) -> None:
    parsed = parse_template(template)
    assert parsed.matches(path, ignore_case=True) is expected
    assert not expected or any(text.startswith(parsed.wide_prefix) for text in wide_texts(path))


@given(TEMPLATES, PATHS)
def test_what_matches_matches_widely_too_and_has_the_prefix(template: str, path: str) -> None:
    parsed = parse_template(template)
    if parsed.matches(path):
        assert parsed.matches(path, ignore_case=True)
        assert path.startswith(parsed.literal_prefix)


@given(PATHS)
def test_a_path_as_a_template_matches_that_path(path: str) -> None:
    template = parse_template(path)
    assert template.matches(path)
    if "%" not in path:
        assert template.matches(path.swapcase(), ignore_case=True)


@pytest.mark.parametrize(
    ("template", "prefix"),
    [
        ("/", "/"),
        ("/**", "/"),
        ("/v1/**", "/v1"),
        ("/v1/*/x", "/v1/"),
        ("/v1/refunds", "/v1/refunds"),
        ("/v1/refunds/", "/v1/refunds/"),
    ],
)
def test_the_literal_prefix(template: str, prefix: str) -> None:
    assert parse_template(template).literal_prefix == prefix


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "begin with"),
        ("v1", "begin with"),
        ("**", "begin with"),
        ("/**/x", "last segment"),
        ("/a/**/**", "last segment"),
        ("/v1/re*", "whole segments"),
        ("/v1/***", "whole segments"),
        ("/v1/*:cancel", "whole segments"),
        ("/v1/x{id}", "whole segments"),
        ("/v1/{id}x", "whole segments"),
        ("/v1/{id}:", "whole segments"),
        ("/v1/{id}.", "whole segments"),
        ("/v1/{id}:a%20", "whole segments"),
        ("/v1/{id}:{verb}", "whole segments"),
        ("/v1/{id}:a/{id}", "twice"),
        ("/v1/{}", "whole segments"),
        ("/v1/{a b}", "whole segments"),
        ("/{id}/{id}", "twice"),
        ("/v1//x", "`//`"),
        ("/a//**", "`//`"),
        ("/v1/../x", "can match no path"),
        ("/v1/a b", "can match no path"),
        ("/v1/%2F", "write `{+name}`"),
        ("/@acme%2fx", "write `{+name}`"),
        ("/v1/{+}", "whole segments"),
        ("/v1/{+id}/{id}", "twice"),
        ("/v1?x=y", "a path has no query"),
    ],
)
def test_an_odd_template_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_template(template)


@pytest.mark.parametrize(
    ("template", "path", "narrow", "wide"),
    [
        ("/p/{+id}", "/p/a%2Fb", True, True),
        ("/p/{+id}", "/p/7", True, True),
        ("/p/{+id}", "/p/a/b", False, False),
        ("/p/{+id}", "/p/", False, False),
        ("/p/{id}", "/p/a%2Fb", False, True),
        ("/p/*", "/p/a%2Fb", False, True),
        ("/p/**", "/p/a%2Fb", False, True),
        ("/p/{+id}/**", "/p/a%2Fb/c%2Fd", True, True),
        ("/p/{+id}/x/{name}", "/p/a%2Fb/x/c%2Fd", False, True),
        ("/p/{+id}/x/{+name}", "/p/a%2Fb/x/c%2Fd", True, True),
        ("/p/{+id}/x", "/p%2Fa/x", False, True),
        ("/p/a/b", "/p/a%2Fb", False, True),
        ("/p/a/b", "/p/A%2Fb/", False, True),
        ("/p/a/**", "/p/a%2Fb", False, True),
        ("/p/a/c", "/p/a%2Fb", False, False),
        ("/p/{+id}/b", "/p/a%2Fb", False, True),
        ("/p/q", "/p/q%23a%2Fb", False, True),
    ],
)
def test_an_encoded_slash_is_where_the_template_says(
    template: str, path: str, narrow: bool, wide: bool
) -> None:
    parsed = parse_template(template)
    check_path(path, slashes=True)
    assert parsed.matches(path) is narrow
    assert parsed.matches(path, ignore_case=True) is wide
    assert not wide or any(text.startswith(parsed.wide_prefix) for text in wide_texts(path))


@pytest.mark.parametrize(
    ("template", "path", "narrow", "wide"),
    [
        ("/m/{id}:run", "/m/gemini:run", True, True),
        ("/m/{id}:run", "/m/a:b:run", True, True),
        ("/m/{id}:run", "/m/gemini:RUN", False, True),
        ("/m/{id}:run", "/m/gemini:run.", False, True),
        ("/m/{id}:run", "/m/gemini:run/", False, True),
        ("/m/{id}:run", "/m/:run", False, True),
        ("/m/{id}:run", "/m/gemini:rerun", False, False),
        ("/m/{id}:run", "/m/gemini", False, False),
        ("/m/{id}:run", "/m/gemini:run/x", False, False),
        ("/m/{id}:run/**", "/m/gemini:run/x", True, True),
        ("/{repo}.git/info", "/site.git/info", True, True),
        ("/{repo}.git/info", "/site/info", False, False),
        ("/m/{+id}:run", "/m/a%2Fb:run", True, True),
        ("/m/a/{id}:run", "/m/a%2Fb:run", False, True),
    ],
)
def test_a_segment_may_have_to_end_in_something(
    template: str, path: str, narrow: bool, wide: bool
) -> None:
    parsed = parse_template(template)
    assert parsed.matches(path) is narrow
    assert parsed.matches(path, ignore_case=True) is wide


@pytest.mark.parametrize("path", ["/a%2Fb", "/a%2F", "/a%2Fb%20c", "/@x%2Fy", "/a%2Fb/c%2Fd"])
def test_encoded_slashes_stand_where_plain_ones_could(path: str) -> None:
    check_path(path, slashes=True)
    with pytest.raises(Ambiguous, match="encoded slash"):
        check_path(path)


@pytest.mark.parametrize(
    "path",
    ["/%2Fa", "/a%2F%2Fb", "/a/%2Fb", "/a%2F/b", "/..%2Fb", "/a%2F.", "/a%2F..%2Fb", "/a%2fb",
     "%2Fa", "/a%2F%5Cb", "/a%2F%2E", "/a%2F;b", "/a%252Fb"],
)  # fmt: skip
def test_an_encoded_slash_makes_no_path_that_a_plain_one_could_not(path: str) -> None:
    with pytest.raises(Ambiguous):
        check_path(path, slashes=True)


_segments = st.sampled_from(
    ["a%2Fb", "{+x}", "a", "A", "\uff21", "*", "b", "%3F", "a.", "", "c%23d"]
)


@given(st.lists(_segments, min_size=1, max_size=4), st.lists(_segments, max_size=4), st.booleans())
def test_prefixes_pass_over_no_path_that_matches(
    template: list[str], path: list[str], rest: bool
) -> None:
    """The quick look of the decisions may only say no where the whole comparison does."""
    text = "/" + "/".join([*(part for part in template if part), *(["**"] if rest else [])])
    try:
        parsed = parse_template(text)
    except ValueError:
        return
    called = "/" + "/".join(path)
    if parsed.matches(called):
        assert called.startswith(parsed.literal_prefix)
    if parsed.matches(called, ignore_case=True):
        assert any(t.startswith(parsed.wide_prefix) for t in wide_texts(called))
