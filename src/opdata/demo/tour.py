"""What the demo shows, in order: files, server, loads, a job, a player, what is encrypted, what next."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx2
import msgspec
from msgspec import Raw, Struct

from opdata.demo.commands import Server, Shell
from opdata.demo.errors import DemoFailed
from opdata.demo.sample import PLAYER_SQL, Sample, SampleFile, write_sample
from opdata.demo.show import Screen

BASE_PATH: Final = "/operator-data-api"

_SHOWN_EVENTS: Final = 5
_MIB: Final = 1024 * 1024
_PIECE_BYTES: Final = 1024 * 1024


class Failure(Struct):
    """All refusals of one cause, as `opdata load --json` tells them."""

    code: str
    message: str
    count: int
    rows: list[int]


class Summary(Struct, rename="camel"):
    """The outcome of a load, as `opdata load --json` prints it."""

    kind: str
    read: int
    succeeded: int
    failed: int
    duplicates: int
    seconds: float
    items_per_second: float
    failures: list[Failure]


class _JobPage(Struct):
    items: list[Raw]


class _EventPage(Struct):
    items: list[dict[str, Raw]]


class Api:
    """One operator's requests; an answer that is no success is a `DemoFailed`."""

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        self._client = httpx2.Client(
            base_url=url + BASE_PATH,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,
        )

    def get(self, path: str) -> Raw:
        """The `data` of the answer, in the text that came."""
        return self._send("GET", path)

    def put(self, path: str, body: str) -> Raw:
        """The `data` of the answer, in the text that came."""
        return self._send("PUT", path, body)

    def _send(self, method: str, path: str, body: str | None = None) -> Raw:
        try:
            answer = self._client.request(method, path, content=body)
        except httpx2.TransportError as error:
            raise DemoFailed(f"{method} {path} got no answer: {error}") from error
        if not answer.is_success:
            raise DemoFailed(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        return msgspec.json.decode(answer.content, type=dict[str, Raw])["data"]


def show(screen: Screen, folder: Path, server: Server, players: int) -> None:
    """Everything, up to a server that runs with the sample in it. Raises `DemoFailed`."""
    screen.heading("Making sample data")
    sample = write_sample(folder, players=players)
    for file in (sample.players, sample.events, sample.states):
        size = file.path.stat().st_size / _MIB
        screen.line(f"{file.path!s:26} {file.rows:7,} rows {size:6.1f} MiB")

    screen.heading("Starting a server, with a key and a template")
    shell = Shell(screen, folder)
    seconds = server.start(shell)
    screen.line(f"ready after {seconds:.1f} s")
    api = Api(server.url, _create_key(shell, server))
    template = '{"templateId": "tpl_igaming"}'
    _show_request(screen, server, "/settings", put=template)
    api.put("/settings", template)

    screen.heading("Loading the files, bad rows and all")
    summaries = _load(screen, shell, server, api, sample)
    _show_failures(screen, summaries)
    _show_job(screen, server, api)
    _show_player(screen, server, api, sample)
    _show_sealing(screen, server, api, sample)
    _show_next(screen, server, api)


def _create_key(shell: Shell, server: Server) -> str:
    made = shell.run_json(
        *("keys", "create", "--operator", "default", "--label", "demo"),
        *("--data-dir", str(server.data_dir)),
    )
    return str(made["key"])


def _show_request(screen: Screen, server: Server, path: str, *, put: str = "") -> None:
    body = f" -X PUT -d '{put}'" if put else ""
    key = '-H "Authorization: Bearer $OPDATA_API_KEY"'
    screen.command(f"curl{body} {key} {server.url}{BASE_PATH}{path}")


def _load(
    screen: Screen, shell: Shell, server: Server, api: Api, sample: Sample
) -> Sequence[Summary]:
    loads: Sequence[tuple[str, SampleFile, Sequence[str]]] = (
        ("entities", sample.players, ("--entity-type", "player", "--sql", PLAYER_SQL)),
        ("events", sample.events, ()),
        ("states", sample.states, ()),
    )
    summaries = []
    for kind, file, options in loads:
        told = shell.run_json(
            *("load", kind, str(file.path), *options),
            accepted=(0, 1),
            OPDATA_URL=server.url,
            OPDATA_API_KEY=api.key,
        )
        summary = msgspec.convert(told, Summary)
        _check(summary, file)
        screen.line(_outcome(summary))
        summaries.append(summary)
    return summaries


def _check(summary: Summary, file: SampleFile) -> None:
    """Raise `DemoFailed` unless exactly the bad rows were refused, for the right reasons."""
    refused: dict[str, int] = {}
    for failure in summary.failures:
        refused[failure.code] = refused.get(failure.code, 0) + failure.count
    told = (summary.read, summary.succeeded, summary.duplicates, refused)
    succeeded = file.rows - sum(file.refused.values())
    if told != (file.rows, succeeded, file.duplicates, dict(file.refused)):
        raise DemoFailed(f"The load of {file.path} did not end as its rows deserve: {summary}")


def _outcome(summary: Summary) -> str:
    counts = f"{summary.succeeded:,} accepted, {summary.failed:,} refused"
    if summary.duplicates:
        counts += f", {summary.duplicates:,} of the accepted sent twice and kept once"
    seconds, rate = summary.seconds, summary.items_per_second
    return f"{summary.read:,} rows in {seconds:.2f} s, {rate:,.0f} rows/s: {counts}"


def _show_failures(screen: Screen, summaries: Sequence[Summary]) -> None:
    screen.heading("What was refused: a bad row never stops its neighbours")
    for summary in summaries:
        for failure in summary.failures:
            rows = ", ".join(f"{row:,}" for row in failure.rows)
            screen.line(
                f"{summary.kind:9} {failure.count} {failure.code:18} {failure.message} (rows {rows})"
            )


def _show_job(screen: Screen, server: Server, api: Api) -> None:
    screen.heading("The record of an entity batch")
    jobs = msgspec.json.decode(api.get("/batch/jobs?limit=1000"), type=_JobPage).items
    job = next(job for job in jobs if b'"VALIDATION_FAILED"' in bytes(job))
    job_id = msgspec.json.decode(job, type=dict[str, Raw])["id"]
    path = f"/batch/jobs/{msgspec.json.decode(job_id)}"
    _show_request(screen, server, path)
    screen.json(bytes(api.get(path)))


def _show_player(screen: Screen, server: Server, api: Api, sample: Sample) -> None:
    path = f"/entities/{sample.star.external_id}"
    screen.heading("A player, decrypted for whoever may read it")
    _show_request(screen, server, path)
    screen.json(bytes(api.get(path)))

    screen.heading("Its latest events, and its states")
    page = msgspec.json.decode(api.get(f"{path}/events?limit={_SHOWN_EVENTS}"), type=_EventPage)
    for event in page.items:
        at, event_type = (msgspec.json.decode(event[name]) for name in ("occurred_at", "eventType"))
        screen.json_line(f"{at}  {event_type:13}", bytes(event["data"]))
    for state in msgspec.json.decode(api.get(f"{path}/state"), type=list[dict[str, Raw]]):
        screen.json_line(f"{msgspec.json.decode(state['stateKey']):12}", bytes(state["value"]))


def _show_sealing(screen: Screen, server: Server, api: Api, sample: Sample) -> None:
    """Look for a personal value in everything that the server has written. Raises `DemoFailed`."""
    star = sample.star
    screen.heading("What the server keeps")
    listed = msgspec.json.decode(api.get("/entities?limit=1"), type=_EventPage).items[0]
    screen.json_line("a list shows", bytes(listed["data"]))
    files = [path for path in server.data_dir.rglob("*") if path.is_file()] + [server.log]
    size = sum(path.stat().st_size for path in files) / _MIB
    if not _occurs(star.external_id, files):
        raise DemoFailed(f"{star.external_id} is nowhere in {server.data_dir}")
    if _occurs(star.email, files):
        raise DemoFailed(f"{star.email} stands in the clear in {server.data_dir} or {server.log}")
    screen.line(
        f"{star.email} occurs in none of the server's {len(files)} files ({size:.1f} MiB, "
        f"database and logs); {star.external_id}, which is not personal, does"
    )


def _occurs(text: str, files: Sequence[Path]) -> bool:
    wanted = text.encode()
    for path in files:
        with path.open("rb") as file:
            before = b""
            while piece := file.read(_PIECE_BYTES):
                if wanted in before + piece:
                    return True
                before = piece[-len(wanted) :]
    return False


def _show_next(screen: Screen, server: Server, api: Api) -> None:
    opdata = os.path.relpath(Path(sys.executable).with_name("opdata"))
    screen.heading("Look around")
    screen.line(f"API docs  {server.url}/docs")
    screen.line(f"Metrics   {server.url}/metrics")
    screen.line(f"Log       {server.log}")
    screen.line(f"Jobs      {opdata} jobs list --data-dir {server.data_dir}")
    screen.heading("A request of your own: paste this into another terminal")
    screen.paste(
        f"""\
export OPDATA_API_KEY={api.key}
curl -X POST {server.url}{BASE_PATH}/batch/entities \\
  -H "Authorization: Bearer $OPDATA_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '[{{"entityType": "player", "externalId": "me", "data": {{"email": "me@example.com",
       "country": "MT", "currency": "EUR", "status": "active"}}}}]'"""
    )
