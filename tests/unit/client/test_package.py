"""The package from outside: what importing it loads, what a type checker says, what is generated."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import opdata
from opdata.client.async_client import AsyncClient
from opdata.client.sync.client import Client
from tools import generate_sync

ROOT = Path(__file__).parents[3]
CLIENTS = ["httpx2", "msgspec"]
OTHERS = ["apsw", "asyncpg", "cryptography", "cyclopts", "duckdb", "rich", "starlette", "structlog"]
BLOCKING = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(sys.argv[1].split(",")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


@pytest.mark.parametrize("source", generate_sync.SOURCES)
def test_the_blocking_client_is_what_its_source_makes_it(source: str) -> None:
    assert generate_sync.target_of(source).read_text() == generate_sync.generated(source)


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    asynchronous = calls(AsyncClient)
    asynchronous["close"] = asynchronous.pop("aclose")
    assert calls(Client) == asynchronous


def test_every_public_name_is_there() -> None:
    for name in opdata.__all__:
        assert getattr(opdata, name) is not None
    assert set(opdata.__all__) <= set(dir(opdata))
    with pytest.raises(AttributeError, match="has no attribute 'Clinet'"):
        opdata.Clinet  # type: ignore[attr-defined] # noqa: B018 - the point


def test_importing_opdata_loads_nothing_and_its_client_only_what_it_needs() -> None:
    code = """
import sys
import opdata
assert not {"httpx2", "msgspec"} & sys.modules.keys()
from opdata import *
ours = {name for name in sys.modules if name.startswith("opdata.")}
assert all(name.startswith("opdata.client") for name in ours), ours
print(*(set(sys.argv[1].split(",")) & sys.modules.keys()))
"""
    done = run(code, ",".join(OTHERS))
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_the_client_works_where_nothing_else_is_installed() -> None:
    code = f"""{BLOCKING}
from opdata import Entity
from opdata.testing import FakeServer
fake = FakeServer()
with fake.client() as client:
    client.send_entities([Entity(entity_type="player", external_id="p1", data={{}})])
print(*fake.entities)
"""
    done = run(code, ",".join(OTHERS))
    assert (done.returncode, done.stdout.split()) == (0, ["p1"]), done.stderr


@pytest.mark.parametrize(
    ("missing", "command", "package", "extra"),
    [
        ("cyclopts", "load events a.csv", "cyclopts", "load"),
        ("cyclopts", "serve", "cyclopts", "server"),
        ("duckdb", "load events a.csv", "duckdb", "load"),
        ("uvicorn", "serve", "uvicorn", "server"),
        ("backports,compression", "serve", "backports", "server"),
        ("apsw", "keys list --operator x", "apsw", "server"),
    ],
)
def test_a_command_without_its_extra_says_which_one_it_is(
    tmp_path: Path, missing: str, command: str, package: str, extra: str
) -> None:
    if package == "backports" and sys.version_info >= (3, 14):
        pytest.skip("zstd is in the standard library")
    code = f"{BLOCKING}\nfrom opdata.__main__ import main\nsys.exit(main(sys.argv[2:]))"
    done = run(code, missing, *command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"opdata: {package} is not installed. "
        f"Install the extra with it: pip install 'opdata[{extra}]'\n"
    )


def test_a_fault_of_ours_is_not_taken_for_a_missing_extra(tmp_path: Path) -> None:
    code = f"{BLOCKING}\nfrom opdata.__main__ import main\nsys.exit(main(sys.argv[2:]))"
    done = run(code, "uuid", "serve", cwd=tmp_path)
    assert done.returncode == 1
    assert "No module named 'uuid'" in done.stderr


def test_loading_needs_nothing_of_the_servers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("externalId\np1\n")
    needs_not = "apsw,starlette,uvicorn,cryptography,structlog,prometheus_client,uvloop"
    code = f"""{BLOCKING}
import os
os.environ["OPDATA_API_KEY"] = "k"
os.environ["XDG_STATE_HOME"] = os.getcwd()
from opdata.__main__ import main
sys.exit(main(sys.argv[2:]))
"""
    nowhere = ["--url", "http://127.0.0.1:9", "--give-up-after", "0"]
    done = run(
        code, needs_not, "load", "events", "a.csv", "--event-type", "x", *nowhere, cwd=tmp_path
    )
    assert done.returncode == 4, done.stderr
    assert "cannot be reached" in done.stderr


USER = """
from decimal import Decimal

import opdata
from opdata import AsyncClient, Client, Entity, Event, OutcomeUnknown

rows: list[tuple[str, Decimal]] = [("p1", Decimal("1.00"))]


def as_event(row: tuple[str, Decimal]) -> Event:
    return Event(external_id=row[0], event_type="bonus", data={"amount": row[1]})


def blocking(client: Client) -> None:
    reveal_type(client.send_events(rows, to_item=as_event))
    reveal_type(client.send_entities([Entity(entity_type="p", external_id="1", data={})]).errors)
    for chunk in client.stream_events(map(as_event, rows), concurrency=4):
        reveal_type(chunk.rows)
    queued = client.queue_events(rows, to_item=as_event)
    reveal_type(queued.batches[0].rows)
    reveal_type(client.wait_for_batches(queued))
    reveal_type(client.list_entities().items)
    reveal_type(client.get_settings().template)
    for event in client.iter_events("p1"):
        reveal_type(event.occurred_at)
    try:
        reveal_type(client.put_entity(Entity(entity_type="p", external_id="1", data={})).action)
    except OutcomeUnknown as error:
        reveal_type(error.idempotency_key)
    reveal_type(client.within(5))
    client.send_events(rows)
    client.send_events(rows, to_item=str)
    client.list_jobs(status="done")
    Entity("p", "1", {})
    opdata.Clinet


async def asynchronous(client: AsyncClient) -> None:
    reveal_type(await client.send_events(rows, to_item=as_event))
    async for entity in client.iter_entities():
        reveal_type(entity)
    client.get_entity("p1").data
"""


def test_a_strict_type_checker_knows_every_call_from_outside(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "user.py"),
            # With the cache of `make check`, what takes long is done already.
            *("--config-file", str(ROOT / "pyproject.toml")),
            *("--cache-dir", str(ROOT / ".mypy_cache")),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    found = [line.partition(": ")[2] for line in done.stdout.splitlines()[:-1]]
    row = "tuple[str, decimal.Decimal]"
    revealed = [
        f"opdata.client.results.BatchResult[{row}]",
        "list[opdata.client.results.ItemError[opdata.client.items.Entity]]",
        "typing.Sequence[opdata.client.items.Event]",
        f"typing.Sequence[{row}]",
        f"opdata.client.results.BatchResult[{row}]",
        "list[opdata.client.records.StoredEntity]",
        "opdata.client.records.TemplateRef | None",
        "datetime.datetime",
        "Literal['created'] | Literal['updated']",
        "str | None",
        "opdata.client.sync.client.Client",
        f"opdata.client.results.BatchResult[{row}]",
        "opdata.client.records.StoredEntity",
    ]
    notes = [line for line in found if line.startswith("note: Revealed")]
    assert notes == [f'note: Revealed type is "{kind}"' for kind in revealed]
    errors = [line for line in found if line.startswith("error: ")]
    assert [line.rpartition("[")[2].rstrip("]") for line in errors] == [
        "type-var",
        "arg-type",
        "arg-type",
        "call-arg",
        "attr-defined",
        "attr-defined",
    ], done.stdout
