"""Forms in many spellings, for asking what our readers and servers' parsers make of them.

Each is a Content-Type and a body. What rules ask for is one of WANTED; the variants are what some
server may take for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

URLENCODED = "application/x-www-form-urlencoded"
WANTED = ("a", "a_b", "a[b]")
B = "B" * 27
"""A boundary; Node's fetch takes none that is shorter."""

type Form = tuple[str, bytes]

NAMES = (
    "a", "A", "a[]", "a[0]", "a[b]", "a[b][]", "a[b][c]", "a[b]c", "a[b", "a]", "[a]", "[]",
    "[a][b]", "a[[b]]", "a[]b", "a.b", "a b", "a_b", "a-b", "a%00", "a%00b",
    "%20a", "a%20", "+a", "a+",
    "a%5Bb%5D",
    "a%5B%5D", "%61", "a%5F", "a%0A", "a%09", "%C3%A1", "%EF%BB%BFa", "%E2%80%8Ba", "__proto__",
    "constructor", "a[__proto__]", "__proto__[a]", "a%", "a%zz", "%ff", "b", "a=", "", "a;", "a&",
    "?a",
)  # fmt: skip
VALUES = (
    "1", "", "+1", "1+", "%31", "%C3%A9", "%EF%BB%BF1", "%EF%BF%BD", "%ED%A0%80", "%F0%9F%98%80",
    "%00",
    "%0A", "1=2", "=", "[1]", "%2B", "%25", "%u0031", "1;a=2", "a,b",
)  # fmt: skip
HEADS = (
    'name="{}"', "name={}", "name='{}'", 'Name="{}"', 'name = "{}"', 'name="{}";',
    'name="{}"; x="y"',
    "name*=utf-8''{}", 'x="name=b"; name="{}"',
    'name="{}"; filename="f.txt"', 'filename="f.txt"; name="{}"', 'name="{}"; filename=""',
    'name="{}"; filename=f.txt', 'name="{}"; filename="."', 'name="{}"; filename=".."',
    'name="{}"; filename="/"', 'name="{}"; filename="g/"', 'name="{}"; filename="g/.."',
    'name="{}"; filename="&#46;"', 'name="{}"; filename="g&#47;"', 'name="{}"; filename="g&sol;"',
    'name="{}"; filename="%2F"', 'name="{}"; filename="%00"', 'name="{}"; filename=" "',
    'name="{}"; filename="\u00e9.txt"', 'name="{}"; filename="a;b=c.txt"',
    'name="{}"; filename="a, b"',
    "name=\"{}\"; filename*=utf-8''f.txt", "name=\"{}\"; filename=\"\"; filename*=utf-8''f.txt",
    "name=\"{}\"; filename=\"f.txt\"; filename*=utf-8''",
    'filename="f; name=b; "; name="{}"', 'filename="f; name=b"; name="{}"',
    'filename="name=b"; name="{}"',
    'name="{}; filename=f"', 'name="{}"; filename="f\\\\.txt"', 'name="{}"; name="b"',
    'name="{}"; filename="f"; filename="g"',
)  # fmt: skip
PART_NAMES = (
    "a", "A", "a[]", "a[0]", "a[b]", "a[b", "a]", "[a]", "a.b", "a b", "a ", " a", "a_b", "a\0",
    "\u00e1", "\u00e9", "a%5B%5D", "%61", "__proto__", "a[b]c", "a[[b]]", "constructor",
)  # fmt: skip
TYPES = (
    "", "text/plain", "text/plain; charset=utf-8", "application/octet-stream", "image/png",
    "application/json", "multipart/mixed; boundary=c", "text/plain; charset=utf-16", "x",
)  # fmt: skip
MORE = (
    "Content-Transfer-Encoding: binary", "Content-Transfer-Encoding: 7bit",
    "Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: base64", "Content-Length: 1",
    "Content-Length: 2", "X-More: 1",
)  # fmt: skip
CONTENTS = (
    "1",
    "",
    "\r\n",
    "\n1\n",
    "\u00e9",
    "\ufeff1",
    "--",
    "-\r\n-",
    "MQ==",
    "=31",
    "a\0b",
    f"--{B}",
    f"\r\n--{B}",
)
BOUNDARIES = (
    "B", '"B"', '"B C"', "B; charset=utf-8", "B ; charset=utf-8", "'B'", '"B:/?=,C"', "B+_.-'C",
    "%42", "B=", "----WebKitFormBoundaryABC", "B!#$&*^`|~",
)  # fmt: skip


def forms() -> list[Form]:
    """All of them, each once."""
    return list(dict.fromkeys((*_urlencoded(), *_multipart())))


def _urlencoded() -> Iterator[Form]:
    for name in NAMES:
        for body in (
            f"{name}=5",
            f"a=1&{name}=5",
            f"{name}=5&a=1",
            f"a_b=1&{name}=5",
            f"a[b]=1&{name}=5",
        ):
            yield URLENCODED, body.encode()
    for value in VALUES:
        yield URLENCODED, f"a={value}".encode()
        yield URLENCODED, f"b=2&a={value}&a=1".encode()
    for body in (
        "a",
        "a&a",
        "&a=1",
        "a=1&",
        "&&a=1",
        "a=1&&b=2",
        "=1",
        "a==1",
        "a=1\r\n",
        " a=1",
        "a=1#b",
    ):
        yield URLENCODED, body.encode()
    for many in (900, 1000, 1001, 5000):
        yield URLENCODED, b"b=2&" * many + b"a=1"
        yield URLENCODED, b"a=1&" * many + b"b=2"
    yield URLENCODED + "; charset=utf-8", b"a=%C3%A9"
    yield URLENCODED + "; charset=iso-8859-1", b"a=%E9"


def part(head: str, content: str = "1", kind: str = "", more: str = "") -> str:
    """One part, written with the boundary B."""
    lines = [
        f"--{B}\r\nContent-Disposition: form-data; {head}",
        f"Content-Type: {kind}" * bool(kind),
        more,
    ]
    return "\r\n".join(filter(None, lines)) + f"\r\n\r\n{content}\r\n"


def _whole(*parts: str, end: str = f"--{B}--\r\n") -> Form:
    return f"multipart/form-data; boundary={B}", ("".join(parts) + end).encode()


def _multipart() -> Iterator[Form]:
    field, file = part('name="a"'), part('name="a"; filename="f.txt"', kind="text/plain")
    for head, kind in product(HEADS, TYPES):
        yield _whole(part(head.format("a"), "5", kind))
    for head in HEADS:
        odd = part(head.format("a"), "5", "image/png")
        for beside in (field, file):
            yield _whole(beside, odd)
            yield _whole(odd, beside)
    for name, plain in product(PART_NAMES, WANTED):
        for made in (
            part(f'name="{name}"', "5"),
            part(f'name="{name}"; filename="g.txt"', "5", "image/png"),
        ):
            yield _whole(made)
            yield _whole(part(f'name="{plain}"'), made)
            yield _whole(made, part(f'name="{plain}"; filename="f.txt"', kind="text/plain"))
    for content, more in product(CONTENTS, ("", *MORE)):
        yield _whole(part('name="a"', content, more=more))
        yield _whole(part('name="a"; filename="f.txt"', content, "text/plain", more))
    for boundary in BOUNDARIES:
        real = boundary.partition(";")[0].strip().strip('"')
        _, body = _whole(field, part('name="b"; filename="f.txt"', kind="text/plain"))
        yield (
            f"multipart/form-data; boundary={boundary}",
            body.replace(f"--{B}".encode(), f"--{real}".encode()),
        )
    for end in (
        f"--{B}--",
        f"--{B}--\r\n",
        f"--{B}--\r\n\r\n",
        f"--{B}--more",
        f"--{B}",
        "",
        f"--{B}--\r\n--{B}\r\n",
        f"--{B} --",
    ):
        yield _whole(field, end=end)
    yield _whole("before\r\n", field)
    yield _whole("\r\n", field)
    yield f"multipart/form-data; boundary={B}", _whole(field)[1].replace(b"\r\n", b"\n")
    for many in (19, 20, 21, 101, 900):
        yield _whole(*[part('name="b"; filename="f"', kind="text/plain")] * many, file)
        yield _whole(*[part('name="b"')] * many, field)
