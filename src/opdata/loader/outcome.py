"""What became of the items of one batch, and of many: counts, and refusals by cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from opdata.loader.rejects import Refusal

_EXAMPLE_ROWS = 5
_MAX_CAUSES = 100
_OTHER_CAUSES = "(various other causes)"


class Failure(Struct):
    """All refusals of one cause, with the first rows it struck."""

    code: str
    message: str
    count: int
    rows: list[int]
    places: list[str] = field(default_factory=list)
    """The same rows, of several files by the file and the row in it; told when the source was read."""


class Failures:
    """Refusals by cause; when there are very many causes, the rest of them by their code."""

    def __init__(self) -> None:
        self._by_cause: dict[tuple[str, str], Failure] = {}

    def add(self, failures: Iterable[Failure]) -> None:
        """Add refusals that were counted before."""
        for failure in failures:
            self._count(failure.code, failure.message, failure.count, failure.rows)

    def add_refusals(self, refusals: Iterable[Refusal]) -> None:
        """Count refusals one by one."""
        for refusal in refusals:
            self._count(refusal.code, refusal.message, 1, [refusal.row])

    def most_frequent_first(self) -> list[Failure]:
        """All causes."""
        return sorted(self._by_cause.values(), key=lambda each: -each.count)

    def _count(self, code: str, message: str, count: int, rows: Sequence[int]) -> None:
        cause = (code, message)
        if cause not in self._by_cause and len(self._by_cause) >= _MAX_CAUSES:
            cause = (code, _OTHER_CAUSES)
        failure = self._by_cause.setdefault(cause, Failure(*cause, 0, []))
        failure.count += count
        # Answers come in any order; the lowest rows are the easiest to find.
        failure.rows = sorted([*failure.rows, *rows])[:_EXAMPLE_ROWS]


class Outcome(Struct):
    """What is known of one batch; it grows as the batch's parts are answered."""

    succeeded: int = 0
    duplicates: int = 0
    already_loaded: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)
    unsent: int = 0
    """Items that the server refused as a whole, and so did not store."""

    @property
    def failed(self) -> int:
        """Items that were refused."""
        return len(self.refusals)
