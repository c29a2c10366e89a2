"""The checks before parsing agree with plain readers of JSON, on any text there is (W9)."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opdata.errors import InvalidInput
from opdata.wire.decode import ENTITIES, EVENTS, STATES, ItemShape, json_object, state_members
from opdata.wire.text import (
    MAX_DEPTH,
    MAX_NUMBER_DIGITS,
    check_body,
    count_items,
    has_bad_text,
    may_have_bad_text,
)
from tests.property.json_text import any_strings, any_values, arrays, bad_escapes, parse, values

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def depth_of(text: str) -> int:
    """The nesting of a JSON text, counted character by character."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def holds_bad_text(text: str) -> bool:
    """Whether any string of a JSON text, names of members included, has a NUL or a lone surrogate."""
    strings = (json.loads(token) for token in _TOKEN.findall(text))
    return any(c == "\0" or "\ud800" <= c <= "\udfff" for one in strings for c in one)


def longest_number(text: str) -> int:
    """The longest run of digits outside of strings."""
    return max(map(len, re.findall("[0-9]+", _TOKEN.sub('""', text))), default=0)


@st.composite
def deep(draw: st.DrawFn) -> str:
    """A JSON text of a depth around the limit, with siblings that look like structure."""
    text = draw(any_values)
    near = st.integers(MAX_DEPTH - 6, MAX_DEPTH + 2)
    for _ in range(draw(near | st.integers(0, MAX_DEPTH + 6))):
        sibling = draw(st.none() | any_strings) if draw(st.integers(0, 9)) == 0 else None
        match draw(st.integers(0, 3)), sibling:
            case (0, None):
                text = f"[{text}]"
            case (1, None):
                text = f'{{"a":{text}}}'
            case (2, None):
                text = f'{{"[":{text},"]":[]}}'
            case (3, None):
                text = f"[[],{{}},{text},[{{}}]]"
            case (_, str(string)):
                text = f"[{string}, {text}, {string}]"
    return text


@given(deep())
def test_a_body_is_refused_for_its_depth_exactly_when_it_is_nested_too_deep(text: str) -> None:
    """W9."""
    body = text.encode()
    if depth_of(text) <= MAX_DEPTH:
        check_body(body)
    else:
        with pytest.raises(InvalidInput, match="nested"):
            check_body(body)


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_the_deepest_body_that_is_taken_has_64_levels(pair: str) -> None:
    """W9."""
    key = '"":' if pair == "{}" else ""
    for depth in (MAX_DEPTH, MAX_DEPTH + 1):
        body = ((pair[0] + key) * (depth - 1) + pair + pair[1] * (depth - 1)).encode()
        if depth == MAX_DEPTH:
            assert check_body(body) == body
        else:
            with pytest.raises(InvalidInput, match="nested more than 64"):
                check_body(body)


_SHALLOW = {
    "entities": '{"entityType":"game","externalId":"g","data":{}}',
    "events": '{"externalId":"g","eventType":"bonus","data":1}',
    "states": '{"externalId":"g","stateKey":"balance","value":1}',
}


@given(
    kind=st.sampled_from([("entities", ENTITIES), ("events", EVENTS), ("states", STATES)]),
    neighbours=st.integers(0, 300),
    inner=deep(),
    odd=st.sampled_from(["", "", "", "1,", '"[{",', "[],", "{},"]),
)
@example(kind=("events", EVENTS), neighbours=300, inner="[" * 70 + "]" * 70, odd="")
@settings(max_examples=120)
def test_a_batch_is_refused_for_its_depth_exactly_when_it_is_nested_too_deep(
    kind: tuple[str, ItemShape[Any]], neighbours: int, inner: str, odd: str
) -> None:
    """W9: however many items, right ones and wrong ones, stand around the deep one."""
    name, shape = kind
    head, _, _ = _SHALLOW[name].rpartition(":")
    text = "[" + odd + (_SHALLOW[name] + ",") * neighbours + head + ':{"x":' + inner + "}}]"
    if depth_of(text) <= MAX_DEPTH:
        assert len(shape.batch(text.encode(), 1_000).items) == neighbours + (2 if odd else 1)
    else:
        with pytest.raises(InvalidInput, match="nested"):
            shape.batch(text.encode(), 1_000)


@given(values)
def test_a_body_without_bad_text_passes_as_it_is(text: str) -> None:
    body = text.encode()
    assert check_body(body) == body
    assert not has_bad_text(body)


@given(any_values)
def test_bad_text_is_found_exactly_where_a_string_holds_it(text: str) -> None:
    """W9."""
    checked = check_body(text.encode())
    assert has_bad_text(checked) == holds_bad_text(text)
    assert may_have_bad_text(checked) or not holds_bad_text(text)
    parse(checked)


@given(good=values, bad=any_values.filter(holds_bad_text))
@settings(max_examples=30)
def test_bad_text_stays_where_it_was_when_a_body_is_checked(good: str, bad: str) -> None:
    """W9: it is its own item's problem and not its neighbours'."""
    checked = check_body(f"[{good},{bad},{good}]".encode())
    assert checked.startswith(f"[{good},".encode())
    assert checked.endswith(f",{good}]".encode())
    assert has_bad_text(
        checked.removeprefix(f"[{good},".encode()).removesuffix(f",{good}]".encode())
    )


@given(
    st.lists(
        st.integers(MAX_NUMBER_DIGITS - 2, MAX_NUMBER_DIGITS + 2) | st.integers(1, 2_500),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(
        ["[{}]", '["{}"]', '["\\\\",{}]', '["\\"{}",1]', "[1.{}]", "[1e{},2]", "[-{}]"]
    ),
    st.integers(0, 600),
)
def test_a_body_is_refused_for_a_number_exactly_when_it_has_too_many_digits(
    lengths: list[int], form: str, shift: int
) -> None:
    """Wherever it begins; digits in a string are no number."""
    text = " " * shift + ",".join(form.format("7" * length) for length in lengths)
    body = text.encode()
    if longest_number(text) <= MAX_NUMBER_DIGITS:
        check_body(body)
    else:
        with pytest.raises(InvalidInput, match="digits"):
            check_body(body)


@given(st.lists(any_values | any_strings, min_size=1, max_size=30), st.integers(1, 300))
def test_items_are_counted_as_a_parser_counts_them(items: list[str], times: int) -> None:
    """W20: whatever brackets, commas and quotes their strings hold."""
    assert count_items(f"[{','.join(items * times)}]".encode()) == len(items) * times


# -- bytes of any kind ---------------------------------------------------------------------------

_NOISE = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"\\",
    b",",
    b":",
    b"0",
    b"-",
    b"e",
    b"null",
    b"\\u",
    b"\\ud8",
]
_NOISE += [b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b" ", b"\n", b"0" * 1_000]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A JSON text with a few bytes put in, cut out or repeated."""
    body = draw(arrays(any_values)).encode()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        match draw(st.integers(0, 2)):
            case 0:
                body = body[:at] + draw(st.sampled_from(_NOISE)) + body[at:]
            case 1:
                body = body[:at] + body[at + draw(st.integers(1, 5)) :]
            case _:
                body = body[:at] * 2 + body[at:]
    return body


bodies = st.binary(max_size=200) | st.lists(st.sampled_from(_NOISE)).map(b"".join) | damaged()


@given(bodies)
@settings(max_examples=120)
def test_any_bytes_are_taken_or_refused_as_invalid_input(body: bytes) -> None:
    """W2: never a fault of the server's."""
    with suppress(InvalidInput):
        check_body(body)
    for kind in (ENTITIES, EVENTS, STATES):
        for ndjson in (False, True):
            with suppress(InvalidInput):
                kind.batch(body, 1_000, ndjson=ndjson)
    for read in (json_object, state_members):
        with suppress(InvalidInput):
            read(body)


@given(
    opening=st.integers(0, 3_000),
    closing=st.integers(0, 3_000),
    inner=st.sampled_from(["", "1", '"', '""', "\\", "}", "{", ",", "]["]),
    begin=st.sampled_from(["[", '{"a":', "[[],", '["",', '[{"a":[]},']),
)
@example(opening=100_064, closing=64, inner="", begin="[")
@example(opening=100_000, closing=63, inner="[]", begin="[")
@example(opening=100_000, closing=100_000, inner="", begin="[")
@example(opening=100_000, closing=0, inner='"', begin='{"a":')
def test_brackets_that_do_not_match_are_invalid_input_however_many(
    opening: int, closing: int, inner: str, begin: str
) -> None:
    """W9: no parser runs out of stack on them."""
    end = "}" if begin[0] == "{" else "]"
    body = (begin * opening + inner + end * closing).encode()
    if json_depth := _depth_if_json(body):
        assert json_depth <= MAX_DEPTH
        return
    for kind in (ENTITIES, EVENTS, STATES):
        with pytest.raises(InvalidInput):
            kind.batch(body, 1_000)


def _depth_if_json(body: bytes) -> int | None:
    try:
        kind = ENTITIES.batch(body, 1_000)
    except InvalidInput:
        return None
    assert kind.items
    return depth_of(body.decode())


@given(st.lists(any_values | bad_escapes.map('"{}"'.format), min_size=1, max_size=5))
@settings(max_examples=30)
def test_json_is_never_taken_for_something_else(items: list[str]) -> None:
    """An array of anything, none too deep, is a batch of as many items."""
    body = f"[{','.join(items)}]".encode()
    for kind in (ENTITIES, EVENTS, STATES):
        assert len(kind.batch(body, 1_000).items) == len(items)
