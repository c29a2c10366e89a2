"""The options of `opdata load` that say how items are sent, and to where."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import httpx2
from cyclopts import Parameter
from msgspec import structs

from opdata.cli.remote import DEFAULT_URL, GiveUpAfter, Url, api_key, checked_url, patience
from opdata.loader.errors import LoadError
from opdata.loader.plan import Plan
from opdata.loader.resuming import Resumable, checkpoint_for, checkpoints_for_plan, masked
from opdata.loader.run import Load
from opdata.loader.run_plan import StepLoad
from opdata.loader.selection import Selection
from opdata.loader.tolerance import Tolerance

MAX_CONCURRENCY = 64


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SendingOptions:
    """What every kind, and a plan, takes."""

    batch_size: Annotated[
        int | None, Parameter(help="Items in a request. Default: the most the endpoint takes.")
    ] = None
    concurrency: Annotated[
        int,
        Parameter(
            help="Requests under way at a time, at most: as many as pay, and fewer when the server is "
            "busy.",
            show_default=True,
        ),
    ] = 8
    compress: Annotated[
        Literal["auto", "on", "off"],
        Parameter(
            help="Send bodies as gzip. auto: unless the server is this machine.", show_default=True
        ),
    ] = "auto"
    dry_run: Annotated[
        bool,
        Parameter(
            name=["--check", "--dry-run"],
            help="Let the server check everything and write nothing, and report by field and reason.",
        ),
    ] = False
    rejects: Annotated[
        Path | None,
        Parameter(
            help="Write refused items to this file, one a line (of load all: to a directory, a file a "
            "step). It holds personal data."
        ),
    ] = None
    max_errors: Annotated[
        str | None,
        Parameter(
            help="Stop when more items than this were refused: a number, or P% of the items."
        ),
    ] = None
    resume: Annotated[
        bool, Parameter(help="Go on with a load of the same sources that ended before it was done.")
    ] = False
    checkpoint: Annotated[
        Path | None,
        Parameter(
            help="The file that says what is acknowledged (of load all: a directory). Default: in the "
            "home directory, below .local/state/opdata."
        ),
    ] = None
    send_unsure: Annotated[
        bool,
        Parameter(
            help="With --resume: send events again of which nobody can tell whether they are stored."
        ),
    ] = False
    give_up_after: GiveUpAfter = 300.0
    url: Url = DEFAULT_URL
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print the summary as JSON, for programs.")
    ] = False

    def load(self, selection: Selection) -> Load:
        """The load of one source. Raises `LoadError` and `WrongOption` for what cannot be."""
        load = self._load(selection)
        if self.dry_run:
            return load
        key = masked(load.api_key)
        path = self._place(
            lambda: checkpoint_for(selection, url=load.url, masked_key=key, resume=self.resume)
        )
        if path is None:
            return load
        return structs.replace(load, resumable=self._resumable_at(path, keep=False))

    def plan_loads(self, plan: Plan) -> list[StepLoad]:
        """The loads of a plan's steps, each with its rejects and its checkpoint in a file of its own.

        Raises `LoadError` and `WrongOption`.
        """
        loads = []
        for step in plan.steps:
            load = self._load(step.selection)
            rejects = self.rejects and self.rejects / f"{step.name}.ndjson"
            loads.append(StepLoad(step.name, structs.replace(load, rejects=rejects)))
        if self.rejects is not None:
            self._make_rejects_directory(self.rejects, plan)
        if self.dry_run or not loads:
            return loads
        url, key = loads[0].load.url, masked(loads[0].load.api_key)
        directory = self._place(
            lambda: checkpoints_for_plan(plan.path, url=url, masked_key=key, resume=self.resume)
        )
        if directory is not None:
            loads = [self._with_checkpoint(step, directory) for step in loads]
        return loads

    def _with_checkpoint(self, step: StepLoad, directory: Path) -> StepLoad:
        resumable = self._resumable_at(directory / f"{step.name}.checkpoint", keep=True)
        return StepLoad(step.name, structs.replace(step.load, resumable=resumable))

    def _make_rejects_directory(self, rejects: Path, plan: Plan) -> None:
        if rejects.resolve() == plan.path.resolve():
            raise LoadError(f"{rejects} is what is loaded; write the rejects to another directory")
        try:
            rejects.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LoadError(f"--rejects: {rejects} is no directory: {error.strerror}") from None

    def _load(self, selection: Selection) -> Load:
        kind = selection.kind
        batch_size = kind.max_items if self.batch_size is None else self.batch_size
        if not 1 <= batch_size <= kind.max_items:
            raise LoadError(f"--batch-size must be 1 to {kind.max_items} for {kind.name}")
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise LoadError(f"--concurrency must be 1 to {MAX_CONCURRENCY}")
        if self.dry_run and self.resume:
            raise LoadError("--check writes nothing, and so there is nothing to --resume")
        for name, path in {"--rejects": self.rejects, "--checkpoint": self.checkpoint}.items():
            if path is not None and not path.parent.is_dir():
                raise LoadError(f"{name}: there is no directory {path.parent}")
        url = checked_url(self.url)
        return Load(
            selection=selection,
            url=url,
            api_key=api_key(),
            batch_size=batch_size,
            concurrency=self.concurrency,
            dry_run=self.dry_run,
            compress=self.compress == "on" or (self.compress == "auto" and not _is_near(url)),
            rejects=self.rejects,
            tolerance=None if self.max_errors is None else Tolerance.parse(self.max_errors),
            backoff=patience(self.give_up_after),
        )

    def _place(self, default: Callable[[], Path]) -> Path | None:
        """Where a checkpoint is kept; None when nobody asked for one, and there is no place for it."""
        try:
            return self.checkpoint or default()
        except LoadError:
            if self.resume:
                raise
            return None

    def _resumable_at(self, path: Path, *, keep: bool) -> Resumable:
        return Resumable(
            path=path,
            resume=self.resume,
            required=self.resume or self.checkpoint is not None,
            send_unsure=self.send_unsure,
            keep=keep,
        )


def _is_near(url: str) -> bool:
    """Whether the server is this machine: compressing costs more there than it saves."""
    host = httpx2.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
