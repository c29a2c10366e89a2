"""Leases: the right of one process to do something for an operator, until it expires unless it is renewed.

A lease is a row of the database with its holder's name. Whoever works under one looks at it in the transaction
of each step, so what it does after it has lost the lease comes to nothing, whatever the clocks say.
"""

from __future__ import annotations

import os
import socket

from msgspec import Struct

from opdata.errors import OpdataError


class LeaseLost(OpdataError):
    """Somebody else has the lease by now, or what it was for is done; nothing was changed."""


class Lease(Struct, frozen=True):
    """The right to do something for an operator, until `expires_at_ms` unless it is renewed."""

    operator_id: int
    holder: str
    expires_at_ms: int


def new_holder() -> str:
    """A name that no other holder has, which tells whoever looks where it runs."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
