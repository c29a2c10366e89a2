"""A full disk: 503 with Retry-After, nothing half-written, and all well again once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.faults.counts import Counts
from tests.faults.results import Tally
from tests.faults.writers import (
    UNLIMITED,
    Writer,
    assert_only_refused,
    assert_stored_once,
    wait_for_a_round_of_each,
)
from tests.support.api import deposit, player
from tests.support.postgres import (
    PostgresServer,
    drop_database,
    migrated_database,
    postgres_server,
    run_sql,
)
from tests.support.stored import STORES
from tests.system.conftest import Serve

SIZE_MIB = 24
WHOLE_SERVER_MIB = 160
FREE_KIB = 600
WRITERS = 3
REFUSALS = 10


class SmallDisk(NamedTuple):
    """A file system with room for little, and the database on it as the setting `db` names it."""

    folder: Path
    data_dir: Path
    db: str


@contextmanager
def _mounted(folder: Path, size_mib: int = SIZE_MIB) -> Iterator[None]:
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=700", "opdata-test", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode != 0:
        pytest.skip(f"a small file system needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


@pytest.fixture(params=STORES)
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    data_dir = tmp_path / "data"
    if request.param == "sqlite":
        with _mounted(data_dir):
            yield SmallDisk(data_dir, data_dir, "")
        return
    # The tables are on it, and the log is not: when that has no room left PostgreSQL stops itself.
    server = postgres_server(18)
    folder = server.folder / "small"
    with _mounted(folder):
        owner = server.data.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        run_sql(server.url, f"CREATE TABLESPACE small LOCATION '{folder}'")
        url = migrated_database(server.url)
        run_sql(server.url, f"ALTER DATABASE {urlsplit(url).path.strip('/')} SET TABLESPACE small")
        yield SmallDisk(folder, data_dir, url)
        drop_database(url)
        run_sql(server.url, "DROP TABLESPACE small")
    folder.rmdir()


def _fill(folder: Path) -> Path:
    """A file that leaves next to nothing free."""
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - FREE_KIB * 1024)))
    return ballast


def _fill_up(folder: Path) -> None:
    """Leave nothing free at all."""
    ballast = folder / f"ballast{len(list(folder.glob('ballast*')))}"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _batch(number: int) -> list[dict[str, object]]:
    return [player(f"p{number}-{at}", note="x" * 500) for at in range(500)]


@pytest.mark.fault("the disk is full")
def test_a_full_disk_answers_503_writes_nothing_and_heals_without_a_restart(
    small_disk: SmallDisk, serve_as_told: Serve, tally: Tally
) -> None:
    """W25, and UNAVAILABLE of WIRE.md §2."""
    server = serve_as_told(data_dir=small_disk.data_dir, db=small_disk.db)
    with closing(server.client()) as client:

        def post(number: int) -> httpx2.Response:
            headers = {"Idempotency-Key": f"batch-{number}"}
            return client.post("/batch/entities", json=_batch(number), headers=headers)

        assert post(0).status_code == 200
        ballast = _fill(small_disk.folder)
        stored, refused = [0], 0
        for number in range(1, 30):
            answer = post(number)
            if answer.status_code == 200:
                stored.append(number)
                continue
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["code"] == "UNAVAILABLE"
            assert int(answer.headers["retry-after"]) >= 1
            refused += 1
            tally.add("refusals")
            if refused == 3:
                break
        assert refused == 3
        assert server.page("/healthz").status_code == 200
        # What is there can be read all the while.
        assert client.get(f"/entities/p{stored[-1]}-499/state").status_code == 200
        assert client.get(f"/entities/p{number}-0/state").status_code == 404
        last = small_disk.folder / "last bytes"
        with suppress(OSError), last.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        reads = [client.get(f"/entities/p0-{at}/state").status_code for at in range(100)]
        assert reads == [200] * 100

        last.unlink()
        ballast.unlink()
        assert post(number).status_code == 200
        assert "idempotent-replayed" in post(number).headers
        stored.append(number)
        assert client.post("/batch/events", json=[deposit("p0-0")]).status_code == 200
        rows = server.command("db", "check")
        assert rows["problems"] == []
        assert rows["rows"]["entities"] == 500 * len(stored)
        assert rows["rows"]["jobs"] == len(stored)
    assert server.stop() == 0


@pytest.mark.fault("the disk is full")
def test_writers_on_a_disk_that_is_full_again_and_again_lose_and_double_nothing(
    small_disk: SmallDisk, serve_as_told: Serve, counts: Counts, tally: Tally
) -> None:
    """W25, W41."""
    server = serve_as_told(*UNLIMITED, data_dir=small_disk.data_dir, db=small_disk.db)
    key = server.new_key()
    server.client(key).close()
    writers = [Writer(number, server, key) for number in range(WRITERS)]
    for _ in counts.times("fills"):
        wait_for_a_round_of_each(writers)
        refused = sum(writer.statuses[503] for writer in writers)
        while sum(writer.statuses[503] for writer in writers) < refused + REFUSALS:
            assert not [writer.failure for writer in writers if writer.failure]
            _fill_up(small_disk.folder)
            time.sleep(0.05)
        for file_to_go in small_disk.folder.glob("ballast*"):
            file_to_go.unlink()
        tally.add("fills")
    wait_for_a_round_of_each(writers)
    for writer in writers:
        writer.finish()
    tally.add("refusals", sum(writer.statuses[503] for writer in writers))
    assert_only_refused(writers)
    assert_stored_once(server.stored, writers)
    assert server.stop() == 0


@pytest.mark.fault("the disk is full")
def test_a_postgresql_that_stops_because_its_log_has_no_room_costs_503s_and_nothing_acknowledged(
    serve_as_told: Serve, tally: Tally
) -> None:
    """W25: its whole data directory is on the full disk; it is started again when there is room."""
    tally.store = "postgres"
    folder = Path(tempfile.mkdtemp(prefix="opdata-test-")) / "small"  # where its user may go
    folder.parent.chmod(0o755)
    with _mounted(folder, size_mib=WHOLE_SERVER_MIB):
        folder.chmod(0o755)
        database = PostgresServer(18, "-c", "max_wal_size=32MB", parent=folder).start()
        server = serve_as_told(*UNLIMITED, db=database.new_database())
        key = server.new_key()
        server.client(key).close()
        writers = [Writer(number, server, key) for number in range(WRITERS)]
        wait_for_a_round_of_each(writers)
        _fill_up(folder)
        deadline = time.monotonic() + 60
        while not all(writer.statuses[503] for writer in writers):
            assert time.monotonic() < deadline
            assert not [writer.failure for writer in writers if writer.failure]
            time.sleep(0.05)
        tally.add("fills")
        for ballast in folder.glob("ballast*"):
            ballast.unlink()
        database.restart_if_stopped()
        wait_for_a_round_of_each(writers)
        for writer in writers:
            writer.finish()
        tally.add("refusals", sum(writer.statuses[503] for writer in writers))
        assert_only_refused(writers)
        assert_stored_once(server.stored, writers)
        assert server.stop() == 0
        database.remove()
    shutil.rmtree(folder.parent)


def test_a_full_disk_does_not_keep_a_server_from_stopping(
    small_disk: SmallDisk, serve_as_told: Serve
) -> None:
    server = serve_as_told(data_dir=small_disk.data_dir, db=small_disk.db)
    with closing(server.client()) as client:
        _fill(small_disk.folder)
        for number in range(3):
            client.post("/batch/entities", json=_batch(number))
        assert server.stop() == 0
