"""`opdata backup`: what a backup holds, what its making leaves behind, and what a restore brings back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from opdata.storage.sqlite.backup import create_backup, examine_backup
from tests.faults.script import assert_as_scripted, requests_seen
from tests.faults.writers import UNLIMITED, Writer, wait_for_a_round_of_each
from tests.support.api import player
from tests.support.running import OPDATA, RunningServer
from tests.support.stored import stored_at
from tests.system.conftest import Serve

WRITERS: Final = 3
PERSON: Final = {"first_name": "Aurelie", "last_name": "Montgolfier", "phone": "+44 7700 900123"}

# Stops for good at a moment of the test's choice, and says so.
_STOPPING: Final = """
import sys, time
from pathlib import Path
from opdata.storage.sqlite import backup
def stop(*_arguments, **_flags):
    print("here", flush=True)
    time.sleep(600)
moment, database, target = sys.argv[1:]
if moment == "copying":
    class Stopping:
        def __init__(self, connection): self._connection = connection
        def __enter__(self): self._connection.set_progress_handler(stop, 2_000)
        def __exit__(self, *_): pass
    backup._stoppable = Stopping
else:
    setattr(backup, moment, stop)
backup.create_backup(Path(database), Path(target), busy_timeout_s=10)
"""


@pytest.fixture
def served(serve_as_told: Serve) -> RunningServer:
    """A server on the embedded store."""
    return serve_as_told(*UNLIMITED)


def run(data_dir: Path, *arguments: str, code: int = 0) -> Any:
    """Run a command with --json on that data directory; its answer."""
    done = subprocess.run(
        [OPDATA, *arguments, "--data-dir", str(data_dir), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


def backed_up(server: RunningServer, to: Path) -> Path:
    return Path(run(server.data_dir, "backup", "create", "--to", str(to))["backup"])


def test_a_backup_made_under_load_is_the_state_of_one_moment_and_restores_to_it(
    served: RunningServer, tmp_path: Path, serve_as_told: Serve
) -> None:
    """W25: everything acknowledged before it began is in it."""
    key = served.new_key()
    client = served.client(key)
    client.post("/entities", json=player("person", **PERSON)).raise_for_status()
    writers = [Writer(number, served, key) for number in range(WRITERS)]
    wait_for_a_round_of_each(writers)
    before = [writer.acknowledged for writer in writers]

    backup = backed_up(served, tmp_path)

    wait_for_a_round_of_each(writers)
    for writer in writers:
        writer.finish()
    after = [writer.acknowledged for writer in writers]
    assert served.stop() == 0
    assert run(served.data_dir, "backup", "verify", str(backup))["ok"] is True
    restored = tmp_path / "restored"
    run(restored, "backup", "restore", str(backup))

    stored = stored_at(f"sqlite:///{restored / 'opdata.db'}")
    assert stored.problems() == []
    found = requests_seen(stored, [writer.script for writer in writers])
    assert_as_scripted(stored, found)
    for least, requests, most in zip(before, found.values(), after, strict=True):
        assert least <= requests < most
    (restored / "master.key").write_bytes((served.data_dir / "master.key").read_bytes())
    (restored / "master.key").chmod(0o600)
    again = serve_as_told(data_dir=restored)
    person = again.client(key, template=False).get("/entities/person").json()["data"]
    assert person["data"] == player("person", **PERSON)["data"]
    assert again.stop() == 0


def test_kill_9_while_a_backup_is_made_leaves_none(served: RunningServer, tmp_path: Path) -> None:
    with closing(served.client()) as client:
        client.post("/batch/entities", json=[player(f"p{at}") for at in range(1_000)])
    folder = tmp_path / "backups"
    folder.mkdir()
    database, name = served.data_dir / "opdata.db", "opdata-20260406T120000.000Z.db"
    for moment in ("copying", "_add_record", "publish"):
        command = [sys.executable, "-c", _STOPPING, moment, str(database), str(folder / name)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            process.send_signal(signal.SIGKILL)

        left = list(folder.iterdir())
        assert left
        assert [path for path in left if not path.name.startswith(".")] == []
        # Nobody has written to it for an hour: the next one clears it away.
        for path in left:
            os.utime(path, (time.time() - 3_700,) * 2)

        create_backup(database, folder / name, busy_timeout_s=10)
        assert [path.name for path in folder.iterdir()] == [name]
        (folder / name).unlink()
    assert served.stop() == 0


def test_a_person_erased_since_the_backup_is_erased_again_by_its_restore(
    served: RunningServer, tmp_path: Path, serve_as_told: Serve
) -> None:
    """W51."""
    client = served.client()
    for name in ("erased", "stays", "back"):
        client.post("/entities", json=player(name, **PERSON)).raise_for_status()
    backup = backed_up(served, tmp_path)
    sealed = {name: blob for name, blob in sealed_in(backup).items() if blob}
    assert sealed.keys() == {"erased", "stays", "back"}
    for text in PERSON.values():
        assert text.encode() not in backup.read_bytes()
    for name in ("erased", "back"):
        client.delete(f"/entities/{name}").raise_for_status()
    client.post("/entities", json=player("back", first_name="Anew")).raise_for_status()
    later = backed_up(served, tmp_path)
    assert sealed["erased"][5:] not in later.read_bytes()
    assert served.stop() == 0

    done = run(served.data_dir, "backup", "restore", str(backup), "--force")

    assert (done["erasedAgain"], done["erasuresKnown"], done["held"]) == (2, 2, [])
    files = served.data_dir.glob("opdata.db*")
    live = b"".join(file.read_bytes() for file in files if "replaced" not in file.name)
    assert sealed["stays"] in live
    for name in ("erased", "back"):
        # Its version and key id are those of every record.
        assert sealed[name][5:] not in live
    rows = served.stored.rows("SELECT external_id, sealed IS NULL FROM entities ORDER BY 1")
    assert rows == [("back", 1), ("erased", 1), ("stays", 0)]
    # The ledger came along: an even older backup will be right, too.
    assert served.stored.rows("SELECT count(*) FROM erasure_ledger") == [(2,)]
    again = serve_as_told(data_dir=served.data_dir)
    client = again.client()
    assert client.get("/entities/erased").status_code == 404
    assert client.get("/entities/stays").json()["data"]["data"]["phone"] == PERSON["phone"]
    assert again.stop() == 0


def sealed_in(database: Path) -> dict[str, bytes]:
    flags = apsw.SQLITE_OPEN_READONLY
    with closing(apsw.Connection(str(database), flags=flags)) as connection:
        return dict(connection.execute("SELECT external_id, sealed FROM entities"))


def test_a_restore_is_refused_while_a_server_has_the_database_open_however_idle(
    served: RunningServer, tmp_path: Path
) -> None:
    backup = backed_up(served, tmp_path)
    client = served.client()
    client.post("/entities", json=player("p")).raise_for_status()

    refused = run(served.data_dir, "backup", "restore", str(backup), "--force", code=4)

    assert "is in use; nothing was touched" in refused
    assert served.stored.rows("SELECT external_id FROM entities") == [("p",)]
    client.post("/entities", json=player("q")).raise_for_status()
    assert served.stop() == 0
    assert sorted(path.name for path in served.data_dir.glob("opdata.db*")) == [
        "opdata.db",
        "opdata.db-limits",
    ]
    done = run(served.data_dir, "backup", "restore", str(backup), "--force")
    assert served.stored.rows("SELECT count(*) FROM entities") == [(0,)]
    kept = stored_at(f"sqlite:///{done['keptAs']}")
    assert kept.rows("SELECT external_id FROM entities ORDER BY 1") == [("p",), ("q",)]


# Ends the process, as kill -9 does, after so many changes of names in the last steps.
_ENDING: Final = """
import os, sys
from pathlib import Path
from opdata.storage.sqlite import restore
left = int(sys.argv[1])
def ending(name):
    before = getattr(Path, name)
    def changed(self, *rest, **flags):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return before(self, *rest, **flags)
    setattr(Path, name, changed)
finish = restore.put_in_place
def put_in_place(replacement):
    for name in ("unlink", "replace"):
        ending(name)
    finish(replacement)
from opdata import restoring
restoring.put_in_place = put_in_place
from opdata.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_kill_9_at_any_step_of_a_restore_leaves_the_old_database_or_the_new_one(
    served: RunningServer, tmp_path: Path
) -> None:
    key = served.new_key()
    backup = backed_up(served, tmp_path)
    with closing(served.client(key)) as client:
        client.post("/entities", json=player("later")).raise_for_status()
    served.kill()  # its log is not emptied
    command = ["backup", "restore", str(backup), "--force", "--data-dir", str(served.data_dir)]
    found = []
    for steps in range(9):
        done = subprocess.run(
            [sys.executable, "-c", _ENDING, str(steps), *command], check=False, capture_output=True
        )
        assert served.stored.problems() == []
        found.append(served.stored.rows("SELECT external_id FROM entities"))
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr
    assert done.returncode == 0
    olds = found.index([])
    assert olds > 1
    assert found == [[("later",)]] * olds + [[]] * (len(found) - olds)
    assert list(served.data_dir.glob("*restoring*")) == []


def test_who_opens_the_database_in_the_middle_of_a_restore_gets_what_was_restored(
    served: RunningServer, tmp_path: Path
) -> None:
    backup = backed_up(served, tmp_path)
    served.client().post("/entities", json=player("later")).raise_for_status()
    assert served.stop() == 0
    stopping = """
import sys
from opdata.storage.sqlite import restore
replace = restore.Path.replace
def slow(self, target):
    print("here", flush=True)
    sys.stdin.readline()
    return replace(self, target)
restore.Path.replace = slow
from opdata.cli import main
sys.exit(main(sys.argv[1:]))
"""
    command = ["backup", "restore", str(backup), "--force", "--data-dir", str(served.data_dir)]
    process = subprocess.Popen(
        [sys.executable, "-c", stopping, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    opening = subprocess.Popen(
        [OPDATA, "operators", "create", "late", "--data-dir", str(served.data_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.5)  # it waits for the lock
    assert opening.poll() is None
    process.communicate("go\n", timeout=60)
    opening.communicate(timeout=60)

    assert (process.returncode, opening.returncode) == (0, 0)
    assert examine_backup(backup).problems == []
    assert served.stored.problems() == []
    assert served.stored.rows("SELECT name FROM operators ORDER BY 1") == [("default",), ("late",)]
    assert served.stored.rows("SELECT count(*) FROM entities") == [(0,)]
