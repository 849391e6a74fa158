"""Pieces of schemas: fields are those of the loader's table, or there is no schema."""

from __future__ import annotations

import pytest

from rules.editor.pieces import choice, fields_of, listed, mapped, or_null, several, suggest, text


@pytest.mark.parametrize("fields", [{"a": text()}, {"a": text(), "b": text(), "c": text()}])
def test_fields_that_differ_from_the_table_are_an_error(fields: dict[str, object]) -> None:
    with pytest.raises(AssertionError, match="not the loader's fields"):
        fields_of(("a", "b"), fields)  # type: ignore[arg-type]


def test_pieces() -> None:
    made = fields_of(("a", "b"), {"a": text("x"), "b": text()}, required=["a"], empty=["b"])
    assert made == {
        "type": "object",
        "properties": {
            "a": {"description": "x", "type": "string"},
            "b": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    assert several(choice(("x",))) == {
        "anyOf": [{"enum": ["x"]}, {"type": "array", "items": {"enum": ["x"]}, "minItems": 1}]
    }
    assert listed(text(), most=2)["maxItems"] == 2
    assert mapped(text()) == {"type": "object", "additionalProperties": {"type": "string"}}
    assert suggest(("x",)) == {"anyOf": [{"enum": ["x"]}, {"type": "string"}]}
    assert or_null(text())["anyOf"][1] == {"type": "null"}
