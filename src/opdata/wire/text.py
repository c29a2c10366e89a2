"""What a body must be before it is parsed: UTF-8, of bounded nesting, of bounded numbers (W9).

msgspec's `Raw` skips over nested values without looking at these, so they are checked first, over
the whole body, with C-level calls that cost well under a millisecond for a full batch.
"""

from __future__ import annotations

import re
from typing import Final

from opdata.errors import InvalidInput

MAX_DEPTH: Final = 64
MAX_NUMBER_DIGITS: Final = 999
MAX_MEMBERS: Final = 250_000
"""Values that one body may make the server hold one by one: the members of entities' `data`."""

_NOT_LIST: Final = bytes(set(range(256)) - set(b'{}[]",'))
_PIECE: Final = 1 << 18
_INNERMOST: Final = re.compile(rb"\{[^{}]*\}")
_BRACKETS: Final = bytes.maketrans(b"[]", b"{}")
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'{}[]"'))
_QUOTED: Final = re.compile(rb'"[^"]*"?')
# Whole strings, so that they are passed over, and what is too long outside of them. No byte is tried
# twice: possessive strings that may lack their end, and digits from the first of a run only.
_STRING_OR_LONG_NUMBER: Final = re.compile(
    rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?|(?P<digits>(?<![0-9])[0-9]{%d})' % (MAX_NUMBER_DIGITS + 1),
    re.DOTALL,
)
_SUSPECT_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a surrogate pair
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|u0000|.)",
    re.DOTALL,
)
_NUL_ESCAPE: Final = rb"\u0000"


def check_body(body: bytes) -> bytes:
    """The body, ready to be parsed: `check_text` and `check_depth`."""
    check_depth(body)
    return check_text(body)


def check_text(body: bytes) -> bytes:
    """The body, ready to be parsed by what can bear deep nesting.

    Raises `InvalidInput` for bad UTF-8 and for a number of 1,000 digits or more. Lone surrogate
    escapes, which no parser takes, come back as escaped NULs: `has_bad_text` then finds both, so
    that they cost their item and not its neighbours.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        message = f"The body is not valid UTF-8 (byte {error.start})"
        raise InvalidInput(message) from None
    _check_numbers(body)
    # A backslash is found, or not, twenty times as fast as what may follow it.
    if b"\\" in body and _SUSPECT_ESCAPE.search(body):
        return _ESCAPE.sub(lambda m: _NUL_ESCAPE if m["lone"] else m[0], body)
    return body


def may_have_bad_text(body: bytes) -> bool:
    """Whether `has_bad_text` could be true of any part of a checked body; cheap."""
    return b"\\" in body and _NUL_ESCAPE in body


def has_bad_text(item: bytes) -> bool:
    """Whether a part of a checked body holds a NUL or held a lone surrogate (W9)."""
    return _NUL_ESCAPE in item and any(m[0] == _NUL_ESCAPE for m in _ESCAPE.finditer(item))


def count_brackets(body: bytes) -> int:
    """How many brackets open in the body, those within strings included; cheap."""
    return body.count(b"{") + body.count(b"[")


def surely_shallow(brackets: int, items: int, brackets_an_item: int) -> bool:
    """Whether an array of that many items, each with so many brackets at least, cannot be too deep.

    However the brackets lie, no item has more of them than the whole body, less the array's own and
    the least that the other items have. Counting is a tenth of the price of `check_depth`.
    """
    return brackets - brackets_an_item * (items - 1) <= MAX_DEPTH


def check_depth(body: bytes) -> None:
    """Raise `InvalidInput` for nesting over 64."""
    # Reduced to its brackets and quotes, a body's strings collapse to `""` and every pass over it
    # peels the innermost level. A quote that stays behind belongs to a string with brackets in it,
    # which is cut out.
    structure = _outside_strings(body, _NOT_STRUCTURE)
    for _ in range(MAX_DEPTH):
        if not structure:
            return
        peeled = structure.replace(b"{}", b"")
        if len(peeled) == len(structure):
            break
        structure = peeled
    if b"{}" in structure:
        raise too_deep()
    # What never matches is the parser's to point at, unless it is so much that it would recurse deep.
    if len(structure) > MAX_DEPTH:
        message = "The body is not valid JSON: its brackets do not match"
        raise InvalidInput(message)


def has_many_values(body: bytes) -> bool:
    """Whether the body may hold more than `MAX_MEMBERS` values; cheap, and seldom true."""
    return body.count(b",") > MAX_MEMBERS


def count_items(body: bytes) -> int:
    """How many elements the array that the body is has, as far as its brackets match.

    Holds nothing but the body's brackets and commas: a body of millions of tiny elements is counted
    without making any of them. Slow; for bodies that `has_many_values`.
    """
    structure = _outside_strings(body, _NOT_LIST)[1:-1]
    # In pieces first, because a substitution holds all that it leaves; what is too long for a piece
    # has lost its neighbours by then.
    for piece in (_PIECE, len(structure) + 1):
        size = len(structure) + 1
        while len(structure) < size:
            size = len(structure)
            starts = range(0, size, piece)
            structure = b"".join(_INNERMOST.sub(b"", structure[at : at + piece]) for at in starts)
    return structure.count(b",") + 1


def check_members(body: bytes) -> None:
    """Raise `InvalidInput` for more than `MAX_MEMBERS` values, commas within strings left aside."""
    if has_many_values(body) and _outside_strings(body, _NOT_LIST).count(b",") > MAX_MEMBERS:
        message = f"The body has more than {MAX_MEMBERS} values; send fewer items in a request"
        raise InvalidInput(message)


def _outside_strings(body: bytes, dropped: bytes) -> bytes:
    """The body without its strings and without the bytes `dropped`; `[` and `]` read `{` and `}`."""
    plain = body
    if b"\\" in body:
        plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    rest = plain.translate(_BRACKETS, dropped).replace(b'""', b"")
    if b'"' not in rest:
        return rest
    # In pieces, because a substitution holds all that it leaves.
    outside = []
    within_string = False
    for at in range(0, len(rest), _PIECE):
        piece = rest[at : at + _PIECE]
        if within_string:
            piece = b'"' + piece
        within_string = piece.count(b'"') % 2 == 1
        outside.append(_QUOTED.sub(b"", piece))
    return b"".join(outside)


def too_deep() -> InvalidInput:
    """The answer to a body that is nested too deeply."""
    return InvalidInput(f"The body is nested more than {MAX_DEPTH} levels deep")


def _check_numbers(body: bytes) -> None:
    # A run of 1,000 digits covers a whole aligned block of 500, and a block fails `isdigit` at its
    # first byte that is none. Digits in strings are let off by the exact look that follows.
    step = (MAX_NUMBER_DIGITS + 1) // 2
    if any(body[at : at + step].isdigit() for at in range(0, len(body) - step + 1, step)) and any(
        found["digits"] for found in _STRING_OR_LONG_NUMBER.finditer(body)
    ):
        message = f"The body has a number of more than {MAX_NUMBER_DIGITS} digits"
        raise InvalidInput(message)
