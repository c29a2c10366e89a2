"""The outcome of a verification, for programs and for people.

It names rows and fields. Values of fields are in it only if they were asked for, those of personal
fields never.
"""

from __future__ import annotations

from msgspec import Struct

from opdata.verify.sample import PersonalCheck

EXAMPLES = 5
"""How many rows or ids are named of each difference."""


class Example(Struct, rename="camel"):
    """A row in which a field differs, with both values as JSON if they are to be shown."""

    row: int
    source: str | None = None
    stored: str | None = None


class FieldDifference(Struct, rename="camel"):
    """A member that differs between rows of the source and of the store."""

    field: str
    count: int
    rows: list[Example]


class Total(Struct, rename="camel"):
    """The numbers of a column on one side. `sum` is None for more digits than are added exactly."""

    numbers: int
    sum: str | None

    def words(self) -> str:
        """The sum, and of how many numbers."""
        return f"{self.sum or 'too long to be added exactly'} ({self.numbers:,} numbers)"


class Sum(Struct, rename="camel"):
    """The sums of a column."""

    column: str
    source: Total
    stored: Total

    @property
    def equal(self) -> bool:
        """Whether they are known to be equal: not if there was nothing to add."""
        return (
            self.source == self.stored and self.source.sum is not None and self.source.numbers > 0
        )


class Summary(Struct, rename="camel"):
    """The outcome as `--json` prints it. Rows are numbered from 1, as a load numbers them."""

    kind: str
    equal: bool
    """Not if the source has nothing to compare and the store has something."""
    read: int
    """Rows of the source."""
    left_out: int
    """Of these, rows of the rejects file."""
    superseded: int
    """Of these, rows that a later one of the same key stands in for."""
    compared: int
    stored: int
    of_other_types: int
    """Items of the store with a type that no row of the source has; they are left aside."""
    missing: int
    missing_rows: list[int]
    extra: int
    extra_ids: list[str]
    partial: bool
    """Whether extra items count as a difference: not if so."""
    different: int
    fields: list[FieldDifference]
    sums: list[Sum]
    personal: PersonalCheck | None
    seconds: float
    waits: dict[str, int]

    def lines(self) -> list[str]:
        """The outcome in words."""
        lines = [
            f"{self.kind}: {self.compared:,} in the source, {self.stored:,} in the store",
            *self._asides(),
        ]
        if not self.compared and not self.equal:
            lines.append("nothing was compared: the source has no rows to compare")
        if self.missing:
            rows = _listed([str(row) for row in self.missing_rows], self.missing)
            lines.append(f"not in the store: {self.missing:,} (rows {rows})")
        if self.extra:
            ids = _listed(self.extra_ids, self.extra)
            aside = "; no difference, the source is partial" if self.partial else ""
            lines.append(f"not in the source: {self.extra:,} (externalId {ids}){aside}")
        if self.different:
            lines.append(f"different: {self.different:,}")
            for field in self.fields:
                rows = _listed([str(each.row) for each in field.rows], field.count)
                lines.append(f"  {field.field}: {field.count:,} (rows {rows})")
                lines += [
                    f"    row {each.row}: {each.source or 'absent'} in the source, "
                    f"{each.stored or 'absent'} in the store"
                    for each in field.rows
                    if each.source is not None or each.stored is not None
                ]
        for each in self.sums:
            verdict = "equal" if each.equal else "different"
            if not each.source.numbers and not each.stored.numbers:
                verdict = "nothing to compare, for no number stands under that name"
            lines.append(
                f"sum of {each.column}: {each.source.words()} in the source, "
                f"{each.stored.words()} in the store: {verdict}"
            )
        lines += self._personal_lines()
        if self.waits:
            waits = (f"{reason} ({times:,})" for reason, times in self.waits.items())
            lines.append(f"had to wait: {', '.join(waits)}")
        lines.append(f"{self._verdict()}, {self.seconds:,.1f} s")
        return lines

    def _verdict(self) -> str:
        if self.equal:
            return "equal"
        rows = self.missing or self.different or (self.extra and not self.partial)
        sums = any(
            each.source.numbers or each.stored.numbers for each in self.sums if not each.equal
        )
        personal = self.personal is not None and self.personal.different
        return "different" if rows or sums or personal else "not shown to be equal"

    def _asides(self) -> list[str]:
        counts = [
            (self.left_out, "rows of the source left out: they are in the rejects file"),
            (self.superseded, "rows of the source left out: others of the same key stand for them"),
            (
                self.of_other_types,
                "items of the store left aside: the source has none of their type",
            ),
        ]
        return [f"{count:,} {what}" for count, what in counts if count]

    def _personal_lines(self) -> list[str]:
        if self.personal is None:
            return []
        check = self.personal
        read = f"{check.checked:,} entities read one by one (--seed {check.seed})"
        lines = [f"personal fields: {read}, {check.different:,} different"]
        for name, rows in check.fields.items():
            lines.append(
                f"  data.{name}: {len(rows):,} "
                f"(rows {_listed([str(row) for row in rows[:EXAMPLES]], len(rows))})"
            )
        return lines


def _listed(examples: list[str], count: int) -> str:
    return ", ".join(examples) + (", …" if count > len(examples) else "")
