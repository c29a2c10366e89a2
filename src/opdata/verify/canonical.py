"""When two JSON texts say the same: whitespace, the order of members, escapes and zeros do not count.

Numbers are compared as decimals, never as binary floating point: `100.0`, `100.00` and `1e2` are
equal, `0.1` and `0.10000000000000001` are not.
"""

from __future__ import annotations

import re
from decimal import Decimal, DecimalException

import msgspec
from msgspec import Raw

_QUOTE = 0x22
_BRACE = 0x7B
_BRACKET = 0x5B
_NUMBER_STARTS = frozenset(b"-0123456789")
_MAX_PLAIN_DIGITS = 2_000
_PLAIN = re.compile(rb"(-?)(\d+)(?:\.(\d+))?")
_objects = msgspec.json.Decoder(dict[str, Raw])
_arrays = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.Encoder().encode


def canonical(json: bytes) -> bytes:
    """One text for all that say the same as `json`, which has no whitespace around it."""
    first = json[0]
    if first == _QUOTE:
        # Without an escape, a string is spelled in one way only.
        return json if b"\\" not in json else _encode(msgspec.json.decode(json))
    if first in _NUMBER_STARTS:
        return canonical_number(json)
    if first == _BRACE:
        members = sorted(
            _encode(name) + b":" + canonical(bytes(value))
            for name, value in _objects.decode(json).items()
        )
        return b"{" + b",".join(members) + b"}"
    if first == _BRACKET:
        return b"[" + b",".join(canonical(bytes(each)) for each in _arrays.decode(json)) + b"]"
    return json


def is_number(json: bytes) -> bool:
    """Whether the JSON text is a number."""
    return json[0] in _NUMBER_STARTS


def canonical_number(text: bytes) -> bytes:
    """One text for all JSON numbers of one value."""
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        return _from_exponent(text)
    sign, whole, fraction = plain.groups()
    fraction = (fraction or b"").rstrip(b"0")
    if fraction:
        return sign + whole + b"." + fraction
    return whole if whole == b"0" else sign + whole


def _from_exponent(text: bytes) -> bytes:
    try:
        sign, digits, exponent = Decimal(text.decode()).as_tuple()
    except DecimalException:
        return text.lower()
    assert isinstance(exponent, int)
    significant = "".join(map(str, digits)).lstrip("0")
    trimmed = significant.rstrip("0")
    exponent += len(significant) - len(trimmed)
    if not trimmed:
        return b"0"
    minus = b"-" if sign else b""
    if len(trimmed) + abs(exponent) > _MAX_PLAIN_DIGITS:
        # No body can spell it without an exponent.
        return b"%b%be%d" % (minus, trimmed.encode(), exponent)
    if exponent >= 0:
        return minus + trimmed.encode() + b"0" * exponent
    padded = trimmed.rjust(1 - exponent, "0")
    return minus + f"{padded[:exponent]}.{padded[exponent:]}".encode()
