"""Data templates: which types exist, which fields they need, and which fields are personal (W48)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from opdata.wire.encode import PersonalFields
from opdata.wire.schema import TemplateOut

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_NULL: Final = b"null"


class EntityRule(Struct, frozen=True):
    """What an entity type needs, and which of its fields are personal."""

    required: frozenset[str]
    required_order: tuple[str, ...]
    personal: PersonalFields


class EventRule(Struct, frozen=True):
    """What an event type needs. `fits` decodes `data` and raises unless it has every field."""

    required_order: tuple[str, ...]
    fits: msgspec.json.Decoder[Any]


class Template:
    """A template ready to check items; made from its JSON description, immutable.

    `mark` (16 bytes) is another one for every description.
    """

    def __init__(self, description: TemplateOut) -> None:
        schema = description.schema
        self.description = description
        # A new version of a template may refuse what an older one took.
        self.mark = hashlib.blake2b(msgspec.json.encode(description), digest_size=16).digest()
        self.entity_rules: dict[str, EntityRule] = {
            name: EntityRule(
                frozenset(fields.required),
                tuple(fields.required),
                PersonalFields(schema.pii_fields.get(name, ())),
            )
            for name, fields in schema.entity_types.items()
        }
        self.event_rules: dict[str, EventRule] = {
            name: EventRule(tuple(fields.required), _fields_decoder(name, fields.required))
            for name, fields in schema.event_types.items()
        }
        self.state_keys = frozenset(schema.state_keys)

    def unknown_entity_type(self, name: str) -> str:
        """The problem with an entity of a type that is not in the template."""
        return _unknown("entity type", name, self.entity_rules)

    def unknown_event_type(self, name: str) -> str:
        """The problem with an event of a type that is not in the template."""
        return _unknown("event type", name, self.event_rules)

    def unknown_state_key(self, name: str) -> str:
        """The problem with a state under a key that is not in the template."""
        return _unknown("state key", name, self.description.schema.state_keys)


def missing_fields(data: Mapping[str, Raw], required: Iterable[str]) -> list[str]:
    """A problem for each required field that is absent or null, in template order (W22, W23)."""
    return [
        missing_field(name) for name in required if name not in data or bytes(data[name]) == _NULL
    ]


def missing_field(name: str) -> str:
    """The exact words for a missing field (W22)."""
    return f'Missing required field: "{name}"'


def find_template(template_id: str) -> Template | None:
    """The template of that id."""
    return all_templates().get(template_id)


@cache
def all_templates() -> dict[str, Template]:
    """Every template this server knows, by id."""
    folder = files(__package__)
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".json"))
    described = [msgspec.json.decode(entry.read_bytes(), type=TemplateOut) for entry in found]
    return {one.id: Template(one) for one in sorted(described, key=lambda one: one.id)}


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    # Only what looks like a type name is repeated: a swapped column could hold anything (W22).
    shown = f' "{name}"' if _NAME.fullmatch(name) else ""
    return f"Unknown {kind}{shown} (known: {', '.join(known)})"


def _fields_decoder(name: str, required: list[str]) -> msgspec.json.Decoder[Any]:
    # A struct of required Raw members makes msgspec look for all of them in one C call and skip
    # the rest; the struct itself is thrown away.
    fields = [(f"field_{i}", Raw) for i in range(len(required))]
    rename = {f"field_{i}": field for i, field in enumerate(required)}
    return msgspec.json.Decoder(
        msgspec.defstruct(f"Required_{name}", fields, rename=rename, gc=False)
    )
