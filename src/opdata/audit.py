"""The audit log's entries: who did what and when, and the hashes that chain them.

What the log proves and what it does not: docs/audit.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, Literal, get_args

import msgspec
from msgspec import Struct

from opdata.clock import format_ms, now_ms
from opdata.model import SCOPES, ApiKey

Action = Literal[
    "key.created",
    "key.relabelled",
    "key.revoked",
    "settings.changed",
    "entity.erased",
    "erasures.adopted",
    "hold.placed",
    "hold.lifted",
    "personal.revealed",
    "operator.created",
    "operator.suspended",
    "operator.resumed",
    "operator.limited",
    "backup.restored",
    "retention.run",
    "crypto.key_added",
    "crypto.rotated",
    "crypto.data_key_added",
]
"""What can be in the log; docs/audit.md says of each when it is recorded and what its detail has."""

ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
INSTALLATION: Final = 0
"""The operator id of the chain of what is no single operator's."""
SERVER: Final = "server"
"""The actor of what a server does unasked."""

_HEAD: Final = re.compile(r"(?P<operator>[0-9]{1,18}):(?P<seq>[0-9]{1,18}):(?P<hash>[0-9a-f]{64})")


class Entry(Struct, frozen=True):
    """Something that is to be recorded.

    `actor` is `key:<key id>`, `cli:<user of the operating system>` or `SERVER`; `subject` the id of
    what was acted on, where it is one thing. Clients read both and `detail`, and nobody can erase
    them: ids that are ours and settings only, no personal data, no external id, nobody's free text.
    """

    action: Action
    actor: str
    subject: str | None = None
    detail: Mapping[str, object] = {}
    at_ms: int = msgspec.field(default_factory=now_ms)


class Record(Struct, frozen=True):
    """An entry as it is stored: the `seq`-th of its chain, from 1. `detail` is the text of a JSON object."""

    operator_id: int
    seq: int
    at_ms: int
    action: str
    actor: str
    subject: str | None
    detail: str
    hash: bytes


class Head(Struct, frozen=True):
    """The last entry of a chain; `seq` is 0 and `hash` empty before the first."""

    operator_id: int
    seq: int = 0
    hash: bytes = b""

    def __str__(self) -> str:
        """As `parse_head` takes it: `3:42:` and the hash in hex."""
        return f"{self.operator_id}:{self.seq}:{self.hash.hex()}"


def key_actor(key_id: str) -> str:
    """The actor of a request made with that key."""
    return f"key:{key_id}"


def key_detail(key: ApiKey) -> Mapping[str, object]:
    """What an entry says of a new key. Not its label, which is somebody's own words."""
    expires_at_ms = key.expires_at_ms
    return {
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "expiresAt": None if expires_at_ms is None else format_ms(expires_at_ms),
    }


def parse_head(text: str) -> Head | None:
    """A head as `str` writes it; None for anything else."""
    found = _HEAD.fullmatch(text)
    if found is None:
        return None
    return Head(int(found["operator"]), int(found["seq"]), bytes.fromhex(found["hash"]))


def chained(head: Head, entries: Iterable[Entry]) -> list[Record]:
    """The entries as they follow that head."""
    records: list[Record] = []
    for entry in entries:
        record = Record(
            head.operator_id,
            head.seq + 1,
            entry.at_ms,
            entry.action,
            entry.actor,
            entry.subject,
            msgspec.json.encode(entry.detail, order="sorted").decode(),
            b"",
        )
        record = msgspec.structs.replace(record, hash=hash_of(record, head.hash))
        records.append(record)
        head = head_at(record)
    return records


def head_at(record: Record) -> Head:
    """The head of the chain that ends with that record."""
    return Head(record.operator_id, record.seq, record.hash)


def hash_of(record: Record, previous: bytes) -> bytes:
    """SHA-256 of the hash before it, empty for the first entry, and everything the record says.

    Each part is a netstring, its length in bytes before it, so that no two records read alike; a
    subject that is null is `-,`.
    """
    parts = (
        previous.hex(),
        str(record.operator_id),
        str(record.seq),
        str(record.at_ms),
        record.action,
        record.actor,
        record.subject,
        record.detail,
    )
    return sha256(b"".join(map(_netstring, parts))).digest()


def flaw(record: Record, head: Head) -> str | None:
    """What is wrong with a record that comes after that head; None when it follows."""
    if record.seq != head.seq + 1:
        return f"entry {head.seq + 1} is missing"
    if record.hash != hash_of(record, head.hash):
        return f"entry {record.seq}, or the one before it, is not what was recorded"
    return None


def _netstring(text: str | None) -> bytes:
    if text is None:
        return b"-,"
    data = text.encode()
    return b"%d:%s," % (len(data), data)
