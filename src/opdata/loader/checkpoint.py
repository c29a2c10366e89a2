"""The checkpoint of a load: which batches are acknowledged, so that the load can be resumed.

An NDJSON file that is only ever appended to. Its first line says which load it is of; then there is a
line for every batch, and every part of one, before it is sent, one before a batch that is too large goes
on in halves, and one when all items of a batch have been answered. A line is on the
disk before what it speaks of goes on: a batch that may have been stored is always known to have been
sent, and a batch is recorded as acknowledged before another that has to come after it leaves. Batches
are acknowledged in any order, so the file tells a set and not a position.

It holds digests, counts, row numbers and the server's words about causes: nothing of the items.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from opdata.files import flush
from opdata.loader.batches import Batch
from opdata.loader.durable import Appender, make_folder
from opdata.loader.errors import LoadError
from opdata.loader.outcome import Failure, Failures, Outcome

_VERSION = 1
_DIGEST_HEX = 32
_HOUR_S = 3600
_ACKNOWLEDGED = b'"line":"acknowledged"'
UNSURE_AFTER_S = 24 * _HOUR_S - 600
"""How long the server tells a repeated batch from a new one (W40), less some time to get there."""


class NoCheckpoint(LoadError):
    """The file cannot be made, or another load has it."""


class _Header(Struct, tag="load", tag_field="line"):
    version: int
    nonce: str
    identity: dict[str, str]
    masked_key: str
    """Of the API key that the load was begun with."""


class _Sent(Struct, tag="sent", tag_field="line"):
    number: int
    digest: str
    at_s: float
    part: str = ""


class _Split(Struct, tag="split", tag_field="line"):
    """The server found a batch, or a part of one, too large, and did nothing of it."""

    number: int
    part: str


class Acknowledged(Struct, tag="acknowledged", tag_field="line"):
    """A batch all of whose items were answered."""

    number: int
    first_row: int
    last_row: int
    succeeded: int
    failed: int
    duplicates: int
    failures: list[Failure]
    job_ids: list[str]


class _Complete(Struct, tag="complete", tag_field="line"):
    at_s: float


_lines = msgspec.json.Decoder(_Header | _Sent | _Split | Acknowledged | _Complete)
_encode = msgspec.json.Encoder().encode


class Checkpoint:
    """The file of one load, locked as long as it is open. Use as a context manager.

    With `resume` an existing file is gone on with, else it is begun anew when something is first sent.
    Raises `LoadError` when another load has it open, when it is something else than a checkpoint, or
    when it is to be resumed and is of a load that `identity` tells apart: a name and a digest for each
    thing that must not change in between. Once the load is complete the file goes, unless it is to be
    kept: then it tells that the load is.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, str],
        *,
        masked_key: str,
        resume: bool,
        keep: bool = False,
    ) -> None:
        self.path = path
        self._keep = keep
        self.masked_key = masked_key
        """Of the API key that the load was begun with."""
        self.nonce = secrets.token_hex(16)
        self.is_resumed = False
        self.is_complete = False
        self.left_behind = 0
        """Batches that an unfinished load, which was not to be resumed, had had acknowledged."""
        self.acknowledged: dict[int, Acknowledged] = {}
        """By earlier runs. Those of this one are not kept in memory, and never come again."""
        self._identity = dict(identity)
        self._is_written = False
        """Whether the file is this load's already."""
        self._sent: dict[tuple[int, str], _Sent] = {}
        """By earlier runs, batches and parts of them."""
        self._split: set[tuple[int, str]] = set()
        """By earlier runs."""
        self._last_sent_before = 0
        """The highest number that an earlier run had sent."""
        self._lock = Lock()
        try:
            make_folder(path.parent)
            self._descriptor = _open_locked(path)
        except OSError as error:
            message = f"the checkpoint {path} cannot be written: {error.strerror}"
            raise NoCheckpoint(message) from None
        self._file = Appender(self._descriptor, f"the checkpoint {path}")
        try:
            self._open(resume=resume)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        is_wanted = self._keep if self.is_complete else self._is_written or self.left_behind
        if not is_wanted:
            self.remove()
        os.close(self._descriptor)

    @property
    def is_begun(self) -> bool:
        """Whether anything was sent."""
        return self._is_written

    def is_acknowledged(self, batch: Batch) -> bool:
        """Whether every item of the batch was answered before.

        Raises `LoadError` when another batch was sent in its place: the source is not the same.
        """
        sent = self._sent.get((batch.number, batch.part))
        if sent is not None and sent.digest != _hex(batch):
            raise LoadError(
                f"rows {batch.rows[0]:,} to {batch.rows[-1]:,} of the source are not those that were "
                f"sent before the load was resumed ({self.path})"
            )
        return batch.number in self.acknowledged

    def is_unsure(self, batch: Batch) -> bool:
        """Whether the batch was under way when the load ended, so long ago that it is not told again."""
        sent = self._sent.get((batch.number, batch.part))
        return (
            sent is not None
            and batch.number not in self.acknowledged
            and time.time() - sent.at_s > UNSURE_AFTER_S
        )

    def was_sent(self, part: Batch) -> bool:
        """Whether an earlier run sent this batch or part: it may have been stored."""
        return (part.number, part.part) in self._sent

    def was_split(self, part: Batch) -> bool:
        """Whether an earlier run sent this batch or part in halves, as nothing was stored of the whole."""
        return (part.number, part.part) in self._split

    def check_end(self, last_number: int) -> None:
        """The source had so many batches. Raises `LoadError` when more were sent before."""
        if self._last_sent_before > last_number:
            raise LoadError(
                f"the source has fewer rows than were sent before the load was resumed ({self.path})"
            )

    def covered_rows(self) -> Callable[[int], bool]:
        """Tells whether a row is in a batch that an earlier run had had acknowledged."""
        spans = sorted((done.first_row, done.last_row) for done in self.acknowledged.values())

        def covers(row: int) -> bool:
            at = bisect_right(spans, row, key=itemgetter(0)) - 1
            return at >= 0 and row <= spans[at][1]

        return covers

    def sending(self, batch: Batch) -> None:
        """The batch, or a part of one, is about to leave. Blocks until that is on the disk."""
        if self.was_sent(batch):
            return
        self._append(_Sent(batch.number, _hex(batch), time.time(), batch.part))

    def splitting(self, batch: Batch) -> None:
        """The halves of the batch, or part, are about to leave. Blocks until that is on the disk."""
        self._append(_Split(batch.number, batch.part))

    def acknowledge(self, batch: Batch, outcome: Outcome) -> None:
        """All items of the batch were answered. Blocks until that is on the disk."""
        failures = Failures()
        failures.add_refusals(outcome.refusals)
        done = Acknowledged(
            number=batch.number,
            first_row=batch.rows[0],
            last_row=batch.rows[-1],
            succeeded=outcome.succeeded,
            failed=outcome.failed,
            duplicates=outcome.duplicates,
            failures=failures.most_frequent_first(),
            job_ids=outcome.job_ids,
        )
        self._append(done)

    def complete(self) -> None:
        """The whole source was answered."""
        self._append(_Complete(time.time()))
        self.is_complete = True

    def remove(self) -> None:
        """Remove the file."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _open(self, *, resume: bool) -> None:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            text = file.read()
        if not text:
            return
        whole = text[: text.rfind(b"\n") + 1]
        lines = whole.splitlines()
        header = self._decoded_header(lines[0] if lines else text, torn=not lines)
        if header is None or not resume:
            self.left_behind = sum(_ACKNOWLEDGED in line for line in lines)
            return
        self._check(header)
        self._read(lines[1:])
        self._last_sent_before = max((number for number, _ in self._sent), default=0)
        self.nonce = header.nonce
        self.masked_key = header.masked_key
        self.is_resumed = self._is_written = True
        os.ftruncate(self._descriptor, len(whole))

    def _begin(self) -> None:
        os.ftruncate(self._descriptor, 0)
        # A file that was there before kept its mode.
        os.fchmod(self._descriptor, 0o600)
        header = _Header(_VERSION, self.nonce, self._identity, self.masked_key)
        self._file.append(_encode(header) + b"\n")
        flush(self.path.parent)
        self._is_written = True
        self.left_behind = 0

    def _decoded_header(self, line: bytes, *, torn: bool) -> _Header | None:
        """The first line; None for one that was being written when the load was killed."""
        if torn and b'{"line":"load"'.startswith(line[:14]):
            return None
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            header = _lines.decode(line)
            if isinstance(header, _Header) and header.version == _VERSION:
                return header
        raise LoadError(
            f"{self.path} is not a checkpoint of this version of opdata; it is left alone"
        )

    def _check(self, header: _Header) -> None:
        identity = self._identity
        names = dict.fromkeys((*identity, *header.identity))
        changed = [name for name in names if header.identity.get(name) != identity.get(name)]
        if changed:
            raise LoadError(
                f"--resume: not what it was when the load began: {', '.join(changed)}. Resume with what "
                f"was given then, or begin anew without --resume ({self.path})"
            )

    def _read(self, lines: Sequence[bytes]) -> None:
        for at, line in enumerate(lines, 2):
            try:
                read = _lines.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise LoadError(f"{self.path} is damaged in line {at}") from None
            if isinstance(read, _Sent):
                self._sent[read.number, read.part] = read
            elif isinstance(read, _Split):
                self._split.add((read.number, read.part))
            elif isinstance(read, Acknowledged):
                self.acknowledged[read.number] = read
            elif isinstance(read, _Complete):
                self.is_complete = True

    def _append(self, line: Struct) -> None:
        with self._lock:
            if not self._is_written:
                self._begin()
            self._file.append(_encode(line) + b"\n")


def discard(path: Path) -> None:
    """Remove a checkpoint of an earlier load. Raises `LoadError` when a load is using it."""
    if path.exists():
        with Checkpoint(path, {}, masked_key="", resume=False) as checkpoint:
            checkpoint.remove()


def _hex(batch: Batch) -> str:
    return batch.digest.hex()[:_DIGEST_HEX]


def _open_locked(path: Path) -> int:
    """Open and lock the file of that name. Raises `NoCheckpoint` when another load has it, `OSError`."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A load that ended in between has taken the file away: what we hold may have no name.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            os.close(descriptor)
        except OSError as error:
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            raise NoCheckpoint(
                f"another load of these sources is running and has the checkpoint {path}; "
                "--checkpoint FILE gives this one its own"
            ) from None
