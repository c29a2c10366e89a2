"""Which JSON texts are taken for the same."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opdata.verify.canonical import canonical, canonical_number

SAME = [
    (b"100.0", b"100.00"),
    (b"100", b"100.00"),
    (b"100", b"1e2"),
    (b"100.10", b"1.001E+2"),
    (b"0.00120", b"12e-4"),
    (b"0", b"-0.0"),
    (b"0", b"-0e5"),
    (b'"\\u00e9\\/"', '"é/"'.encode()),
    (b'{"a":1,"b":[1.0,null]}', b'{ "b" : [1, null],\n"a":1.0}'),
    (b'{"\\u0061":true}', b'{"a":true}'),
    (b"[[],{}]", b"[ [ ] , { } ]"),
]
OTHER = [
    (b"0.1", b"0.10000000000000001"),
    (b"12345678901234567890.12", b"12345678901234567890.13"),
    (b"1e400", b"1e401"),
    (b"1e5000", b"1e5001"),
    (b"1", b"-1"),
    (b"1", b'"1"'),
    (b"1", b"true"),
    (b"null", b'"null"'),
    (b'{"a":null}', b"{}"),
    (b"[1,2]", b"[2,1]"),
    (b'"a"', b'"A"'),
    (b'{"a":{"b":1}}', b'{"a":{"b":2}}'),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_these_say_the_same(one: bytes, other: bytes) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_these_do_not(one: bytes, other: bytes) -> None:
    assert canonical(one) != canonical(other)


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,9})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"-?(0|[1-9][0-9]{0,2})(\.[0-9]{1,3})?([eE][+-]?[0-9])?", fullmatch=True),
)
def test_numbers_are_equal_exactly_when_their_decimals_are(one: str, other: str) -> None:
    texts = [canonical_number(text.encode()) for text in (one, other)]
    assert (texts[0] == texts[1]) == (Decimal(one) == Decimal(other))
    assert Decimal(texts[0].decode()) == Decimal(one)


def test_an_exponent_beyond_all_bounds_is_compared_as_it_is_written() -> None:
    huge = b"1e" + b"9" * 30
    assert canonical(huge) == canonical(huge.upper())
    assert canonical(huge) != canonical(huge + b"9")
