"""Claims, dry runs and atomicity: what every kind of write has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from opdata.errors import IdempotencyKeyReused
from opdata.model import RetentionPolicy
from opdata.storage.reads import JobQuery
from opdata.storage.work import (
    IDEMPOTENCY_TTL_MS,
    ChangeSettings,
    Claim,
    DeleteEntity,
    JobDraft,
    Outcome,
    Reply,
    Work,
)
from tests.contract.conftest import Opener
from tests.contract.tenant import (
    DAY_MS,
    NOW_MS,
    Seal,
    Tenant,
    appended,
    claim,
    entity_row,
    event_row,
    job_draft,
    state_row,
    states_set,
    upserted,
)


class Broken(Exception):
    """Stands for any fault in a callback."""


def _broken_finish(_outcome: Outcome) -> Reply:
    raise Broken


def _broken_seal(_positions: Sequence[int]) -> Sequence[bytes | None]:
    raise Broken


# Every kind of work, each with an effect on what `_prepare` made.
WORKS: dict[str, Callable[[], Work]] = {
    "create": lambda: upserted(entity_row("new")),
    "update": lambda: upserted(entity_row("p1", '{"n":2}')),
    "append": lambda: appended(event_row("p1", "2"), event_row("p1", "3", key="new key")),
    "overwrite": lambda: states_set(state_row("p1", "2")),
    "observe": lambda: states_set(state_row("p1", "2", observed_at_ms=NOW_MS + 1)),
    "delete": lambda: DeleteEntity("p1"),
    "settings": lambda: ChangeSettings("tpl_2", 60, RetentionPolicy()),
}
any_work = pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)


async def _prepare(tenant: Tenant) -> None:
    await tenant.upsert(entity_row("p1", '{"n":1}'), seal=Seal())
    await tenant.append(event_row("p1", "1", key="old key"))
    await tenant.set_states(state_row("p1", "1"))
    await tenant.change(ChangeSettings(template_id="tpl_1", data_retention_days=30))


async def _everything(tenant: Tenant) -> list[object]:
    """All that can be read of the tenant, as plain values."""
    store, here = tenant.store, tenant.id
    found: list[object] = [
        await store.entities(here, entity_type=None, after=None, limit=1_000),
        await store.operator(here),
        await store.jobs(JobQuery(1_000, here)),
    ]
    for name in ("p1", "new"):
        found += [
            await tenant.entity(name),
            await tenant.events(name),
            await store.states(here, name),
        ]
    plain: list[object] = msgspec.to_builtins(found)
    return plain


# -- claims (W40, W41) ---------------------------------------------------------------------------


async def test_a_claimed_write_done_before_is_answered_with_the_stored_reply_and_not_done_again(
    ours: Tenant,
) -> None:
    """W41."""
    await ours.create("p1")
    first = await ours.append(
        event_row("p1", "1"), claim=claim(), reply=Reply(201, b"\x00 \xff {}")
    )
    assert not first.reply.replayed
    again = await ours.append(event_row("p1", "2"), claim=claim(), reply=Reply(200, b"other"))
    assert again.outcome is None
    assert (again.reply.status, again.reply.body) == (201, b"\x00 \xff {}")
    assert again.reply.replayed
    assert await ours.event_data("p1") == ["1"]


async def test_a_replay_answers_what_the_reply_holds_for_replays(ours: Tenant) -> None:
    """W41: single events."""
    await ours.create("p1")
    reply = Reply(201, b"new", replay=Reply(200, b"duplicate"))
    first = await ours.append(event_row("p1"), claim=claim(), reply=reply)
    assert (first.reply.status, first.reply.body) == (201, b"new")
    for _ in range(2):
        again = await ours.append(event_row("p1"), claim=claim(), reply=reply)
        assert (again.reply.status, again.reply.body) == (200, b"duplicate")
        assert again.reply.replayed


async def test_a_refusal_that_came_from_executing_is_replayed_too(ours: Tenant) -> None:
    """W41: 4xx that came from executing."""
    refusal = Reply(404, b"not found")
    await ours.append(event_row("later"), claim=claim(), reply=refusal)
    await ours.create("later")
    again = await ours.append(event_row("later"), claim=claim())
    assert (again.reply.status, again.reply.body) == (404, b"not found")
    assert await ours.event_data("later") == []


async def test_a_claimed_key_with_another_request_is_refused_and_nothing_done(
    ours: Tenant,
) -> None:
    """W41."""
    await ours.create("p1")
    await ours.append(event_row("p1", "1"), claim=claim(body=b"one"))
    with pytest.raises(IdempotencyKeyReused):
        await ours.append(event_row("p1", "2"), claim=claim(body=b"two"))
    assert await ours.event_data("p1") == ["1"]
    again = await ours.append(event_row("p1", "1"), claim=claim(body=b"one"))
    assert again.reply.replayed


@pytest.mark.parametrize(
    "other",
    [
        Claim("PUT", "/a", "k", b"f" * 16),
        Claim("POST", "/b", "k", b"f" * 16),
        Claim("POST", "/a/", "k", b"f" * 16),
        Claim("POST", "/A", "k", b"f" * 16),
        Claim("POST", "/a", "K", b"f" * 16),
        Claim("POST", "/a", "k2", b"f" * 16),
    ],
    ids=str,
)
async def test_claims_of_another_method_path_or_key_are_apart(ours: Tenant, other: Claim) -> None:
    """W40."""
    await ours.create("p1")
    await ours.append(event_row("p1", "1"), claim=Claim("POST", "/a", "k", b"f" * 16))
    assert not (await ours.append(event_row("p1", "2"), claim=other)).reply.replayed
    assert await ours.event_data("p1") == ["2", "1"]


async def test_a_claim_answers_for_a_day_and_no_longer(ours: Tenant) -> None:
    """W40."""
    await ours.create("p1")
    append = ours.append
    await append(event_row("p1", "1"), claim=claim())
    last_ms = NOW_MS + IDEMPOTENCY_TTL_MS - 1
    assert (await append(event_row("p1", "2"), claim=claim(), now_ms=last_ms)).reply.replayed
    expired_ms = last_ms + 1
    new = claim(body=b"may be another request now")
    assert not (await append(event_row("p1", "3"), claim=new, now_ms=expired_ms)).reply.replayed
    again_ms = expired_ms + IDEMPOTENCY_TTL_MS - 1
    assert (await append(event_row("p1", "4"), claim=new, now_ms=again_ms)).reply.replayed
    assert await ours.event_data("p1") == ["3", "1"]


async def test_a_claim_answers_after_the_clock_was_set_back(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.append(event_row("p1", "1"), claim=claim())
    before_ms = NOW_MS - 10 * DAY_MS
    assert (await ours.append(event_row("p1"), claim=claim(), now_ms=before_ms)).reply.replayed


async def test_a_claim_answers_through_any_store_on_the_database(
    ours: Tenant, reopen: Opener
) -> None:
    await ours.create("p1")
    await ours.append(event_row("p1", "1"), claim=claim(), reply=Reply(200, b"first"))
    again = await ours.through(await reopen()).append(event_row("p1", "2"), claim=claim())
    assert (again.reply.body, again.reply.replayed) == (b"first", True)


@any_work
async def test_any_kind_of_write_can_be_claimed(ours: Tenant, work: Callable[[], Work]) -> None:
    """W40."""
    await _prepare(ours)
    await ours.write(work(), claim=claim(), reply=Reply(200, b"first"))
    after = await _everything(ours)
    again = await ours.write(work(), claim=claim(), now_ms=NOW_MS + 1)
    assert (again.reply.body, again.reply.replayed) == (b"first", True)
    assert await _everything(ours) == after


async def test_the_job_of_a_replayed_write_is_the_first_ones(ours: Tenant) -> None:
    drafts = [job_draft(), job_draft()]
    for draft in drafts:
        await ours.create("p1", claim=claim(), job=draft)
    assert [job.job_id for job in (await ours.store.jobs(JobQuery(10, ours.id))).rows] == [
        drafts[0].job_id
    ]


# -- atomicity (W25) -----------------------------------------------------------------------------


@any_work
async def test_a_write_whose_finish_raises_leaves_nothing_and_its_claim_free(
    ours: Tenant, work: Callable[[], Work]
) -> None:
    """W25."""
    await _prepare(ours)
    before = await _everything(ours)
    with pytest.raises(Broken):
        await ours.write(work(), finish=_broken_finish, claim=claim(), job=job_draft())
    assert await _everything(ours) == before
    written = await ours.write(work(), claim=claim())
    assert not written.reply.replayed
    assert written.duplicates == {}
    assert await _everything(ours) != before


async def test_a_write_whose_seal_raises_leaves_nothing_and_its_claim_free(ours: Tenant) -> None:
    """W25."""
    await _prepare(ours)
    before = await _everything(ours)
    rows = [entity_row("p1", '{"n":2}'), entity_row("new")]
    with pytest.raises(Broken):
        await ours.upsert(*rows, seal=_broken_seal, claim=claim(), job=job_draft())
    assert await _everything(ours) == before
    assert not (await ours.upsert(*rows, claim=claim())).reply.replayed


async def test_a_write_that_fails_after_its_items_leaves_none_of_them(ours: Tenant) -> None:
    """W25: here the job cannot be recorded, because its id is taken."""
    await ours.create("p1", job=JobDraft("job_taken", "batch_ingest_entities"))
    before = await _everything(ours)
    with pytest.raises(Exception):  # noqa: B017 - a fault of ours, of whatever kind
        await ours.create("new", job=JobDraft("job_taken", "batch_ingest_entities"), claim=claim())
    assert await _everything(ours) == before
    assert not (await ours.create("new", claim=claim())).reply.replayed


# -- dry runs (W31) ------------------------------------------------------------------------------


@any_work
async def test_a_dry_run_leaves_nothing(ours: Tenant, work: Callable[[], Work]) -> None:
    """W31."""
    await _prepare(ours)
    before = await _everything(ours)
    written = await ours.write(work(), dry_run=True, reply=Reply(200, b"would be"))
    assert written.reply.body == b"would be"
    assert written.outcome is not None
    assert await _everything(ours) == before


@any_work
async def test_a_dry_run_has_the_outcome_of_the_write(
    ours: Tenant, work: Callable[[], Work]
) -> None:
    """W31."""
    await _prepare(ours)
    one = work()
    dry = await ours.write(one, dry_run=True)
    assert dry.outcome == (await ours.write(one)).outcome


async def test_a_dry_run_tells_refusals_and_duplicates_as_the_write_does(ours: Tenant) -> None:
    """W31, W42."""
    await ours.create("p1")
    await ours.append(event_row("p1", "1", key="k"))
    rows = [
        event_row("nobody"),
        event_row("p1", "1", key="k"),
        event_row("p1", "2", key="k"),
        event_row("p1", "3", key="new"),
        event_row("p1", "3", key="new"),
    ]
    dry = await ours.append(*rows, dry_run=True)
    assert dry.refused == {0: "NOT_FOUND", 2: "DUPLICATE_CONFLICT"}
    assert set(dry.duplicates) == {1, 4}
    assert dry.outcome == (await ours.append(*rows)).outcome


async def test_a_dry_run_takes_no_claim_and_leaves_no_job(ours: Tenant) -> None:
    """W31."""
    draft = job_draft()
    await ours.create("p1", dry_run=True, claim=claim(), job=draft)
    assert await ours.store.job(ours.id, draft.job_id) is None
    written = await ours.create("p1", claim=claim(), job=draft)
    assert not written.reply.replayed
    assert written.outcome is not None
    assert list(written.outcome.created) == [True]


async def test_a_dry_run_is_not_answered_from_a_claim(ours: Tenant) -> None:
    """W31."""
    await ours.create("p1", claim=claim(), reply=Reply(200, b"real"))
    dry = await ours.create("p1", claim=claim(), dry_run=True, reply=Reply(200, b"dry"))
    assert (dry.reply.body, dry.reply.replayed) == (b"dry", False)


# -- settings ------------------------------------------------------------------------------------


async def test_settings_change_where_given_and_stay_where_not(ours: Tenant) -> None:
    policy = msgspec.convert(
        {"entity_events": {"hot_days": 30, "archive_days": 365}}, RetentionPolicy
    )
    steps = [
        (ChangeSettings(template_id="tpl_1"), ("tpl_1", None, None)),
        (ChangeSettings(data_retention_days=90), ("tpl_1", 90, None)),
        (ChangeSettings(retention_policy=policy), ("tpl_1", 90, policy)),
        (ChangeSettings(), ("tpl_1", 90, policy)),
        (ChangeSettings("tpl_2", None), ("tpl_2", None, policy)),
        (ChangeSettings(None, 1, None), (None, 1, None)),
    ]
    for change, wanted in steps:
        written = await ours.change(change)
        assert written.outcome is not None
        operator = await ours.store.operator(ours.id)
        assert operator is not None
        settings = operator.settings
        assert written.outcome.settings == settings
        assert wanted == (
            settings.template_id,
            settings.data_retention_days,
            settings.retention_policy,
        )
