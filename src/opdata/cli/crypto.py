"""`opdata crypto`: show and rotate the keys that personal fields are sealed with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opdata.cli.exits import INTERRUPTED, Exit
from opdata.cli.output import fail, note, print_json, print_table, say, short_time
from opdata.cli.progress import counting
from opdata.cli.stores import DEFAULT_DATABASE, FLAGS, AsJson, Database, actor, opened
from opdata.clock import format_ms
from opdata.config import Settings
from opdata.errors import MasterKeyMissing, StartupError
from opdata.key_ring import NONCE_BUDGET
from opdata.master_keys import (
    MASTER_KEY_FILE,
    SealedWith,
    add_to_key_file,
    load_master_keys,
    new_part,
    require_right_keys,
)
from opdata.rotation import (
    DataKeyUse,
    KeyUse,
    MasterKeyUse,
    Progress,
    Rotated,
    key_use,
    settle_s,
)
from opdata.rotation import rotate as rotate_keys
from opdata.storage.base import Store

app = App(
    name="crypto",
    help="Show and rotate the keys that personal fields are sealed with.",
    default_parameter=FLAGS,
)


@app.command
async def status(*, database: Database = DEFAULT_DATABASE, as_json: AsJson = False) -> Exit:
    """Show which keys there are, what they are needed for, and how much they have sealed.

    Reads the sealed part of every entity, so a large database takes a while.
    Exit code 1 when a key is lacking that something is sealed under.
    """
    settings = database.settings()
    async with opened(settings) as store:
        names = {operator.operator_id: operator.name for operator in await store.operators()}
        keys = _keys_at_hand(settings)
        require_right_keys(keys, SealedWith(await store.key_checks(), frozenset()))
        use = await key_use(store, keys)
    if as_json:
        print_json(
            {
                "masterKeys": [_master_fields(one, use, keys) for one in use.masters],
                "dataKeys": [_data_key_fields(one, names) for one in use.data_keys],
                "recordsOfUnknownKeys": use.unknown,
            }
        )
    else:
        print_table(
            ("MASTER KEY", "STATE", "AT HAND", "OPERATORS", "DATA KEYS", "RECORDS"),
            [_master_cells(one, use, keys) for one in use.masters],
        )
        say("")
        print_table(
            ("OPERATOR", "DATA KEY", "MASTER KEY", "CREATED", "RECORDS", "SEALED", "OF ITS BUDGET"),
            [_data_key_cells(one, names) for one in use.data_keys if not _is_over(one)],
        )
    return _remark(use, keys)


@app.command
def rotate(
    *,
    prepare: Annotated[
        bool,
        Parameter(
            help="Only add the new master key to the file, so that it can be copied to where it is "
            "kept and to the other hosts; the next rotate uses it."
        ),
    ] = False,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> int:
    """Add a new master key, and seal everything anew under it, beside running servers.

    Running it again goes on with a rotation that was interrupted. Afterwards
    nothing in the database needs the older master keys. Where the key comes from
    OPDATA_MASTER_KEY, it first says what to add to it; every server has to be
    restarted with that before the next run rotates.
    """
    try:
        return asyncio.run(_rotate(database.settings(), prepare=prepare, as_json=as_json))
    except KeyboardInterrupt:
        fail("interrupted; nothing is lost, and the same command goes on from there")
        return INTERRUPTED


async def _rotate(settings: Settings, *, prepare: bool, as_json: bool) -> int:
    keys = load_master_keys(Path(settings.data_dir), settings.master_key)
    async with opened(settings) as store:
        use = await key_use(store, keys)
        needed = frozenset(one.key_id for one in use.masters if one.is_needed)
        checks = await store.key_checks()
        require_right_keys(keys, SealedWith(checks, needed))
        in_use = use.newest_in_use
        if in_use is None:
            message = "There is no operator yet, and so nothing to rotate"
            raise StartupError(message)
        resuming = max(keys) == in_use and not use.is_done(in_use)
        if max(keys) <= in_use and not resuming:
            if settings.master_key:
                return _say_what_to_add(keys, as_json=as_json)
            keys = add_to_key_file(Path(settings.data_dir), in_use)
            note(
                f"Master key {max(keys)} is in {_key_file(settings)}. Copy the file to where the key "
                "is kept, now: from here on nothing opens without it."
            )
        target = max(keys)
        if prepare:
            return _say_prepared(target, as_json=as_json)
        if settings.master_key and target not in checks:
            message = (
                f"No server has been started with master key {target} yet: set OPDATA_MASTER_KEY "
                "for every server as it is here, restart them all, and run this again"
            )
            raise StartupError(message)
        if resuming:
            note(f"Going on with the rotation to master key {target}.")
        with counting("records") as tell:
            total = use.left_before(target)
            settling_s = settle_s(settings.busy_timeout_s)
            done = await rotate_keys(
                store,
                keys,
                total,
                lambda at: tell(_doing(at), at.done, at.total),
                actor=actor(),
                settle_s=settling_s,
            )
        names = await _names(store, done)
    if as_json:
        print_json(
            {
                "done": not (done.broken or done.stubborn),
                "masterKey": done.master_key_id,
                "resumed": resuming,
                "resealed": done.resealed,
                "broken": [
                    {"operator": names[one.operator_id], "entityId": one.entity_id}
                    for one in done.broken
                ],
            }
        )
    else:
        say(f"Sealed {done.resealed:,} records anew under master key {target}.")
    return _report(done, names, settings)


def _say_what_to_add(keys: Mapping[int, bytes], *, as_json: bool) -> Exit:
    part = new_part(keys)
    if as_json:
        print_json({"done": False, "addToMasterKey": part})
    else:
        say(part)
    note(
        "Add this to OPDATA_MASTER_KEY, after a comma, keep it where the key is kept, and restart "
        "every server with it. Then run this again, with it too. It is shown only now; nothing was "
        "changed yet."
    )
    return Exit.OK


def _say_prepared(key_id: int, *, as_json: bool) -> Exit:
    if as_json:
        print_json({"done": False, "masterKey": key_id})
    else:
        say(f"Master key {key_id} is ready; nothing is sealed under it yet.")
    return Exit.OK


def _report(done: Rotated, names: Mapping[int, str], settings: Settings) -> Exit:
    for one in done.broken:
        fail(
            f"entity {one.entity_id} of operator {names[one.operator_id]} does not open: its sealed "
            "part was edited, truncated or moved. It was left as it is; send the entity again or "
            "erase it, and run this again"
        )
    if done.stubborn:
        fail(
            f"a server goes on sealing under an older key: it does not have master key "
            f"{done.master_key_id}. Give it the key, restart it, and run this again"
        )
    if done.broken or done.stubborn:
        return Exit.PROBLEM
    where = "OPDATA_MASTER_KEY" if settings.master_key else _key_file(settings)
    note(
        f"Nothing in the database needs an older master key than {done.master_key_id}. Backups made "
        f"before do: keep a copy as long as those. opdata crypto status says when one can go from {where}."
    )
    return Exit.OK


def _remark(use: KeyUse, keys: Mapping[int, bytes]) -> Exit:
    lacking = [one for one in use.masters if one.is_needed and one.key_id not in keys]
    for one in lacking:
        fail(
            f"master key {one.key_id} is lacking: {one.records:,} records are sealed under it. "
            "Put it back"
        )
    if use.unknown:
        fail(f"{use.unknown:,} records name no key of their operator: they were edited or moved")
    for one in use.masters:
        if not one.is_needed and one.key_id in keys and one.key_id < (use.newest_in_use or 0):
            note(
                f"Master key {one.key_id} is not needed by the database any more. Keep a copy as long "
                "as backups from before the rotation."
            )
    return Exit.PROBLEM if lacking or use.unknown else Exit.OK


def _keys_at_hand(settings: Settings) -> Mapping[int, bytes]:
    try:
        return load_master_keys(Path(settings.data_dir), settings.master_key)
    except MasterKeyMissing:
        return {}


def _key_file(settings: Settings) -> str:
    return str(Path(settings.data_dir) / MASTER_KEY_FILE)


async def _names(store: Store, done: Rotated) -> Mapping[int, str]:
    if not done.broken:
        return {}
    return {operator.operator_id: operator.name for operator in await store.operators()}


def _state(one: MasterKeyUse, use: KeyUse) -> str:
    newest = use.newest_in_use or 0
    if one.key_id == newest:
        return "primary"
    if one.key_id > newest:
        return "new"
    return "in use" if one.is_needed else "not needed"


def _is_over(one: DataKeyUse) -> bool:
    return one.key.retired_at_ms is not None and not one.records


def _share(one: DataKeyUse) -> float:
    return one.key.sealed_count / NONCE_BUDGET.limit


def _master_cells(one: MasterKeyUse, use: KeyUse, keys: Mapping[int, bytes]) -> Sequence[str]:
    at_hand = "yes" if one.key_id in keys else "no"
    counts = (one.operators, one.data_keys, one.records)
    return str(one.key_id), _state(one, use), at_hand, *(f"{count:,}" for count in counts)


def _master_fields(one: MasterKeyUse, use: KeyUse, keys: Mapping[int, bytes]) -> object:
    return {
        "id": one.key_id,
        "state": _state(one, use),
        "atHand": one.key_id in keys,
        "operators": one.operators,
        "dataKeys": one.data_keys,
        "records": one.records,
    }


def _data_key_cells(one: DataKeyUse, names: Mapping[int, str]) -> Sequence[str]:
    key = one.key
    return (
        *(names.get(key.operator_id, "-"), str(key.key_id), str(key.master_key_id)),
        *(short_time(key.created_at_ms), f"{one.records:,}", f"{key.sealed_count:,}"),
        f"{_share(one):.2%}",
    )


def _data_key_fields(one: DataKeyUse, names: Mapping[int, str]) -> object:
    key = one.key
    retired_at_ms = key.retired_at_ms
    return {
        "operator": names.get(key.operator_id),
        "id": key.key_id,
        "masterKey": key.master_key_id,
        "createdAt": format_ms(key.created_at_ms),
        "retiredAt": None if retired_at_ms is None else format_ms(retired_at_ms),
        "records": one.records,
        "sealed": key.sealed_count,
        "budgetUsed": _share(one),
    }


def _doing(progress: Progress) -> str:
    return "waiting for servers to use the new key" if progress.waiting else "sealing anew"
