"""What a body must be before it is parsed: UTF-8, of bounded nesting, of bounded numbers (W9).

msgspec's `Raw` skips over nested values without looking at these, so they are checked first, over
the whole body, with C-level calls that cost well under a millisecond for a full batch.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

from msgspec import Raw

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
_DIGIT_STEP: Final = 50
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_RUN_OF_ZEROS: Final = b"0" * ((MAX_NUMBER_DIGITS + 1) // _DIGIT_STEP)
_SUSPECT_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
# From an escape's start on, whole escapes are passed over, surrogate pairs too, up to those that are lone:
# a call for each run of them, and no backtracking, however many escapes there are.
_TO_LONE_SURROGATES: Final = re.compile(
    rb"(?:[^\\]++|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\(?!u[dD][89a-fA-F][0-9a-fA-F]{2}).)*+(?P<lone>(?:\\u[dD][89a-fA-F][0-9a-fA-F]{2})++)",
    re.DOTALL,
)
_TO_NUL: Final = re.compile(rb"(?:[^\\]++|\\(?!u0000).)*+\\u0000", re.DOTALL)
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
        return _without_lone_surrogates(body)
    return body


def may_have_bad_text(body: bytes) -> bool:
    """Whether `has_bad_text` could be true of any part of a checked body; cheap."""
    return b"\\" in body and _NUL_ESCAPE in body


def has_bad_text(item: bytes | Raw) -> bool:
    """Whether a part of a checked body holds a NUL or held a lone surrogate (W9)."""
    return _TO_NUL.match(item) is not None


def count_brackets(body: bytes) -> int:
    """How many brackets open in the body, those within strings included; cheap."""
    # To find that there is none of a byte costs a fiftieth of counting how many there are.
    lists = body.count(b"[") if body.find(b"[", 1) > 0 else body[:1].count(b"[")
    return body.count(b"{") + lists


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
    # Each has a comma and a character of its own.
    return len(body) > 2 * MAX_MEMBERS and body.count(b",") > MAX_MEMBERS


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


def _without_lone_surrogates(body: bytes) -> bytes:
    # An escape takes the place of another of its length, so there is one copy, made when it is written to.
    replaced = BytesIO(body)
    runs = at = 0
    while found := _TO_LONE_SURROGATES.match(body, at):
        runs += 1
        if runs > MAX_MEMBERS:
            message = f"The body has more than {MAX_MEMBERS} lone surrogates"
            raise InvalidInput(message)
        start, at = found.span("lone")
        replaced.seek(start)
        replaced.write(_NUL_ESCAPE * ((at - start) // len(_NUL_ESCAPE)))
    return replaced.getvalue()


def _check_numbers(body: bytes) -> None:
    # Every fiftieth byte is looked at: of a run of 1,000 digits that is 20 in a row, whatever else the
    # body holds is seldom so. Digits in strings are let off by the exact look that follows.
    sample = body[::_DIGIT_STEP].translate(_ZEROS)
    if _RUN_OF_ZEROS in sample and any(
        found["digits"] for found in _STRING_OR_LONG_NUMBER.finditer(body)
    ):
        message = f"The body has a number of more than {MAX_NUMBER_DIGITS} digits"
        raise InvalidInput(message)
