"""Paths: an allow with a denied and a held neighbour; no spelling leads from one to the other."""

from __future__ import annotations

import pytest

from tests.attacks.stage import Stage

pytestmark = pytest.mark.e2e

ODD = "request_ambiguous"
DENIED = "policy_denied"
PENDING = "approval_pending"

GOOD = [
    ("plain", "/open/a-b_c.d~e"),
    ("sub-delims", "/open/a!b$c&d'e(f)g*h+i,j=k:l@m"),
    ("space", "/open/a%20b"),
    ("utf-8", "/open/caf%C3%A9"),
    ("dots-inside", "/open/a..b/.hidden/c."),
    ("query", "/open/a?x=%2Fprivate%2F..&y=;#"[:-1]),
    ("query-with-second-question", "/open/a?b?c=/held"),
    ("slash-at-end", "/open/a/"),
    ("looks-alike", "/open/privates"),
]


@pytest.mark.parametrize(("name", "path"), GOOD, ids=[name for name, _ in GOOD])
def test_control(stage: Stage, name: str, path: str) -> None:
    """What is well spelt and allowed arrives to the letter."""
    path = path.replace("privates", "prevates")
    assert stage.ask(stage.get(path)).status == 404
    assert [r.target for r in stage.arrived] == [path]


SLASHED = [
    ("allowed", "/named/a%2Fb", None),
    ("small letters", "/named/a%2fb", None),
    ("behind the name", "/named/a%2Fb/c%2Fd", None),
    ("denied, decoded", "/named/private%2Fx", DENIED),
    ("denied, decoded behind", "/named/a%2Fprivate", DENIED),
    ("denied, in another case", "/named/PRIVATE%2fx", DENIED),
    ("denied, with a second slash", "/named/private%2Fx%2Fy", DENIED),
    ("denied, as a whole", "/named/a%2Fb/private", DENIED),
    ("held, decoded", "/named/held%2Fx", PENDING),
    ("held, with a plain slash behind", "/named/held%2Fx/", PENDING),
    ("before the name", "/named%2Fa/b", ODD),
    ("no rule takes it", "/open/a%2Fb", ODD),
    ("nor beside a rule that denies", "/open/private%2Fx", ODD),
    ("dots", "/named/a%2F..%2Fprivate", ODD),
    ("dots at the end", "/named/private%2F.", ODD),
    ("two of them", "/named/a%2F%2Fprivate", ODD),
    ("beside a plain one", "/named/%2Fprivate/x", ODD),
    ("backslash", "/named/a%5Cb", ODD),
    ("twice encoded", "/named/a%252Fb", ODD),
    ("look-alike", "/named/a%EF%BC%8Fb", ODD),
    ("parameter", "/named/a%2F;private", ODD),
    ("NUL", "/named/a%2F%00", ODD),
]


@pytest.mark.parametrize(("name", "path", "code"), SLASHED, ids=[name for name, *_ in SLASHED])
def test_an_encoded_slash(stage: Stage, name: str, path: str, code: str | None) -> None:
    """A rule that takes one lets no other spelling through, and no reading of what it takes."""
    got = stage.ask(stage.get(path, "Prefer: respond-async"))
    if code is None:
        assert got.status == 404
        assert [r.target for r in stage.arrived] == [path.replace("%2f", "%2F")]
    else:
        stage.held(got, code)


TARGETS = [
    ("the-denied-itself", "/open/private/x", DENIED),
    ("the-denied-root", "/open/private", DENIED),
    ("the-held-itself", "/open/held/x", PENDING),
    ("outside", "/elsewhere", DENIED),
    ("outside-prefix", "/openheld/x", DENIED),
    ("root", "/", DENIED),
    # Case, against a rule that restricts; an allow does not widen.
    ("upper-denied", "/open/PRIVATE/x", DENIED),
    ("mixed-denied", "/open/pRiVaTe/x", DENIED),
    ("upper-held", "/open/HELD/x", PENDING),
    ("upper-allowed", "/OPEN/x", DENIED),
    ("kelvin-like-letter", "/open/pr%C4%B1vate/x", None),
    ("full-width-letters", "/open/%EF%BD%90rivate/x", DENIED),
    ("ligature", "/open/%EF%AC%81x/../private", ODD),
    ("soft-hyphen", "/open/pri%C2%ADvate/x", DENIED),
    ("zero-width", "/open/pri%E2%80%8Bvate/x", DENIED),
    ("dot-at-end-of-denied", "/open/private./x", DENIED),
    ("space-at-end-of-denied", "/open/private%20/x", DENIED),
    ("dots-and-space-at-end-of-held", "/open/held.%20./x", PENDING),
    ("encoded-hash-behind-denied", "/open/private%23/x", DENIED),
    ("encoded-question-behind-held", "/open/held%3Fx=y", PENDING),
    ("slash-at-end-of-denied", "/open/private/", DENIED),
    # Dot segments, plain and encoded.
    ("dot-dot", "/open/a/../private/x", ODD),
    ("dot-dot-out", "/open/../elsewhere", ODD),
    ("dot-dot-at-end", "/open/private/..", ODD),
    ("dot", "/open/./private/x", ODD),
    ("dot-at-end", "/open/private/.", ODD),
    ("three-dots", "/open/.../private/x", ODD),
    ("encoded-dots", "/open/a/%2e%2e/private/x", ODD),
    ("encoded-dots-upper", "/open/a/%2E%2E/private/x", ODD),
    ("half-encoded-dots", "/open/a/.%2e/private/x", ODD),
    ("encoded-dot", "/open/%2e/private/x", ODD),
    ("dots-and-slash", "/open/a%2f..%2fprivate", ODD),
    ("dots-with-parameter", "/open/a/..;/private/x", ODD),
    ("dots-with-parameter-name", "/open/a/..;v=1/private/x", ODD),
    ("dots-with-backslash", "/open/a\\..\\private\\x", ODD),
    ("dots-with-encoded-backslash", "/open/a%5c..%5cprivate", ODD),
    ("dots-with-nul", "/open/a/..%00/private/x", ODD),
    ("dots-with-space", "/open/a/..%20/private/x", ODD),
    ("dots-with-tab", "/open/a/..%09/private/x", ODD),
    ("overlong-dots", "/open/a/%c0%ae%c0%ae/private/x", ODD),
    ("full-width-dots", "/open/a/%EF%BC%8E%EF%BC%8E/private/x", ODD),
    ("one-dot-leader", "/open/a/%E2%80%A4%E2%80%A4/private/x", ODD),
    ("two-dot-leader", "/open/a/%E2%80%A5/private/x", ODD),
    # Slashes.
    ("double-slash", "/open//private/x", ODD),
    ("double-slash-first", "//open/private/x", ODD),
    ("triple-slash", "/open///held/x", ODD),
    ("double-slash-at-end", "/open/private//", ODD),
    ("encoded-slash", "/open%2fprivate/x", ODD),
    ("encoded-slash-upper", "/open%2Fprivate%2Fx", ODD),
    ("backslash", "/open\\private\\x", ODD),
    ("encoded-backslash", "/open%5Cprivate/x", ODD),
    ("fraction-slash", "/open/a%E2%81%84private", ODD),
    ("full-width-slash", "/open/a%EF%BC%8Fprivate", ODD),
    ("division-slash", "/open%E2%88%95private/x", ODD),
    ("overlong-slash", "/open%c0%afprivate/x", ODD),
    # Parameters and delimiters.
    ("parameter", "/open/private;x=1/y", ODD),
    ("parameter-empty", "/open/private;/y", ODD),
    ("encoded-parameter", "/open/private%3bx/y", ODD),
    ("parameter-first", "/;x/open/private", ODD),
    ("hash", "/open/a#/private", ODD),
    ("hash-denied", "/open/private#x", ODD),
    ("encoded-hash", "/open/private%23x/../y", ODD),
    ("encoded-question", "/open/private%3Fx", DENIED),
    ("question-first", "?/open/x", ODD),
    ("pipe", "/open/private|x", ODD),
    ("quote", '/open/private"', ODD),
    ("brackets", "/open/[private]", ODD),
    ("braces", "/open/{private}", ODD),
    ("caret", "/open/^private", ODD),
    ("backtick", "/open/`private`", ODD),
    ("angle", "/open/<private>", ODD),
    # Letters that need no escape, and escapes that are none.
    ("encoded-letter", "/open/%70rivate/x", ODD),
    ("encoded-letter-upper", "/open/%50rivate/x", ODD),
    ("all-encoded", "/open/%70%72%69%76%61%74%65/x", ODD),
    ("encoded-in-held", "/open/h%65ld/x", ODD),
    ("double-encoded-letter", "/open/%2570rivate/x", ODD),
    ("double-encoded-dots", "/open/a/%252e%252e/private/x", ODD),
    ("double-encoded-slash", "/open%252Fprivate/x", ODD),
    ("triple-encoded-slash", "/open%25252Fprivate/x", ODD),
    ("percent-u", "/open/%u0070rivate/x", ODD),
    ("percent-alone", "/open/private%", ODD),
    ("percent-one-digit", "/open/private%2", ODD),
    ("percent-no-hex", "/open/%zzprivate", ODD),
    ("percent-at", "/open/%40/%2e%2e/private", ODD),
    ("lower-hex", "/open/caf%c3%a9", ODD),
    ("not-composed", "/open/cafe%CC%81", ODD),
    ("bad-utf-8", "/open/%FF%FEprivate", ODD),
    ("cut-utf-8", "/open/%C3/private", ODD),
    ("surrogate", "/open/%ED%A0%80private", ODD),
    ("raw-utf-8", "/open/caf\u00c3\u00a9", ODD),
    ("raw-latin-1", "/open/caf\u00e9", ODD),
    # Control bytes.
    ("nul", "/open/a\0/private", ODD),
    ("encoded-nul", "/open/private%00.txt", ODD),
    ("tab", "/open/private\tx", ODD),
    ("encoded-line-break", "/open/x%0d%0aHost:%20free.localhost", ODD),
    ("encoded-line-feed", "/open/private%0a", ODD),
    ("bare-cr", "/open/private\rx", ODD),
    ("delete", "/open/private\x7f", ODD),
    ("encoded-delete", "/open/private%7F", ODD),
    ("c1-control", "/open/private%C2%85", ODD),
    ("escape", "/open/\x1b[31mprivate", ODD),
    ("space", "/open/private x", ODD),
    # Queries are matched too, or at least are what they seem.
    ("query-hash", "/open/a?x#y", ODD),
    ("query-nul", "/open/a?x=%00", ODD),
    ("query-raw-space", "/open/a?x y", ODD),
    ("query-raw-utf-8", "/open/a?caf\u00e9", ODD),
    ("query-bad-utf-8", "/open/a?x=%ff", ODD),
    ("query-bad-escape", "/open/a?x=%4", ODD),
    ("too-long", "/open/" + "a" * 17000, ODD),
    ("relative", "open/x", ODD),
    ("empty-but-slashes", "//", ODD),
    ("windows", "C:\\open\\private", ODD),
    ("file-url", "file:///open/private", ODD),
]


@pytest.mark.parametrize(("name", "path", "code"), TARGETS, ids=[f"{name}" for name, *_ in TARGETS])
def test_spellings(stage: Stage, name: str, path: str, code: str | None) -> None:
    """Refused, denied or held: whatever the upstream would make of it, it does not get it."""
    got = stage.ask(stage.get(path, "Prefer: respond-async"))
    if code is None:
        # Letters of its own, no other spelling of the denied name; `lawful` judges what arrived.
        assert len(stage.arrived) <= 1
    else:
        stage.held(got, code)


HTTP2 = [row for row in TARGETS if row[0].split("-")[0] in {"dot", "encoded", "double", "upper"}]


@pytest.mark.parametrize(("name", "path", "code"), HTTP2, ids=[name for name, *_ in HTTP2])
def test_spellings_in_http2(stage: Stage, name: str, path: str, code: str) -> None:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", stage.at()), (":path", path)]
    stage.held(stage.ask_h2([*fields, ("prefer", "respond-async")]), code)


@pytest.mark.parametrize("path", ["/open/a/../private/x", "/open/private/x", "/open//private"])
def test_absolute_form_in_the_tunnel(stage: Stage, path: str) -> None:
    stage.held(stage.ask(stage.get(f"https://{stage.at()}{path}")))


def test_curl_as_it_is(stage: Stage) -> None:
    """A real client, with and without its own tidying of dot segments."""
    url = f"{stage.upstream.url}/open/a/../private/x"
    for options, code in (((), DENIED), (("--path-as-is",), ODD)):
        reply = stage.kb.curl(stage.bot, url, *options)
        assert reply.code == code
    assert stage.arrived == []
