"""The key ring of a process: up to date with the store and the key file, and minding the nonce budget."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from opdata import key_ring
from opdata.audit import Entry
from opdata.clock import now_ms
from opdata.config import Settings
from opdata.errors import SealBroken, StartupError, Unavailable
from opdata.key_ring import NONCE_BUDGET, KeyRing, NonceBudget
from opdata.logs import configure_logging
from opdata.master_keys import MASTER_KEY_FILE, add_to_key_file, check_value, load_master_keys
from opdata.model import DataKey
from opdata.pii import Sealer, next_data_key, sealer_of
from opdata.storage import open_store
from opdata.storage.base import Store

A, B, C = (bytes([at]) * 32 for at in range(3))
Logged = Callable[[], list[tuple[str, str]]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite:///{tmp_path / 'opdata.db'}")
    await opened.add_key_check(1, check_value(A))
    yield opened
    await opened.close()


@pytest.fixture
async def operator(store: Store) -> int:
    return (await store.create_operator("ours", bytes(range(32)), now_ms())).operator_id


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Logged:
    """Level and event of what was logged since it was last asked."""
    configure_logging(Settings(log_format="json"))

    def since() -> list[tuple[str, str]]:
        lines = map(json.loads, capsys.readouterr().err.splitlines())
        return [(line["level"], line["event"]) for line in lines]

    return since


@pytest.fixture
def never_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is asked every time."""
    monkeypatch.setattr(key_ring, "FRESH_S", -1)


async def add_key(store: Store, operator: int, masters: dict[int, bytes], master: int) -> DataKey:
    newest = (await store.data_keys.of(operator))[-1]
    key = next_data_key(masters, newest, master, now_ms())
    entry = Entry("crypto.data_key_added", "cli:test", str(key.key_id))
    assert await store.data_keys.add(key, audit=entry)
    return key


async def sealed_counts(store: Store) -> list[int]:
    return [key.sealed_count for key in await store.data_keys.all()]


def seal(own: Sealer, times: int = 1) -> bytes:
    return own.seal(["p"] * times, [b"secret"] * times)[-1]


async def test_a_sealer_is_asked_for_again_only_when_it_may_be_old(
    store: Store, operator: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(store, lambda: {1: A})
    monkeypatch.setattr(key_ring, "FRESH_S", 0.5)
    before = await ring.sealer(operator)
    await add_key(store, operator, {1: A}, 1)
    assert await ring.sealer(operator) is before
    await asyncio.sleep(0.6)
    after = await ring.sealer(operator)
    assert (before.key_id, after.key_id) == (1, 2)
    assert after.open("p", seal(before)) == b"secret"
    assert after.fingerprint(b"x") == before.fingerprint(b"x")
    with pytest.raises(SealBroken):
        before.open("p", seal(after))


@pytest.mark.usefixtures("never_fresh")
async def test_an_unchanged_sealer_stays(store: Store, operator: int) -> None:
    ring = KeyRing(store, lambda: {1: A})
    before = await ring.sealer(operator)
    await store.data_keys.count_seals(operator, 1, 5)
    assert await ring.sealer(operator) is before


@pytest.mark.usefixtures("never_fresh")
async def test_a_data_key_that_the_database_has_lost_seals_nothing_more(
    store: Store, operator: int, tmp_path: Path
) -> None:
    """As when the database was taken back to before a rotation, under a running server."""
    ring = KeyRing(store, lambda: {1: A})
    await add_key(store, operator, {1: A}, 1)
    assert (await ring.sealer(operator)).key_id == 2
    database = sqlite3.connect(tmp_path / "opdata.db")
    with database:
        database.execute("DELETE FROM data_keys WHERE key_id = 2")
    database.close()
    own = await ring.sealer(operator)
    assert own.key_id == 1
    anew = await KeyRing(store, lambda: {1: A}).sealer(operator)
    assert anew.open("p", seal(own)) == b"secret"


@pytest.mark.usefixtures("never_fresh")
async def test_an_answer_that_was_overtaken_by_a_later_one_is_passed_over(
    store: Store, operator: int
) -> None:
    late = Late(store)
    ring = KeyRing(late, lambda: {1: A})  # type: ignore[arg-type] # the part that a ring uses
    overtaken = asyncio.create_task(ring.sealer(operator))
    await late.asked.wait()
    await add_key(store, operator, {1: A}, 1)
    assert (await ring.sealer(operator)).key_id == 2
    late.answer.set()
    assert (await overtaken).key_id == 2


class Late:
    """A store whose first answer is held back until `answer` is set."""

    def __init__(self, store: Store) -> None:
        self.data_keys = self
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self._store = store

    async def of(self, operator_id: int) -> Sequence[DataKey]:
        first, keys = not self.asked.is_set(), await self._store.data_keys.of(operator_id)
        self.asked.set()
        if first:
            await self.answer.wait()
        return keys


@pytest.mark.usefixtures("never_fresh")
async def test_a_key_file_that_cannot_be_read_stops_no_request(
    store: Store, operator: int, tmp_path: Path, logged: Logged
) -> None:
    path = tmp_path / MASTER_KEY_FILE
    path.write_text(A.hex())
    path.chmod(0o600)
    ring = KeyRing(store, lambda: load_master_keys(tmp_path))
    masters = add_to_key_file(tmp_path, 1)
    await store.add_key_check(2, check_value(masters[2]))
    await add_key(store, operator, masters, 2)
    aside = path.rename(tmp_path / "aside")
    path.mkdir()
    assert (await ring.sealer(operator)).key_id == 1
    assert logged() == [("error", "master_keys_not_reloaded")]
    path.rmdir()
    aside.rename(path)
    assert (await ring.sealer(operator)).key_id == 2


@pytest.mark.usefixtures("never_fresh")
async def test_a_master_key_that_was_added_is_taken_up_without_a_restart(
    store: Store, operator: int, logged: Logged
) -> None:
    masters = {1: A}
    ring = KeyRing(store, lambda: dict(masters))
    await ring.sealer(operator)
    await store.add_key_check(2, check_value(B))
    await add_key(store, operator, {1: A, 2: B}, 2)

    # Before it has the key it seals with the older one, and says what it lacks, once.
    lacking = await ring.sealer(operator)
    assert lacking.key_id == 1
    newer = sealer_of({1: A, 2: B}, await store.data_keys.of(operator))
    sealed = seal(newer)
    with pytest.raises(Unavailable):
        lacking.open("p", sealed)
    with pytest.raises(SealBroken):
        lacking.open("p", sealed[:20])
    await ring.sealer(operator)
    assert logged() == [("error", "master_key_lacking")]

    masters[2] = B
    own = await ring.sealer(operator)
    assert own.key_id == 2
    assert own.open("p", sealed) == b"secret"
    assert own.fingerprint(b"x") == lacking.fingerprint(b"x")
    # What it has once had is not given up.
    del masters[1]
    assert (await ring.sealer(operator)).open("p", seal(lacking)) == b"secret"


@pytest.mark.usefixtures("never_fresh")
@pytest.mark.parametrize("found", [{1: A, 2: C}, {1: C, 2: B}, None])
async def test_wrong_or_malformed_keys_are_not_taken_up(
    store: Store, operator: int, logged: Logged, found: dict[int, bytes] | None
) -> None:
    loads = iter([{1: A}])

    def load() -> dict[int, bytes]:
        keys = next(loads, found)
        if keys is None:
            raise StartupError("malformed")
        return keys

    ring = KeyRing(store, load)
    await store.add_key_check(2, check_value(B))
    await add_key(store, operator, {1: A, 2: B}, 2)
    for _ in range(2):
        assert (await ring.sealer(operator)).key_id == 1
    assert logged() == [("error", "master_keys_not_reloaded")]


@pytest.mark.usefixtures("never_fresh")
async def test_without_any_of_its_keys_an_operator_is_unavailable(
    store: Store, operator: int
) -> None:
    ring = KeyRing(store, lambda: {2: B})
    with pytest.raises(Unavailable):
        await ring.sealer(operator)


@pytest.mark.usefixtures("never_fresh")
async def test_a_data_key_that_was_tampered_with_seals_nothing(
    store: Store, operator: int, tmp_path: Path
) -> None:
    key = await add_key(store, operator, {1: A}, 1)
    assert key.fingerprint_key is not None
    ring = KeyRing(store, lambda: {1: A})
    for at in range(0, len(key.fingerprint_key), 7):
        changed = bytearray(key.fingerprint_key)
        changed[at] ^= 1
        tampered = KeyRing(
            Tampered(store, bytes(changed)),  # type: ignore[arg-type] # the part that a ring uses
            lambda: {1: A},
        )
        with pytest.raises(SealBroken):
            await tampered.sealer(operator)
    assert (await ring.sealer(operator)).key_id == 2


class Tampered:
    """A store whose newest data key has another fingerprint key."""

    def __init__(self, store: Store, fingerprint_key: bytes) -> None:
        self.data_keys = self
        self._store = store
        self._fingerprint_key = fingerprint_key

    async def of(self, operator_id: int) -> list[DataKey]:
        *older, newest = await self._store.data_keys.of(operator_id)
        return [
            *older,
            DataKey(*(*_fields(newest)[:4], self._fingerprint_key, newest.created_at_ms)),
        ]


def _fields(key: DataKey) -> tuple[int, int, int, bytes]:
    return key.operator_id, key.key_id, key.master_key_id, key.salt


@pytest.mark.usefixtures("never_fresh")
async def test_seals_are_counted_by_the_key_that_sealed(store: Store, operator: int) -> None:
    ring = KeyRing(store, lambda: {1: A})
    older = await ring.sealer(operator)
    seal(older, 3)
    await add_key(store, operator, {1: A}, 1)
    newer = await ring.sealer(operator)
    seal(newer, 5)
    seal(older, 1)  # by a request that was under way
    await ring.flush()
    await ring.flush()
    assert await sealed_counts(store) == [4, 5]


async def test_what_could_not_be_written_down_is_the_next_time(
    store: Store, operator: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(store, lambda: {1: A})
    seal(await ring.sealer(operator), 3)

    async def fail(*_: object) -> int:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(store.data_keys, "count_seals", fail)
        with pytest.raises(Unavailable):
            await ring.flush()
    await ring.flush()
    assert await sealed_counts(store) == [3]


@pytest.mark.usefixtures("never_fresh")
async def test_a_budget_is_warned_of_once_and_renewed_in_good_time(
    store: Store, operator: int, logged: Logged
) -> None:
    ring = KeyRing(store, lambda: {1: A}, budget=NonceBudget(limit=40, warn_at=10, rotate_at=20))
    fingerprint = (await ring.sealer(operator)).fingerprint(b"x")
    said = []
    for _ in range(6):
        seal(await ring.sealer(operator), 5)
        await ring.flush()
        said.append(logged())
    warning, renewed = [("warning", "nonce_budget")], [("warning", "nonce_budget_renewed")]
    assert said == [[], warning, [], renewed, [], warning]
    assert await sealed_counts(store) == [20, 10]
    assert [key.master_key_id for key in await store.data_keys.all()] == [1, 1]
    assert (await ring.sealer(operator)).fingerprint(b"x") == fingerprint
    [entry] = await store.audit.chain(operator, after=0, limit=9)
    assert (entry.action, entry.actor, entry.subject) == ("crypto.data_key_added", "server", "2")


@pytest.mark.usefixtures("never_fresh")
async def test_of_several_processes_one_renews_a_budget(store: Store, operator: int) -> None:
    budget = NonceBudget(limit=40, warn_at=10, rotate_at=20)
    rings = [KeyRing(store, lambda: {1: A}, budget=budget) for _ in range(3)]
    for ring in rings:
        seal(await ring.sealer(operator), 25)
    for ring in rings:
        await ring.flush()
    assert await sealed_counts(store) == [75, 0]
    assert {(await ring.sealer(operator)).key_id for ring in rings} == {2}


def test_a_budget_is_renewed_long_before_its_end() -> None:
    assert NONCE_BUDGET.limit == 2**32
    assert NONCE_BUDGET.warn_at < NONCE_BUDGET.rotate_at <= NONCE_BUDGET.limit // 2
