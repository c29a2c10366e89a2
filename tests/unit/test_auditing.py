"""The server tells its log where each chain ends, whenever that has moved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opdata.audit import Entry, Head, parse_head
from opdata.auditing import HeadTeller
from opdata.config import Settings
from opdata.logs import configure_logging
from opdata.storage import open_store


async def test_a_head_is_told_when_it_has_moved_and_not_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Settings(log_format="json"))
    store = await open_store(f"sqlite:///{tmp_path / 'opdata.db'}")
    teller = HeadTeller(store.audit)
    one = await store.create_operator(
        "one", bytes(32), 0, audit=Entry("operator.created", "server")
    )
    two = await store.create_operator(
        "two", bytes(32), 0, audit=Entry("operator.created", "server")
    )

    async def told() -> list[Head | None]:
        await teller.tell()
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert {line["event"] for line in lines} <= {"audit_head"}
        return [parse_head(line["head"]) for line in lines]

    assert await told() == list(await store.audit.heads())
    assert await told() == []
    await store.audit.record(two.operator_id, [Entry("hold.placed", "server")])
    [moved] = await told()
    assert moved is not None
    assert (moved.operator_id, moved.seq) == (two.operator_id, 2)
    assert moved in await store.audit.heads()
    assert one.operator_id != two.operator_id
    await store.close()
