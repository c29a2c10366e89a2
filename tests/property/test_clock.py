"""Times survive the way to text and back, and whatever can be read can be written (W6)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given, settings
from hypothesis import strategies as st

from opdata.clock import format_ms, parse_ms

FIRST_MS = -62_135_596_800_000  # 0001-01-01T00:00:00.000Z
LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z

_WIRE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(FIRST_MS, LAST_MS))
@example(FIRST_MS)
@example(LAST_MS)
@example(-1)
@example(0)
def test_a_time_reads_back_as_it_was_written(at_ms: int) -> None:
    text = format_ms(at_ms)
    assert _WIRE.fullmatch(text)
    assert parse_ms(text) == at_ms


@given(st.integers(FIRST_MS, LAST_MS), st.integers(FIRST_MS, LAST_MS))
def test_times_sort_as_their_texts_do(one: int, other: int) -> None:
    assert (one < other) == (format_ms(one) < format_ms(other))


_local_times = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29))  # noqa: DTZ001 - a zone is given below
_offsets = st.integers(-(23 * 60 + 59), 23 * 60 + 59)


@given(
    local=_local_times,
    offset_min=_offsets,
    fraction=st.text("0123456789", max_size=9),
    separator=st.sampled_from("Tt"),
    zulu=st.sampled_from("Zz"),
)
def test_any_rfc_3339_time_is_read_in_any_zone_with_finer_digits_cut_off(
    local: datetime, offset_min: int, fraction: str, separator: str, zulu: str
) -> None:
    zone = timezone(timedelta(minutes=offset_min))
    sign, minutes = ("-", -offset_min) if offset_min < 0 else ("+", offset_min)
    suffix = f"{sign}{minutes // 60:02}:{minutes % 60:02}" if offset_min else zulu
    dot = f".{fraction}" if fraction else ""
    text = f"{local:%H:%M:%S}{dot}{suffix}"
    text = f"{local.year:04}-{local.month:02}-{local.day:02}{separator}{text}"
    since = local.replace(microsecond=0, tzinfo=zone) - _EPOCH
    wanted = since // timedelta(milliseconds=1) + int((fraction + "000")[:3])
    assert parse_ms(text) == wanted
    assert parse_ms(format_ms(wanted)) == wanted


_near_times = st.from_regex(
    r"(000[01]|9999|2026)-[0-3][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
    r"(\.[0-9]{0,10})?([Zz]|[+-][0-2][0-9]:[0-6][0-9])?",
    fullmatch=True,
)


@given(st.text(max_size=40) | _near_times)
@settings(max_examples=300)
@example("0001-01-01T00:00:00+14:00")
@example("0001-01-01T00:00:00.000+23:59")
@example("9999-12-31T23:59:59.999-14:00")
@example("9999-12-31T23:59:59.9999Z")
@example("2016-12-31T23:59:60Z")
@example("\u0662\u0660\u0662\u0666-01-01T00:00:00Z")
def test_what_can_be_read_can_be_written(text: str) -> None:
    """An event whose time could be stored and not shown would spoil every page it is on."""
    at_ms = parse_ms(text)
    if at_ms is not None:
        assert parse_ms(format_ms(at_ms)) == at_ms
