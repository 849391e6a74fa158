"""What can be searched by: read strictly, said in a sentence where it is odd."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.filters import FIELDS, LONGEST, BadFilter, Filter, read_filter, read_time
from audit.record import timestamp


def test_every_field_of_the_filter_can_be_given() -> None:
    assert {field.name for field in FIELDS} | {"port"} == set(Filter.__dataclass_fields__)


def test_nothing_given_is_everything() -> None:
    assert read_filter({}) == Filter()
    assert read_filter({"unknown": "x"}) == Filter()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("api.example.com", "api.example.com", None),
        ("API.Example.com:8443", "api.example.com", 8443),
        ("[2001:db8::1]:8443", "2001:db8::1", 8443),
        ("[::1]", "::1", None),
        ("host:0", "host", 0),
        ("host:65535", "host", 65535),
    ],
)
def test_hosts(text: str, host: str, port: int | None) -> None:
    assert read_filter({"host": text}) == Filter(host=host, port=port)


@pytest.mark.parametrize(
    "given",
    [
        {"host": "a b"},
        {"host": "a:65536"},
        {"host": "a:"},
        {"host": ":80"},
        {"host": "::1"},
        {"host": "a/b"},
        {"host": "a\n"},
        {"host": "%"},
        {"outcome": "done"},
        {"outcome": ""},
        {"method": "G T"},
        {"method": "GET;"},
        {"since": "yesterday"},
        {"until": "2026-13-01"},
        {"until": "1e9"},
        {"text": ""},
        {"text": "x" * (LONGEST + 1)},
        {"agent": ""},
    ],
)
def test_what_is_odd_is_refused_by_name(given: dict[str, str]) -> None:
    [name] = given
    with pytest.raises(BadFilter, match=f"^{name} must "):
        read_filter(given)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
        ("2026-01-31T09:30", "2026-01-31T09:30:00.000000Z"),
        ("2026-01-31T09:30:00.5+02:00", "2026-01-31T07:30:00.500000Z"),
        ("2026-01-31t09:30:00z", "2026-01-31T09:30:00.000000Z"),
        ("0001-01-01T00:00:00+10:00", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59-10:00", "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_times_are_written_as_records_write_them(text: str, moment: str) -> None:
    assert read_time(text, "since") == moment


@given(st.datetimes(min_value=datetime(1000, 1, 1)))
def test_times_sort_as_text(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    assert read_time(aware.isoformat(), "since") == timestamp(aware)


@given(st.dictionaries(st.sampled_from([field.name for field in FIELDS]), st.text()))
def test_reading_is_total(given: dict[str, str]) -> None:
    with suppress(BadFilter):
        assert isinstance(read_filter(given), Filter)
