"""What a call means: no spelling of a body passes a rule that looks at what it says.

Each body has a reading, by some server in use, that the rule is there to stop.
"""

from __future__ import annotations

import gzip
import json

import pytest

from tests.attacks.stage import Stage

pytestmark = pytest.mark.e2e

JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
LARGE = b'{"amount": 5000}'

JSON_BODIES = {
    "plain": (LARGE, JSON),
    "text": (b'{"amount": "5000"}', JSON),
    "exponent": (b'{"amount": 5e3}', JSON),
    "text with exponent": (b'{"amount": "5e3"}', JSON),
    "text with blanks": (b'{"amount": " 5000 "}', JSON),
    "text in hex": (b'{"amount": "0x1388"}', JSON),
    "other letter case": (b'{"Amount": 5000}', JSON),
    "twice, last large": (b'{"amount": 1, "amount": 5000}', JSON),
    "twice, first large": (b'{"amount": 5000, "amount": 1}', JSON),
    "twice, one escaped": (b'{"amount": 1, "\\u0061mount": 5000}', JSON),
    "escaped name": (b'{"\\u0061mount": 5000}', JSON),
    "second letter case beside": (b'{"amount": 1, "AMOUNT": 5000}', JSON),
    "byte order mark": (b"\xef\xbb\xbf" + LARGE, JSON),
    "something behind": (LARGE + b" x", JSON),
    "a second text behind": (LARGE + b'{"amount": 1}', JSON),
    "cut off": (LARGE[:-1], JSON),
    "comment": (b"/**/" + LARGE, JSON),
    "trailing comma": (b'{"amount": 5000,}', JSON),
    "single quotes": (b"{'amount': 5000}", JSON),
    "infinite": (b'{"amount": Infinity}', JSON),
    "beyond a double": (b'{"amount": 1e999}', JSON),
    "UTF-16": ('{"amount": 5000}'.encode("utf-16"), JSON),
    "UTF-16 as said": (
        '{"amount": 5000}'.encode("utf-16-le"), "Content-Type: application/json; charset=utf-16le"),
    "no type": (LARGE, "X-None: 1"),
    "text type": (LARGE, "Content-Type: text/plain"),
    "form type": (LARGE, FORM),
    "patch type": (LARGE, "Content-Type: application/merge-patch+json"),
    "type in capitals": (LARGE, "CONTENT-TYPE: APPLICATION/JSON"),
    "type with blanks": (LARGE, "Content-Type:  application/json ; charset=utf-8"),
    "deep": (b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b', "amount": 5000}', JSON),
    "many": (b'{"x": [' + b"1," * 200_000 + b'1], "amount": 5000}', JSON),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/meaning/json", "/small/json", "/meaning/cel", "/small/cel"])
@pytest.mark.parametrize("case", JSON_BODIES)
def test_an_amount_in_json(stage: Stage, path: str, case: str) -> None:
    body, kind = JSON_BODIES[case]
    stage.held(stage.ask(stage.get(path, kind, method="POST", body=body)))


@pytest.mark.parametrize("path", ["/meaning/json", "/small/json", "/meaning/form"])
def test_a_compressed_body(stage: Stage, path: str) -> None:
    body = gzip.compress(LARGE)
    headers = (JSON, "Content-Encoding: gzip")
    stage.held(stage.ask(stage.get(path, *headers, method="POST", body=body)))


FORM_BODIES = {
    "plain": b"amount=5000",
    "escaped name": b"%61mount=5000",
    "escaped value": b"amount=%35000",
    "exponent": b"amount=5e3",
    "sign": b"amount=%2B5000",
    "thousands": b"amount=5,000",
    "underscore": b"amount=5_000",
    "other digits": "amount=\u0665\u0660\u0660\u0660".encode(),
    "other digits, escaped": b"amount=%D9%A5%D9%A0%D9%A0%D9%A0",
    "twice, last large": b"amount=1&amount=5000",
    "twice, first large": b"amount=5000&amount=1",
    "other letter case": b"Amount=5000",
    "both cases": b"amount=1&Amount=5000",
    "semicolon": b"amount=1;amount=5000",
    "blank around": b"amount=+5000+",
    "broken escape": b"amount=5000%",
    "not UTF-8": b"amount=5000&x=%ff",
    "in brackets": b"amount=1&[amount]=5000",
    "a member of it": b"amount=1&amount[x]y=5000",
    "behind a question mark": b"?amount=5000&amount=1",
    "where some have stopped reading": b"amount=1&" + b"x&" * 1000 + b"amount=5000",
}


@pytest.mark.parametrize("path", ["/meaning/form", "/small/form"])
@pytest.mark.parametrize("case", FORM_BODIES)
def test_an_amount_in_a_form(stage: Stage, path: str, case: str) -> None:
    stage.held(stage.ask(stage.get(path, FORM, method="POST", body=FORM_BODIES[case])))


@pytest.mark.parametrize("path", ["/meaning/form", "/small/form"])
def test_an_amount_in_the_query_beside_the_form(stage: Stage, path: str) -> None:
    request = stage.get(path + "?amount=5000", FORM, method="POST", body=b"amount=1")
    stage.held(stage.ask(request))


@pytest.mark.parametrize("path", ["/meaning/form", "/small/form"])
@pytest.mark.parametrize(
    "part",
    [
        'form-data; name="amount"',
        "form-data; name=amount",
        'form-data; name="Amount"',
        "form-data; name*=utf-8''amount",
        'form-data; name="x"; name="amount"',
        'form-data; name="am\\ount"',
    ],
)
def test_an_amount_in_a_part(stage: Stage, path: str, part: str) -> None:
    body = f"--b\r\nContent-Disposition: {part}\r\n\r\n5000\r\n--b--\r\n".encode()
    kind = "Content-Type: multipart/form-data; boundary=b"
    stage.held(stage.ask(stage.get(path, kind, method="POST", body=body)))


MULTIPART = "Content-Type: multipart/form-data; boundary=b"
PDF = "\r\nContent-Type: application/pdf"


def form_of(*parts: tuple[str, str]) -> bytes:
    """Of the parameters of each Content-Disposition with what follows, and the content."""
    written = [
        f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n"
        for head, content in parts
    ]
    return "".join((*written, "--b--\r\n")).encode()


SMALL, BIG = "x" * 10, "x" * 11
PLAIN_FILE = 'name="upload"; filename="f.pdf"' + PDF
UPLOADS = {
    "too long": form_of((PLAIN_FILE, BIG)),
    "too long in bytes": form_of((PLAIN_FILE, "é" * 6)),
    "twice, one too long": form_of((PLAIN_FILE, SMALL), (PLAIN_FILE, BIG)),
    "a field beside": form_of((PLAIN_FILE, SMALL), ('name="upload"', BIG)),
    "in brackets beside": form_of(
        (PLAIN_FILE, SMALL), ('name="upload[]"; filename="g"' + PDF, BIG)),
    "letter case beside": form_of((PLAIN_FILE, SMALL), ('name="Upload"; filename="g"' + PDF, BIG)),
    "no type": form_of(('name="upload"; filename="f.pdf"', BIG)),
    "no file name": form_of(('name="upload"' + PDF, BIG)),
    "octets without a file name": form_of(
        ('name="upload"\r\nContent-Type: application/octet-stream', BIG)),
    "empty file name": form_of(('name="upload"; filename=""' + PDF, BIG)),
    "file name of dots": form_of(('name="upload"; filename="../.."' + PDF, BIG)),
    "extended file name": form_of(("name=\"upload\"; filename*=utf-8''f.pdf" + PDF, BIG)),
    "name in the file name": form_of(
        ('filename="f; name=upload; "; name="other"' + PDF, BIG), (PLAIN_FILE, SMALL)),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/meaning/upload", "/small/upload", "/small/without"])
@pytest.mark.parametrize("case", UPLOADS)
def test_an_upload(stage: Stage, path: str, case: str) -> None:
    stage.held(stage.ask(stage.get(path, MULTIPART, method="POST", body=UPLOADS[case])))


def test_a_field_that_is_missing_is_in_no_place(stage: Stage) -> None:
    """Nor is what must be there in another one."""
    small = form_of((PLAIN_FILE, SMALL))
    for more in ("?upload=1", "?note=1", "?note[]=1"):
        stage.held(
            stage.ask(stage.get("/small/upload" + more, MULTIPART, method="POST", body=small))
        )
    stage.held(stage.ask(stage.get("/small/without?upload=1", FORM, method="POST", body=b"a=1")))
    for kind, body in ((FORM, b"upload[]=1"), (FORM, b"Upload=1"), ("X-None: 1", b"upload=1")):
        stage.held(stage.ask(stage.get("/small/without", kind, method="POST", body=body)))


def graphql(query: str, **more: object) -> bytes:
    return json.dumps({"query": query, **more}).encode()


GRAPHQL_BODIES = {
    "plain": graphql("mutation { deleteRef }"),
    "alias": graphql("mutation { addStar: deleteRef }"),
    "beside another": graphql("mutation { addStar deleteRef }"),
    "fragment": graphql("mutation { ...F } fragment F on Mutation { deleteRef }"),
    "inline fragment": graphql("mutation { ... on Mutation { deleteRef } }"),
    "nested fragments": graphql(
        "mutation { ...F } fragment F on M { ...G } fragment G on M { deleteRef }"),
    "picked by name": graphql(
        "query A { viewer } mutation B { deleteRef }", operationName="B"),
    "included by a variable": graphql(
        "mutation ($x: Boolean!) { deleteRef @include(if: $x) }", variables={"x": True}),
    "batch": b"[" + graphql("{ viewer }") + b"," + graphql("mutation { deleteRef }") + b"]",
    "persisted": json.dumps({"extensions": {"persistedQuery": {"sha256Hash": "0" * 64}}}).encode(),
    "persisted by id": json.dumps({"id": "delete-everything"}).encode(),
    "comment": graphql("# query\rmutation { deleteRef }"),
    "escaped": graphql("mutation { deleteRef }").replace(b"mutation", b"\\u006dutation"),
    "twice": b'{"query": "{ viewer }", "query": "mutation { deleteRef }"}',
    "two operations, none picked": graphql("query A { a } mutation B { deleteRef }"),
    "broken": graphql("mutation { deleteRef"),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/meaning/graphql", "/small/graphql"])
@pytest.mark.parametrize("case", GRAPHQL_BODIES)
def test_a_mutation(stage: Stage, path: str, case: str) -> None:
    stage.held(stage.ask(stage.get(path, JSON, method="POST", body=GRAPHQL_BODIES[case])))


@pytest.mark.parametrize("path", ["/meaning/graphql", "/small/graphql"])
def test_a_mutation_in_the_query(stage: Stage, path: str) -> None:
    text = "query=mutation%7BdeleteRef%7D"
    stage.held(stage.ask(stage.get(f"{path}?{text}")))
    both = stage.get(f"{path}?{text}", JSON, method="POST", body=graphql("{ viewer }"))
    stage.held(stage.ask(both))
    stage.held(stage.ask(stage.get(path, "Content-Type: application/graphql",
                                   method="POST", body=b"mutation { deleteRef }")))  # fmt: skip


def call_tool(name: object, **arguments: object) -> dict[str, object]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


DELETE = call_tool("delete_file", path="/etc/passwd")
MCP_BODIES = {
    "plain": json.dumps(DELETE).encode(),
    "batch": json.dumps([call_tool("read_file"), DELETE]).encode(),
    "notification": json.dumps({k: v for k, v in DELETE.items() if k != "id"}).encode(),
    "other letter case": json.dumps(call_tool("DELETE_file", Path="/ETC/passwd")).encode(),
    "method in other case": json.dumps({**DELETE, "method": "Tools/Call"}).encode(),
    "second method": json.dumps(
        {**DELETE, "method": "tools/list", "Method": "tools/call"}
    ).encode(),
    "name twice": json.dumps(DELETE).encode().replace(b'"name"', b'"name": "read_file", "name"'),
    "positional": json.dumps({**DELETE, "params": ["delete_file", {"path": "/etc/x"}]}).encode(),
    "escaped": json.dumps(DELETE).encode().replace(b"delete_", b"\\u0064elete_"),
    "two texts": json.dumps(call_tool("read_file")).encode() + json.dumps(DELETE).encode(),
}


@pytest.mark.parametrize("path", ["/meaning/mcp", "/meaning/etc", "/small/mcp"])
@pytest.mark.parametrize("case", MCP_BODIES)
def test_a_tool(stage: Stage, path: str, case: str) -> None:
    stage.held(stage.ask(stage.get(path, JSON, method="POST", body=MCP_BODIES[case])))


def test_what_is_meant_to_pass_passes(stage: Stage) -> None:
    """Else all of the above would hold for no reason."""
    small = b'{"amount": 1000}'
    passing = [
        ("/meaning/json", JSON, small),
        ("/meaning/cel", JSON, small),
        ("/small/json", JSON, small),
        ("/small/cel", JSON, small),
        ("/meaning/form", FORM, b"amount=1000"),
        ("/small/form", FORM, b"amount=1000"),
        ("/meaning/upload", MULTIPART, form_of((PLAIN_FILE, SMALL), ('name="a"', BIG))),
        ("/small/upload", MULTIPART, form_of((PLAIN_FILE, SMALL), ('name="a"', BIG))),
        ("/small/without", MULTIPART, form_of(('name="other"; filename="f"' + PDF, BIG))),
        ("/meaning/graphql", JSON, graphql("{ viewer }")),
        ("/small/graphql", JSON, graphql("{ viewer }")),
        ("/meaning/mcp", JSON, json.dumps(call_tool("read_file", path="/etc/x")).encode()),
        ("/meaning/etc", JSON, json.dumps(call_tool("read_file", path="/srv/x")).encode()),
        ("/small/mcp", JSON, json.dumps(call_tool("read_file")).encode()),
    ]
    for path, kind, body in passing:
        got = stage.ask(stage.get(path, kind, method="POST", body=body))
        assert not got.codes, (path, got.data[:500])
    assert len(stage.arrived) == len(passing)
