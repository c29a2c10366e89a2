"""Adding up decimals exactly."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

from opdata.verify.summary import Total

_MAX_DIGITS = 5_000
"""More than numbers of a batch can need (W9); beyond it a sum is none rather than rounded."""
_exact = Context(prec=_MAX_DIGITS, Emax=999_999, Emin=-999_999, traps=[Inexact, Overflow])


def exact_total(numbers: Iterable[str]) -> Total:
    """How many there are and their sum, without an exponent; none of more than 5,000 digits."""
    count = 0
    total = Decimal(0)
    exact = True
    for number in numbers:
        count += 1
        if not exact:
            continue
        try:
            total = _exact.add(total, Decimal(number))
        except (Inexact, InvalidOperation, Overflow):
            # Invalid is an exponent that no decimal can have.
            exact = False
    # Zeros at the end say where the numbers came from, not what they are.
    total = _exact.normalize(total)
    return Total(count, f"{total:f}" if exact and _plain_digits(total) <= _MAX_DIGITS else None)


def _plain_digits(number: Decimal) -> int:
    """How many digits it has when it is spelled without an exponent."""
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    return len(digits) + exponent if exponent >= 0 else max(len(digits), 1 - exponent)
