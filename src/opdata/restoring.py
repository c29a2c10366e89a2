"""Restoring a backup of an embedded database, and doing again what must not come undone by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from opdata.audit import INSTALLATION, Entry
from opdata.clock import format_ms
from opdata.erasure import LedgerLine, Replayed, by_operator, lift_hold, place_hold, replay
from opdata.model import Erasure
from opdata.storage import open_store
from opdata.storage.base import Store
from opdata.storage.sqlite.backup import BackupBroken, BackupRecord, examine_backup
from opdata.storage.sqlite.restore import Memory, copy_backup, put_in_place, replacing

_NO_MEMORY = Memory({}, None, {})


class Restored(Struct, frozen=True):
    """What a restore did.

    `kept` is the replaced database, `unreadable` why it could not be asked what it knows. `migrations`
    were applied to the restored one, `revoked` keys revoked again. `lost_holds` are legal holds, by
    operator and external id, on entities that the backup does not have.
    """

    record: BackupRecord
    kept: Path | None
    unreadable: str | None
    migrations: Sequence[str]
    replayed: Replayed
    revoked: int
    lost_holds: Sequence[tuple[str, str]]


async def restore(
    backup: Path,
    database: Path,
    *,
    force: bool,
    ledger: Sequence[LedgerLine],
    actor: str,
    busy_timeout_s: float,
) -> Restored:
    """Put a backup in place of a database, or where there is none.

    It is examined first, and finished under another name: what has the database's name is the old one
    until it is the new one, in which nobody is alive who was erased as far as the replaced database
    and the `ledger` know. Legal holds become those of the replaced one, and keys that were revoked
    stay so. Raises `BackupBroken`, `StartupError`, `Unavailable`, and `OSError`; the database is
    untouched then. The audit log goes back to what it was in the backup, and says so.
    """
    with replacing(database, force=force) as replacement:
        examination = examine_backup(backup)
        if examination.problems or examination.record is None:
            message = f"{backup} is not restored: {'; '.join(examination.problems)}"
            raise BackupBroken(message)
        copy_backup(backup, replacement.draft)
        url = f"sqlite:///{quote(str(replacement.draft.absolute()))}"
        memory = replacement.memory or _NO_MEMORY
        store = await open_store(url, busy_timeout_s=busy_timeout_s)
        try:
            # None stands in the way of an erasure that came after it, nor is put on somebody who is
            # erased here.
            await _lift_holds(store, memory, actor)
            replayed = await replay(store, await _erasures(store, memory, ledger), actor=actor)
            lost = await _place_holds(store, memory, actor)
            revoked = await _revoke_keys(store, memory, actor)
            backup_at = format_ms(examination.record.started_at_ms)
            entry = Entry("backup.restored", actor, detail={"backupStartedAt": backup_at})
            await store.audit.record(INSTALLATION, [entry])
        finally:
            await store.close()
        put_in_place(replacement)
    return Restored(
        record=examination.record,
        kept=replacement.kept,
        unreadable=replacement.unreadable,
        migrations=examination.pending,
        replayed=replayed,
        revoked=revoked,
        lost_holds=lost,
    )


async def _erasures(
    store: Store, memory: Memory, ledger: Sequence[LedgerLine]
) -> Mapping[int, Sequence[Erasure]]:
    """What the replaced database and the file know, by operator."""
    operators = await store.operators()
    of_file = by_operator(ledger, operators)
    found = {}
    for operator in operators:
        known = (
            *of_file.get(operator.operator_id, ()),
            *memory.erasures.get(operator.key_salt, ()),
        )
        found[operator.operator_id] = list({one.entity_id: one for one in known}.values())
    return found


async def _lift_holds(store: Store, memory: Memory, actor: str) -> None:
    """Lift those of the backup, where the replaced database knows which there are now."""
    for operator in () if memory.holds is None else await store.operators():
        for hold in await store.holds(operator.operator_id):
            await lift_hold(store, operator, hold.external_id, actor=actor)


async def _place_holds(store: Store, memory: Memory, actor: str) -> Sequence[tuple[str, str]]:
    """Place those of the replaced database; return those that have no entity here."""
    return [
        (operator.name, hold.external_id)
        for operator in await store.operators()
        for hold in (memory.holds or {}).get(operator.key_salt, ())
        if not await place_hold(
            *(store, operator, hold.external_id, hold.reason),
            actor=actor,
            at_ms=hold.placed_at_ms,
        )
    ]


async def _revoke_keys(store: Store, memory: Memory, actor: str) -> int:
    """Revoke keys again that were active when the backup was made; return how many."""
    revoked = 0
    for operator in await store.operators():
        wanted = dict(memory.revoked.get(operator.key_salt, ()))
        for key in await store.keys(operator.operator_id):
            if key.revoked_at_ms is None and key.key_id in wanted:
                await store.revoke_key(
                    *(operator.operator_id, key.key_id, wanted[key.key_id]),
                    keep_last=False,
                    audit=Entry("key.revoked", actor, key.key_id),
                )
                revoked += 1
    return revoked
