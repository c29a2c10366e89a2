"""What a run does at a time, what it tells while it is under way, and what it has done in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, field

from opdata.storage.archive import FileState, Kind

Step = Literal[
    "leased", "writing", "written", "published", "moving", "removed", "kept", "rewritten", "left"
]
"""What has just become durable, or for `written` is complete."""


class Progress(Struct, frozen=True):
    """A step that was done, and how many rows it was about."""

    operator: str
    step: Step
    kind: Kind
    rows: int


class Pace(Struct, frozen=True):
    """How much at a time, and for how long to rest after a step, in lengths of the step.

    `file_rows` is the most that a file takes, `file_bytes` of payload how much it takes with about a
    page more, `page_rows` what is read at a time.
    """

    file_rows: int = 50_000
    file_bytes: int = 32 * 1024 * 1024
    page_rows: int = 2_000
    step_rows: int = 500
    rest: float = 1.0


class Report(Struct):
    """What a run did. Rows by kind: into archive files, deleted from the live tables, and from files.

    `records` are those of erased entities of which nothing was left.
    """

    operator: str
    archived: Counter[Kind] = field(default_factory=Counter)
    deleted: Counter[Kind] = field(default_factory=Counter)
    expired: Counter[Kind] = field(default_factory=Counter)
    held: Counter[Kind] = field(default_factory=Counter)
    files: int = 0
    records: int = 0
    taken_up: int = 0
    problems: list[str] = []
    stopped: bool = False

    @property
    def changed(self) -> bool:
        """Whether anything is not as it was before."""
        rows = self.archived.total() + self.deleted.total() + self.expired.total()
        return bool(rows or self.records or self.taken_up)

    @property
    def counts(self) -> Mapping[str, object]:
        """What has changed, for the audit log and for programs."""
        return {
            "archived": dict(self.archived),
            "deleted": dict(self.deleted),
            "expired": dict(self.expired),
            "files": self.files,
            "records": self.records,
            "takenUp": self.taken_up,
        }


STEP_OF: Final[dict[FileState, Step]] = {
    "writing": "writing",
    "moving": "moving",
    "kept": "kept",
    "leaving": "left",
}
