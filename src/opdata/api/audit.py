"""The audit log as an operator sees its own part of it (W54)."""

from __future__ import annotations

from typing import Final, Literal

from opdata.api.context import Call, CursorInt, make_cursor, ok, read_cursor, time_param
from opdata.storage.reads import AuditQuery
from opdata.storage.work import Reply
from opdata.wire import encode
from opdata.wire.schema import AuditPage, AuditParams

_CURSOR_OF: Final = "audit"
"""Tells a cursor from those of an entity's events, which are a time and a number, too."""


async def list_audit_log(call: Call) -> Reply:
    """Who did what with keys, settings and personal data, and when; newest first.

    `from` is inclusive and `to` exclusive.
    """
    params = call.params(AuditParams)
    position = read_cursor(params.cursor, tuple[Literal["audit"], CursorInt, CursorInt])
    found = await call.store.audit.entries(
        call.operator.operator_id,
        AuditQuery(
            limit=params.limit,
            action=params.action,
            from_ms=time_param("from", params.from_),
            to_ms=time_param("to", params.to),
            before=None if position is None else position[1:],
        ),
    )
    last = found.rows[-1] if found.more else None
    cursor = None if last is None else make_cursor((_CURSOR_OF, last.at_ms, last.seq))
    return ok(AuditPage([encode.audit_entry(one) for one in found.rows], cursor))
