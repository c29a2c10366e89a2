"""Adding up decimals exactly."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, Overflow

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
        except (Inexact, Overflow):
            exact = False
    # Zeros at the end say where the numbers came from, not what they are.
    return Total(count, f"{_exact.normalize(total):f}" if exact else None)
