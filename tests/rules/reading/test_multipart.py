"""multipart/form-data: the plain form, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import encode_multipart_formdata

from rules.errors import Unreadable
from rules.reading.multipart import MAX_PARTS, Part, read_multipart

TYPE = "multipart/form-data; boundary=XX"


def part(head: str, value: str = "v") -> str:
    return f"--XX\r\n{head}\r\n\r\n{value}\r\n"


def named(parameters: str, value: str = "v", *, more: str = "") -> bytes:
    return (part(f"Content-Disposition: form-data; {parameters}{more}", value) + "--XX--").encode()


def field_of(name: str, value: bytes = b"v") -> Part:
    return Part(name, None, "", value, "field")


def read(body: bytes | str, kind: str = TYPE) -> tuple[Part, ...]:
    return read_multipart(kind, body.encode() if isinstance(body, str) else body)


def test_fields_and_files() -> None:
    body = (
        part('Content-Disposition: form-data; name="amount"', "10")
        + part(
            'Content-Disposition: form-data; name="file"; filename="a b.txt"\r\n'
            "Content-Type: Text/Plain; charset=UTF-8",
            "\r\nline\n\n--X",
        )
        + part('content-disposition: form-data; name="amount"', "")
        + "--XX--\r\n"
    )
    assert read(body) == (
        field_of("amount", b"10"),
        Part("file", "a b.txt", "text/plain", b"\r\nline\n\n--X", "file"),
        field_of("amount", b""),
    )


def test_an_empty_form() -> None:
    assert read("--XX--\r\n") == ()


@given(
    st.lists(
        st.tuples(
            st.text("abc[]._-é ", min_size=1),
            st.none() | st.text("abc.é ", max_size=8),
            st.binary(max_size=60),
        ),
        max_size=5,
    )
)
def test_what_a_client_writes_is_read_back(fields: list[tuple[str, str | None, bytes]]) -> None:
    """urllib3 is what `requests` writes forms with."""
    written = [
        (name, value if filename is None else (filename, value, "application/x-test"))
        for name, filename, value in fields
    ]
    body, kind = encode_multipart_formdata(written)
    assert [(p.name, p.filename, p.value) for p in read_multipart(kind, body)] == fields


@pytest.mark.parametrize(
    "kind",
    [
        "Multipart/Form-Data;boundary=XX",
        'multipart/form-data; boundary="XX"',
        "multipart/form-data; boundary=XX; charset=UTF-8",
    ],
)
def test_content_types(kind: str) -> None:
    assert read(named('name="a"'), kind) == (field_of("a"),)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=XX; boundary=YY",
        "multipart/form-data; boundary=YY; boundary=XX",
        "multipart/form-data; boundary*=utf-8''XX",
        "multipart/form-data; boundary*0=X; boundary*1=X",
        'multipart/form-data; boundary="X\\X"',
        'multipart/form-data; boundary="XX"YY',
        'multipart/form-data; boundary="XX',
        "multipart/form-data; boundary=XX, multipart/form-data; boundary=YY",
        "multipart/form-data boundary=XX",
        "multipart/form-data; boundary=XX; charset=utf-16",
        "multipart/form-data; boundary=XX;",
        'multipart/form-data; boundary="XX "',
        "multipart/form-data; boundary=" + "X" * 71,
        "multipart/form-data; boundary=XÉ",
        "multipart/mixed; boundary=XX",
        "multipart/form-data; charset=utf-7; boundary=XX",
    ],
)
def test_other_content_types_are_unreadable(kind: str) -> None:
    with pytest.raises(Unreadable, match="plain boundary"):
        read(named('name="a"'), kind)


PLAIN = part('Content-Disposition: form-data; name="a"')


@pytest.mark.parametrize(
    "body",
    [
        "",
        "v",
        "preamble\r\n" + PLAIN + "--XX--",
        "\r\n" + PLAIN + "--XX--",
        PLAIN,
        PLAIN + "--XX",
        PLAIN + "--XX-",
        PLAIN + "--XX--\n",
        PLAIN + "--XX--\r\n\r\n",
        PLAIN + "--XX--\r\nepilogue",
        PLAIN + "--XX--\r\n" + PLAIN + "--XX--",
        PLAIN + "--XX \r\n\r\n",
        PLAIN.replace("--XX", "--XX \t") + "--XX--",
        PLAIN.replace("\r\n", "\n") + "--XX--",
        PLAIN.replace("\r\n\r\n", "\n\n") + "--XX--",
        PLAIN.replace("\r\n\r\n", "\r\n\n") + "--XX--",
        PLAIN.replace("v\r\n", "v\n") + "--XX--",
        PLAIN.replace("v\r\n", "v") + "--XX--",
        PLAIN + PLAIN.replace("v", "x--XXy") + "--XX--",
        PLAIN.replace("v", 'v\n--XX\nContent-Disposition: form-data; name="b"\n\nw') + "--XX--",
        PLAIN.replace("v", "v\r\n--XXY") + "--XX--",
        PLAIN.replace("v", "v\r\n--XX--") + "--XX--",
        "--XX\r\n\r\nv\r\n--XX--",
        "--XX\r\nv\r\n--XX--",
        '--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\n--XX--',
        "--XX\r\n" + "--XX--",
    ],
)
def test_other_bodies_are_unreadable(body: str) -> None:
    with pytest.raises(Unreadable):
        read(body)


@pytest.mark.parametrize(
    "parameters",
    [
        "name=a",
        "name='a'",
        'name=""',
        'name="a',
        'name="a\\"b"',
        'name="a\\\\b"',
        'name="a"; name="b"',
        'name="a"; Name="b"',
        'name="a%22b"',
        'name="%61"',
        "name*=utf-8''a",
        "name=\"a\"; name*=utf-8''b",
        'name*0="a"; name*1="b"',
        "name=\"a\"; filename*=utf-8''b; filename*=utf-8''c",
        'name="a"; filename*="utf-8\'\'b"',
        'name="a"; filename*0="b"',
        'name="a"; filename="b"; filename="c"',
        'name="a"; filename="b\\c"',
        # Found by who searches the line for `name=`, whatever the quotes say.
        'filename="b; name=c; "; name="a"',
        'name="a"; filename="b; NAME = c"',
        'name="a; filename=b"',
        "name=\"a; filename*=utf-8''b\"",
        'name="a"; size=5',
        'name="a";',
        'name="a" x',
        'name ="a"',
        'filename="a"',
        'name="a\tb"',
        'name="a\x00b"',
        'name="a\rb"',
        'name="a\nb"',
        'name="a\r\n b"',
        'name="a"\r\n ; filename="b"',
        'name="a"\r\nContent-Disposition: form-data; name="b"',
        'name="a"\r\ncontent-disposition: form-data; name="b"',
        'name="a"\r\nContent-Type: text/plain\r\nContent-Type: text/html',
        'name="a"\r\nContent-Type: multipart/mixed; boundary=YY',
        'name="a"\r\nContent-Type: text/plain; charset=utf-16',
        'name="a"\r\nContent-Type: text/plain; charset*=utf-16',
        'name="a"\r\nContent-Type: text/plain; charset="utf-7"',
        'name="a"\r\nContent-Type: plain',
        'name="a"\r\nContent-Transfer-Encoding: base64',
        'name="a"\r\nContent-Transfer-Encoding: quoted-printable',
        'name="a"\r\nContent-Length: 2',
        'name="a"\r\nContent-Length: +1',
        'name="a"\r\nContent-Encoding: gzip',
        'name="a"\r\nX-Any: thing',
        'name="a"\r\nno colon',
        'name="a"\r\nContent-Type : text/plain',
        'name="a"\r\n: x',
    ],
)
def test_other_part_heads_are_unreadable(parameters: str) -> None:
    with pytest.raises(Unreadable):
        read(named(parameters))


def test_a_name_that_is_not_utf8_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="not UTF-8"):
        read(named('name="NAME"').replace(b"NAME", b"\xff\xfe"))


def test_a_length_changes_nothing() -> None:
    assert read(named('name="a"', more="\r\nContent-Length: 1")) == (field_of("a"),)


TYPED = "\r\nContent-Type: image/png"


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ('name="a"', "field"),
        ('name="a"; filename="b.png"' + TYPED, "file"),
        ('filename="b.png"; name="a"' + TYPED, "file"),
        ('name="a"; filename="图.png"' + TYPED, "file"),
        ('name="a"; filename="R&D.png"' + TYPED, "file"),
        ('name="a"' + TYPED, None),
        ('name="a"\r\nContent-Type: text/plain', None),
        ('name="a"\r\nContent-Type: application/octet-stream', None),
        ('name="a"\r\nContent-Transfer-Encoding: binary', None),
        ('name="a"; filename="b.png"\r\nContent-Transfer-Encoding: binary' + TYPED, "file"),
        ('name="a"; filename="b.png"', None),
        ('name="a"; filename=""' + TYPED, None),
        ('name="a"; filename="."' + TYPED, None),
        ('name="a"; filename=".."' + TYPED, None),
        ('name="a"; filename="../.."' + TYPED, None),
        ('name="a"; filename="b/"' + TYPED, None),
        ('name="a"; filename=" "' + TYPED, None),
        ('name="a"; filename="b&#47;"' + TYPED, None),
        ('name="a"; filename="b&#92;"' + TYPED, None),
        ('name="a"; filename="%2F"' + TYPED, None),
        ("name=\"a\"; filename*=utf-8''b.png" + TYPED, None),
        ('name="a"; filename="b.png"; filename*=utf-8\'\'' + TYPED, None),
        ('name="é"', None),
        ('name="é"; filename="b.png"' + TYPED, None),
    ],
)
def test_what_is_a_file_to_everybody(parameters: str, kind: str | None) -> None:
    (found,) = read(named(parameters))
    assert found.kind == kind


def test_text_is_what_has_no_file_name() -> None:
    assert [part.text for part in read(named('name="a"' + TYPED, "é"))] == ["é"]
    assert [part.text for part in read(named('name="a"; filename="b"'))] == [None]
    assert [p.text for p in read(named('name="a"', "V").replace(b"V", b"\xff"))] == [None]


def test_a_field_that_sets_the_character_set() -> None:
    assert read(named('name="_charset_"', "UTF-8"))
    with pytest.raises(Unreadable, match="another character set"):
        read(named('name="_charset_"', "utf-16"))


def test_parts_are_bounded() -> None:
    assert len(read(PLAIN * MAX_PARTS + "--XX--")) == MAX_PARTS
    with pytest.raises(Unreadable, match="more than"):
        read(PLAIN * (MAX_PARTS + 1) + "--XX--")
    with pytest.raises(Unreadable, match="more than"):
        read("--XX" * 1_000_000)


def test_a_long_head_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        read(named('name="a"', more="\r\nContent-Type: text/" + "x" * 5_000))


PLAIN_HEAD = 'Content-Disposition: form-data; name="a"'
WORDS = r'''--XX -- --XX-- XX Content-Disposition: form-data; name="a" filename="b" ; : v \ "'''
PIECES = st.sampled_from([*WORDS.split(), "\r\n", "\n", "\r\n\r\n", " ", PLAIN_HEAD])


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(), st.just(TYPE) | st.text())
def test_any_body_is_read_or_unreadable(body: str, kind: str) -> None:
    try:
        parts = read(body, kind)
    except (Unreadable, UnicodeEncodeError):
        return
    # What was read is the whole body: written anew it is the same but for its spelling.
    assert body.count("--XX") == len(parts) + 1
    assert all(p.value in body.encode() for p in parts)
