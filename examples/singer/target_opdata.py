#!/usr/bin/env python3
"""A Singer target: reads a tap's messages from standard input and sends the records to an opdata server.

A state is written to standard output only when every record before it is on the server's disk. After a
crash a tap goes on from the last state and repeats some records; that doubles nothing: entities and states
are replaced, and every event has an idempotency key, made from the stream's key properties unless the
configuration names a field for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec

from opdata import BatchResult, Client, ClientError

Kind = Literal["entities", "events", "states"]
Json = dict[str, Any]

BUFFERED_RECORDS = 5_000
"""How many records are kept before they are sent: the most events that one request takes."""
_encoder = msgspec.json.Encoder(decimal_format="number")
SETTINGS = frozenset({"kind", "type", "id", "occurred_at", "idempotency_key", "value"})


class Unusable(Exception):
    """The configuration or the input is wrong; the message says what and where."""


@dataclass(frozen=True)
class Stream:
    """How the records of a stream become items. All but `kind` and `type` are names of fields."""

    name: str
    kind: Kind
    type: str
    id: str
    occurred_at: str | None = None
    idempotency_key: str | None = None
    value: str | None = None

    @classmethod
    def of(cls, name: str, settings: Json) -> Stream:
        """A stream from its part of the configuration."""
        if not isinstance(settings, dict):
            raise Unusable(f"streams.{name} is to be an object of settings")
        if unknown := sorted(settings.keys() - SETTINGS):
            raise Unusable(f"streams.{name}: there is no setting {unknown[0]!r}")
        if missing := sorted({"kind", "type", "id"} - settings.keys()):
            raise Unusable(f"streams.{name}: {missing[0]!r} is missing")
        if settings["kind"] not in {"entities", "events", "states"}:
            raise Unusable(f"streams.{name}: kind must be entities, events or states")
        return cls(name, **settings)

    def item(self, record: Json, key_properties: list[str]) -> Json:
        """The record as an item of a batch."""
        data = {name: value for name, value in record.items() if value is not None}
        item: Json = {"externalId": text(data.pop(self.id, None))}
        if self.kind == "entities":
            return item | {"entityType": self.type, "data": data}
        if self.kind == "states":
            return item | {"stateKey": self.type, "value": data[self.value] if self.value else data}
        item |= {"eventType": self.type, "idempotencyKey": self._event_key(record, key_properties)}
        if self.occurred_at is not None and self.occurred_at in data:
            item["occurredAt"] = data.pop(self.occurred_at)
        return item | {"data": data}

    def _event_key(self, record: Json, key_properties: list[str]) -> str | None:
        if self.idempotency_key is not None:
            return text(record.get(self.idempotency_key))
        if not key_properties:
            raise Unusable(
                f"streams.{self.name}: its events have no key properties. Name the field that tells "
                "them apart as idempotency_key: without one, a repeated record is a second event"
            )
        return "/".join([self.name, *(str(record.get(name)) for name in key_properties)])


def text(value: object) -> str | None:
    """An id as text: a number becomes its digits."""
    return None if value is None else str(value)


class Target:
    """Records on their way, and the state that may be told once they have arrived."""

    def __init__(self, client: Client, streams: dict[str, Stream], rejects: str | None) -> None:
        self._client = client
        self._streams = streams
        self._rejects = rejects
        self._keys: dict[str, list[str]] = {}
        self._items: dict[Kind, list[Json]] = {"entities": [], "events": [], "states": []}
        self._state: object = None
        self.accepted = 0
        self.refused = 0

    def run(self, lines: Iterable[str]) -> None:
        """Take all messages of a tap."""
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._take(number, line)
        self._send()

    def _take(self, number: int, line: str) -> None:
        try:
            # Amounts stay as the tap wrote them: 100.00 is not made a binary fraction.
            message = json.loads(line, parse_float=Decimal)
            kind = message["type"]
            if kind == "SCHEMA":
                self._keys[message["stream"]] = message["key_properties"]
            elif kind == "RECORD":
                self._add(message["stream"], message["record"])
            elif kind == "STATE":
                self._state = message["value"]
                self._settle()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unusable(f"line {number} is no Singer message: {type(error).__name__}") from None

    def _add(self, name: str, record: Json) -> None:
        if name not in self._streams:
            raise Unusable(f"the configuration has no stream {name!r}")
        if name not in self._keys:
            raise Unusable(f"stream {name!r} has a record before its schema")
        stream = self._streams[name]
        self._items[stream.kind].append(stream.item(record, self._keys[name]))
        if sum(map(len, self._items.values())) >= BUFFERED_RECORDS:
            self._send()

    def _send(self) -> None:
        # Entities first: a tap may mix its streams, and an event needs its entity.
        for kind, send in (
            ("entities", self._client.send_entities),
            ("events", self._client.send_events),
            ("states", self._client.send_states),
        ):
            items = self._items[kind]  # type: ignore[index]
            if items:
                self._note(send(items))
                items.clear()
        self._settle()

    def _note(self, result: BatchResult[Json]) -> None:
        self.accepted += result.succeeded
        self.refused += result.failed
        if self._rejects is None:
            result.raise_for_errors()
            return
        descriptor = os.open(self._rejects, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a") as file:
            for error in result.errors:
                reject = {"code": error.code, "message": error.message, "item": error.row}
                file.write(as_json(reject))

    def _settle(self) -> None:
        """Tell the latest state, if nothing before it is still on its way."""
        if self._state is not None and not any(self._items.values()):
            sys.stdout.write(as_json(self._state))
            sys.stdout.flush()
            self._state = None


def as_json(value: object) -> str:
    """A line of JSON, numbers with the digits they came with."""
    return _encoder.encode(value).decode() + "\n"


def read_config(path: Path) -> Json:
    """The configuration. Raises `Unusable` when it cannot be read, or holds no streams."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Unusable(f"{path} is not JSON") from None
    if not isinstance(config, dict) or not isinstance(config.get("streams"), dict):
        raise Unusable(f"{path} has no streams: name each with its kind, type and id")
    return config


def main() -> int:
    """Run until standard input ends; the exit code."""
    parser = argparse.ArgumentParser(
        description="Sends what a Singer tap writes to an opdata server."
    )
    parser.add_argument(
        "--config", required=True, help="a JSON file; see the README beside this file"
    )
    arguments = parser.parse_args()
    try:
        config = read_config(Path(arguments.config))
        streams = {name: Stream.of(name, one) for name, one in config["streams"].items()}
        with Client(config.get("url"), config.get("api_key")) as client:
            target = Target(client, streams, config.get("rejects"))
            target.run(sys.stdin)
    except Unusable as error:
        print(f"target-opdata: {error}", file=sys.stderr)
        return 2
    except (ClientError, ValueError, KeyError) as error:
        print(f"target-opdata: {error}", file=sys.stderr)
        return 1
    print(f"target-opdata: {target.accepted} accepted, {target.refused} refused", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
