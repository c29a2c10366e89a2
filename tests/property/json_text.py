"""JSON as text: made up with every freedom that the format has, and read without losing any of it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

MAX_DIGITS = 999
WHITESPACE = ["", "", "", " ", "\n", "\t", "\r\n", "  \t "]
_ESCAPES = ['\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"]
_TRICKY = ["[", "]", "{", "}", ",", ":", "null", "u0000", "ud800", "1" * 1_001, "'", "\u2028"]


class NumberText(str):
    """A number as the text it was written in: `1.0` is not `1.00`."""

    __slots__ = ()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), "a member stands twice"
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def parse(text: str | bytes) -> Any:
    """The value of a JSON text, numbers as `NumberText`; raises unless it is JSON to the letter."""
    if isinstance(text, bytes):
        text = text.decode()
    return json.loads(
        text,
        parse_int=NumberText,
        parse_float=NumberText,
        parse_constant=_no_constant,
        object_pairs_hook=_members,
    )


def _digits(most: int) -> st.SearchStrategy[str]:
    few = st.text("0123456789", min_size=1, max_size=4)
    many = st.builds(
        lambda digit, count: digit * count, st.sampled_from("0129"), st.integers(1, most)
    )
    return few | many


def _integer(digits: str, sign: str) -> str:
    return sign + (digits.lstrip("0") or "0")


numbers: st.SearchStrategy[str] = st.builds(
    "{}{}{}".format,
    st.builds(_integer, _digits(MAX_DIGITS), st.sampled_from(["", "-"])),
    st.just("") | st.builds(".{}".format, _digits(MAX_DIGITS)),
    st.just("")
    | st.builds(
        "{}{}{}".format,
        st.sampled_from("eE"),
        st.sampled_from(["", "+", "-"]),
        _digits(20),
    ),
)

_plain = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=8
)


def _escaped(code: int, *, upper: bool) -> str:
    units = chr(code).encode("utf-16-be")
    pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
    return "".join(f"\\u{one.upper() if upper else one}" for one in pairs)


_good_escapes: st.SearchStrategy[str] = st.builds(
    _escaped,
    st.integers(1, 0x10FFFF).filter(lambda code: not 0xD800 <= code <= 0xDFFF),
    upper=st.booleans(),
)
bad_escapes: st.SearchStrategy[str] = st.sampled_from(
    ["\\u0000", "\\ud800", "\\uDFFF", "\\udc00\\ud800", "\\uD83D\\uD83D\\uDE00"]
)
"""U+0000 and lone surrogates, which JSON has and a store has not."""

_pieces = _plain | st.sampled_from(_ESCAPES) | st.sampled_from(_TRICKY) | _good_escapes

strings: st.SearchStrategy[str] = st.lists(_pieces, max_size=5).map(
    lambda pieces: '"' + "".join(pieces) + '"'
)
any_strings: st.SearchStrategy[str] = st.lists(_pieces | bad_escapes, max_size=5).map(
    lambda pieces: '"' + "".join(pieces) + '"'
)
"""Strings that may hold what a store cannot."""

_space = st.sampled_from(WHITESPACE)


@st.composite
def objects(
    draw: st.DrawFn,
    values: st.SearchStrategy[str],
    keys: st.SearchStrategy[str] = strings,
    max_size: int = 4,
) -> str:
    """An object whose members are all named differently."""
    names = draw(st.lists(keys, max_size=max_size, unique_by=json.loads))
    members = [
        f"{draw(_space)}{name}{draw(_space)}:{draw(_space)}{draw(values)}{draw(_space)}"
        for name in names
    ]
    return "{" + (",".join(members) or draw(_space)) + "}"


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    items = [f"{draw(_space)}{draw(values)}{draw(_space)}" for _ in range(draw(st.integers(0, 4)))]
    return "[" + (",".join(items) or draw(_space)) + "]"


def _values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    scalars = numbers | texts | st.sampled_from(["true", "false", "null"])
    return st.recursive(scalars, lambda inner: arrays(inner) | objects(inner, texts), max_leaves=6)


values: st.SearchStrategy[str] = _values(strings)
"""Any JSON value that can be stored."""

any_values: st.SearchStrategy[str] = _values(any_strings)
"""Any JSON value."""

not_null: st.SearchStrategy[str] = values.filter(lambda text: text != "null")


@st.composite
def object_text(draw: st.DrawFn, members: dict[str, str]) -> str:
    """An object of these members, in any order and with any whitespace."""
    order = draw(st.permutations(sorted(members)))
    parts = [
        f"{draw(_space)}{json.dumps(name)}{draw(_space)}:{draw(_space)}{members[name]}{draw(_space)}"
        for name in order
    ]
    return "{" + ",".join(parts) + "}"
