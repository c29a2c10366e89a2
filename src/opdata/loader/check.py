"""What `--check` reports: the server's refusals by field and reason, and what a look at the rows finds.

It names fields, rows and reasons. Values and ids, which may be personal, it does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Self

import msgspec
from msgspec import Raw, Struct

from opdata.loader.json_rows import Row, text_of
from opdata.loader.kinds import Kind
from opdata.loader.rejects import Refusal
from opdata.loader.repeats import Repeats

_EXAMPLES = 5
_MAX_REASONS = 1_000
_OTHER = "(various other reasons)"
_IS_MISSING = "missing"
_MISSING = re.compile(r'Missing required field: "(?P<field>[^"]*)"')
_FIELD = re.compile(r'Field "(?P<field>[^"]*)" (?P<reason>.*)', re.DOTALL)
_UNKNOWN = re.compile(r"Unknown (?P<what>entity type|event type|state key)\b.*", re.DOTALL)
_MEASURED = re.compile(r", not \d+$")
_MEMBERS = {"entity type": "entityType", "event type": "eventType", "state key": "stateKey"}
_CODES = {"NOT_FOUND": "externalId", "DUPLICATE_CONFLICT": "idempotencyKey"}
_NULL_WORDS = frozenset(
    b'"%b"' % word
    for word in (b"NULL", b"null", b"Null", rb"\\N", b"N/A", b"n/a", b"#N/A", b"NaN", b"nan")
)

_members = msgspec.json.Decoder(dict[str, Raw])


class Finding(Struct, frozen=True):
    """A reason, the field it is about, and the rows it struck, the first of them by name."""

    field: str
    reason: str
    count: int
    rows: list[str]

    def line(self, read: int) -> str:
        """The finding in words; `read` is how many rows there are."""
        if not self.rows:
            return f"{self.field}: {self.reason}"
        word = "row" if self.count == 1 else "rows"
        share = 100 * self.count / max(read, 1)
        more = ", …" if self.count > len(self.rows) else ""
        return (
            f"{self.field}: {self.reason}: {self.count:,} {word}, {share:.3g} % "
            f"({word} {', '.join(self.rows)}{more})"
        )


class Checked(Struct, frozen=True):
    """The report. An item with several problems is counted under each of them."""

    problems: list[Finding]
    """Why the server would refuse items, most frequent first."""
    remarks: list[Finding]
    """What it would take, and yet may not be meant."""

    def lines(self, read: int) -> list[str]:
        """The report in words."""
        lines = [each.line(read) for each in self.problems]
        if self.remarks:
            lines.append("no reason to refuse, but have a look:")
            lines += [f"  {each.line(read)}" for each in self.remarks]
        return lines


class _Tally:
    """Counts by field and reason, with the lowest rows of each."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, list[int]]] = {}

    def add(self, field: str, reason: str, row: int) -> None:
        cause = (field, reason)
        if cause not in self._found and len(self._found) >= _MAX_REASONS:
            cause = (field, _OTHER)
        count, rows = self._found.get(cause, (0, []))
        if len(rows) < _EXAMPLES or row < rows[-1]:
            rows = sorted([*rows, row])[:_EXAMPLES]
        self._found[cause] = (count + 1, rows)

    def findings(self, label: Callable[[int], str]) -> list[Finding]:
        findings = [
            Finding(field, reason, count, [label(row) for row in rows])
            for (field, reason), (count, rows) in self._found.items()
        ]
        return sorted(findings, key=lambda each: -each.count)


class Check:
    """Gathers what a dry run of one kind tells. Use as a context manager."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._problems = _Tally()
        self._remarks = _Tally()
        self._repeats = Repeats()
        self._filled: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._repeats.close()

    def watch(self, blocks: Iterable[list[Row]]) -> Iterator[list[Row]]:
        """The same blocks, after a look at each of their rows."""
        row = 1
        for block in blocks:
            for number, (item, _) in enumerate(block, row):
                # What cannot be parsed, the server has the word on.
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    self._look_at(_members.decode(item), number)
            yield block
            row += len(block)

    def refused(self, refusals: Iterable[Refusal]) -> None:
        """Items that the server would refuse."""
        for refusal in refusals:
            for field, reason in _reasons(refusal.code, refusal.message):
                self._problems.add(field, reason, refusal.row)

    def report(self, fields: Sequence[str], label: Callable[[int], str]) -> Checked:
        """What has been found. `fields` are the columns there are, `label` names a row."""
        remarks = self._remarks.findings(label)
        count, rows = self._repeats.find(_EXAMPLES)
        if count:
            key, meaning = self._repeated()
            remarks.append(Finding(key, meaning, count, [label(row) for row in rows]))
        remarks += [
            Finding(field, "is empty in every row", 0, [])
            for field in fields
            if field not in self._filled
        ]
        problems = [self._with_likeness(each) for each in self._problems.findings(label)]
        return Checked(problems, remarks)

    def _with_likeness(self, problem: Finding) -> Finding:
        """A missing field may be there under a name that is spelled a little differently."""
        if problem.reason != _IS_MISSING:
            return problem
        alike = [name for name in sorted(self._filled) if _folded(name) == _folded(problem.field)]
        if not alike or problem.field in alike:
            return problem
        reason = f"{_IS_MISSING} (a column is named {alike[0]})"
        return Finding(problem.field, reason, problem.count, problem.rows)

    def _look_at(self, item: dict[str, Raw], row: int) -> None:
        external_id = text_of(item.get("externalId"))
        if external_id is not None and external_id != external_id.strip():
            self._remarks.add("externalId", "has spaces around it", row)
        key = self._key(item)
        if key:
            self._repeats.add(key, row)
        payload = bytes(item.get(self._kind.payload, b""))
        if payload.startswith(b"{"):
            members = _members.decode(payload)
            self._filled.update(members)
            for name, value in members.items():
                if bytes(value) in _NULL_WORDS:
                    word = text_of(value)
                    self._remarks.add(name, f"holds the text {word}", row)

    def _key(self, item: dict[str, Raw]) -> bytes:
        """What makes a row the same as an earlier one; nothing for an event without a key."""
        members = {"entities": ("externalId",), "states": ("externalId", "stateKey")}.get(
            self._kind.name, ("idempotencyKey",)
        )
        return b"\0".join((text_of(item.get(name)) or "").encode() for name in members)

    def _repeated(self) -> tuple[str, str]:
        if self._kind.last_wins:
            return "externalId", "repeats that of an earlier row, which it replaces"
        return "idempotencyKey", "repeats that of an earlier row: the same event, or a conflict"


def _folded(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


@lru_cache(maxsize=1_000)
def _reasons(code: str, message: str) -> list[tuple[str, str]]:
    """The fields a refusal is about, each with its reason (W22)."""
    if code in _CODES:
        return [(_CODES[code], message)]
    return [_reason(problem) for problem in message.split("; ")]


def _reason(problem: str) -> tuple[str, str]:
    if missing := _MISSING.fullmatch(problem):
        return missing["field"], _IS_MISSING
    if wrong := _FIELD.fullmatch(problem):
        return wrong["field"], _MEASURED.sub("", wrong["reason"])
    if unknown := _UNKNOWN.fullmatch(problem):
        return _MEMBERS[unknown["what"]], problem
    return "item", problem
