"""What an export has written, for programs and for people."""

from __future__ import annotations

from msgspec import Struct


class Part(Struct, rename="camel"):
    """The items of one kind in one file."""

    kind: str
    file: str | None
    """None for standard output."""
    items: int = 0
    masked: int = 0
    """Entities whose personal fields read "[encrypted]": a server refuses them when they are loaded."""
    deleted_meanwhile: int = 0
    """Entities that were listed, and gone when their personal fields were to be read."""


class Summary(Struct, rename="camel"):
    """The outcome as `--json` prints it, and on the way there what has become of it so far."""

    parts: list[Part]
    seconds: float = 0.0
    items_per_second: float = 0.0
    waits: dict[str, int] = {}

    @property
    def items(self) -> int:
        """How many items there are in all files together."""
        return sum(part.items for part in self.parts)

    def lines(self) -> list[str]:
        """The outcome in words."""
        lines = []
        for part in self.parts:
            where = "" if part.file is None else f" into {part.file}"
            lines.append(f"{part.kind}: {part.items:,} exported{where}")
            if part.deleted_meanwhile:
                lines.append(f"{part.deleted_meanwhile:,} left out: deleted while they were read")
            if part.masked:
                lines.append(
                    f'{part.masked:,} with personal fields that read "[encrypted]": a server refuses '
                    "them when they are loaded; --personal exports the fields themselves"
                )
        lines.append(f"{self.seconds:,.1f} s, {self.items_per_second:,.0f} items/s")
        if self.waits:
            waits = (f"{reason} ({times:,})" for reason, times in self.waits.items())
            lines.append(f"had to wait: {', '.join(waits)}")
        return lines
